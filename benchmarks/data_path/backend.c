/* A backend that is no bottleneck: several SGLang-like servers in one thread, with fixed answers.
 *
 * usage: backend FIRST_PORT PORTS
 *
 * Model calls get a short fixed completion. Their usage is what the prepared requests would cost on a worker that knows
 * their shared prefix: a token for every 4 bytes of the body, half of them cached. Routers that learn from usage would
 * otherwise be told that every long prompt has 100 tokens and that nothing of it was found. With "stream":true they get max_tokens events (default 64), all at once, or
 * one every `seed` x 0.1 ms when the body has a seed; then usage where the body asks for it, and [DONE]. The control routes that routers ask for answer what
 * an idle worker would. GET /stats: model calls and connections per port. Reads fixed-length and chunked bodies.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_FD 65536
#define MAX_PORTS 64

struct connection {
  int fd, port;
  char *in, *out;
  size_t in_len, in_cap, out_len, out_sent, out_cap;
  int streaming, wants_usage;
  long events_left, prompt_tokens;
  int64_t gap_ns, due_ns;
};

static struct connection *connections[MAX_FD];
static int listening_port[MAX_FD], paced[MAX_FD], paced_count, epoll_fd, first_port;
static uint64_t calls[MAX_PORTS], opened[MAX_PORTS], open_now;

static const char EVENT_JSON[] =
    "data: {\"id\":\"chatcmpl-mock\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"mock\","
    "\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"},\"finish_reason\":null}]}\n\n";
static const char USAGE_JSON[] =
    "data: {\"id\":\"chatcmpl-mock\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"mock\","
    "\"choices\":[],\"usage\":{\"prompt_tokens\":%ld,\"total_tokens\":%ld,\"completion_tokens\":64,"
    "\"prompt_tokens_details\":{\"cached_tokens\":%ld}}}\n\n";
static const char ANSWER_JSON[] =
    "{\"id\":\"chatcmpl-mock\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"mock\",\"choices\":"
    "[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"A short fixed answer for benchmarks of routers.\","
    "\"tool_calls\":null},\"logprobs\":null,\"finish_reason\":\"stop\",\"matched_stop\":2}],\"usage\":{\"prompt_tokens\":"
    "%ld,\"total_tokens\":%ld,\"completion_tokens\":20,\"prompt_tokens_details\":{\"cached_tokens\":%ld}}}";

static const char *const CONTROL[][2] = {
    {"/health", "{\"status\":\"ok\"}"},
    {"/ping", "{\"status\":\"ok\"}"},
    {"/v1/models", "{\"object\":\"list\",\"data\":[{\"id\":\"mock\",\"object\":\"model\",\"created\":1700000000,"
                   "\"owned_by\":\"sglang\",\"root\":\"mock\",\"max_model_len\":131072}]}"},
    {"/get_model_info", "{\"model_path\":\"mock\",\"tokenizer_path\":\"mock\",\"is_generation\":true}"},
    {"/model_info", "{\"model_path\":\"mock\",\"tokenizer_path\":\"mock\",\"is_generation\":true}"},
    {"/get_server_info", "{\"model_path\":\"mock\",\"served_model_name\":\"mock\",\"tp_size\":1,\"dp_size\":1,"
                         "\"version\":\"0.5.21\",\"max_total_num_tokens\":1000000,\"enable_cache_report\":true,"
                         "\"disaggregation_mode\":\"null\",\"internal_states\":[{\"load\":0}]}"},
    {"/server_info", "{\"model_path\":\"mock\",\"served_model_name\":\"mock\",\"tp_size\":1,\"dp_size\":1,"
                     "\"version\":\"0.5.21\",\"max_total_num_tokens\":1000000,\"enable_cache_report\":true,"
                     "\"disaggregation_mode\":\"null\",\"internal_states\":[{\"load\":0}]}"},
    {"/version", "{\"version\":\"0.5.21\"}"},
    {"/get_load", "[{\"dp_rank\":0,\"num_reqs\":0,\"num_waiting_reqs\":0,\"num_tokens\":0}]"},
    {"/v1/loads", "{\"timestamp\":\"2026-01-01T00:00:00\",\"version\":\"0.5.21\",\"dp_rank_count\":1,\"loads\":[{"
                  "\"dp_rank\":0,\"num_running_reqs\":0,\"num_waiting_reqs\":0,\"num_total_reqs\":0,"
                  "\"num_used_tokens\":0,\"max_total_num_tokens\":1000000,\"token_usage\":0.0,\"gen_throughput\":0.0,"
                  "\"cache_hit_rate\":0.0,\"utilization\":0.0,\"max_running_requests\":1024}]}"},
    {"/flush_cache", "{}"},
};

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void watch(int fd, int operation, uint32_t what) {
  struct epoll_event event = {what, {.fd = fd}};
  epoll_ctl(epoll_fd, operation, fd, &event);
}

static void unpace(int fd) {
  for (int i = 0; i < paced_count; i++)
    if (paced[i] == fd) { paced[i] = paced[--paced_count]; return; }
}

static void drop(struct connection *c) {
  open_now--;
  unpace(c->fd);
  connections[c->fd] = NULL;
  close(c->fd);
  free(c->in), free(c->out), free(c);
}

static int put(struct connection *c, const char *data, size_t size) {
  if (c->out_len == c->out_sent) {
    ssize_t n = send(c->fd, data, size, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) return -1;
    if (n == (ssize_t)size) return 0;
    if (n > 0) data += n, size -= n;
    c->out_len = c->out_sent = 0;
  }
  if (c->out_len + size > c->out_cap) c->out = realloc(c->out, c->out_cap = (c->out_len + size) * 2);
  memcpy(c->out + c->out_len, data, size);
  c->out_len += size;
  watch(c->fd, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
  return 0;
}

static int put_json(struct connection *c, const char *status, const char *body) {
  char answer[4096];
  int n = snprintf(answer, sizeof answer, "HTTP/1.1 %s\r\ncontent-type: application/json\r\nserver: mock\r\n"
                   "content-length: %zu\r\n\r\n%s", status, strlen(body), body);
  return put(c, answer, n);
}

static int put_chunk(struct connection *c, const char *data, size_t size) {
  char chunk[1024];
  return put(c, chunk, snprintf(chunk, sizeof chunk, "%zx\r\n%.*s\r\n", size, (int)size, data));
}

/* Sends what is due of a stream: one event, or its end. */
static int stream_step(struct connection *c) {
  if (c->events_left-- > 0) {
    c->due_ns += c->gap_ns;
    return put_chunk(c, EVENT_JSON, sizeof EVENT_JSON - 1);
  }
  c->streaming = 0;
  unpace(c->fd);
  if (c->wants_usage) {
    char usage[512];
    int n = snprintf(usage, sizeof usage, USAGE_JSON, c->prompt_tokens, c->prompt_tokens + 64, c->prompt_tokens / 2);
    if (put_chunk(c, usage, n)) return -1;
  }
  return put(c, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n", 24);
}

static long number_after(const char *body, size_t size, const char *key, long missing) {
  const char *p = memmem(body, size, key, strlen(key));
  return p ? strtol(p + strlen(key), NULL, 10) : missing;
}

static int model_call(struct connection *c, const char *body, size_t size) {
  static const char head[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                             "transfer-encoding: chunked\r\n\r\n";
  calls[c->port - first_port]++;
  c->prompt_tokens = size / 4 + 1;
  if (!memmem(body, size, "\"stream\":true", 13) && !memmem(body, size, "\"stream\": true", 14)) {
    char answer[1024];
    snprintf(answer, sizeof answer, ANSWER_JSON, c->prompt_tokens, c->prompt_tokens + 20, c->prompt_tokens / 2);
    return put_json(c, "200 OK", answer);
  }
  if (put(c, head, sizeof head - 1)) return -1;
  c->streaming = 1;
  c->wants_usage = memmem(body, size, "include_usage", 13) != NULL;
  c->events_left = number_after(body, size, "\"max_tokens\":", 64);
  c->gap_ns = number_after(body, size, "\"seed\":", 0) * 100000LL;
  c->due_ns = now_ns();
  if (c->gap_ns) paced[paced_count++] = c->fd;
  while (c->streaming && !c->gap_ns) if (stream_step(c)) return -1;
  return c->streaming ? stream_step(c) : 0;
}

static int stats(struct connection *c) {
  char body[2048];
  int n = snprintf(body, sizeof body, "{\"open\":%lu,\"calls\":[", open_now);
  for (int i = 0; i < 8; i++) n += snprintf(body + n, sizeof body - n, "%s%lu", i ? "," : "", calls[i]);
  n += snprintf(body + n, sizeof body - n, "],\"connections\":[");
  for (int i = 0; i < 8; i++) n += snprintf(body + n, sizeof body - n, "%s%lu", i ? "," : "", opened[i]);
  snprintf(body + n, sizeof body - n, "]}");
  return put_json(c, "200 OK", body);
}

static int answer(struct connection *c, char *head, const char *body, size_t size) {
  char *path = strchr(head, ' ');
  if (!path++) return -1; /* not HTTP/1: some routers try gRPC first */
  size_t length = strcspn(path, " ?");
  path[length] = 0;
  if (head[0] == 'P' && (!strncmp(path, "/v1/chat", 8) || !strcmp(path, "/v1/completions") || !strcmp(path, "/generate")))
    return model_call(c, body, size);
  if (!strcmp(path, "/stats")) return stats(c);
  if (!strcmp(path, "/metrics")) return put_json(c, "200 OK", "");
  for (size_t i = 0; i < sizeof CONTROL / sizeof *CONTROL; i++)
    if (!strcmp(path, CONTROL[i][0])) return put_json(c, "200 OK", CONTROL[i][1]);
  return put_json(c, "404 Not Found", "{\"detail\":\"Not Found\"}");
}

/* Joins the chunks of a body in place. Returns its size, -1 when it is not complete; *used is what it took. */
static ssize_t join_chunks(char *body, size_t have, size_t *used) {
  size_t read = 0, written = 0;
  for (;;) {
    char *line = memmem(body + read, have - read, "\r\n", 2);
    if (!line) return -1;
    size_t size = strtol(body + read, NULL, 16), data = line + 2 - body;
    if (data + size + 2 > have) return -1;
    if (!size) { *used = data + 2; break; }
    read = data + size + 2;
  }
  for (read = 0; read < *used;) {
    size_t size = strtol(body + read, NULL, 16), data = (char *)memmem(body + read, have - read, "\r\n", 2) + 2 - body;
    memmove(body + written, body + data, size);
    written += size, read = data + size + 2;
  }
  return written;
}

/* Answers every complete request that has come; waits while a stream runs. */
static int handle(struct connection *c) {
  while (!c->streaming && c->in_len) {
    char *end = memmem(c->in, c->in_len, "\r\n\r\n", 4);
    if (!end) return 0;
    char *body = end + 4;
    size_t have = c->in_len - (body - c->in), used = 0;
    *end = 0;
    char *length = strcasestr(c->in, "\ncontent-length:");
    ssize_t size = length ? atol(length + 16) : 0;
    if (strcasestr(c->in, "\ntransfer-encoding:")) size = join_chunks(body, have, &used);
    else used = size;
    if (size < 0 || used > have) { *end = '\r'; return 0; }
    if (answer(c, c->in, body, size)) return -1;
    c->in_len = have - used;
    memmove(c->in, body + used, c->in_len);
  }
  return 0;
}

static int readable(struct connection *c) {
  for (;;) {
    if (c->in_cap - c->in_len < 8192) c->in = realloc(c->in, (c->in_cap *= 2) + 1);
    size_t room = c->in_cap - c->in_len;
    ssize_t n = recv(c->fd, c->in + c->in_len, room, 0);
    if (n < 0 && errno == EAGAIN) break;
    if (n <= 0) return -1;
    c->in[c->in_len += n] = 0;
    if ((size_t)n < room) break;
  }
  return handle(c);
}

static int writable(struct connection *c) {
  ssize_t n = send(c->fd, c->out + c->out_sent, c->out_len - c->out_sent, MSG_NOSIGNAL);
  if (n < 0) return errno == EAGAIN ? 0 : -1;
  if ((c->out_sent += n) == c->out_len) {
    c->out_len = c->out_sent = 0;
    watch(c->fd, EPOLL_CTL_MOD, EPOLLIN);
  }
  return 0;
}

static void accept_all(int listener) {
  for (int fd, on = 1; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
    if (fd >= MAX_FD) { close(fd); continue; }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct connection *c = calloc(1, sizeof *c);
    c->fd = fd, c->port = listening_port[listener], c->in_cap = 16384, c->in = malloc(c->in_cap + 1);
    connections[fd] = c;
    open_now++, opened[c->port - first_port]++;
    watch(fd, EPOLL_CTL_ADD, EPOLLIN);
  }
}

static void listen_on(int port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096)) { perror("bind"); exit(1); }
  listening_port[fd] = port;
  watch(fd, EPOLL_CTL_ADD, EPOLLIN);
}

