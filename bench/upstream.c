/* A model server that costs next to nothing: one thread, epoll, answers prepared once.
 *
 *   upstream PORT
 *
 * The model's name says what it answers: bench, then -n<chunks> -d<milliseconds between them> -f<milliseconds before the first>
 * -b<bytes of a whole answer> -k1 (each chunk carries the microsecond at which it was sent: "@0000000000000000").
 * Every chunk is a send of its own, so that the gateway reads them as they would come from a server that thinks.
 * GET /stats tells streams begun, ended and cut, and when the last were cut (microseconds, CLOCK_MONOTONIC). */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define STREAM_HEAD "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
#define ID "\"id\":\"chatcmpl-bench0123456789abcdef\",\"created\":1790000000,\"model\":\"bench\""
#define EVENT "data: {" ID ",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":%s,\"logprobs\":null,\"finish_reason\":%s}]}\n\n"
#define USAGE "data: {" ID ",\"object\":\"chat.completion.chunk\",\"choices\":[],\"usage\":{\"prompt_tokens\":90,\"completion_tokens\":%d,\"total_tokens\":%d}}\n\n"
#define MAX_CONNECTIONS 20000
#define MAX_CUTS 4096

struct connection {
    int fd, place, count, pause, first, stamped, sent, open; /* place: in the list of streams, -1 outside */
    int64_t due;
    char *in, *out;
    size_t have, room, out_size, out_sent;
};

static int epoll, streaming;
static struct connection *streams[MAX_CONNECTIONS];
static long begun, ended, cut;
static int64_t cuts[MAX_CUTS];

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void listen_for(struct connection *c, uint32_t events) {
    struct epoll_event e = {events | EPOLLRDHUP, {.ptr = c}};
    epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &e);
}

static void leave(struct connection *c) {
    if (c->place < 0) return;
    streams[c->place] = streams[--streaming];
    streams[c->place]->place = c->place;
    c->place = -1;
}

static void drop(struct connection *c) {
    if (!c->open) return;
    if (c->place >= 0) {
        cuts[cut++ % MAX_CUTS] = now();
        leave(c);
    }
    close(c->fd);
    c->open = 0;
}

static void push(struct connection *c, const char *data, size_t size) { /* send, keep what does not fit */
    ssize_t did = c->out_size ? 0 : send(c->fd, data, size, MSG_NOSIGNAL);
    if (did < 0) {
        if (errno != EAGAIN) { drop(c); return; }
        did = 0;
    }
    if ((size_t)did == size) return;
    c->out = realloc(c->out, c->out_size + size - did);
    memcpy(c->out + c->out_size, data + did, size - did);
    c->out_size += size - did;
    listen_for(c, EPOLLIN | EPOLLOUT);
}

static void frame(struct connection *c, const char *event) {
    char framed[1024];
    int size = snprintf(framed, sizeof framed, "%zx\r\n%s\r\n", strlen(event), event);
    push(c, framed, size);
}

static void step(struct connection *c) { /* one chunk, and the end after the last */
    char event[600], delta[80];
    if (c->stamped) snprintf(delta, sizeof delta, "{\"content\":\"@%016lld quick\"}", (long long)now());
    else snprintf(delta, sizeof delta, "{\"content\":\"quick \\\"b\\\"\"}");
    snprintf(event, sizeof event, EVENT, delta, "null");
    frame(c, event);
    if (++c->sent < c->count || !c->open) return;
    snprintf(event, sizeof event, EVENT, "{}", "\"stop\"");
    frame(c, event);
    snprintf(event, sizeof event, USAGE, c->count, c->count + 90);
    frame(c, event);
    static const char last[] = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";
    if (c->open) push(c, last, sizeof last - 1);
    if (c->open) { leave(c); ended++; }
}

static int knob(const char *name, char letter, int otherwise) {
    char key[3] = {'-', letter, 0};
    const char *at = strstr(name, key);
    return at ? atoi(at + 2) : otherwise;
}

static void whole(struct connection *c, const char *body, size_t size) {
    char head[160];
    int n = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n", size);
    char *all = malloc(n + size);
    memcpy(all, head, n);
    memcpy(all + n, body, size);
    push(c, all, n + size);
    free(all);
}

static void stats(struct connection *c) {
    char *text = malloc(200 + MAX_CUTS * 22);
    int n = sprintf(text, "{\"begun\":%ld,\"ended\":%ld,\"cut\":%ld,\"running\":%d,\"cuts\":[", begun, ended, cut, streaming);
    long kept = cut < MAX_CUTS ? cut : MAX_CUTS;
    for (long i = 0; i < kept; i++) n += sprintf(text + n, "%s%lld", i ? "," : "", (long long)cuts[i]);
    n += sprintf(text + n, "]}");
    whole(c, text, n);
    free(text);
}

