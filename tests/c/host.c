/*
 * A host that does as it is told: one command a line on stdin, one line of answer on stdout, which begins
 * with the status code. Numbers name slots: C for configurations, S for servers.
 *
 *   new C | free C                        yaml C TEXT (\n is a newline) | file C PATH | set C KEY VALUE
 *   listen C NAME                         opens a socket on a free port, adds it, closes its own: CODE PORT
 *   certificate C ADDRESS CERTIFICATE KEY   adds what is in the files, from memory; ADDRESS is - for NULL
 *   log C LEVEL | lines                   lines: 0 LINES REFUSED: calls from inside the callback, and how
 *                                         many of its lines found every such call refused
 *   start C S | reload S C                on failure: CODE LINE COLUMN ERRNO TEXT (as for yaml, file, set)
 *   port S [ADDRESS]                      CODE PORT
 *   reopen S                              opens the log files anew: as for reload
 *   drain S | stop S MILLISECONDS
 *   stats S SIZE                          CODE FILLED SHARDS STATE ACCEPTED REQUESTS RSS intact|overrun
 *   metrics S CAPACITY                    CODE NEEDED LENGTH TEXT (| for newlines)
 *   held                                  0 DESCRIPTORS INHERITABLE THREADS
 *   await DESCRIPTORS INHERITABLE THREADS waits until held says the same, five seconds at most
 */
#define _GNU_SOURCE

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

#define SLOTS 4
#define METRICS_MAX (1 << 20)

static webserver_config *configs[SLOTS];
static webserver_server *servers[SLOTS];

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned log_lines, log_refused;

static void count_line(void *user, int level, const char *target, const char *message, size_t length) {
    webserver_config *config = NULL;
    webserver_server *server = NULL;
    int refused = webserver_config_new(&config, NULL) == WEBSERVER_E_STATE &&
                  webserver_start(configs[0], &server, NULL) == WEBSERVER_E_STATE &&
                  webserver_drain(servers[0]) == WEBSERVER_E_STATE &&
                  webserver_reopen_logs(servers[0], NULL) == WEBSERVER_E_STATE &&
                  webserver_stop(servers[0], 0) == WEBSERVER_E_STATE && webserver_version() != NULL;
    CHECK(user == &log_lines);
    CHECK(level >= WEBSERVER_LOG_ERROR && level <= WEBSERVER_LOG_TRACE);
    CHECK(strlen(target) > 0);
    CHECK(strlen(message) <= length && message[length] == 0);
    pthread_mutex_lock(&log_lock);
    log_lines++;
    log_refused += refused ? 1 : 0;
    pthread_mutex_unlock(&log_lock);
}

static void answer(int code, const webserver_error *err) {
    if (code == WEBSERVER_OK)
        printf("0\n");
    else
        printf("%d %" PRIu32 " %" PRIu32 " %" PRId32 " %s\n", code, err->line, err->column, err->sys_errno, err->text);
}

/* A slot's number at the start of *rest, which moves on to the next word. */
static int slot(char **rest) {
    long number = strtol(*rest, rest, 10);
    CHECK(number >= 0 && number < SLOTS);
    while (**rest == ' ')
        (*rest)++;
    return (int)number;
}

static void break_lines(char *text) {
    char *to = text;
    for (; *text != 0; text++, to++) {
        if (text[0] == '\\' && text[1] == 'n')
            *to = '\n', text++;
        else
            *to = *text;
    }
    *to = 0;
}

static void add_listener(webserver_config *config, const char *name) {
    struct sockaddr_in address;
    socklen_t size = sizeof address;
    webserver_error err = WEBSERVER_ERROR_INIT;
    int code, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&address, size) == 0 && listen(fd, 128) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &size) == 0);
    code = webserver_config_add_listen_fd(config, name, fd, &err);
    close(fd);
    if (code == WEBSERVER_OK)
        printf("0 %u\n", ntohs(address.sin_port));
    else
        answer(code, &err);
}

