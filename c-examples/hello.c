/* The smallest host: serves the built-in page, or the folder given, on http://127.0.0.1:8080. */
#include <stdio.h>

#include "webserver.h"

int main(int argc, char **argv) {
    webserver_error err = WEBSERVER_ERROR_INIT;
    webserver_config *config = NULL;
    webserver_server *server = NULL;
    if (webserver_config_new(&config, &err) || (argc > 1 && webserver_config_set(config, "root", argv[1], &err)) ||
        webserver_start(config, &server, &err))
        return fprintf(stderr, "%s\n", err.text), 1;
    webserver_config_free(config);
    puts("http://127.0.0.1:8080 (Enter stops)");
    getchar();
    return webserver_stop(server, 5000) != WEBSERVER_OK;
}
