/* An inline handler that answers BODY_BYTES bytes from memory, in a host that links libwebserver: what
 * microhttpd.c does with libmicrohttpd. Usage: handler PORT BODY_BYTES. Ends with its process. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "webserver.h"

static char body[65536];
static size_t body_bytes;

static int answer(void *user, webserver_request *request) {
  (void)user;
  if (webserver_reply_header(request, "Content-Type", "text/plain")) return -1;
  return webserver_reply(request, 200, body, body_bytes) ? -1 : WEBSERVER_DONE;
}

int main(int argc, char **argv) {
  if (argc != 3 || (body_bytes = (size_t)atoi(argv[2])) > sizeof body) return 2;
  for (size_t i = 0; i < body_bytes; i++) body[i] = "Hello, World!"[i % 13];
  char address[32];
  snprintf(address, sizeof address, "127.0.0.1:%s", argv[1]);
  webserver_error err = WEBSERVER_ERROR_INIT;
  webserver_config *config;
  webserver_server *server;
  if (webserver_config_new(&config, &err) || webserver_config_set(config, "listen", address, &err)
      || webserver_config_set(config, "shards", "1", &err)
      || webserver_config_add_handler(config, "GET", "/*", WEBSERVER_HANDLER_INLINE, answer, NULL, NULL, &err)
      || webserver_start(config, &server, &err))
    return fprintf(stderr, "%s\n", err.text), 1;
  for (;;) pause();
}
