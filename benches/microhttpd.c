/* What handler.c does with libwebserver, with libmicrohttpd: one thread with epoll, a response made and copied for
 * each request, as a handler does whose answers differ. Usage: microhttpd PORT BODY_BYTES. Ends with its process. */
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char body[65536];
static size_t body_bytes;

static enum MHD_Result answer(void *user, struct MHD_Connection *connection, const char *url, const char *method,
                              const char *version, const char *data, size_t *size, void **state) {
  static int seen;
  (void)user, (void)url, (void)method, (void)version, (void)data, (void)size;
  if (*state == NULL) { /* the head alone; an answer queued now would end the connection after it */
    *state = &seen;
    return MHD_YES;
  }
  struct MHD_Response *response = MHD_create_response_from_buffer(body_bytes, body, MHD_RESPMEM_MUST_COPY);
  if (!response) return MHD_NO;
  MHD_add_response_header(response, "Content-Type", "text/plain");
  enum MHD_Result queued = MHD_queue_response(connection, MHD_HTTP_OK, response);
  MHD_destroy_response(response);
  return queued;
}

int main(int argc, char **argv) {
  if (argc != 3 || (body_bytes = (size_t)atoi(argv[2])) > sizeof body) return 2;
  for (size_t i = 0; i < body_bytes; i++) body[i] = "Hello, World!"[i % 13];
  struct MHD_Daemon *daemon =
      MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD, (unsigned short)atoi(argv[1]), NULL, NULL, answer, NULL,
                       MHD_OPTION_CONNECTION_LIMIT, 16384u, MHD_OPTION_END);
  if (!daemon) return fprintf(stderr, "libmicrohttpd does not start\n"), 1;
  for (;;) pause();
}
