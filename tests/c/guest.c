/*
 * The library is a guest: signal dispositions, the mask, limits, umask and working directory stay the
 * host's while a server runs and after it; its threads leave the host's signals to the host.
 *
 *     guest [CERTIFICATE KEY]       prints nothing; with PEM files the port of an HTTPS listener, and it waits for the end
 *                                   of stdin before it looks
 */
#define _GNU_SOURCE

#include <dirent.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

#define SIGNALS 65

struct surroundings {
    struct sigaction actions[SIGNALS];
    sigset_t mask;
    struct rlimit files;
    mode_t umask;
    char folder[4096];
};

static void look(struct surroundings *now) {
    int number;
    memset(now, 0, sizeof *now);
    for (number = 1; number < SIGNALS; number++)
        sigaction(number, NULL, &now->actions[number]); /* fails for the C library's own two */
    CHECK(sigprocmask(SIG_BLOCK, NULL, &now->mask) == 0);
    CHECK(getrlimit(RLIMIT_NOFILE, &now->files) == 0);
    now->umask = umask(0);
    umask(now->umask);
    CHECK(getcwd(now->folder, sizeof now->folder) != NULL);
}

static void compare(const struct surroundings *before, const struct surroundings *now) {
    int number;
    for (number = 1; number < SIGNALS; number++) {
        CHECK(before->actions[number].sa_handler == now->actions[number].sa_handler);
        CHECK(before->actions[number].sa_flags == now->actions[number].sa_flags);
        CHECK(sigismember(&before->mask, number) == sigismember(&now->mask, number));
    }
    CHECK(before->files.rlim_cur == now->files.rlim_cur && before->files.rlim_max == now->files.rlim_max);
    CHECK(before->umask == now->umask);
    CHECK(strcmp(before->folder, now->folder) == 0);
}

static int blocks(unsigned long long mask, int number) {
    return (int)(mask >> (number - 1) & 1);
}

/* Blocks what a host may handle, and leaves open what its crash handler wants. */
static int is_guest_mask(unsigned long long mask) {
    static const int open[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    static const int blocked[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD, SIGALRM, SIGPIPE};
    size_t index;
    for (index = 0; index < sizeof open / sizeof open[0]; index++)
        if (blocks(mask, open[index]))
            return 0;
    for (index = 0; index < sizeof blocked / sizeof blocked[0]; index++)
        if (!blocks(mask, blocked[index]))
            return 0;
    return 1;
}

/* The number of threads but this one, or -1 when the mask of one is not a guest's. */
static int count_guests(void) {
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *entry;
    int threads = 0, wrong = 0;

    CHECK(tasks != NULL);
    while ((entry = readdir(tasks)) != NULL) {
        char path[300], line[256];
        unsigned long long mask = 0;
        FILE *status;
        if (entry->d_name[0] == '.' || atoi(entry->d_name) == (int)getpid())
            continue;
        snprintf(path, sizeof path, "/proc/self/task/%s/status", entry->d_name);
        status = fopen(path, "r");
        if (status == NULL)
            continue; /* it has ended meanwhile */
        while (fgets(line, sizeof line, status) != NULL)
            if (sscanf(line, "SigBlk: %llx", &mask) == 1)
                break;
        fclose(status);
        wrong += is_guest_mask(mask) ? 0 : 1;
        threads++;
    }
    closedir(tasks);
    return wrong == 0 ? threads : -1;
}

/* The C library blocks every signal in a thread that begins or ends; nothing tells when that is over. */
static void check_guests(void) {
    int turn;
    for (turn = 0; turn < 5000 && count_guests() < 1; turn++) {
        const struct timespec millisecond = {0, 1000000};
        nanosleep(&millisecond, NULL);
    }
    CHECK(count_guests() >= 1);
}

static void add_certificate(webserver_config *config, const char *certificate_path, const char *key_path) {
    static char certificate[PEM_MAX], key[PEM_MAX];
    size_t certificate_length = read_file(certificate_path, certificate, sizeof certificate);
    size_t key_length = read_file(key_path, key, sizeof key);
    CHECK_CODE(webserver_config_add_certificate(config, NULL, certificate, certificate_length, key, key_length, NULL),
               WEBSERVER_OK);
}

static void await_visitors(const webserver_server *server) {
    uint16_t port = 0;
    CHECK_CODE(webserver_port(server, NULL, &port), WEBSERVER_OK);
    printf("%u\n", (unsigned)port);
    fflush(stdout);
    while (getchar() != EOF)
        continue;
}

int main(int argc, char **argv) {
    static struct surroundings before, now;
    webserver_error err = WEBSERVER_ERROR_INIT;
    webserver_config *config = NULL;
    webserver_server *server = NULL;
    sigset_t blocked;

    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR2);
    CHECK(sigprocmask(SIG_BLOCK, &blocked, NULL) == 0);
    look(&before);

    CHECK_CODE(webserver_config_new(&config, &err), WEBSERVER_OK);
    CHECK_CODE(webserver_config_set(config, "listen", "[{ address: \"127.0.0.1:0\" }]", &err), WEBSERVER_OK);
    CHECK_CODE(webserver_config_set(config, "shards", "2", &err), WEBSERVER_OK);
    CHECK_CODE(webserver_config_set(config, "memory.worker_connections", "64", &err), WEBSERVER_OK);
    if (argc == 3)
        add_certificate(config, argv[1], argv[2]);
    CHECK_CODE(webserver_start(config, &server, &err), WEBSERVER_OK);
    if (argc == 3)
        await_visitors(server);
    look(&now);
    compare(&before, &now);
    check_guests();

    CHECK_CODE(webserver_stop(server, 1000), WEBSERVER_OK);
    webserver_config_free(config);
    look(&now);
    compare(&before, &now);
    return 0;
}
