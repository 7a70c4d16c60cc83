/*
 * webserver: an HTTP server that lives inside your program.
 *
 *     webserver_error err = WEBSERVER_ERROR_INIT;
 *     webserver_config *config = NULL;
 *     webserver_server *server = NULL;
 *     if (webserver_config_new(&config, &err) == WEBSERVER_OK &&
 *         webserver_config_set(config, "root", "./public", &err) == WEBSERVER_OK &&
 *         webserver_start(config, &server, &err) == WEBSERVER_OK) {
 *         ...
 *         webserver_stop(server, 5000);
 *     }
 *     webserver_config_free(config);
 *
 * What holds for every function:
 *
 * Status    A function that returns int returns WEBSERVER_OK or one of the negative WEBSERVER_E_ codes.
 *           A new version may add codes, so treat an unknown one as a failure. Every such function may
 *           answer WEBSERVER_E_STATE (inside a callback), WEBSERVER_E_FORKED and WEBSERVER_E_PANIC, and
 *           WEBSERVER_E_INVALID when an argument is NULL; its comment lists the other codes.
 * Errors    `err` may be NULL. It is written only when the call fails, and it is yours.
 * Outputs   They come last and are written only on success, unless the function says otherwise.
 * Strings   What you pass in is copied, NUL-terminated, and UTF-8 unless it is a path. What is returned
 *           as const char * lives as long as the library and must not be freed.
 * NULL      A function without a result ignores a NULL object.
 * Panics    A bug in the library is caught and becomes WEBSERVER_E_PANIC; nothing unwinds into your code.
 * Threads   "Any thread" means that calls may overlap. "One thread at a time" means that you keep two
 *           calls on the same object apart; different objects never disturb each other.
 * Callbacks Inside a log callback, a handler and its drop function every function but webserver_version,
 *           webserver_abi_version and webserver_strerror answers WEBSERVER_E_STATE, or does nothing. The
 *           functions of a request, webserver_request_... and webserver_reply..., are for its handler: a
 *           request ends when the handler returns, and no function may be called with it afterwards.
 * fork      After fork the child may only exec or exit. From the first webserver_config_new on, every call
 *           in a child answers WEBSERVER_E_FORKED, or does nothing, but for those of a request in a handler
 *           that forked. A process that forks before it first calls the library may use it in the child.
 * Signals   No handler is installed and no mask of your threads is changed. The library's own threads block
 *           all signals but SIGSEGV, SIGBUS, SIGFPE, SIGILL and SIGTRAP.
 * Output    Nothing is printed. Set a log callback, or name files in the configuration.
 * Unloading dlclose leaves the library mapped.
 *
 * This file is generated from the package `ffi`; a test keeps it current.
 */

#ifndef WEBSERVER_H
#define WEBSERVER_H

#include <stddef.h>
#include <stdint.h>

// The first value of a webserver_error: its size, and zeros.
#define WEBSERVER_ERROR_INIT { sizeof(webserver_error), 0, 0, 0, 0, { 0 } }

// The version of this interface that the header describes. It grows when something is added; what exists
// keeps its meaning.
#define WEBSERVER_ABI_VERSION 1

// Success.
#define WEBSERVER_OK 0

// An argument is NULL or can never be right.
#define WEBSERVER_E_INVALID -1

// The configuration: its text, a value, or a combination that cannot work.
#define WEBSERVER_E_CONFIG -2

// A system call failed; sys_errno of the error struct has its number.
#define WEBSERVER_E_IO -3

// A listener's address is in use or is not one of this machine's.
#define WEBSERVER_E_ADDRESS -4

// The kernel, io_uring, a limit on locked memory, or a feature that is not in this version.
#define WEBSERVER_E_UNSUPPORTED -5

// A limit of the process, of the configuration, or of the buffer that was passed.
#define WEBSERVER_E_LIMIT -6

// The memory budget does not allow it.
#define WEBSERVER_E_MEMORY -7

// The server is stopped, or the call is not allowed where it was made.
#define WEBSERVER_E_STATE -8

// A deadline passed.
#define WEBSERVER_E_TIMEOUT -9

// Called in the child after fork.
#define WEBSERVER_E_FORKED -10

// A bug in the library, caught.
#define WEBSERVER_E_PANIC -11

// Not now; try again later.
#define WEBSERVER_E_AGAIN -12

