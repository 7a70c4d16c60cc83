/*
 * A host that opens the library with dlopen, closes it, and ends the thread that did so only then:
 *
 *     unload LIBRARY CERTIFICATE KEY      a round for each line on stdin, "http" or "https": prints the port of a listener,
 *                                         waits for another line, reloads, stops, prints DESTRUCTORS DESCRIPTORS THREADS
 *
 * DESTRUCTORS is what the calls have left to be run at the end of the thread that made them, after dlclose.
 */
#define _GNU_SOURCE

#include <dirent.h>
#include <dlfcn.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "check.h"

#define LINE_MAX_BYTES 16

static __thread int is_host_thread;
static int destructors;

/* In place of the C library's, for all that is loaded later: destructors of C++ and Rust thread-locals. */
int __cxa_thread_atexit_impl(void (*destructor)(void *), void *object, void *library) {
    int (*next)(void (*)(void *), void *, void *);
    *(void **)&next = dlsym(RTLD_NEXT, "__cxa_thread_atexit_impl");
    destructors += is_host_thread;
    return next(destructor, object, library);
}

/* The same for values of keys, which C programs have instead. */
int pthread_setspecific(pthread_key_t key, const void *value) {
    int (*next)(pthread_key_t, const void *);
    *(void **)&next = dlsym(RTLD_NEXT, "pthread_setspecific");
    destructors += is_host_thread && value != NULL;
    return next(key, value);
}

/* The functions that a round needs, by their types in the header. */
struct library {
    void *handle;
    __typeof__(&webserver_config_new) config_new;
    __typeof__(&webserver_config_set) config_set;
    __typeof__(&webserver_config_add_certificate) config_add_certificate;
    __typeof__(&webserver_config_free) config_free;
    __typeof__(&webserver_start) start;
    __typeof__(&webserver_port) port;
    __typeof__(&webserver_reload) reload;
    __typeof__(&webserver_stop) stop;
};

static struct library open_library(const char *path) {
    struct library library;
    library.handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    CHECK(library.handle != NULL);
    *(void **)&library.config_new = dlsym(library.handle, "webserver_config_new");
    *(void **)&library.config_set = dlsym(library.handle, "webserver_config_set");
    *(void **)&library.config_add_certificate = dlsym(library.handle, "webserver_config_add_certificate");
    *(void **)&library.config_free = dlsym(library.handle, "webserver_config_free");
    *(void **)&library.start = dlsym(library.handle, "webserver_start");
    *(void **)&library.port = dlsym(library.handle, "webserver_port");
    *(void **)&library.reload = dlsym(library.handle, "webserver_reload");
    *(void **)&library.stop = dlsym(library.handle, "webserver_stop");
    CHECK(library.config_add_certificate != NULL && library.reload != NULL && library.stop != NULL);
    return library;
}

static char texts[2][PEM_MAX];
static size_t lengths[2];

/* A listener with the certificate and this key; without TLS when there is none. */
static webserver_config *configure(const struct library *library, const char *key, size_t key_length) {
    webserver_config *config = NULL;
    CHECK_CODE(library->config_new(&config, NULL), WEBSERVER_OK);
    CHECK_CODE(library->config_set(config, "listen", "127.0.0.1:0", NULL), WEBSERVER_OK);
    CHECK_CODE(library->config_set(config, "shards", "1", NULL), WEBSERVER_OK);
    CHECK_CODE(library->config_set(config, "memory.worker_connections", "64", NULL), WEBSERVER_OK);
    if (key != NULL)
        CHECK_CODE(library->config_add_certificate(config, NULL, texts[0], lengths[0], key, key_length, NULL),
                   WEBSERVER_OK);
    return config;
}

/* A reload that is refused, for reading a key that is none is work too. */
static void try_wrong_key(const struct library *library, webserver_server *server) {
    static const char wrong[] = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    webserver_config *config = configure(library, wrong, sizeof wrong - 1);
    CHECK_CODE(library->reload(server, config, NULL), WEBSERVER_E_CONFIG);
    library->config_free(config);
}

struct round {
    const char *library;
    int tls;
};

/* The whole life of a library and of a server, on a thread of the host's. */
static void *live(void *argument) {
    const struct round *round = argument;
    struct library library;
    webserver_config *config;
    webserver_server *server = NULL;
    uint16_t port = 0;
    char line[LINE_MAX_BYTES];

    is_host_thread = 1;
    library = open_library(round->library);
    config = configure(&library, round->tls ? texts[1] : NULL, lengths[1]);
    CHECK_CODE(library.start(config, &server, NULL), WEBSERVER_OK);
    CHECK_CODE(library.port(server, NULL, &port), WEBSERVER_OK);
    printf("%u\n", (unsigned)port);
    CHECK(fgets(line, sizeof line, stdin) != NULL);
    CHECK_CODE(library.reload(server, config, NULL), WEBSERVER_OK);
    try_wrong_key(&library, server);
    CHECK_CODE(library.stop(server, 1000), WEBSERVER_OK);
    library.config_free(config);
    CHECK(dlclose(library.handle) == 0);
    return NULL;
}

static int count(const char *path) {
    DIR *folder = opendir(path);
    struct dirent *entry;
    int entries = 0;
    CHECK(folder != NULL);
    while ((entry = readdir(folder)) != NULL)
        entries += entry->d_name[0] != '.';
    closedir(folder);
    return entries;
}

/* A joined thread leaves /proc a moment after pthread_join; nothing tells when. */
static int count_threads(void) {
    int turn, threads = count("/proc/self/task");
    for (turn = 0; turn < 5000 && threads > 1; turn++) {
        const struct timespec millisecond = {0, 1000000};
        nanosleep(&millisecond, NULL);
        threads = count("/proc/self/task");
    }
    return threads;
}

int main(int argc, char **argv) {
    char line[LINE_MAX_BYTES];
    CHECK(argc == 4);
    setvbuf(stdout, NULL, _IOLBF, 0);
    lengths[0] = read_file(argv[2], texts[0], PEM_MAX);
    lengths[1] = read_file(argv[3], texts[1], PEM_MAX);
    while (fgets(line, sizeof line, stdin) != NULL) {
        pthread_t thread;
        struct round round = {argv[1], strcmp(line, "https\n") == 0};
        destructors = 0;
        CHECK(pthread_create(&thread, NULL, live, &round) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
        printf("%d %d %d\n", destructors, count("/proc/self/fd"), count_threads());
    }
    return 0;
}
