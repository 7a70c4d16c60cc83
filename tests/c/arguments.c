/* Wrong arguments of every function. With the argument "running" also those that take a server to tell. */
#include <string.h>
#include <unistd.h>

#include "check.h"

static void check_error(const webserver_error *err, int code, const char *part) {
    CHECK(err->size == sizeof *err);
    CHECK(err->code == code);
    CHECK(memchr(err->text, 0, sizeof err->text) != NULL);
    CHECK(strstr(err->text, part) != NULL);
}

static void check_names(void) {
    int code;
    CHECK(webserver_abi_version() == WEBSERVER_ABI_VERSION);
    CHECK(strlen(webserver_version()) >= 5);
    for (code = WEBSERVER_OK; code >= WEBSERVER_E_GONE; code--) {
        int other;
        CHECK(strlen(webserver_strerror(code)) > 0);
        for (other = code - 1; other >= WEBSERVER_E_GONE; other--)
            CHECK(strcmp(webserver_strerror(code), webserver_strerror(other)) != 0);
    }
    CHECK(strcmp(webserver_strerror(1), webserver_strerror(-1000)) == 0);
    CHECK(strcmp(webserver_strerror(1), webserver_strerror(WEBSERVER_E_GONE)) != 0);
}

static void check_config(webserver_config *config) {
    webserver_error err = WEBSERVER_ERROR_INIT;
    const char not_utf8[] = {'a', ':', '\n', ' ', (char)0xff, 0};
    int ends[2];

    CHECK_CODE(webserver_config_new(NULL, &err), WEBSERVER_E_INVALID);
    check_error(&err, WEBSERVER_E_INVALID, "out");
    CHECK_CODE(webserver_config_new(NULL, NULL), WEBSERVER_E_INVALID);
    webserver_config_free(NULL);

    CHECK_CODE(webserver_config_load_file(NULL, "x.yaml", &err), WEBSERVER_E_INVALID);
    check_error(&err, WEBSERVER_E_INVALID, "config");
    CHECK_CODE(webserver_config_load_file(config, NULL, &err), WEBSERVER_E_INVALID);
    check_error(&err, WEBSERVER_E_INVALID, "path");

    CHECK_CODE(webserver_config_load_yaml(NULL, "", 0, &err), WEBSERVER_E_INVALID);
    CHECK_CODE(webserver_config_load_yaml(config, NULL, 0, &err), WEBSERVER_E_INVALID);
    check_error(&err, WEBSERVER_E_INVALID, "text");
    CHECK_CODE(webserver_config_load_yaml(config, "", (size_t)-1, &err), WEBSERVER_E_INVALID);
    check_error(&err, WEBSERVER_E_INVALID, "length");
    CHECK_CODE(webserver_config_load_yaml(config, not_utf8, 5, &err), WEBSERVER_E_CONFIG);
    check_error(&err, WEBSERVER_E_CONFIG, "UTF-8");
    CHECK(err.line == 2 && err.column == 2);

    CHECK_CODE(webserver_config_set(NULL, "shards", "1", &err), WEBSERVER_E_INVALID);
    CHECK_CODE(webserver_config_set(config, NULL, "1", &err), WEBSERVER_E_INVALID);
    check_error(&err, WEBSERVER_E_INVALID, "key");
    CHECK(err.line == 0 && err.column == 0);
    CHECK_CODE(webserver_config_set(config, "shards", NULL, &err), WEBSERVER_E_INVALID);
    check_error(&err, WEBSERVER_E_INVALID, "value");
    CHECK_CODE(webserver_config_set(config, not_utf8, "1", &err), WEBSERVER_E_INVALID);
    CHECK_CODE(webserver_config_set(config, "shards", not_utf8, &err), WEBSERVER_E_INVALID);

    CHECK(pipe(ends) == 0);
    CHECK_CODE(webserver_config_add_listen_fd(NULL, "a", ends[0], &err), WEBSERVER_E_INVALID);
    CHECK_CODE(webserver_config_add_listen_fd(config, NULL, ends[0], &err), WEBSERVER_E_INVALID);
    check_error(&err, WEBSERVER_E_INVALID, "name");
    CHECK_CODE(webserver_config_add_listen_fd(config, "a", -1, &err), WEBSERVER_E_INVALID);
    CHECK(err.sys_errno != 0);
    CHECK_CODE(webserver_config_add_listen_fd(config, "a", ends[0], &err), WEBSERVER_E_INVALID);
    check_error(&err, WEBSERVER_E_INVALID, "listening");
    close(ends[0]);
    close(ends[1]);

    webserver_config_set_log(NULL, NULL, WEBSERVER_LOG_TRACE, NULL);
    webserver_config_set_log(config, NULL, WEBSERVER_LOG_TRACE, NULL);
    webserver_config_set_log(config, NULL, -1000, NULL);
    webserver_config_set_log(config, NULL, 1000, NULL);
}