static void add_certificate(webserver_config *config, char *words) {
    webserver_error err = WEBSERVER_ERROR_INIT;
    const char *address = strtok(words, " "), *certificate_path = strtok(NULL, " "), *key_path = strtok(NULL, " ");
    static char certificate[PEM_MAX], key[PEM_MAX];
    size_t certificate_length, key_length;
    int code;
    CHECK(key_path != NULL);
    certificate_length = read_file(certificate_path, certificate, sizeof certificate);
    key_length = read_file(key_path, key, sizeof key);
    code = webserver_config_add_certificate(config, strcmp(address, "-") == 0 ? NULL : address, certificate,
                                            certificate_length, key, key_length, &err);
    /* They were copied. */
    memset(certificate, 'x', certificate_length);
    memset(key, 'x', key_length);
    answer(code, &err);
}

static void print_stats(const webserver_server *server, size_t size) {
    union {
        webserver_stats stats;
        unsigned char bytes[2 * sizeof(webserver_stats)];
    } room;
    size_t index = size < sizeof(webserver_stats) ? size : sizeof(webserver_stats);
    int code, intact = 1;
    memset(&room, 0xaa, sizeof room);
    CHECK(size <= sizeof room);
    code = webserver_stats_get(server, &room.stats, size);
    for (; index < sizeof room; index++)
        intact &= room.bytes[index] == 0xaa;
    printf("%d %" PRIu32 " %" PRIu32 " %" PRIu32 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %s\n", code, room.stats.size,
           room.stats.shards, room.stats.state, room.stats.connections_accepted, room.stats.requests,
           room.stats.memory_rss_bytes, intact ? "intact" : "overrun");
}

static void print_metrics(const webserver_server *server, size_t capacity) {
    static char text[METRICS_MAX];
    size_t needed = 0, index;
    int code;
    CHECK(capacity < sizeof text);
    memset(text, 0, sizeof text);
    code = webserver_metrics_text(server, text, capacity, &needed);
    for (index = capacity; index < sizeof text; index++)
        CHECK(text[index] == 0);
    for (index = 0; text[index] != 0; index++)
        if (text[index] == '\n')
            text[index] = '|';
    printf("%d %zu %zu %s\n", code, needed, strlen(text), text);
}

struct held {
    int descriptors, inheritable, threads;
};

static struct held count_held(void) {
    struct held held = {0, 0, 0};
    struct dirent *entry;
    DIR *folder = opendir("/proc/self/fd");
    CHECK(folder != NULL);
    while ((entry = readdir(folder)) != NULL) {
        if (entry->d_name[0] == '.' || atoi(entry->d_name) == dirfd(folder))
            continue;
        held.descriptors++;
        held.inheritable += (fcntl(atoi(entry->d_name), F_GETFD) & FD_CLOEXEC) ? 0 : 1;
    }
    closedir(folder);
    folder = opendir("/proc/self/task");
    CHECK(folder != NULL);
    while ((entry = readdir(folder)) != NULL)
        held.threads += entry->d_name[0] == '.' ? 0 : 1;
    closedir(folder);
    return held;
}

/* A joined thread leaves /proc a moment after pthread_join; nothing tells when. */
static struct held await_held(struct held wanted) {
    struct held held = count_held();
    int turn;
    for (turn = 0; turn < 5000; turn++) {
        const struct timespec millisecond = {0, 1000000};
        if (memcmp(&held, &wanted, sizeof held) == 0)
            break;
        nanosleep(&millisecond, NULL);
        held = count_held();
    }
    return held;
}

