/* The host's memory in the server's budget: charged up to it and past it, levels heard on the way up and down. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <time.h>

#include "check.h"

#define HEARD_MAX 16

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    webserver_server *server;
    int levels[HEARD_MAX], count;
    int inside;
    uint64_t budget;
} heard = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, NULL, {0}, 0, 0, 0};

static void on_pressure(void *user, int level, uint64_t used, uint64_t budget) {
    webserver_stats stats;
    CHECK(user == &heard);
    CHECK(used > 0 && used <= budget);
    CHECK(pthread_mutex_lock(&heard.lock) == 0);
    CHECK(heard.inside++ == 0);
    CHECK(heard.server != NULL && heard.count < HEARD_MAX);
    /* What a host does here: give bytes back, and no other call. */
    CHECK_CODE(webserver_memory_charge(heard.server, 1), WEBSERVER_OK);
    webserver_memory_release(heard.server, 1);
    CHECK_CODE(webserver_stats_get(heard.server, &stats, sizeof stats), WEBSERVER_E_STATE);
    CHECK_CODE(webserver_stop(heard.server, 0), WEBSERVER_E_STATE);
    heard.levels[heard.count++] = level;
    heard.budget = budget;
    heard.inside--;
    CHECK(pthread_cond_signal(&heard.changed) == 0);
    CHECK(pthread_mutex_unlock(&heard.lock) == 0);
}

/* Waits until as many levels were heard, and checks that this is the last. */
static void await(int count, int level) {
    struct timespec end;
    CHECK(clock_gettime(CLOCK_REALTIME, &end) == 0);
    end.tv_sec += 60;
    CHECK(pthread_mutex_lock(&heard.lock) == 0);
    while (heard.count < count)
        CHECK(pthread_cond_timedwait(&heard.changed, &heard.lock, &end) == 0);
    CHECK(heard.count == count);
    CHECK(heard.levels[count - 1] == level);
    CHECK(pthread_mutex_unlock(&heard.lock) == 0);
}

static webserver_stats stats_of(const webserver_server *server) {
    webserver_stats stats;
    CHECK_CODE(webserver_stats_get(server, &stats, sizeof stats), WEBSERVER_OK);
    return stats;
}

/* Charges until so many per mille of the budget are used. */
static size_t charge_to(webserver_server *server, uint64_t per_mille) {
    webserver_stats stats = stats_of(server);
    uint64_t wanted = stats.memory_budget_bytes / 1000 * per_mille;
    CHECK(wanted > stats.memory_used_bytes);
    CHECK_CODE(webserver_memory_charge(server, (size_t)(wanted - stats.memory_used_bytes)), WEBSERVER_OK);
    return (size_t)(wanted - stats.memory_used_bytes);
}

static size_t release_to(webserver_server *server, uint64_t per_mille) {
    webserver_stats stats = stats_of(server);
    uint64_t wanted = stats.memory_budget_bytes / 1000 * per_mille;
    CHECK(wanted < stats.memory_used_bytes);
    webserver_memory_release(server, (size_t)(stats.memory_used_bytes - wanted));
    return (size_t)(stats.memory_used_bytes - wanted);
}

int main(void) {
    webserver_error err = WEBSERVER_ERROR_INIT;
    webserver_config *config = NULL;
    webserver_server *server = NULL;
    uint64_t before, budget = (uint64_t)256 << 20;
    size_t charged = 0;

    CHECK_CODE(webserver_memory_charge(NULL, 1), WEBSERVER_E_INVALID);
    webserver_memory_release(NULL, 1);
    webserver_config_on_pressure(NULL, on_pressure, &heard);

    CHECK_CODE(webserver_config_new(&config, NULL), WEBSERVER_OK);
    CHECK_CODE(webserver_config_set(config, "listen", "[{ address: \"127.0.0.1:0\" }]", &err), WEBSERVER_OK);
    CHECK_CODE(webserver_config_set(config, "shards", "1", &err), WEBSERVER_OK);
    CHECK_CODE(webserver_config_set(config, "memory.worker_connections", "64", &err), WEBSERVER_OK);
    CHECK_CODE(webserver_config_set(config, "memory.budget", "256MB", &err), WEBSERVER_OK);
    webserver_config_on_pressure(config, NULL, NULL);
    webserver_config_on_pressure(config, on_pressure, &heard);
    CHECK_CODE(webserver_start(config, &server, &err), WEBSERVER_OK);
    webserver_config_free(config);
    CHECK(pthread_mutex_lock(&heard.lock) == 0);
    heard.server = server;
    CHECK(pthread_mutex_unlock(&heard.lock) == 0);

    CHECK(stats_of(server).memory_budget_bytes == budget);
    CHECK(stats_of(server).pressure == WEBSERVER_PRESSURE_NORMAL);
    before = stats_of(server).memory_used_bytes;
    CHECK(before > 0 && before < budget / 2);

    /* What does not fit is not counted. */
    CHECK_CODE(webserver_memory_charge(server, (size_t)budget), WEBSERVER_E_MEMORY);
    CHECK_CODE(webserver_memory_charge(server, (size_t)-1), WEBSERVER_E_MEMORY);
    CHECK_CODE(webserver_memory_charge(server, 0), WEBSERVER_OK);
    CHECK(stats_of(server).memory_used_bytes < before + (4 << 20));

    charged += charge_to(server, 600);
    charged += charge_to(server, 750);
    await(1, WEBSERVER_PRESSURE_ELEVATED);
    charged += charge_to(server, 900);
    await(2, WEBSERVER_PRESSURE_HIGH);
    charged += charge_to(server, 955);
    await(3, WEBSERVER_PRESSURE_CRITICAL);
    CHECK(stats_of(server).pressure == WEBSERVER_PRESSURE_CRITICAL);
    CHECK_CODE(webserver_memory_charge(server, (size_t)(budget / 20)), WEBSERVER_E_MEMORY);
    CHECK(stats_of(server).memory_used_bytes <= budget);

    /* Just below where it was entered a level still holds. */
    charged -= release_to(server, 940);
    charged -= release_to(server, 880);
    await(4, WEBSERVER_PRESSURE_HIGH);
    charged -= release_to(server, 760);
    await(5, WEBSERVER_PRESSURE_ELEVATED);
    CHECK(charged > 0);
    webserver_memory_release(server, charged);
    await(6, WEBSERVER_PRESSURE_NORMAL);
    CHECK(stats_of(server).memory_used_bytes < before + (4 << 20));
    CHECK(stats_of(server).memory_peak_bytes > budget / 10 * 9);

    /* Nobody gives back what is not his. */
    before = stats_of(server).memory_used_bytes;
    CHECK_CODE(webserver_memory_charge(server, 1000), WEBSERVER_OK);
    webserver_memory_release(server, (size_t)-1);
    CHECK(stats_of(server).memory_used_bytes + (1 << 20) > before);
    charged = charge_to(server, 500);
    CHECK(charged > 0);

    /* What is still counted ends with the server. */
    CHECK_CODE(webserver_stop(server, 5000), WEBSERVER_OK);
    CHECK(heard.count == 6 && heard.budget == budget);
    return 0;
}