static void answer(struct connection *c, char *head, char *body, size_t size) {
    char name[64] = "bench";
    if (!strncmp(head, "GET /stats", 10)) { stats(c); return; }
    if (head[0] == 'G') {
        static const char models[] = "{\"object\":\"list\",\"data\":[{\"id\":\"bench\",\"object\":\"model\",\"created\":1,\"owned_by\":\"vllm\"}]}";
        whole(c, models, sizeof models - 1);
        return;
    }
    char *model = memmem(body, size, "\"model\":", 8);
    if (model && (model = memchr(model + 8, '"', 4))) sscanf(model + 1, "%63[^\"]", name);
    if (!memmem(body, size, "\"stream\":true", 13) && !memmem(body, size, "\"stream\": true", 14)) {
        int bytes = knob(name, 'b', 1000);
        char *text = malloc(bytes + 600);
        char *said = malloc(bytes + 1);
        memset(said, 'x', bytes);
        said[bytes] = 0;
        for (int i = 6; i < bytes; i += 7) said[i] = ' ';
        int n = sprintf(text, "{" ID ",\"object\":\"chat.completion\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"%s\"},"
            "\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":90,\"completion_tokens\":100,\"total_tokens\":190}}", said);
        whole(c, text, n);
        free(said);
        free(text);
        return;
    }
    begun++;
    c->count = knob(name, 'n', 200), c->pause = knob(name, 'd', 0) * 1000, c->stamped = knob(name, 'k', 0), c->sent = 0;
    c->due = now() + knob(name, 'f', 0) * 1000;
    push(c, STREAM_HEAD, sizeof STREAM_HEAD - 1);
    if (!c->open) return;
    c->place = streaming;
    streams[streaming++] = c;
}

static void take(struct connection *c) { /* whole requests out of what has arrived */
    while (c->open && c->place < 0 && c->have) {
        char *end = memmem(c->in, c->have, "\r\n\r\n", 4);
        if (!end) return;
        size_t head = end + 4 - c->in, size = 0;
        *end = 0;
        char *length = strcasestr(c->in, "\r\ncontent-length:");
        if (length) size = strtoul(length + 17, NULL, 10);
        *end = '\r';
        if (c->have < head + size) return;
        answer(c, c->in, c->in + head, size);
        memmove(c->in, c->in + head + size, c->have - head - size);
        c->have -= head + size;
    }
}

static void arrived(struct connection *c) {
    for (;;) {
        if (c->room - c->have < 4096) c->in = realloc(c->in, (c->room = c->room ? c->room * 2 : 8192) + 1);
        ssize_t got = recv(c->fd, c->in + c->have, c->room - c->have, 0);
        if (got <= 0) {
            if (got == 0 || errno != EAGAIN) drop(c);
            break;
        }
        c->have += got;
    }
    take(c);
}

static void flush(struct connection *c) {
    ssize_t did = send(c->fd, c->out + c->out_sent, c->out_size - c->out_sent, MSG_NOSIGNAL);
    if (did < 0 && errno != EAGAIN) { drop(c); return; }
    if (did > 0) c->out_sent += did;
    if (c->out_sent < c->out_size) return;
    c->out_size = c->out_sent = 0;
    listen_for(c, EPOLLIN);
    take(c);
}

static int64_t advance(void) { /* every stream that is due; the time until the next is */
    int64_t t = now(), next = t + 1000000;
    for (int i = streaming - 1; i >= 0; i--) {
        if (i >= streaming) continue;
        struct connection *c = streams[i];
        for (int burst = 0; burst < 16 && c->place >= 0 && c->due <= t && !c->out_size; burst++) {
            step(c);
            c->due += c->pause;
        }
        if (c->place < 0) { if (c->open) take(c); }
        else if (c->out_size) continue; /* its reader is behind: EPOLLOUT goes on */
        else if (c->due < next) next = c->due;
    }
    return next - now();
}

int main(int argc, char **argv) {
    int port = argc > 1 ? atoi(argv[1]) : 9000, on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 4096)) { perror("upstream"); return 1; }
    epoll = epoll_create1(0);
    struct epoll_event e = {EPOLLIN, {.ptr = NULL}}, found[512];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &e);
    for (;;) {
        int64_t wait = streaming ? advance() : 1000000;
        struct timespec pause = {wait > 0 ? wait / 1000000 : 0, wait > 0 ? wait % 1000000 * 1000 : 0};
        int count = epoll_pwait2(epoll, found, 512, &pause, NULL);
        for (int i = 0; i < count; i++) {
            struct connection *c = found[i].data.ptr;
            if (!c) {
                int fd;
                while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                    c = calloc(1, sizeof *c); /* never freed: an event may still name it, and runs are short */
                    c->fd = fd, c->place = -1, c->open = 1;
                    struct epoll_event add = {EPOLLIN | EPOLLRDHUP, {.ptr = c}};
                    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &add);
                }
                continue;
            }
            if (c->open && found[i].events & EPOLLOUT && c->out_size) flush(c);
            if (c->open && found[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) arrived(c);
        }
    }
}
