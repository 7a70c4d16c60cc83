/*
 * Handlers of a C host. Checks what it can by itself (arguments, when `drop` is called, calls from inside), then serves
 * handlers that check what they see and reply with it, for the test to look at from outside:
 *
 *     handlers FOLDER [CERTIFICATE KEY CA]
 *
 * prints the port; each line on stdin reloads; at its end stops and checks the drops. With PEM files it serves HTTPS, and
 * asks clients for certificates that CA has signed.
 */
#include <string.h>

#include "check.h"

static webserver_config *shared_config;
static webserver_server *shared_server;
static char **tls_files;

/* What `user` points to. */
struct owned {
    int drops, refused;
};

static void drop(void *user) {
    struct owned *owned = user;
    webserver_config *config = NULL;
    owned->refused += webserver_config_new(&config, NULL) == WEBSERVER_E_STATE;
    owned->drops++;
}

static int done(void *user, webserver_request *request) {
    (void)user;
    CHECK_CODE(webserver_reply(request, 200, "done", 4), WEBSERVER_OK);
    return WEBSERVER_DONE;
}

static int add(webserver_config *config, const char *method, const char *path, uint32_t flags,
               webserver_handler_fn handler) {
    webserver_error err = WEBSERVER_ERROR_INIT;
    struct owned owned = {0, 0};
    int code = webserver_config_add_handler(config, method, path, flags, handler, &owned, drop, &err);
    CHECK(code != WEBSERVER_OK);
    CHECK(err.code == code && err.text[0] != 0);
    /* When it fails, `user` stays the caller's. */
    CHECK(owned.drops == 0);
    return code;
}

static void check_arguments(void) {
    static const char *const paths[] = {"",     "a",     "*",    "/a*",   "/*/a", "//",    "/a//b",
                                        "/./a", "/a/..", "/a?b", "/a#b",  "/%61", "/a\nb", "/\xff"};
    static const char *const methods[] = {"", "get", "G T", "CONNECT", "GET\r\n", "\xff"};
    webserver_config *config = NULL;
    struct owned owned = {0, 0};
    char path[32];
    size_t index;
    CHECK_CODE(webserver_config_new(&config, NULL), WEBSERVER_OK);
    CHECK_CODE(add(NULL, NULL, "/", WEBSERVER_HANDLER_INLINE, done), WEBSERVER_E_INVALID);
    CHECK_CODE(add(config, NULL, NULL, WEBSERVER_HANDLER_INLINE, done), WEBSERVER_E_INVALID);
    CHECK_CODE(add(config, NULL, "/", WEBSERVER_HANDLER_INLINE, NULL), WEBSERVER_E_INVALID);
    CHECK_CODE(add(config, NULL, "/", WEBSERVER_HANDLER_BLOCKING, done), WEBSERVER_E_UNSUPPORTED);
    CHECK_CODE(add(config, NULL, "/", 0, done), WEBSERVER_E_INVALID);
    CHECK_CODE(add(config, NULL, "/", WEBSERVER_HANDLER_INLINE | WEBSERVER_HANDLER_BLOCKING, done),
               WEBSERVER_E_INVALID);
    CHECK_CODE(add(config, NULL, "/", 0x80000001u, done), WEBSERVER_E_INVALID);
    for (index = 0; index < sizeof paths / sizeof *paths; index++)
        CHECK_CODE(add(config, NULL, paths[index], WEBSERVER_HANDLER_INLINE, done), WEBSERVER_E_INVALID);
    for (index = 0; index < sizeof methods / sizeof *methods; index++)
        CHECK_CODE(add(config, methods[index], "/", WEBSERVER_HANDLER_INLINE, done), WEBSERVER_E_INVALID);

    CHECK_CODE(webserver_config_add_handler(config, "GET", "/", WEBSERVER_HANDLER_INLINE, done, &owned, drop, NULL),
               WEBSERVER_OK);
    CHECK_CODE(add(config, "GET", "/", WEBSERVER_HANDLER_INLINE, done), WEBSERVER_E_INVALID);
    for (index = 1; index < 1024; index++) {
        sprintf(path, "/%u/*", (unsigned)index);
        CHECK_CODE(webserver_config_add_handler(config, NULL, path, WEBSERVER_HANDLER_INLINE, done, NULL, NULL, NULL),
                   WEBSERVER_OK);
    }
    CHECK_CODE(add(config, NULL, "/more", WEBSERVER_HANDLER_INLINE, done), WEBSERVER_E_LIMIT);
    CHECK(owned.drops == 0);
    webserver_config_free(config);
    CHECK(owned.drops == 1 && owned.refused == 1);
}

