/*
 * Serves HTTPS, tells each client about its connection, and takes over new certificates while it serves.
 *
 *     https [-f] CERTIFICATE KEY [ADDRESS]     PEM files; ADDRESS is 127.0.0.1:8443 when absent
 *
 * The program reads the two files and hands the library their texts, as one would that keeps its keys elsewhere; with -f
 * the library is told the names of the files and reads them itself. Each Enter renews: new connections get what is in the
 * files then, those that are open go on, and what is not right is told and changes nothing. Stops at the end of standard
 * input (Ctrl-D). Exit status: 0 stopped cleanly, 1 failed, 2 wrong arguments.
 *
 * A pair to try it with, which nobody has signed:
 *     openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost \
 *         -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem
 *     curl --cacert cert.pem https://localhost:8443/
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "webserver.h"

#define PEM_BYTES_MAX (512 << 10)

struct options {
    const char *certificate, *key, *address;
    int from_files;
};

/* What a request says about its connection; a slice is not NUL-terminated, and its data is NULL when there is none. */
static int tell(void *user, webserver_request *request) {
    webserver_slice version = webserver_request_tls_version(request);
    webserver_slice cipher = webserver_request_tls_cipher(request);
    webserver_slice name = webserver_request_tls_server_name(request);
    char text[512];
    int length;
    (void)user;
    if (!webserver_request_is_tls(request))
        return -1;
    if (name.data == NULL) {
        name.data = "no name";
        name.length = strlen(name.data);
    }
    length = snprintf(text, sizeof text, "%.*s, %.*s, asked for %.*s, %s\n", (int)version.length, version.data,
                      (int)cipher.length, cipher.data, (int)name.length, name.data,
                      webserver_request_tls_resumed(request) ? "resumed" : "a new session");
    if (webserver_reply_header(request, "Content-Type", "text/plain; charset=utf-8") != WEBSERVER_OK ||
        webserver_reply(request, 200, text, (size_t)length) != WEBSERVER_OK)
        return -1;
    return WEBSERVER_DONE;
}

/* The content of a file, at most PEM_BYTES_MAX of it; 0 with the reason in `err` when it cannot be read or is empty. */
static size_t read_file(const char *path, char *content, webserver_error *err) {
    FILE *file = fopen(path, "rb");
    size_t length = 0;
    if (file != NULL) {
        length = fread(content, 1, PEM_BYTES_MAX, file);
        fclose(file);
    }
    if (length == 0)
        snprintf(err->text, sizeof err->text, "cannot read %s", path);
    return length;
}

/* Keys are not left behind in memory. The compiler may not leave this out, as it may a memset before free. */
static void wipe(char *text, size_t length) {
    volatile char *byte = text;
    while (length-- > 0)
        *byte++ = 0;
}

static int add_from_memory(webserver_config *config, const struct options *options, webserver_error *err) {
    char *certificate = malloc(PEM_BYTES_MAX), *key = malloc(PEM_BYTES_MAX);
    size_t certificate_length = 0, key_length = 0;
    int code = WEBSERVER_E_IO;
    if (certificate == NULL || key == NULL)
        snprintf(err->text, sizeof err->text, "no memory");
    else if ((certificate_length = read_file(options->certificate, certificate, err)) > 0 &&
             (key_length = read_file(options->key, key, err)) > 0)
        code = webserver_config_add_certificate(config, options->address, certificate, certificate_length, key,
                                                key_length, err);
    if (key != NULL)
        wipe(key, key_length); /* the library has its own copy */
    free(certificate);
    free(key);
    return code;
}

/* As a configuration file would have it. Names with a quote or a backslash would have to be escaped. */
static int add_from_files(webserver_config *config, const struct options *options, webserver_error *err) {
    char listen[2048];
    int length = snprintf(listen, sizeof listen,
                          "[{ address: \"%s\", tls: { certificates: { certificate: \"%s\", key: \"%s\" } } }]",
                          options->address, options->certificate, options->key);
    if (length >= (int)sizeof listen) {
        snprintf(err->text, sizeof err->text, "the names are too long");
        return WEBSERVER_E_INVALID;
    }
    return webserver_config_set(config, "listen", listen, err);
}

/* A configuration with what is in the files now; NULL with the reason in `err`. */
static webserver_config *configure(const struct options *options, webserver_error *err) {
    webserver_config *config = NULL;
    if (webserver_config_new(&config, err) != WEBSERVER_OK)
        return NULL;
    if (webserver_config_set(config, "listen", options->address, err) == WEBSERVER_OK &&
        (options->from_files ? add_from_files : add_from_memory)(config, options, err) == WEBSERVER_OK &&
        webserver_config_add_handler(config, "GET", "/*", WEBSERVER_HANDLER_INLINE, tell, NULL, NULL, err) ==
            WEBSERVER_OK)
        return config;
    webserver_config_free(config);
    return NULL;
}

/* All or nothing: after an error the server goes on with the certificate that it has. */
static void renew(webserver_server *server, const struct options *options) {
    webserver_error err = WEBSERVER_ERROR_INIT;
    webserver_config *config = configure(options, &err);
    if (config != NULL && webserver_reload(server, config, &err) == WEBSERVER_OK)
        printf("renewed\n");
    else
        printf("not renewed: %s\n", err.text);
    fflush(stdout);
    webserver_config_free(config); /* NULL is ignored */
}

int main(int argc, char **argv) {
    webserver_error err = WEBSERVER_ERROR_INIT;
    webserver_server *server = NULL;
    webserver_config *config;
    struct options options = {NULL, NULL, "127.0.0.1:8443", 0};
    int first = 1, byte, code;
    uint16_t port = 0;

    if (argc > 1 && strcmp(argv[1], "-f") == 0)
        options.from_files = first++;
    if (argc - first < 2 || argc - first > 3) {
        fprintf(stderr, "usage: https [-f] CERTIFICATE KEY [ADDRESS]\n");
        return 2;
    }
    options.certificate = argv[first];
    options.key = argv[first + 1];
    if (argc - first == 3)
        options.address = argv[first + 2];

    config = configure(&options, &err);
    if (config == NULL || webserver_start(config, &server, &err) != WEBSERVER_OK) {
        fprintf(stderr, "https: %s\n", err.text);
        webserver_config_free(config);
        return 1;
    }
    webserver_config_free(config); /* the server has its own copy */

    webserver_port(server, NULL, &port); /* a unix socket has none */
    printf("serving https on %s, port %u\n", options.address, (unsigned)port);
    fflush(stdout);
    while ((byte = getchar()) != EOF)
        if (byte == '\n')
            renew(server, &options);
    code = webserver_stop(server, 5000);
    if (code != WEBSERVER_OK)
        fprintf(stderr, "https: stop: %s\n", webserver_strerror(code));
    return code != WEBSERVER_OK;
}
