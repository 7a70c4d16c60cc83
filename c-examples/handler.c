/*
 * Answers requests with functions of this program, beside the files of a folder.
 *
 *     handler FOLDER [ADDRESS]             ADDRESS is 127.0.0.1:8080 when absent; port 0 lets the kernel choose
 *
 *     GET  /hello?name=NAME                plain text
 *     GET  /api/time                       JSON: the time, and how often it was asked for
 *     POST /echo                           the body comes back with its media type
 *     GET  /users/NAME                     JSON; for a name that is nobody's the folder is asked: a file there, or 404
 *
 * Stops at the end of standard input (Ctrl-D). Exit status: 0 stopped cleanly, 1 failed, 2 wrong arguments.
 */
#define _POSIX_C_SOURCE 200809L

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "webserver.h"

/* Shared by all calls, on several threads at once when there are several shards. */
struct api {
    unsigned long asked;
};

/* A text of the request is not NUL-terminated: compare it with its length. */
static int equals(webserver_slice slice, const char *text) {
    return slice.length == strlen(text) && memcmp(slice.data, text, slice.length) == 0;
}

/* Replies with text of this program; any failure here is a mistake of ours, and becomes a 500. */
static int reply(webserver_request *request, int status, const char *type, const char *text, size_t length) {
    if (webserver_reply_header(request, "Content-Type", type) != WEBSERVER_OK ||
        webserver_reply_header(request, "Cache-Control", "no-store") != WEBSERVER_OK ||
        webserver_reply(request, status, text, length) != WEBSERVER_OK)
        return -1;
    return WEBSERVER_DONE;
}

static int hello(void *user, webserver_request *request) {
    static const char field[] = "name=";
    webserver_slice query = webserver_request_query(request);
    const char *name = "world";
    size_t length = strlen(name);
    char text[256];
    int written;
    (void)user;
    if (query.length > strlen(field) && memcmp(query.data, field, strlen(field)) == 0) {
        name = query.data + strlen(field);
        length = query.length - strlen(field);
        if (length > 100)
            length = 100;
    }
    written = snprintf(text, sizeof text, "Hello, %.*s!\n", (int)length, name);
    return reply(request, 200, "text/plain; charset=utf-8", text, (size_t)written);
}

static int tell_time(void *user, webserver_request *request) {
    struct api *api = user;
    time_t now = time(NULL);
    struct tm utc;
    char date[32], text[128];
    int written;
    if (gmtime_r(&now, &utc) == NULL || strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &utc) == 0)
        return -1;
    written = snprintf(text, sizeof text, "{\"time\":\"%s\",\"asked\":%lu}\n", date,
                       __atomic_add_fetch(&api->asked, 1, __ATOMIC_RELAXED));
    return reply(request, 200, "application/json", text, (size_t)written);
}

static int echo(void *user, webserver_request *request) {
    webserver_slice body = webserver_request_body(request);
    webserver_slice type = webserver_request_header(request, "Content-Type");
    char value[128] = "application/octet-stream";
    (void)user;
    if (type.data != NULL && type.length < sizeof value) {
        memcpy(value, type.data, type.length);
        value[type.length] = 0;
    }
    return reply(request, 200, value, body.data, body.length);
}

static int show_user(void *user, webserver_request *request) {
    static const char *const users[] = {"ada", "grace", "linus"};
    static const char prefix[] = "/users/";
    webserver_slice name = webserver_request_path(request);
    size_t index;
    char text[64];
    (void)user;
    name.data += strlen(prefix);
    name.length -= strlen(prefix);
    for (index = 0; index < sizeof users / sizeof *users; index++)
        if (equals(name, users[index])) {
            int written = snprintf(text, sizeof text, "{\"id\":%zu,\"name\":\"%s\"}\n", index + 1, users[index]);
            return reply(request, 200, "application/json", text, (size_t)written);
        }
    return WEBSERVER_NEXT;
}

static int configure(webserver_config *config, const char *folder, const char *address, webserver_error *err) {
    struct api *api;
    int code;
    if ((code = webserver_config_set(config, "root", folder, err)) != WEBSERVER_OK ||
        (code = webserver_config_set(config, "listen", address, err)) != WEBSERVER_OK ||
        (code = webserver_config_add_handler(config, "GET", "/hello", WEBSERVER_HANDLER_INLINE, hello, NULL, NULL,
                                             err)) != WEBSERVER_OK ||
        (code = webserver_config_add_handler(config, "POST", "/echo", WEBSERVER_HANDLER_INLINE, echo, NULL, NULL,
                                             err)) != WEBSERVER_OK ||
        (code = webserver_config_add_handler(config, "GET", "/users/*", WEBSERVER_HANDLER_INLINE, show_user, NULL,
                                             NULL, err)) != WEBSERVER_OK)
        return code;
    api = calloc(1, sizeof *api);
    if (api == NULL) {
        snprintf(err->text, sizeof err->text, "no memory");
        return WEBSERVER_E_MEMORY;
    }
    /* From here on the library frees it, when nothing uses the handler any more. */
    code = webserver_config_add_handler(config, "GET", "/api/time", WEBSERVER_HANDLER_INLINE, tell_time, api, free,
                                        err);
    if (code != WEBSERVER_OK)
        free(api);
    return code;
}

int main(int argc, char **argv) {
    webserver_error err = WEBSERVER_ERROR_INIT;
    webserver_config *config = NULL;
    webserver_server *server = NULL;
    const char *address = argc > 2 ? argv[2] : "127.0.0.1:8080";
    uint16_t port = 0;
    int code;

    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: handler FOLDER [ADDRESS]\n");
        return 2;
    }
    if (webserver_config_new(&config, &err) != WEBSERVER_OK ||
        configure(config, argv[1], address, &err) != WEBSERVER_OK ||
        webserver_start(config, &server, &err) != WEBSERVER_OK) {
        fprintf(stderr, "handler: %s\n", err.text);
        webserver_config_free(config);
        return 1;
    }
    webserver_config_free(config); /* the server has its own copy, and keeps the handlers */

    webserver_port(server, NULL, &port); /* a unix socket has none */
    printf("serving handlers and %s on %s, port %u\n", argv[1], address, (unsigned)port);
    fflush(stdout);
    while (getchar() != EOF)
        continue;
    code = webserver_stop(server, 5000);
    if (code != WEBSERVER_OK)
        fprintf(stderr, "handler: stop: %s\n", webserver_strerror(code));
    return code != WEBSERVER_OK;
}
