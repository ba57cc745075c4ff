/* UDP load for the benchmarks: a sender, a receiver, and a naive relay.  loads.py compiles and runs it.
 *
 *     load send ADDRESS PORT SIZE SECONDS RATE TRAIN SOURCE [PREFIX]    prints sent=... seconds=...
 *     load receive PORT SECONDS GRO                                     prints ready, then received=... bytes=... seconds=...
 *     load relay PORT FROM TO PORT_OF_TO [FROM TO PORT_OF_TO ...]       prints ready, and runs until it is ended
 *
 * SIZE is the payload of one datagram in bytes; RATE datagrams a second, 0 for as fast as possible; TRAIN how many of
 * them one call sends (UDP_SEGMENT), 1 for single ones; SOURCE the port to send from, 0 for any; PREFIX the first
 * bytes of every datagram, as hexadecimal digits.  The receiver ends after SECONDS, or half a second after the last of
 * the datagrams it got.  The relay knows the sender by its address, and takes and sends one datagram per call.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef SOL_UDP
#define SOL_UDP 17
#endif
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103 /* linux/udp.h */
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum { LARGEST = 65507, BUFFER = 4 << 20, BATCH = 32, ROOM = 65536, PAIRS = 64, IDLE_MS = 500 };

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static _Noreturn void usage(void)
{
    fprintf(stderr, "usage: load send ADDRESS PORT SIZE SECONDS RATE TRAIN SOURCE [PREFIX]\n"
                    "       load receive PORT SECONDS GRO\n"
                    "       load relay PORT FROM TO PORT_OF_TO [FROM TO PORT_OF_TO ...]\n");
    exit(2);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct sockaddr_in address(const char *text, int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (text && inet_pton(AF_INET, text, &a.sin_addr) != 1) {
        errno = EINVAL;
        die(text);
    }
    return a;
}

static int bound(int port)
{
    int fd = socket(AF_INET, SOCK_DGRAM, 0), size = BUFFER;
    struct sockaddr_in here = address(NULL, port);
    if (fd < 0)
        die("socket");
    /* the FORCE variants pass the machine's limit; without the right to, as much as it gives */
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size))
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size))
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    if (bind(fd, (struct sockaddr *)&here, sizeof here))
        die("bind");
    return fd;
}

/* ---- send ---------------------------------------------------------------------------------------------------- */

static size_t put_prefix(unsigned char *out, size_t size, const char *digits)
{
    size_t n = 0;
    unsigned value;
    for (; digits[0] && digits[1] && n < size; digits += 2, n++) {
        if (sscanf(digits, "%2x", &value) != 1)
            usage();
        out[n] = (unsigned char)value;
    }
    return n;
}

static int send_load(int argc, char **argv)
{
    static unsigned char data[LARGEST + 1];
    if (argc < 9)
        usage();
    const int size = atoi(argv[4]), train = atoi(argv[7]);
    const double seconds = atof(argv[5]), rate = atof(argv[6]);
    if (size < 1 || train < 1 || (long)size * train > LARGEST)
        usage();
    struct sockaddr_in to = address(argv[2], atoi(argv[3]));
    int fd = bound(atoi(argv[8])), segment = size;
    for (int i = 0; argc > 9 && i < train; i++)
        put_prefix(data + (size_t)i * size, size, argv[9]);
    if (train > 1 && setsockopt(fd, SOL_UDP, UDP_SEGMENT, &segment, sizeof segment))
        die("UDP_SEGMENT");
    if (connect(fd, (struct sockaddr *)&to, sizeof to))
        die("connect");
    uint64_t sent = 0;
    const double start = now(), end = start + seconds;
    double at = start;
    for (int turn = 0;; turn++) {
        if (rate > 0 || turn % 16 == 0)
            at = now();
        if (at >= end)
            break;
        if (rate > 0 && (double)sent > (at - start) * rate) { /* ahead of time: wait for the next one's turn */
            double wait = (double)sent / rate - (at - start);
            if (wait > 1e-3) {
                struct timespec t = {.tv_nsec = (long)(wait < 0.1 ? wait * 1e9 : 1e8)};
                nanosleep(&t, NULL);
            }
            continue;
        }
        if (send(fd, data, (size_t)size * train, 0) < 0) {
            if (errno == EINTR || errno == ECONNREFUSED || errno == ENOBUFS)
                continue;
            die("send");
        }
        sent += (uint64_t)train;
    }
    printf("sent=%llu seconds=%.6f\n", (unsigned long long)sent, now() - start);
    return 0;
}