// What the call is about no longer exists.
#define WEBSERVER_E_GONE -13

// Something failed that an operator must look at.
#define WEBSERVER_LOG_ERROR 1

// Something is wrong and was survived.
#define WEBSERVER_LOG_WARN 2

// Start, reload, drain, stop.
#define WEBSERVER_LOG_INFO 3

// Per connection.
#define WEBSERVER_LOG_DEBUG 4

// Per event.
#define WEBSERVER_LOG_TRACE 5

// Less than 70 % of the memory budget is held.
#define WEBSERVER_PRESSURE_NORMAL 0

// From 70 %: the server's caches shrink.
#define WEBSERVER_PRESSURE_ELEVATED 1

// From 85 %: idle connections are closed, nothing new is cached.
#define WEBSERVER_PRESSURE_HIGH 2

// From 95 %: new connections are refused, and a quarter of those that there are is closed.
#define WEBSERVER_PRESSURE_CRITICAL 3

// The handler runs on the thread that serves the connection, which serves nobody else meanwhile: it must not
// block and should return within some hundred microseconds. It costs no thread switch.
#define WEBSERVER_HANDLER_INLINE 1

// The handler runs on a worker thread and may block. Not in this version.
#define WEBSERVER_HANDLER_BLOCKING 2

// A handler returns this when it has called webserver_reply.
#define WEBSERVER_DONE 0

// The request is not this handler's: the next route that matches is asked, and without one the answer is 404.
#define WEBSERVER_NEXT 1

// The reply comes later. Not in this version: the answer is 500.
#define WEBSERVER_DEFERRED 2

// The server accepts connections.
#define WEBSERVER_STATE_RUNNING 0

// The server accepts no more and finishes what is in progress.
#define WEBSERVER_STATE_DRAINING 1

// The server's threads have ended.
#define WEBSERVER_STATE_STOPPED 2

// A configuration: built with the webserver_config_ functions, started with webserver_start, freed with
// webserver_config_free at any time after that. It may be started several times and changed in between.
typedef struct webserver_config webserver_config;

// A request, and the reply to it, during the call of its handler.
typedef struct webserver_request webserver_request;

// A running server: made by webserver_start, ended and freed by webserver_stop.
typedef struct webserver_server webserver_server;

// What went wrong, in a struct of yours. Initialise it with WEBSERVER_ERROR_INIT; one struct may serve many
// calls. A call writes it only when it fails.
typedef struct webserver_error {
    // sizeof(webserver_error) as you compiled it. Fields that later versions add are written only when it
    // covers them; the fields below always are.
    uint32_t size;
    // The status code that the call returned.
    int32_t code;
    // errno of the system call that failed, or 0.
    int32_t sys_errno;
    // Line in the configuration, from 1; 0 when the error has no place there.
    uint32_t line;
    // Column in characters, from 1; 0 when the error has no place there.
    uint32_t column;
    // One line for people, "FILE:LINE:COLUMN: message" or "message". NUL-terminated UTF-8, cut to fit.
    char text[256];
} webserver_error;

// Takes one line of the diagnostic log. `level` is one of the WEBSERVER_LOG_ numbers, `target` the part of
// the library that speaks, `message` the line without a newline: `length` bytes of UTF-8 and then a NUL,
// which `length` does not count. Both strings live for the call.
//
// It runs on any thread of the library, on several at once, and on yours inside a call. It should return
// soon, since a shard serves nobody meanwhile; it must not throw, longjmp or end its thread.
typedef void (*webserver_log_fn)(void *user, int level, const char *target, const char *message, size_t length);

// Hears that the level of memory pressure has changed. `level` is one of the WEBSERVER_PRESSURE_ numbers,
// `used` and `budget` are bytes. A level is left 5 % of the budget below where it was entered, so it does not
// come and go with each request; levels may be skipped.
//
// It runs on a thread of the server's own, never twice at once for one server. Beside what any callback may
// call it may call webserver_memory_charge and webserver_memory_release. It should return soon, because the
// level is not looked at meanwhile; it must not throw, longjmp or end its thread.
typedef void (*webserver_pressure_fn)(void *user, int level, uint64_t used, uint64_t budget);

// Bytes of a request: not NUL-terminated, and only there during the call of the handler. `data` is NULL when the
// request does not have what was asked for, and not NULL when it is there and empty.
typedef struct webserver_slice {
    // The first byte.
    const char *data;
    // Number of bytes.
    size_t length;
} webserver_slice;