static webserver_config *configure(struct owned *owned) {
    webserver_config *config = NULL;
    CHECK_CODE(webserver_config_new(&config, NULL), WEBSERVER_OK);
    CHECK_CODE(webserver_config_set(config, "listen", "127.0.0.1:0", NULL), WEBSERVER_OK);
    CHECK_CODE(webserver_config_set(config, "shards", "2", NULL), WEBSERVER_OK);
    CHECK_CODE(webserver_config_set(config, "memory.worker_connections", "64", NULL), WEBSERVER_OK);
    if (owned != NULL)
        CHECK_CODE(webserver_config_add_handler(config, NULL, "/", WEBSERVER_HANDLER_INLINE, done, owned, drop, NULL),
                   WEBSERVER_OK);
    return config;
}

/* `drop` runs once, when the configuration and every server are done with it. */
static void check_drops(void) {
    struct owned owned = {0, 0}, second = {0, 0};
    webserver_server *one = NULL, *two = NULL;
    webserver_config *config = configure(&owned), *other;
    CHECK_CODE(webserver_start(config, &one, NULL), WEBSERVER_OK);
    CHECK_CODE(webserver_start(config, &two, NULL), WEBSERVER_OK);
    webserver_config_free(config);
    CHECK_CODE(webserver_stop(one, 1000), WEBSERVER_OK);
    CHECK(owned.drops == 0);
    CHECK_CODE(webserver_stop(two, 0), WEBSERVER_OK);
    CHECK(owned.drops == 1 && owned.refused == 1);

    /* The configuration may be the last. */
    owned.drops = 0;
    config = configure(&owned);
    CHECK_CODE(webserver_start(config, &one, NULL), WEBSERVER_OK);
    CHECK_CODE(webserver_stop(one, 1000), WEBSERVER_OK);
    CHECK(owned.drops == 0);
    webserver_config_free(config);
    CHECK(owned.drops == 1);

    /* A reload replaces handlers; one that fails does not. */
    owned.drops = 0;
    config = configure(&owned);
    CHECK_CODE(webserver_start(config, &one, NULL), WEBSERVER_OK);
    webserver_config_free(config);
    other = configure(&second);
    CHECK_CODE(webserver_config_set(other, "shards", "1", NULL), WEBSERVER_OK);
    CHECK_CODE(webserver_reload(one, other, NULL), WEBSERVER_E_CONFIG);
    CHECK(owned.drops == 0);
    CHECK_CODE(webserver_config_set(other, "shards", "2", NULL), WEBSERVER_OK);
    CHECK_CODE(webserver_reload(one, other, NULL), WEBSERVER_OK);
    CHECK_CODE(webserver_reload(one, other, NULL), WEBSERVER_OK);
    CHECK(owned.drops == 1);
    webserver_config_free(other);
    CHECK(second.drops == 0);
    CHECK_CODE(webserver_stop(one, 1000), WEBSERVER_OK);
    CHECK(owned.drops == 1 && second.drops == 1);

    /* A start that fails lets go of what it took. */
    owned.drops = 0;
    config = configure(&owned);
    CHECK_CODE(webserver_config_set(config, "root", "/nonexistent", NULL), WEBSERVER_OK);
    CHECK(webserver_start(config, &one, NULL) != WEBSERVER_OK);
    CHECK(owned.drops == 0);
    webserver_config_free(config);
    CHECK(owned.drops == 1);
}