static void check_certificates(webserver_config *config) {
    static const char text[] = "-----BEGIN SOMETHING-----\nAAAA\n-----END SOMETHING-----\n";
    static const char path[] = "/etc/ssl/cert.pem", cut[] = "-----BEGIN SOMETHING-----\nAAAA\n";
    const size_t length = sizeof text - 1;
    webserver_error err = WEBSERVER_ERROR_INIT;

    CHECK_CODE(webserver_config_add_certificate(NULL, NULL, text, length, text, length, &err), WEBSERVER_E_INVALID);
    check_error(&err, WEBSERVER_E_INVALID, "config");
    CHECK_CODE(webserver_config_add_certificate(config, NULL, NULL, length, text, length, &err), WEBSERVER_E_INVALID);
    check_error(&err, WEBSERVER_E_INVALID, "certificate");
    CHECK_CODE(webserver_config_add_certificate(config, NULL, text, length, NULL, length, &err), WEBSERVER_E_INVALID);
    check_error(&err, WEBSERVER_E_INVALID, "key");
    CHECK_CODE(webserver_config_add_certificate(config, "\xff", text, length, text, length, &err), WEBSERVER_E_INVALID);
    check_error(&err, WEBSERVER_E_INVALID, "address");
    CHECK_CODE(webserver_config_add_certificate(config, "[::1]:1", text, length, text, length, &err),
               WEBSERVER_E_INVALID);
    check_error(&err, WEBSERVER_E_INVALID, "[::1]:1");
    CHECK_CODE(webserver_config_add_certificate(config, NULL, text, (size_t)-1, text, length, &err),
               WEBSERVER_E_INVALID);
    CHECK_CODE(webserver_config_add_certificate(config, NULL, text, 0, text, length, &err), WEBSERVER_E_INVALID);
    CHECK_CODE(webserver_config_add_certificate(config, NULL, text, length, "\xff", 1, &err), WEBSERVER_E_INVALID);
    /* Never the name of a file. */
    CHECK_CODE(webserver_config_add_certificate(config, NULL, path, sizeof path - 1, text, length, &err),
               WEBSERVER_E_INVALID);
    check_error(&err, WEBSERVER_E_INVALID, "PEM");
    CHECK_CODE(webserver_config_add_certificate(config, NULL, text, length, cut, sizeof cut - 1, &err),
               WEBSERVER_E_CONFIG);
    check_error(&err, WEBSERVER_E_CONFIG, "cut off");
    CHECK_CODE(webserver_config_add_certificate(config, NULL, cut, sizeof cut - 1, text, length, NULL),
               WEBSERVER_E_CONFIG);
}

static void check_server(webserver_config *config) {
    webserver_error err = WEBSERVER_ERROR_INIT;
    webserver_server *server = (webserver_server *)config;
    webserver_stats stats;
    uint16_t port = 7;
    size_t needed = 7;
    char buffer[8];

    CHECK_CODE(webserver_start(NULL, &server, &err), WEBSERVER_E_INVALID);
    check_error(&err, WEBSERVER_E_INVALID, "config");
    CHECK_CODE(webserver_start(config, NULL, &err), WEBSERVER_E_INVALID);
    check_error(&err, WEBSERVER_E_INVALID, "out");
    CHECK_CODE(webserver_port(NULL, NULL, &port), WEBSERVER_E_INVALID);
    CHECK_CODE(webserver_reload(NULL, config, &err), WEBSERVER_E_INVALID);
    CHECK_CODE(webserver_reopen_logs(NULL, &err), WEBSERVER_E_INVALID);
    check_error(&err, WEBSERVER_E_INVALID, "server");
    CHECK_CODE(webserver_drain(NULL), WEBSERVER_E_INVALID);
    CHECK_CODE(webserver_stop(NULL, 0), WEBSERVER_E_INVALID);
    CHECK_CODE(webserver_stats_get(NULL, &stats, sizeof stats), WEBSERVER_E_INVALID);
    CHECK_CODE(webserver_metrics_text(NULL, buffer, sizeof buffer, &needed), WEBSERVER_E_INVALID);
    CHECK_CODE(webserver_connections_json(NULL, 1, buffer, sizeof buffer, &needed), WEBSERVER_E_INVALID);

    /* Outputs are written only on success. */
    CHECK(server == (webserver_server *)config);
    CHECK(port == 7);
    CHECK(needed == 7);
}