// Answers one request: reads it with the webserver_request_ functions, calls webserver_reply, and returns
// WEBSERVER_DONE; or returns WEBSERVER_NEXT without a reply. Any other number, WEBSERVER_DONE without a reply and
// WEBSERVER_NEXT after one are answered with 500 and reported in the log.
//
// `request` and everything read from it end with the call: keep no pointer to them, and use them on this thread
// alone. It runs on the server's threads, on several at once when there are several shards. Of the library's
// functions it may call those of the request and webserver_version, webserver_abi_version and
// webserver_strerror; all others answer WEBSERVER_E_STATE, or do nothing. It must not throw, longjmp or end its
// thread: a C++ handler catches every exception before it returns, since one that leaves it has no defined effect.
typedef int (*webserver_handler_fn)(void *user, struct webserver_request *request);

// Figures of a running server. Counters count from its start and do not wrap; everything else is as of now.
// The figures are read one after the other while the server works, so sums may be off by what happened
// meanwhile. Figures of features that this version lacks are 0. Later versions add fields at the end.
typedef struct webserver_stats {
    // How many bytes of this struct are filled.
    uint32_t size;
    // Threads that serve.
    uint32_t shards;
    // Memory pressure: 0 normal, 1 elevated, 2 high, 3 critical.
    uint32_t pressure;
    // One of the WEBSERVER_STATE_ numbers.
    uint32_t state;
    // The memory budget.
    uint64_t memory_budget_bytes;
    // What is accounted against the budget.
    uint64_t memory_used_bytes;
    // The most that was ever accounted.
    uint64_t memory_peak_bytes;
    // The library's heap.
    uint64_t memory_heap_bytes;
    // Resident memory of the whole process, yours included.
    uint64_t memory_rss_bytes;
    // Connections with a request in progress, or new ones that have sent none yet.
    uint64_t connections_active;
    // Connections that have answered a request and wait for the next.
    uint64_t connections_idle;
    // Connections accepted.
    uint64_t connections_accepted;
    // Connections refused or closed because a limit was reached.
    uint64_t connections_shed;
    // Requests answered.
    uint64_t requests;
    // Bytes received from clients.
    uint64_t bytes_received;
    // Bytes sent to clients.
    uint64_t bytes_sent;
    // Buffers in use: 4 KB, 16 KB, 64 KB.
    uint64_t buffers_allocated[3];
    // Buffers kept for the next use: 4 KB, 16 KB, 64 KB.
    uint64_t buffers_available[3];
    // Entries of the open-file cache.
    uint64_t open_file_cache_entries;
    // Bytes of responses kept in memory.
    uint64_t response_cache_bytes;
    // TLS sessions kept for resumption.
    uint64_t tls_session_cache_entries;
    // Errors on the server's side: failed system calls and caught bugs.
    uint64_t errors;
} webserver_stats;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of the interface that the library implements. Compare it with WEBSERVER_ABI_VERSION, the one
// that you compiled against: a library with a greater or equal number will do.
//
// Any thread, also inside a callback and after fork. Does not block and cannot fail.
uint32_t webserver_abi_version(void);

// The version of the library, for example "0.1.0". The string is the library's.
//
// Any thread, also inside a callback and after fork. Does not block and cannot fail.
const char *webserver_version(void);

// A short English name for a status code, never NULL. The string is the library's.
//
// Any thread, also inside a callback and after fork. Does not block and cannot fail.
const char *webserver_strerror(int code);

// Counts `bytes` of your own memory against the server's budget, before you allocate them: under pressure the
// server gives up its caches and then connections for them. Nothing is counted when they do not fit.
// Give back what was counted with webserver_memory_release; what is left ends with the server.
//
// Any thread, also in callbacks and handlers, until webserver_stop begins. Does not block. Errors:
// WEBSERVER_E_MEMORY (it does not fit).
int webserver_memory_charge(struct webserver_server *server, size_t bytes);

// Gives back bytes that webserver_memory_charge has counted; of more, as many as are counted. A NULL `server`
// is ignored.
//
// Any thread, also in callbacks and handlers, until webserver_stop begins. Does not block.
void webserver_memory_release(struct webserver_server *server, size_t bytes);