static size_t append(char *text, const char *label, webserver_slice slice) {
    return (size_t)sprintf(text, "%s=%.*s\n", label, slice.data == NULL ? 4 : (int)slice.length,
                           slice.data == NULL ? "NULL" : slice.data);
}

/* Everything that a request says, a line each. */
static int facts(void *user, webserver_request *request) {
    char text[4096];
    size_t length = 0;
    (void)user;
    length += append(text + length, "method", webserver_request_method(request));
    length += append(text + length, "path", webserver_request_path(request));
    length += append(text + length, "target", webserver_request_target(request));
    length += append(text + length, "query", webserver_request_query(request));
    length += append(text + length, "peer", webserver_request_peer(request));
    length += append(text + length, "version", webserver_request_version(request));
    length += append(text + length, "body", webserver_request_body(request));
    length += append(text + length, "x-some", webserver_request_header(request, "x-SOME"));
    length += append(text + length, "x-other", webserver_request_header(request, "x-other"));
    CHECK(webserver_request_body(request).data != NULL);
    CHECK(webserver_request_peer(request).data == webserver_request_peer(request).data);
    CHECK_CODE(webserver_reply(request, 200, text, length), WEBSERVER_OK);
    return WEBSERVER_DONE;
}

/* The same of its TLS, the certificate in hexadecimal digits. */
static int tls_facts(void *user, webserver_request *request) {
    webserver_slice certificate = webserver_request_tls_client_certificate(request);
    char text[8192];
    size_t length = 0, index;
    (void)user;
    length += (size_t)sprintf(text, "is_tls=%d\nresumed=%d\n", webserver_request_is_tls(request),
                              webserver_request_tls_resumed(request));
    length += append(text + length, "version", webserver_request_tls_version(request));
    length += append(text + length, "cipher", webserver_request_tls_cipher(request));
    length += append(text + length, "server_name", webserver_request_tls_server_name(request));
    length += append(text + length, "client_subject", webserver_request_tls_client_subject(request));
    length += (size_t)sprintf(text + length, "client_certificate=%s", certificate.data == NULL ? "NULL" : "");
    CHECK(certificate.length < 2048);
    for (index = 0; index < certificate.length; index++)
        length += (size_t)sprintf(text + length, "%02x", (unsigned)(unsigned char)certificate.data[index]);
    CHECK_CODE(webserver_reply(request, 200, text, length), WEBSERVER_OK);
    return WEBSERVER_DONE;
}

static int echo(void *user, webserver_request *request) {
    webserver_slice body = webserver_request_body(request);
    (void)user;
    CHECK_CODE(webserver_reply(request, 200, body.data, body.length), WEBSERVER_OK);
    return WEBSERVER_DONE;
}

