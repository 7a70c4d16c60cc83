/* A child may use the library when its parent has not; after that every call in a child is refused. */
#define _POSIX_C_SOURCE 200809L

#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static void wait_for(pid_t child) {
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void use_in_fresh_child(void) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        webserver_config *config = NULL;
        CHECK_CODE(webserver_config_new(&config, NULL), WEBSERVER_OK);
        webserver_config_free(config);
        _exit(0);
    }
    wait_for(child);
}

static void check_child(webserver_config *config, webserver_server *server) {
    webserver_error err = WEBSERVER_ERROR_INIT;
    webserver_config *other = NULL;
    webserver_server *second = NULL;
    webserver_stats stats;
    uint16_t port = 0;
    size_t needed = 0;

    CHECK_CODE(webserver_config_new(&other, &err), WEBSERVER_E_FORKED);
    CHECK(err.code == WEBSERVER_E_FORKED && err.text[0] != 0);
    CHECK(other == NULL);
    CHECK_CODE(webserver_config_load_file(config, "x.yaml", NULL), WEBSERVER_E_FORKED);
    CHECK_CODE(webserver_config_load_yaml(config, "", 0, NULL), WEBSERVER_E_FORKED);
    CHECK_CODE(webserver_config_set(config, "shards", "1", NULL), WEBSERVER_E_FORKED);
    CHECK_CODE(webserver_config_add_listen_fd(config, "a", 0, NULL), WEBSERVER_E_FORKED);
    CHECK_CODE(webserver_config_add_certificate(config, NULL, "", 0, "", 0, NULL), WEBSERVER_E_FORKED);
    webserver_config_set_log(config, NULL, 0, NULL);
    webserver_config_free(config);
    CHECK_CODE(webserver_start(config, &second, NULL), WEBSERVER_E_FORKED);
    CHECK_CODE(webserver_port(server, NULL, &port), WEBSERVER_E_FORKED);
    CHECK_CODE(webserver_reload(server, config, NULL), WEBSERVER_E_FORKED);
    CHECK_CODE(webserver_reopen_logs(server, NULL), WEBSERVER_E_FORKED);
    CHECK_CODE(webserver_drain(server), WEBSERVER_E_FORKED);
    CHECK_CODE(webserver_stats_get(server, &stats, sizeof stats), WEBSERVER_E_FORKED);
    CHECK_CODE(webserver_metrics_text(server, NULL, 0, &needed), WEBSERVER_E_FORKED);
    CHECK_CODE(webserver_connections_json(server, 1, NULL, 0, &needed), WEBSERVER_E_FORKED);
    CHECK_CODE(webserver_memory_charge(server, 1), WEBSERVER_E_FORKED);
    webserver_memory_release(server, 1);
    webserver_config_on_pressure(config, NULL, NULL);
    CHECK_CODE(webserver_stop(server, 0), WEBSERVER_E_FORKED);
    CHECK(webserver_version()[0] != 0);
    CHECK(webserver_strerror(WEBSERVER_E_FORKED)[0] != 0);
}

int main(int argc, char **argv) {
    webserver_error err = WEBSERVER_ERROR_INIT;
    webserver_config *config = NULL;
    webserver_server *server = NULL;
    pid_t child;

    (void)argv;
    use_in_fresh_child();
    CHECK_CODE(webserver_config_new(&config, &err), WEBSERVER_OK);
    if (argc > 1) {
        CHECK_CODE(webserver_config_set(config, "listen", "[{ address: \"127.0.0.1:0\" }]", &err), WEBSERVER_OK);
        CHECK_CODE(webserver_config_set(config, "shards", "1", &err), WEBSERVER_OK);
        CHECK_CODE(webserver_config_set(config, "memory.worker_connections", "64", &err), WEBSERVER_OK);
        CHECK_CODE(webserver_start(config, &server, &err), WEBSERVER_OK);
    }
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        check_child(config, server);
        _exit(0);
    }
    wait_for(child);
    if (server != NULL) {
        uint16_t port = 0;
        CHECK_CODE(webserver_port(server, NULL, &port), WEBSERVER_OK);
        CHECK_CODE(webserver_stop(server, 1000), WEBSERVER_OK);
    }
    webserver_config_free(config);
    return 0;
}