// Makes a configuration with every default. `*out` is yours; free it with webserver_config_free.
//
// Any thread. Does not block.
int webserver_config_new(struct webserver_config **out, struct webserver_error *err);

// Frees a configuration. NULL is ignored. Servers started from it go on.
//
// One thread at a time, and the last call on this configuration. Does not block.
void webserver_config_free(struct webserver_config *config);

// Reads a YAML file and merges it: its keys win over earlier ones, its lists replace earlier ones. Relative
// paths in it start at its folder. On failure the configuration is unchanged.
//
// One thread at a time. Blocks for the file. Errors: WEBSERVER_E_CONFIG (with line and column),
// WEBSERVER_E_UNSUPPORTED (a key of a later version), WEBSERVER_E_IO.
int webserver_config_load_file(struct webserver_config *config,
                               const char *path,
                               struct webserver_error *err);

// Like webserver_config_load_file, from `length` bytes of text, which need no NUL. Relative paths start at
// the working directory.
//
// One thread at a time. Does not block. Errors: as webserver_config_load_file.
int webserver_config_load_yaml(struct webserver_config *config,
                               const char *text,
                               size_t length,
                               struct webserver_error *err);

// Sets one key: a dotted name such as "timeouts.idle" and a value that is read as YAML, such as "75s".
// "listen" replaces all listeners; "root" is short for a route "/" with that root. On failure the
// configuration is unchanged.
//
// One thread at a time. Does not block. Errors: as webserver_config_load_file.
int webserver_config_set(struct webserver_config *config,
                         const char *key,
                         const char *value,
                         struct webserver_error *err);

// Adds a listener on a socket that you opened: a stream socket that is bound and listening. The descriptor
// is duplicated and yours stays yours; closing it later does not disturb the server. webserver_port finds
// the listener by `name`.
//
// One thread at a time. Does not block. Errors: WEBSERVER_E_INVALID (not a descriptor of a listening
// socket), WEBSERVER_E_CONFIG (the name is taken), WEBSERVER_E_LIMIT (no descriptor left), WEBSERVER_E_IO.
int webserver_config_add_listen_fd(struct webserver_config *config,
                                   const char *name,
                                   int fd,
                                   struct webserver_error *err);

// Adds a certificate to a listener and makes it HTTPS. `certificate` is PEM text, the server's own certificate first
// and the intermediate ones after it; `key` is the PEM text of its private key, not encrypted. Both are copied, need
// no NUL and have at most 512 KB. Your copy may be wiped at once; ours is freed with the configuration and the
// servers that were started or reloaded from it.
//
// `address` is a listener's address as written in the configuration, or the name given to
// webserver_config_add_listen_fd; NULL is every listener that was configured or added before, or the default address
// when none was. A listener's first certificate is its default; further ones, 256 in all, are chosen by the name that
// a client asks for. Other keys of "tls", such as "versions" and "client_ca", may be configured before, with
// "certificates" or without. "listen", loaded or set later, replaces listeners together with their certificates.
//
// What is in the texts is looked at by webserver_start and webserver_reload, which answer WEBSERVER_E_CONFIG to a
// certificate that has expired or a key that belongs to another. To renew one, make a new configuration with it and
// call webserver_reload: new connections get it, those that are open go on.
//
// One thread at a time. Does not block. Errors, after which the configuration is unchanged: WEBSERVER_E_INVALID (no
// such listener, or a text that is not PEM), WEBSERVER_E_CONFIG (a text that is too long or cut off, too many
// certificates).
int webserver_config_add_certificate(struct webserver_config *config,
                                     const char *address,
                                     const char *certificate,
                                     size_t certificate_length,
                                     const char *key,
                                     size_t key_length,
                                     struct webserver_error *err);

// Sends the diagnostic log of servers that are started from this configuration to `log`, lines of
// `max_level` and more severe (a WEBSERVER_LOG_ number). NULL or a level below WEBSERVER_LOG_ERROR turns it
// off, which is the default. `log` and what `user` points to must live until the configuration and every
// server started from it are gone; after a WEBSERVER_E_TIMEOUT from webserver_stop, for good.
//
// One thread at a time. Does not block. A NULL `config` is ignored.
void webserver_config_set_log(struct webserver_config *config,
                              webserver_log_fn log,
                              int max_level,
                              void *user);