static int null_arguments(void *user, webserver_request *request) {
    (void)user;
    CHECK(webserver_request_method(NULL).data == NULL && webserver_request_method(NULL).length == 0);
    CHECK(webserver_request_path(NULL).data == NULL && webserver_request_target(NULL).data == NULL);
    CHECK(webserver_request_query(NULL).data == NULL && webserver_request_peer(NULL).data == NULL);
    CHECK(webserver_request_version(NULL).data == NULL && webserver_request_body(NULL).data == NULL);
    CHECK(webserver_request_header(NULL, "Host").data == NULL);
    CHECK(webserver_request_is_tls(NULL) == 0 && webserver_request_tls_resumed(NULL) == 0);
    CHECK(webserver_request_tls_version(NULL).data == NULL && webserver_request_tls_cipher(NULL).data == NULL);
    CHECK(webserver_request_tls_server_name(NULL).data == NULL);
    CHECK(webserver_request_tls_client_subject(NULL).data == NULL);
    CHECK(webserver_request_tls_client_certificate(NULL).data == NULL);
    CHECK(webserver_request_header(request, NULL).data == NULL);
    CHECK(webserver_request_header(request, "\xff").data == NULL);
    CHECK_CODE(webserver_reply_header(NULL, "A", "b"), WEBSERVER_E_INVALID);
    CHECK_CODE(webserver_reply_header(request, NULL, "b"), WEBSERVER_E_INVALID);
    CHECK_CODE(webserver_reply_header(request, "A", NULL), WEBSERVER_E_INVALID);
    CHECK_CODE(webserver_reply(NULL, 200, "a", 1), WEBSERVER_E_INVALID);
    CHECK_CODE(webserver_reply(request, 200, NULL, 1), WEBSERVER_E_INVALID);
    CHECK_CODE(webserver_reply(request, 200, "a", (size_t)-1), WEBSERVER_E_INVALID);
    /* After all these it is a request like any other. */
    CHECK_CODE(webserver_reply(request, 200, NULL, 0), WEBSERVER_OK);
    return WEBSERVER_DONE;
}

static int header_fields(void *user, webserver_request *request) {
    static const char *const names[] = {"",     "a b",  "a:",           "a\r\nb",         "\xc3\xa4",
                                        "date", "Date", "Connection",   "content-length", "Transfer-Encoding",
                                        "te:",  "Upgrade", "Keep-Alive", "Trailer"};
    static const char *const values[] = {"a\r\nb: c", "a\n", "\r", "\x01", "\x7f", "\xff"};
    char value[4096];
    size_t index;
    (void)user;
    for (index = 0; index < sizeof names / sizeof *names; index++)
        CHECK_CODE(webserver_reply_header(request, names[index], "a"), WEBSERVER_E_INVALID);
    for (index = 0; index < sizeof values / sizeof *values; index++)
        CHECK_CODE(webserver_reply_header(request, "X-A", values[index]), WEBSERVER_E_INVALID);
    CHECK_CODE(webserver_reply_header(request, "Content-Type", "text/x-test"), WEBSERVER_OK);
    CHECK_CODE(webserver_reply_header(request, "Set-Cookie", "a=b"), WEBSERVER_OK);
    CHECK_CODE(webserver_reply_header(request, "Set-Cookie", "c=\xc3\xa4\t!"), WEBSERVER_OK);
    CHECK_CODE(webserver_reply_header(request, "X-Empty", ""), WEBSERVER_OK);
    /* 16 KB in all, of which these four take 75 with their line ends, and three of the next 3 * 4095. */
    memset(value, 'x', sizeof value);
    value[4090] = 0;
    for (index = 0; index < 3; index++)
        CHECK_CODE(webserver_reply_header(request, "Y", value), WEBSERVER_OK);
    CHECK_CODE(webserver_reply_header(request, "Y", value), WEBSERVER_E_LIMIT);
    value[16384 - 75 - 3 * 4095 - 5 + 1] = 0;
    CHECK_CODE(webserver_reply_header(request, "Y", value), WEBSERVER_E_LIMIT);
    value[16384 - 75 - 3 * 4095 - 5] = 0;
    CHECK_CODE(webserver_reply_header(request, "Y", value), WEBSERVER_OK);
    CHECK_CODE(webserver_reply_header(request, "Z", ""), WEBSERVER_E_LIMIT);
    CHECK_CODE(webserver_reply(request, 200, "fields", 6), WEBSERVER_OK);
    return WEBSERVER_DONE;
}

static int twice(void *user, webserver_request *request) {
    (void)user;
    CHECK_CODE(webserver_reply(request, 201, "first", 5), WEBSERVER_OK);
    CHECK_CODE(webserver_reply(request, 202, "second", 6), WEBSERVER_E_STATE);
    CHECK_CODE(webserver_reply_header(request, "X-Late", "1"), WEBSERVER_E_STATE);
    return WEBSERVER_DONE;
}

