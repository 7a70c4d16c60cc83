/*
 * Serves a folder and shows what the server is doing.
 *
 *     static_files FOLDER [ADDRESS]        ADDRESS is 127.0.0.1:8080 when absent; port 0 lets the kernel choose
 *
 * Prints a line of figures once a second and at each Enter; stops at the end of standard input (Ctrl-D).
 * Exit status: 0 stopped cleanly, 1 failed, 2 wrong arguments.
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "webserver.h"

static const unsigned stop_timeout_ms = 5000;

/* Says what failed: the text for people, and the place in the configuration where there is one. */
static int failed(const char *what, const webserver_error *err) {
    fprintf(stderr, "static_files: %s: %s\n", what, err->text);
    if (err->line > 0)
        fprintf(stderr, "  at line %" PRIu32 ", column %" PRIu32 "\n", err->line, err->column);
    if (err->sys_errno != 0)
        fprintf(stderr, "  the system says: %s\n", strerror(err->sys_errno));
    fprintf(stderr, "  (%s)\n", webserver_strerror(err->code));
    return 1;
}

/* Runs on the server's threads; fprintf locks the stream. */
static void print_log(void *user, int level, const char *target, const char *message, size_t length) {
    static const char *const names[] = {"?", "error", "warn", "info", "debug", "trace"};
    (void)user;
    if (level < 1 || level > 5)
        level = 0;
    fprintf(stderr, "%s %s: %.*s\n", names[level], target, (int)length, message);
}

static int configure(webserver_config *config, const char *folder, const char *address, webserver_error *err) {
    char listen[512];
    int code;

    webserver_config_set_log(config, print_log, WEBSERVER_LOG_WARN, NULL);
    code = webserver_config_set(config, "root", folder, err);
    if (code != WEBSERVER_OK)
        return code;
    /* The value is YAML; quotes, because an IPv6 address begins with a bracket. */
    if (snprintf(listen, sizeof listen, "[{ address: \"%s\" }]", address) >= (int)sizeof listen) {
        err->code = WEBSERVER_E_INVALID;
        snprintf(err->text, sizeof err->text, "the address is too long");
        return err->code;
    }
    return webserver_config_set(config, "listen", listen, err);
}

static int print_stats(const webserver_server *server) {
    webserver_stats stats;
    int code;

    memset(&stats, 0, sizeof stats);
    code = webserver_stats_get(server, &stats, sizeof stats);
    if (code != WEBSERVER_OK) {
        fprintf(stderr, "static_files: stats: %s\n", webserver_strerror(code));
        return code;
    }
    printf("connections %" PRIu64 " active %" PRIu64 " idle %" PRIu64 " accepted  requests %" PRIu64
           "  sent %" PRIu64 " B  resident %" PRIu64 " KB\n",
           stats.connections_active, stats.connections_idle, stats.connections_accepted, stats.requests,
           stats.bytes_sent, stats.memory_rss_bytes / 1024);
    fflush(stdout);
    return WEBSERVER_OK;
}

/* Until the end of standard input. */
static int watch(const webserver_server *server) {
    char line[256];
    struct pollfd input = {STDIN_FILENO, POLLIN, 0};

    for (;;) {
        int ready = poll(&input, 1, 1000);
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready < 0) {
            perror("static_files: poll");
            return 1;
        }
        if (ready > 0 && read(STDIN_FILENO, line, sizeof line) <= 0)
            return 0;
        if (print_stats(server) != WEBSERVER_OK)
            return 1;
    }
}

int main(int argc, char **argv) {
    webserver_error err = WEBSERVER_ERROR_INIT;
    webserver_config *config = NULL;
    webserver_server *server = NULL;
    const char *address = argc > 2 ? argv[2] : "127.0.0.1:8080";
    uint16_t port = 0;
    int code, status;

    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: static_files FOLDER [ADDRESS]\n");
        return 2;
    }
    if (webserver_config_new(&config, &err) != WEBSERVER_OK)
        return failed("cannot begin", &err);
    if (configure(config, argv[1], address, &err) != WEBSERVER_OK) {
        webserver_config_free(config);
        return failed("configuration", &err);
    }
    code = webserver_start(config, &server, &err);
    webserver_config_free(config); /* the server has its own copy */
    if (code != WEBSERVER_OK)
        return failed("cannot start", &err);

    if (webserver_port(server, NULL, &port) == WEBSERVER_OK) /* a unix socket has none */
        printf("serving %s on %s, port %u\n", argv[1], address, (unsigned)port);
    else
        printf("serving %s on %s\n", argv[1], address);
    fflush(stdout);

    status = watch(server);
    code = webserver_stop(server, stop_timeout_ms);
    if (code != WEBSERVER_OK) {
        fprintf(stderr, "static_files: stop: %s\n", webserver_strerror(code));
        return 1;
    }
    return status;
}