static void check_connections(const webserver_server *server) {
    char buffer[512] = "";
    size_t needed = 7;
    CHECK_CODE(webserver_connections_json(server, 1, buffer, sizeof buffer, NULL), WEBSERVER_E_INVALID);
    CHECK_CODE(webserver_connections_json(server, 1, NULL, sizeof buffer, &needed), WEBSERVER_E_INVALID);
    CHECK_CODE(webserver_connections_json(server, 0, buffer, sizeof buffer, &needed), WEBSERVER_E_INVALID);
    CHECK_CODE(webserver_connections_json(server, 1001, buffer, sizeof buffer, &needed), WEBSERVER_E_INVALID);
    CHECK(needed == 7);
    CHECK_CODE(webserver_connections_json(server, 1000, buffer, 8, &needed), WEBSERVER_E_LIMIT);
    CHECK(needed > 8 && buffer[0] == 0);
    CHECK_CODE(webserver_connections_json(server, 1000, buffer, needed, &needed), WEBSERVER_OK);
    CHECK(strcmp(buffer, "{\"limit\":1000,\"silent_shards\":[],\"connections\":[]}") == 0);
    CHECK(strlen(buffer) + 1 == needed);
}

static void check_running(webserver_config *config) {
    webserver_error err = WEBSERVER_ERROR_INIT;
    webserver_server *server = NULL;
    webserver_stats stats;
    uint16_t port = 7;
    size_t needed = 7;
    char buffer[8];

    CHECK_CODE(webserver_config_set(config, "listen", "[{ address: \"127.0.0.1:0\" }]", &err), WEBSERVER_OK);
    CHECK_CODE(webserver_config_set(config, "shards", "1", NULL), WEBSERVER_OK);
    CHECK_CODE(webserver_config_set(config, "memory.worker_connections", "64", &err), WEBSERVER_OK);
    CHECK_CODE(webserver_start(config, &server, &err), WEBSERVER_OK);
    CHECK(server != NULL);

    CHECK_CODE(webserver_port(server, NULL, NULL), WEBSERVER_E_INVALID);
    CHECK_CODE(webserver_port(server, "127.0.0.1:1", &port), WEBSERVER_E_INVALID);
    CHECK_CODE(webserver_port(server, "\xff", &port), WEBSERVER_E_INVALID);
    CHECK(port == 7);
    CHECK_CODE(webserver_port(server, NULL, &port), WEBSERVER_OK);
    CHECK(port != 7 && port != 0);
    CHECK_CODE(webserver_reload(server, NULL, &err), WEBSERVER_E_INVALID);
    CHECK_CODE(webserver_reopen_logs(server, &err), WEBSERVER_OK);
    CHECK_CODE(webserver_stats_get(server, NULL, sizeof stats), WEBSERVER_E_INVALID);
    CHECK_CODE(webserver_stats_get(server, &stats, 3), WEBSERVER_E_INVALID);
    CHECK_CODE(webserver_metrics_text(server, buffer, sizeof buffer, NULL), WEBSERVER_E_INVALID);
    CHECK_CODE(webserver_metrics_text(server, NULL, sizeof buffer, &needed), WEBSERVER_E_INVALID);
    CHECK(needed == 7);
    CHECK_CODE(webserver_metrics_text(server, NULL, 0, &needed), WEBSERVER_E_LIMIT);
    CHECK(needed > 7);
    check_connections(server);
    CHECK_CODE(webserver_stop(server, 0), WEBSERVER_OK);
}

int main(int argc, char **argv) {
    webserver_config *config = NULL;
    webserver_error small = WEBSERVER_ERROR_INIT;

    check_names();
    CHECK_CODE(webserver_config_new(&config, NULL), WEBSERVER_OK);
    CHECK(config != NULL);
    check_config(config);
    check_certificates(config);
    check_server(config);
    if (argc > 1 && strcmp(argv[1], "running") == 0)
        check_running(config);

    /* A struct that was not initialised is filled all the same, and keeps its size. */
    small.size = 0;
    CHECK_CODE(webserver_config_new(NULL, &small), WEBSERVER_E_INVALID);
    CHECK(small.size == 0 && small.code == WEBSERVER_E_INVALID && small.text[0] != 0);

    webserver_config_free(config);
    return 0;
}
