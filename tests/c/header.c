/* The header alone, as C99 and as C++11: layouts, and constants in a switch and in the preprocessor. */
#include "webserver.h"
#include "webserver.h"

#if WEBSERVER_ABI_VERSION < 1 || WEBSERVER_OK != 0 || WEBSERVER_E_GONE != -13
#error "the numbers of the header changed"
#endif

/* A negative array size is C99's static assertion. */
#define ASSERT(name, condition) typedef char assert_##name[(condition) ? 1 : -1]

ASSERT(error_size, sizeof(webserver_error) == 276);
ASSERT(error_code, offsetof(webserver_error, code) == 4);
ASSERT(error_sys_errno, offsetof(webserver_error, sys_errno) == 8);
ASSERT(error_line, offsetof(webserver_error, line) == 12);
ASSERT(error_column, offsetof(webserver_error, column) == 16);
ASSERT(error_text, offsetof(webserver_error, text) == 20);

ASSERT(stats_size, sizeof(webserver_stats) == 192);
ASSERT(stats_state, offsetof(webserver_stats, state) == 12);
ASSERT(stats_budget, offsetof(webserver_stats, memory_budget_bytes) == 16);
ASSERT(stats_rss, offsetof(webserver_stats, memory_rss_bytes) == 48);
ASSERT(stats_requests, offsetof(webserver_stats, requests) == 88);
ASSERT(stats_allocated, offsetof(webserver_stats, buffers_allocated) == 112);
ASSERT(stats_available, offsetof(webserver_stats, buffers_available) == 136);
ASSERT(stats_errors, offsetof(webserver_stats, errors) == 184);

ASSERT(slice_data, offsetof(webserver_slice, data) == 0);
ASSERT(slice_length, offsetof(webserver_slice, length) == sizeof(char *));
ASSERT(slice_size, sizeof(webserver_slice) == sizeof(char *) + sizeof(size_t));
ASSERT(handler_results, WEBSERVER_DONE == 0 && WEBSERVER_NEXT == 1 && WEBSERVER_DEFERRED == 2);
ASSERT(handler_flags, WEBSERVER_HANDLER_INLINE == 1 && WEBSERVER_HANDLER_BLOCKING == 2);

ASSERT(pressure, WEBSERVER_PRESSURE_NORMAL == 0 && WEBSERVER_PRESSURE_ELEVATED == 1 && WEBSERVER_PRESSURE_HIGH == 2 && WEBSERVER_PRESSURE_CRITICAL == 3);

static int is_known(int code) {
    switch (code) {
    case WEBSERVER_OK:
    case WEBSERVER_E_INVALID:
    case WEBSERVER_E_CONFIG:
    case WEBSERVER_E_IO:
    case WEBSERVER_E_ADDRESS:
    case WEBSERVER_E_UNSUPPORTED:
    case WEBSERVER_E_LIMIT:
    case WEBSERVER_E_MEMORY:
    case WEBSERVER_E_STATE:
    case WEBSERVER_E_TIMEOUT:
    case WEBSERVER_E_FORKED:
    case WEBSERVER_E_PANIC:
    case WEBSERVER_E_AGAIN:
    case WEBSERVER_E_GONE:
        return 1;
    default:
        return 0;
    }
}

static void log_line(void *user, int level, const char *target, const char *message, size_t length) {
    (void)user;
    (void)level;
    (void)target;
    (void)message;
    (void)length;
}

static int handle(void *user, webserver_request *request) {
    return user == NULL && request == NULL ? WEBSERVER_NEXT : WEBSERVER_DONE;
}

static void pressure(void *user, int level, uint64_t used, uint64_t budget) {
    (void)user;
    (void)level;
    (void)used;
    (void)budget;
}

int main(void) {
    webserver_pressure_fn hears = pressure;
    webserver_error err = WEBSERVER_ERROR_INIT;
    webserver_handler_fn handler = handle;
    webserver_log_fn log = log_line;
    hears(NULL, WEBSERVER_PRESSURE_NORMAL, 0, 1);
    log(NULL, WEBSERVER_LOG_ERROR, "", "", 0);
    return handler(NULL, NULL) == WEBSERVER_NEXT && err.size == sizeof err && err.code == 0 && err.text[255] == 0 && is_known(WEBSERVER_E_GONE) ? 0 : 1;
}