static void send_due(void) {
  static int due[MAX_FD];
  int count = 0;
  int64_t at_ns = now_ns();
  for (int i = 0; i < paced_count; i++)
    if (connections[paced[i]]->due_ns <= at_ns) due[count++] = paced[i];
  for (int i = 0; i < count; i++) {
    struct connection *c = connections[due[i]];
    if (stream_step(c) || (!c->streaming && handle(c))) drop(c);
  }
}

static struct timespec *until_due(struct timespec *wait) {
  if (!paced_count) return NULL;
  int64_t first_ns = INT64_MAX;
  for (int i = 0; i < paced_count; i++)
    if (connections[paced[i]]->due_ns < first_ns) first_ns = connections[paced[i]]->due_ns;
  int64_t left_ns = first_ns - now_ns();
  if (left_ns < 0) left_ns = 0;
  *wait = (struct timespec){left_ns / 1000000000, left_ns % 1000000000};
  return wait;
}

int main(int argc, char **argv) {
  if (argc != 3 || atoi(argv[2]) > MAX_PORTS) { fprintf(stderr, "usage: backend FIRST_PORT PORTS\n"); return 2; }
  signal(SIGPIPE, SIG_IGN);
  epoll_fd = epoll_create1(0);
  first_port = atoi(argv[1]);
  for (int i = 0; i < atoi(argv[2]); i++) listen_on(first_port + i);
  for (;;) {
    struct timespec wait;
    struct epoll_event ready[256];
    int n = epoll_pwait2(epoll_fd, ready, 256, until_due(&wait), NULL);
    if (paced_count) send_due();
    for (int i = 0; i < n; i++) {
      int fd = ready[i].data.fd;
      if (listening_port[fd]) { accept_all(fd); continue; }
      struct connection *c = connections[fd];
      if (!c) continue;
      if ((ready[i].events & EPOLLOUT) && writable(c)) { drop(c); continue; }
      if ((ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && readable(c)) drop(c);
    }
  }
}
