/* HTTP/1.1 load for one router: replays prepared requests over kept connections and times the answers.
 *
 * usage: load PORT CONNECTIONS REQUESTS RATE MAX_SECONDS FILE
 *
 * RATE 0 is a closed loop: every connection sends its next request when the last is answered. RATE > 0 is an open loop
 * of that many requests a second; latency then counts from the moment a request was due. FILE is a run of
 * [u32 length][raw request]; a run of eight '@' in a request is overwritten with a counter, so that none is equal.
 * Prints one line of JSON: done, bad (status not 200), errors (connection lost), seconds, requests/s, events (empty
 * lines in chunked bodies), and microseconds to the first body byte and to the end of the answer.
 * Client sockets have TCP_NODELAY; acknowledgements are the kernel's own.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum state { HEADERS, FIXED_BODY, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER };

struct connection {
  int fd, busy, status;
  enum state state;
  const char *request;
  size_t request_len, request_sent;
  int64_t started_ns, first_byte_ns;
  char head[16384];
  size_t head_len;
  long left;
  char last;
};

struct request { size_t offset, counter_at; uint32_t length; };

static int epoll_fd, port;
static char *file;
static struct request *requests;
static long request_count, sent, done, bad, errors, timed;
static unsigned counter;
static uint64_t events;
static int64_t *total_ns, *first_ns;

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void watch(struct connection *c, int operation, uint32_t what) {
  struct epoll_event event = {what, {.ptr = c}};
  epoll_ctl(epoll_fd, operation, c->fd, &event);
}

static void open_connection(struct connection *c) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int on = 1;
  c->fd = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(c->fd, (struct sockaddr *)&address, sizeof address)) { perror("connect"); exit(1); }
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  fcntl(c->fd, F_SETFL, O_NONBLOCK);
  c->busy = 0;
  watch(c, EPOLL_CTL_ADD, EPOLLIN);
}

static void send_more(struct connection *c) {
  while (c->request_sent < c->request_len) {
    ssize_t n = send(c->fd, c->request + c->request_sent, c->request_len - c->request_sent, MSG_NOSIGNAL);
    if (n < 0) {
      if (errno == EAGAIN) watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
      return;
    }
    c->request_sent += n;
  }
}

static void start(struct connection *c, int64_t at_ns) {
  struct request *r = &requests[sent++ % request_count];
  if (r->counter_at) {
    char digits[9];
    snprintf(digits, sizeof digits, "%08x", counter++);
    memcpy(file + r->counter_at, digits, 8);
  }
  c->request = file + r->offset;
  c->request_len = r->length;
  c->request_sent = 0;
  c->busy = 1;
  c->started_ns = at_ns;
  c->first_byte_ns = 0;
  c->state = HEADERS;
  c->head_len = 0;
  c->last = 0;
  send_more(c);
}

static void finish(struct connection *c) {
  int64_t at_ns = now_ns();
  if (c->status != 200 && bad++ < 3) fprintf(stderr, "status %d: %.300s\n", c->status, c->head);
  total_ns[timed] = at_ns - c->started_ns;
  first_ns[timed++] = (c->first_byte_ns ? c->first_byte_ns : at_ns) - c->started_ns;
  done++;
  c->busy = 0;
}

static void count_events(struct connection *c, const char *data, size_t size) {
  char before = c->last;
  for (const char *p = data; (p = memchr(p, '\n', size - (p - data))); p++)
    if ((p == data ? before : p[-1]) == '\n') events++;
  c->last = data[size - 1];
}

/* Reads the status and headers; returns bytes used, 0 when more are needed, -1 when they make no sense. */
static ssize_t read_head(struct connection *c, const char *data, size_t size) {
  size_t room = sizeof c->head - 1 - c->head_len, take = size < room ? size : room, old = c->head_len;
  memcpy(c->head + old, data, take);
  c->head_len += take;
  c->head[c->head_len] = 0;
  char *end = strstr(c->head + (old > 3 ? old - 3 : 0), "\r\n\r\n");
  if (!end) return take == room ? -1 : 0;
  end[2] = 0;
  c->status = atoi(c->head + 9);
  char *length = strcasestr(c->head, "\ncontent-length:");
  if (length) {
    c->left = atol(length + 16);
    c->state = FIXED_BODY;
  } else if (strcasestr(c->head, "transfer-encoding: chunked")) {
    c->state = CHUNK_SIZE;
  } else {
    return -1;
  }
  size_t used = end + 4 - c->head - old;
  c->head_len = 0;
  return used;
}