/* /status/NUMBER: that status with a body, or what the library says to it. */
static int status(void *user, webserver_request *request) {
    webserver_slice path = webserver_request_path(request);
    char digits[16] = "";
    char text[32];
    int code;
    (void)user;
    CHECK(path.length - 8 < sizeof digits);
    memcpy(digits, path.data + 8, path.length - 8);
    CHECK_CODE(webserver_reply_header(request, "X-Kept", "yes"), WEBSERVER_OK);
    code = webserver_reply(request, atoi(digits), "body", 4);
    if (code != WEBSERVER_OK) {
        int length = sprintf(text, "refused %d", code);
        CHECK_CODE(webserver_reply(request, 200, text, (size_t)length), WEBSERVER_OK);
    }
    return WEBSERVER_DONE;
}

/* /return/NUMBER, with a reply before it when there is a query. */
static int returned(void *user, webserver_request *request) {
    webserver_slice path = webserver_request_path(request);
    char digits[16] = "";
    (void)user;
    CHECK(path.length - 8 < sizeof digits);
    memcpy(digits, path.data + 8, path.length - 8);
    if (webserver_request_query(request).data != NULL)
        CHECK_CODE(webserver_reply(request, 200, "reply", 5), WEBSERVER_OK);
    return atoi(digits);
}

static int next(void *user, webserver_request *request) {
    (void)user;
    CHECK_CODE(webserver_reply_header(request, "X-Dropped", "1"), WEBSERVER_OK);
    return WEBSERVER_NEXT;
}

/* A handler may not run the library, least of all stop the server that calls it. */
static int calls(void *user, webserver_request *request) {
    webserver_config *config = NULL;
    webserver_server *server = NULL;
    webserver_stats stats;
    uint16_t port;
    size_t needed;
    (void)user;
    CHECK_CODE(webserver_config_new(&config, NULL), WEBSERVER_E_STATE);
    CHECK_CODE(webserver_config_set(shared_config, "shards", "1", NULL), WEBSERVER_E_STATE);
    CHECK_CODE(webserver_config_add_handler(shared_config, NULL, "/x", WEBSERVER_HANDLER_INLINE, done, NULL, NULL, NULL),
               WEBSERVER_E_STATE);
    CHECK_CODE(webserver_config_add_certificate(shared_config, NULL, "", 0, "", 0, NULL), WEBSERVER_E_STATE);
    CHECK_CODE(webserver_start(shared_config, &server, NULL), WEBSERVER_E_STATE);
    CHECK_CODE(webserver_reload(shared_server, shared_config, NULL), WEBSERVER_E_STATE);
    CHECK_CODE(webserver_reopen_logs(shared_server, NULL), WEBSERVER_E_STATE);
    CHECK_CODE(webserver_drain(shared_server), WEBSERVER_E_STATE);
    CHECK_CODE(webserver_stop(shared_server, 0), WEBSERVER_E_STATE);
    CHECK_CODE(webserver_port(shared_server, NULL, &port), WEBSERVER_E_STATE);
    CHECK_CODE(webserver_stats_get(shared_server, &stats, sizeof stats), WEBSERVER_E_STATE);
    CHECK_CODE(webserver_metrics_text(shared_server, NULL, 0, &needed), WEBSERVER_E_STATE);
    CHECK_CODE(webserver_connections_json(shared_server, 1, NULL, 0, &needed), WEBSERVER_E_STATE);
    /* Memory may be counted where it is needed. */
    CHECK_CODE(webserver_memory_charge(shared_server, 1000), WEBSERVER_OK);
    webserver_memory_release(shared_server, 1000);
    webserver_config_on_pressure(shared_config, NULL, NULL);
    webserver_config_free(shared_config);
    CHECK(webserver_version() != NULL && webserver_abi_version() > 0 && webserver_strerror(0) != NULL);
    return done(user, request);
}