// Has servers that are started from this configuration call `pressure` when their level of memory pressure
// changes. They begin at normal and do not tell that. NULL turns it off, which is the default. `pressure` and
// what `user` points to must live until the configuration and every server started from it are gone; after a
// WEBSERVER_E_TIMEOUT from webserver_stop, for good. Several servers may call at once.
//
// One thread at a time. Does not block. A NULL `config` is ignored.
void webserver_config_on_pressure(struct webserver_config *config,
                                  webserver_pressure_fn pressure,
                                  void *user);

// The method as sent, for example "GET".
//
// The handler's thread, during its call. Does not block and cannot fail.
struct webserver_slice webserver_request_method(const struct webserver_request *request);

// The path, decoded once and with its dot segments and repeated slashes resolved: begins with "/" and holds no NUL.
// It need not be UTF-8.
//
// The handler's thread, during its call. Does not block and cannot fail.
struct webserver_slice webserver_request_path(const struct webserver_request *request);

// The whole request target as sent, query included; in rare requests an absolute URL.
//
// The handler's thread, during its call. Does not block and cannot fail.
struct webserver_slice webserver_request_target(const struct webserver_request *request);

// What follows the first "?" of the target, not decoded; `data` is NULL when there is no "?".
//
// The handler's thread, during its call. Does not block and cannot fail.
struct webserver_slice webserver_request_query(const struct webserver_request *request);

// The address of who asks, without port: "192.0.2.1", "2001:db8::1", or "unix:" for a unix socket.
//
// The handler's thread, during its call. Does not block and cannot fail.
struct webserver_slice webserver_request_peer(const struct webserver_request *request);

// The version that the request was sent with: "HTTP/1.1" or "HTTP/1.0". Later versions may add others.
//
// The handler's thread, during its call. Does not block and cannot fail.
struct webserver_slice webserver_request_version(const struct webserver_request *request);

// The whole body with chunks put together; empty when there is none. It is never longer than limits.body_bytes:
// a client that sends more gets 413, and no handler is called.
//
// The handler's thread, during its call. Does not block and cannot fail.
struct webserver_slice webserver_request_body(const struct webserver_request *request);

// The value of the first header field with this name, in any case, without the spaces around it; `data` is NULL
// when there is none and when `name` is NULL.
//
// The handler's thread, during its call. Does not block and cannot fail.
struct webserver_slice webserver_request_header(const struct webserver_request *request,
                                                const char *name);

// Adds a header field to the reply that webserver_reply will make. The same name may be added several times. Both
// strings are copied. Content-Length, Date and what concerns the connection (Connection, Keep-Alive,
// Transfer-Encoding, Trailer, Upgrade) are the server's own.
//
// The handler's thread, during its call. Does not block. Errors: WEBSERVER_E_INVALID (the name is not a token
// or the server's own, the value holds a control character; nothing is added), WEBSERVER_E_LIMIT (16 KB of fields),
// WEBSERVER_E_STATE (the reply was made).
int webserver_reply_header(struct webserver_request *request,
                           const char *name,
                           const char *value);

// Makes the reply: a status from 200 to 599 and a body of `length` bytes, which is copied. To a HEAD request the
// body is left out and its length told; with 204, 205 and 304 it is left out. It is sent after the handler has
// returned WEBSERVER_DONE.
//
// The handler's thread, once during its call. Does not block. Errors: WEBSERVER_E_INVALID (the status; `body` is NULL
// and `length` not 0), WEBSERVER_E_LIMIT (more than 64 MB), WEBSERVER_E_MEMORY (the memory budget has no room for the
// body now; a body of up to 4 KB needs none), WEBSERVER_E_STATE (the reply was made already, and stays as it was).
int webserver_reply(struct webserver_request *request,
                    int status,
                    const void *body,
                    size_t length);

// Whether the request came over TLS: 1 or 0, and 0 for NULL.
//
// The handler's thread, during its call. Does not block and cannot fail.
int webserver_request_is_tls(const struct webserver_request *request);

// Whether the connection resumed an earlier session of its client instead of a full handshake: 1 or 0, and 0 without
// TLS.
//
// The handler's thread, during its call. Does not block and cannot fail.
int webserver_request_tls_resumed(const struct webserver_request *request);

// The version of TLS: "TLSv1.2" or "TLSv1.3"; `data` is NULL without TLS. Later versions may add others.
//
// The handler's thread, during its call. Does not block and cannot fail.
struct webserver_slice webserver_request_tls_version(const struct webserver_request *request);