/* ---- receive ------------------------------------------------------------------------------------------------- */

static int segment_of(struct msghdr *m)
{
    int value = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c))
        if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO)
            memcpy(&value, CMSG_DATA(c), sizeof value);
    return value;
}

static int receive_load(int argc, char **argv)
{
    static unsigned char data[BATCH][ROOM];
    static char control[BATCH][CMSG_SPACE(sizeof(int))];
    struct mmsghdr messages[BATCH];
    struct iovec pieces[BATCH];
    if (argc < 5)
        usage();
    int fd = bound(atoi(argv[2])), gro = atoi(argv[4]);
    const double limit = now() + atof(argv[3]);
    if (gro && setsockopt(fd, SOL_UDP, UDP_GRO, &gro, sizeof gro))
        die("UDP_GRO");
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < BATCH; i++) {
        pieces[i] = (struct iovec){data[i], ROOM};
        messages[i].msg_hdr.msg_iov = &pieces[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    printf("ready\n");
    fflush(stdout);
    uint64_t received = 0, bytes = 0;
    double first = 0, last = 0, left;
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    while ((left = limit - now()) > 0) {
        int patience = (int)(left * 1000) + 1;
        if (received && patience > IDLE_MS)
            patience = IDLE_MS;
        int got = poll(&wait, 1, patience);
        if (got < 0 && errno != EINTR)
            die("poll");
        if (got == 0 && received)
            break;
        if (got <= 0)
            continue;
        for (int i = 0; i < BATCH; i++) {
            messages[i].msg_hdr.msg_control = gro ? control[i] : NULL;
            messages[i].msg_hdr.msg_controllen = gro ? sizeof control[i] : 0;
        }
        got = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
        if (got <= 0)
            continue;
        last = now();
        if (!received)
            first = last;
        for (int i = 0; i < got; i++) {
            unsigned size = messages[i].msg_len;
            int segment = gro ? segment_of(&messages[i].msg_hdr) : 0;
            received += segment > 0 ? (size + segment - 1) / segment : 1;
            bytes += size;
        }
    }
    printf("received=%llu bytes=%llu seconds=%.6f\n", (unsigned long long)received, (unsigned long long)bytes,
           last - first);
    return 0;
}

/* ---- relay --------------------------------------------------------------------------------------------------- */

static _Noreturn void relay_load(int argc, char **argv)
{
    static unsigned char data[ROOM];
    struct sockaddr_in from[PAIRS], to[PAIRS], source;
    int pairs = (argc - 3) / 3;
    if (argc < 6 || (argc - 3) % 3 || pairs > PAIRS)
        usage();
    int fd = bound(atoi(argv[2]));
    for (int i = 0; i < pairs; i++) {
        from[i] = address(argv[3 + 3 * i], 0);
        to[i] = address(argv[4 + 3 * i], atoi(argv[5 + 3 * i]));
    }
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        socklen_t size = sizeof source;
        ssize_t n = recvfrom(fd, data, sizeof data, 0, (struct sockaddr *)&source, &size);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            die("recvfrom");
        }
        for (int i = 0; i < pairs; i++)
            if (from[i].sin_addr.s_addr == source.sin_addr.s_addr) {
                /* what the receiver's machine refuses or has no room for is lost, as anything else would be */
                sendto(fd, data, (size_t)n, 0, (struct sockaddr *)&to[i], sizeof to[i]);
                break;
            }
    }
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "send"))
        return send_load(argc, argv);
    if (argc > 1 && !strcmp(argv[1], "receive"))
        return receive_load(argc, argv);
    if (argc > 1 && !strcmp(argv[1], "relay"))
        relay_load(argc, argv);
    usage();
}