/* Consumes bytes of an answer. Returns 1 at its end, 0 when more is to come, -1 when it makes no sense. */
static int feed(struct connection *c, const char *p, size_t n) {
  while (n) {
    size_t take;
    char byte;
    switch (c->state) {
      case HEADERS: {
        ssize_t used = read_head(c, p, n);
        if (used <= 0) return used;
        p += used, n -= used;
        if (c->state == FIXED_BODY && !c->left) return 1;
        break;
      }
      case FIXED_BODY:
      case CHUNK_DATA:
        if (!c->first_byte_ns) c->first_byte_ns = now_ns();
        take = n < (size_t)c->left ? n : (size_t)c->left;
        if (c->state == CHUNK_DATA) count_events(c, p, take);
        c->left -= take, p += take, n -= take;
        if (!c->left && c->state == FIXED_BODY) return 1;
        if (!c->left) c->state = CHUNK_END;
        break;
      case CHUNK_SIZE:
        byte = *p++, n--;
        if (byte != '\n') { if (c->head_len < 32) c->head[c->head_len++] = byte; break; }
        c->head[c->head_len] = 0, c->head_len = 0;
        c->left = strtol(c->head, NULL, 16);
        c->state = c->left ? CHUNK_DATA : TRAILER;
        break;
      case CHUNK_END:
        byte = *p++, n--;
        if (byte == '\n') c->state = CHUNK_SIZE;
        break;
      case TRAILER:
        byte = *p++, n--;
        if (byte == '\n') return 1;
        break;
    }
  }
  return 0;
}

static void replace(struct connection *c, int was_busy) {
  if (was_busy) { errors++, done++; if (errors < 4) fprintf(stderr, "connection lost during a request\n"); }
  close(c->fd);
  open_connection(c);
}

static void readable(struct connection *c, int closed_loop, long limit) {
  static char buffer[262144];
  ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0) {
    replace(c, c->busy);
  } else if (c->busy) {
    int ended = feed(c, buffer, n);
    if (!ended) return;
    if (ended < 0) replace(c, 1); else finish(c);
  } else {
    return;
  }
  if (closed_loop && sent < limit && !c->busy) start(c, now_ns());
}

static void load_requests(const char *path) {
  int fd = open(path, O_RDONLY);
  struct stat info;
  if (fd < 0 || fstat(fd, &info)) { perror(path); exit(1); }
  file = mmap(NULL, info.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_POPULATE, fd, 0);
  for (size_t at = 0; at < (size_t)info.st_size;) {
    requests = realloc(requests, ++request_count * sizeof *requests);
    struct request *r = &requests[request_count - 1];
    memcpy(&r->length, file + at, 4);
    r->offset = at + 4;
    char *mark = memmem(file + r->offset, r->length, "@@@@@@@@", 8);
    r->counter_at = mark ? (size_t)(mark - file) : 0;
    at += 4 + r->length;
  }
}

static int ascending(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return x < y ? -1 : x > y;
}

static double quantile_us(int64_t *sorted, double q) { return timed ? sorted[(long)((timed - 1) * q)] / 1000.0 : 0; }

int main(int argc, char **argv) {
  if (argc != 7) { fprintf(stderr, "usage: load PORT CONNECTIONS REQUESTS RATE MAX_SECONDS FILE\n"); return 2; }
  port = atoi(argv[1]);
  long connections = atol(argv[2]), limit = atol(argv[3]);
  double rate = atof(argv[4]), max_s = atof(argv[5]);
  load_requests(argv[6]);
  counter = (unsigned)(now_ns() / 1000000) * 4096u;
  total_ns = malloc(8 * (limit + 10)), first_ns = malloc(8 * (limit + 10));
  epoll_fd = epoll_create1(0);
  struct connection *all = calloc(connections, sizeof *all);
  for (long i = 0; i < connections; i++) open_connection(&all[i]);
  int64_t began_ns = now_ns(), end_ns = began_ns + (int64_t)(max_s * 1e9), next_ns = began_ns;
  int64_t gap_ns = rate > 0 ? (int64_t)(1e9 / rate) : 0;
  if (!gap_ns) for (long i = 0; i < connections && sent < limit; i++) start(&all[i], now_ns());
  while (done < limit && now_ns() < end_ns) {
    struct timespec wait = {0, 200000000};
    if (gap_ns && sent < limit) {
      long i = 0;
      for (; sent < limit && next_ns <= now_ns(); next_ns += gap_ns) {
        while (i < connections && all[i].busy) i++;
        if (i == connections) break;
        start(&all[i], next_ns);
      }
      int64_t left_ns = next_ns - now_ns();
      if (i < connections) wait.tv_nsec = left_ns < 0 ? 0 : left_ns < 200000000 ? left_ns : 200000000;
    }
    struct epoll_event ready[256];
    int n = epoll_pwait2(epoll_fd, ready, 256, &wait, NULL);
    for (int i = 0; i < n; i++) {
      struct connection *c = ready[i].data.ptr;
      if (ready[i].events & EPOLLOUT) {
        send_more(c);
        if (c->request_sent == c->request_len) watch(c, EPOLL_CTL_MOD, EPOLLIN);
      }
      if (ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(c, !gap_ns, limit);
    }
  }
  double seconds = (now_ns() - began_ns) / 1e9;
  qsort(total_ns, timed, 8, ascending);
  qsort(first_ns, timed, 8, ascending);
  printf("{\"done\":%ld,\"bad\":%ld,\"errors\":%ld,\"seconds\":%.4f,\"rate\":%.1f,\"events\":%lu,"
         "\"p50_us\":%.1f,\"p99_us\":%.1f,\"first_p50_us\":%.1f,\"first_p99_us\":%.1f}\n",
         done, bad, errors, seconds, done / seconds, events, quantile_us(total_ns, .5), quantile_us(total_ns, .99),
         quantile_us(first_ns, .5), quantile_us(first_ns, .99));
}