// The cipher suite by the name that IANA has for it, for example "TLS_AES_128_GCM_SHA256"; `data` is NULL without
// TLS.
//
// The handler's thread, during its call. Does not block and cannot fail.
struct webserver_slice webserver_request_tls_cipher(const struct webserver_request *request);

// The host that the client asked for when it connected (SNI, RFC 6066 3), in lower case; `data` is NULL when it
// asked for none, as clients do that were given an IP address, and without TLS. The Host of the request need not be
// the same.
//
// The handler's thread, during its call. Does not block and cannot fail.
struct webserver_slice webserver_request_tls_server_name(const struct webserver_request *request);

// The subject of the certificate that the client showed and that an authority of client_ca has signed, for example
// "CN=client 7,O=Example,C=DE" (RFC 4514): printable ASCII, whatever the certificate holds, and at most 1 KB. `data` is
// NULL when the client showed none, when its subject is longer, and without TLS.
//
// The handler's thread, during its call. Does not block and cannot fail.
struct webserver_slice webserver_request_tls_client_subject(const struct webserver_request *request);

// That certificate, DER, without the intermediate ones; `data` is NULL when the client showed none and without TLS.
//
// The handler's thread, during its call. Does not block and cannot fail.
struct webserver_slice webserver_request_tls_client_certificate(const struct webserver_request *request);

// Adds a handler. `method` is in capitals, or NULL for every method; a handler for "GET" gets HEAD requests too,
// unless another has those. `path` begins with "/" and is compared with the path after decoding: exactly, or as a
// prefix when it ends in "/*" ("/a/*" is all that begins with "/a/"). It answers on every host. `flags` is
// WEBSERVER_HANDLER_INLINE. `user` is passed to each call, untouched.
//
// Handlers and configured routes are asked in this order: the longest path first; an exact path before a prefix
// of its length; a handler before a route; a handler for one method before one for all. When handlers have the path
// and none has the method, and no later route matches, the answer is 405.
//
// `drop`, unless NULL, is called once with `user` when this configuration and every server that was started or
// reloaded from it are gone, or have been reloaded from another: from inside the call that let go of it, or on a
// thread of the library. The rules for handlers hold for it. After WEBSERVER_E_TIMEOUT from webserver_stop it
// is never called. When this function fails, `user` stays yours.
//
// One thread at a time. Does not block. Servers that run already get it by webserver_reload. Errors:
// WEBSERVER_E_INVALID (a path that no request can have, no method, unknown flags, or a path and method that have a
// handler), WEBSERVER_E_UNSUPPORTED (WEBSERVER_HANDLER_BLOCKING), WEBSERVER_E_LIMIT (1024 handlers).
int webserver_config_add_handler(struct webserver_config *config,
                                 const char *method,
                                 const char *path,
                                 uint32_t flags,
                                 webserver_handler_fn handler,
                                 void *user,
                                 void (*drop)(void *user),
                                 struct webserver_error *err);

// Starts a server on threads of its own and returns once every listener accepts. `*out` is yours; end it
// with webserver_stop. What the server needs is copied, so `config` may be changed or freed afterwards.
// When it fails, nothing is left running.
//
// Any thread; `config` must not be changed meanwhile. Blocks until the server runs or its start deadline
// passes; files of certificates are read meanwhile. Errors: WEBSERVER_E_CONFIG (it does not fit together, or a
// certificate cannot be used: the text says which and why), WEBSERVER_E_ADDRESS (the text names it),
// WEBSERVER_E_UNSUPPORTED (io_uring or locked memory; the text names the setting), WEBSERVER_E_LIMIT
// (descriptors), WEBSERVER_E_IO, WEBSERVER_E_TIMEOUT.
int webserver_start(const struct webserver_config *config,
                    struct webserver_server **out,
                    struct webserver_error *err);

// The TCP port of a listener, as the kernel gave it when the configuration says 0. `address` is the address
// as written in the configuration, the name given to webserver_config_add_listen_fd, "admin", or NULL for
// the first listener.
//
// Any thread, until webserver_stop begins. Does not block. Errors: WEBSERVER_E_INVALID (no such
// listener, or a unix socket).
int webserver_port(const struct webserver_server *server, const char *address, uint16_t *out);