static int large(void *user, webserver_request *request) {
    static char body[1 << 20];
    char *huge = calloc(1, (64 << 20) + 1);
    (void)user;
    CHECK(huge != NULL);
    CHECK_CODE(webserver_reply(request, 200, huge, (64 << 20) + 1), WEBSERVER_E_LIMIT);
    free(huge);
    memset(body, 'x', sizeof body);
    CHECK_CODE(webserver_reply(request, 200, body, sizeof body), WEBSERVER_OK);
    /* It was copied. */
    memset(body, 'y', sizeof body);
    return WEBSERVER_DONE;
}

static int user_data(void *user, webserver_request *request) {
    CHECK_CODE(webserver_reply(request, 200, user, strlen(user)), WEBSERVER_OK);
    return WEBSERVER_DONE;
}

static void add_tls(webserver_config *config) {
    static char certificate[PEM_MAX], key[PEM_MAX];
    size_t certificate_length = read_file(tls_files[0], certificate, sizeof certificate);
    size_t key_length = read_file(tls_files[1], key, sizeof key);
    char listen[1024];
    sprintf(listen, "[{ address: \"127.0.0.1:0\", tls: { client_ca: \"%.800s\", client_certificates: optional } }]",
            tls_files[2]);
    CHECK_CODE(webserver_config_set(config, "listen", listen, NULL), WEBSERVER_OK);
    CHECK_CODE(webserver_config_add_certificate(config, "127.0.0.1:0", certificate, certificate_length, key, key_length,
                                                NULL),
               WEBSERVER_OK);
}

static webserver_config *serve(const char *folder, struct owned *owned, const char *user) {
    static const struct {
        const char *method, *path;
        webserver_handler_fn handler;
    } handlers[] = {
        {NULL, "/facts/*", facts},  {"POST", "/echo", echo},        {NULL, "/null", null_arguments},
        {NULL, "/twice", twice},    {NULL, "/fields", header_fields}, {NULL, "/status/*", status},
        {NULL, "/calls", calls},    {NULL, "/return/*", returned},  {NULL, "/large", large},
        {NULL, "/files/*", next},   {NULL, "/tls", tls_facts},
    };
    webserver_config *config = configure(owned);
    size_t index;
    CHECK_CODE(webserver_config_set(config, "root", folder, NULL), WEBSERVER_OK);
    if (tls_files != NULL)
        add_tls(config);
    for (index = 0; index < sizeof handlers / sizeof *handlers; index++)
        CHECK_CODE(webserver_config_add_handler(config, handlers[index].method, handlers[index].path,
                                                WEBSERVER_HANDLER_INLINE, handlers[index].handler, NULL, NULL, NULL),
                   WEBSERVER_OK);
    CHECK_CODE(webserver_config_add_handler(config, "GET", "/user", WEBSERVER_HANDLER_INLINE, user_data, (void *)user,
                                            NULL, NULL),
               WEBSERVER_OK);
    return config;
}

int main(int argc, char **argv) {
    struct owned first = {0, 0}, second = {0, 0};
    char line[64];
    uint16_t port = 0;
    if (argc < 2) {
        check_arguments();
        check_drops();
        return 0;
    }
    if (argc == 5)
        tls_files = argv + 2;
    shared_config = serve(argv[1], &first, "first");
    CHECK_CODE(webserver_start(shared_config, &shared_server, NULL), WEBSERVER_OK);
    CHECK_CODE(webserver_port(shared_server, NULL, &port), WEBSERVER_OK);
    printf("%u\n", (unsigned)port);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        webserver_config *config = serve(argv[1], &second, "second");
        CHECK_CODE(webserver_reload(shared_server, config, NULL), WEBSERVER_OK);
        webserver_config_free(config);
        printf("reloaded\n");
        fflush(stdout);
    }
    CHECK_CODE(webserver_stop(shared_server, 1000), WEBSERVER_OK);
    CHECK(first.drops == 0);
    webserver_config_free(shared_config);
    CHECK(first.drops == 1);
    return 0;
}
