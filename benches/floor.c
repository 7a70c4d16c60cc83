/* The floor: what one thread, one edge-triggered epoll set and the TCP stack cost when nothing is parsed or
 * looked up. Every CRLF CRLF received is answered with the same bytes. Usage: floor PORT [BODY_BYTES]; prints
 * the port. Not a server: a head split over two segments is missed, a socket that is full is closed. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { BATCH = 64, BODY_BYTES_MAX = 16384 }; /* requests answered by one send; longest body */
static char received[65536], answers[BATCH * (BODY_BYTES_MAX + 256)];

int main(int argc, char **argv) {
  int port = argc > 1 ? atoi(argv[1]) : 0, body = argc > 2 ? atoi(argv[2]) : 13, on = 1;
  if (body < 0 || body > BODY_BYTES_MAX) return 2;
  char *one = answers;
  size_t size = (size_t)sprintf(one, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Type: text/plain\r\n\r\n", body);
  for (int i = 0; i < body; i++) one[size++] = "Hello, World!"[i % 13];
  for (int i = 1; i < BATCH; i++) memcpy(answers + i * size, one, size);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), set = epoll_create1(EPOLL_CLOEXEC);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, (struct sockaddr *)&address, length) || listen(listener, 4096)) return perror("floor"), 1;
  getsockname(listener, (struct sockaddr *)&address, &length);
  printf("%d\n", ntohs(address.sin_port)), fflush(stdout);
  struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.fd = listener}, events[256];
  epoll_ctl(set, EPOLL_CTL_ADD, listener, &event);
  for (;;) {
    for (int n = epoll_wait(set, events, 256, -1), i = 0; i < n; i++) {
      int fd = events[i].data.fd;
      if (fd == listener) {
        for (int peer; (peer = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
          setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
          event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, event.data.fd = peer;
          epoll_ctl(set, EPOLL_CTL_ADD, peer, &event);
        }
        continue;
      }
      ssize_t got;
      while ((got = recv(fd, received, sizeof received, 0)) > 0) {
        size_t heads = 0;
        for (char *at = received; (at = memmem(at, (size_t)(received + got - at), "\r\n\r\n", 4)); at += 4) heads++;
        for (; heads; heads -= heads < BATCH ? heads : BATCH) {
          size_t bytes = (heads < BATCH ? heads : BATCH) * size;
          if (send(fd, answers, bytes, MSG_NOSIGNAL) != (ssize_t)bytes) goto gone;
        }
        if (got < (ssize_t)sizeof received && !(events[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))) break;
      }
      if (got == 0) {
      gone:
        close(fd);
      }
    }
  }
}