static int obey(const char *command, char *rest) {
    webserver_error err = WEBSERVER_ERROR_INIT;
    if (strcmp(command, "new") == 0) {
        answer(webserver_config_new(&configs[slot(&rest)], &err), &err);
    } else if (strcmp(command, "free") == 0) {
        int config = slot(&rest);
        webserver_config_free(configs[config]);
        configs[config] = NULL;
        printf("0\n");
    } else if (strcmp(command, "yaml") == 0) {
        webserver_config *config = configs[slot(&rest)];
        break_lines(rest);
        answer(webserver_config_load_yaml(config, rest, strlen(rest), &err), &err);
    } else if (strcmp(command, "file") == 0) {
        webserver_config *config = configs[slot(&rest)];
        answer(webserver_config_load_file(config, rest, &err), &err);
    } else if (strcmp(command, "set") == 0) {
        webserver_config *config = configs[slot(&rest)];
        char *value = strchr(rest, ' ');
        CHECK(value != NULL);
        *value++ = 0;
        answer(webserver_config_set(config, rest, value, &err), &err);
    } else if (strcmp(command, "listen") == 0) {
        webserver_config *config = configs[slot(&rest)];
        add_listener(config, rest);
    } else if (strcmp(command, "certificate") == 0) {
        webserver_config *config = configs[slot(&rest)];
        add_certificate(config, rest);
    } else if (strcmp(command, "log") == 0) {
        webserver_config *config = configs[slot(&rest)];
        webserver_config_set_log(config, count_line, atoi(rest), &log_lines);
        printf("0\n");
    } else if (strcmp(command, "lines") == 0) {
        pthread_mutex_lock(&log_lock);
        printf("0 %u %u\n", log_lines, log_refused);
        pthread_mutex_unlock(&log_lock);
    } else if (strcmp(command, "start") == 0) {
        webserver_config *config = configs[slot(&rest)];
        answer(webserver_start(config, &servers[slot(&rest)], &err), &err);
    } else if (strcmp(command, "reopen") == 0) {
        answer(webserver_reopen_logs(servers[slot(&rest)], &err), &err);
    } else if (strcmp(command, "reload") == 0) {
        webserver_server *server = servers[slot(&rest)];
        answer(webserver_reload(server, configs[slot(&rest)], &err), &err);
    } else if (strcmp(command, "port") == 0) {
        webserver_server *server = servers[slot(&rest)];
        uint16_t port = 0;
        int code = webserver_port(server, *rest == 0 ? NULL : rest, &port);
        printf("%d %u\n", code, (unsigned)port);
    } else if (strcmp(command, "drain") == 0) {
        printf("%d\n", webserver_drain(servers[slot(&rest)]));
    } else if (strcmp(command, "stop") == 0) {
        int server = slot(&rest);
        printf("%d\n", webserver_stop(servers[server], (uint32_t)strtoul(rest, NULL, 10)));
        servers[server] = NULL;
    } else if (strcmp(command, "stats") == 0) {
        webserver_server *server = servers[slot(&rest)];
        print_stats(server, strtoul(rest, NULL, 10));
    } else if (strcmp(command, "metrics") == 0) {
        webserver_server *server = servers[slot(&rest)];
        print_metrics(server, strtoul(rest, NULL, 10));
    } else if (strcmp(command, "held") == 0) {
        struct held held = count_held();
        printf("0 %d %d %d\n", held.descriptors, held.inheritable, held.threads);
    } else if (strcmp(command, "await") == 0) {
        struct held held = {0, 0, 0};
        CHECK(sscanf(rest, "%d %d %d", &held.descriptors, &held.inheritable, &held.threads) == 3);
        held = await_held(held);
        printf("0 %d %d %d\n", held.descriptors, held.inheritable, held.threads);
    } else {
        return 0;
    }
    return 1;
}

int main(void) {
    static char line[65536];
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin) != NULL) {
        char *rest;
        line[strcspn(line, "\n")] = 0;
        rest = strchr(line, ' ');
        if (rest != NULL)
            *rest++ = 0;
        CHECK(obey(line, rest == NULL ? line + strlen(line) : rest));
    }
    return 0;
}