// Takes over another configuration, all or nothing: routes, handlers, headers, limits, timeouts, certificates, the
// number of connections and the sizes of caches and pools; the log gets a line for each key that is different.
// Another change is an error that names the key, and the server goes on as it was. Files of certificates are read
// again. The callbacks for the log and for memory pressure stay those that the server was started with.
//
// Any thread, until webserver_stop begins; `config` is not kept and must not be changed meanwhile. Blocks
// until every shard has the new configuration. Errors: WEBSERVER_E_CONFIG, WEBSERVER_E_UNSUPPORTED,
// WEBSERVER_E_LIMIT, WEBSERVER_E_IO, WEBSERVER_E_TIMEOUT, WEBSERVER_E_STATE (draining).
int webserver_reload(struct webserver_server *server,
                     const struct webserver_config *config,
                     struct webserver_error *err);

// Opens the log files anew by their paths, both or none: call it after a rotation has renamed them. No line
// is lost and none is torn. Lines handed over before the call are in the old files when it returns, which may
// then be compressed or moved; later ones will be in the new ones. Without log files it does nothing. A log
// callback is not concerned.
//
// Any thread, until webserver_stop begins. Blocks while the files are opened, and for at most five seconds
// until the lines before are written. Errors: WEBSERVER_E_IO (a file cannot be opened: the text names it,
// and the old files stay in use), WEBSERVER_E_TIMEOUT (storage hangs: the new files take over when it does
// not any more).
int webserver_reopen_logs(struct webserver_server *server, struct webserver_error *err);

// Begins to drain: no new connection is accepted, requests in progress are answered, idle connections are
// closed; one that was answered within the last second has another for a request that may be under way.
// webserver_stats_get tells how far it is. There is no way back; webserver_stop is still needed.
// Draining again changes nothing.
//
// Any thread, until webserver_stop begins. Does not block.
int webserver_drain(struct webserver_server *server);

// Stops a server and frees it: drains, cuts what is left when `timeout_ms` have passed (0: at once), joins
// every thread, closes every descriptor. It always returns. `server` is gone afterwards, also after
// WEBSERVER_E_TIMEOUT; inside a callback and after fork it stays.
//
// One thread, once, with no other call on this server in progress or to come. Blocks for `timeout_ms` and
// the moment that joining takes. Errors: WEBSERVER_E_TIMEOUT (a thread hangs, for instance in storage that
// does not answer: the log says which, and what that thread needs is kept for good).
int webserver_stop(struct webserver_server *server, uint32_t timeout_ms);

// Fills min(`size`, the library's own sizeof) bytes of `*out`, with how many those are in its `size`; pass
// sizeof(webserver_stats). A longer struct keeps its rest, so set it to zero first.
//
// Any thread, until webserver_stop begins. Does not block. Errors: WEBSERVER_E_INVALID (`size` below 4).
int webserver_stats_get(const struct webserver_server *server, struct webserver_stats *out, size_t size);

// Writes the server's metrics into `buffer` as NUL-terminated Prometheus text, the same that the admin
// listener serves. `*needed` becomes the size that the buffer must have, the NUL counted: on success, and
// also when the result is WEBSERVER_E_LIMIT because `capacity` is less, in which case `buffer` is
// untouched. `buffer` may be NULL when `capacity` is 0. The text grows with the numbers in it, so ask with
// room to spare.
//
// Any thread, until webserver_stop begins. Does not block. Errors: WEBSERVER_E_LIMIT.
int webserver_metrics_text(const struct webserver_server *server,
                           char *buffer,
                           size_t capacity,
                           size_t *needed);

// Writes the connections that hold most bytes into `buffer` as NUL-terminated JSON, the same that the admin
// listener serves at /connections.json: at most `limit` of them, which is from 1 to 1000. `buffer`,
// `capacity` and `needed` are as for webserver_metrics_text; each call asks anew, so leave room to spare:
// 400 bytes a connection are enough unless a listener's address is long.
//
// Any thread but those of the server, so not a handler, until webserver_stop begins. Blocks until every shard
// has answered, for a second at most; a shard that has not is left out and named. Errors:
// WEBSERVER_E_INVALID (limit), WEBSERVER_E_LIMIT (capacity), WEBSERVER_E_STATE.
int webserver_connections_json(const struct webserver_server *server,
                               size_t limit,
                               char *buffer,
                               size_t capacity,
                               size_t *needed);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* WEBSERVER_H */
