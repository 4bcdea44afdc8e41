/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The load generator for persistent-reservation helpers: each connection is a thread that sends
 * READ KEYS for a device, waits for the answer, and sends the next, as QEMU does. Prints one line
 * of JSON. Without a socket the same command goes to the device itself (SG_IO): what is possible.
 *
 * usage: pr-load [--socket PATH] --device PATH [--connections N] [--seconds S] [--idle N]
 *
 * --idle opens so many connections more, sends one command on each, and keeps them.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <scsi/sg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define CDB_BYTES 16
#define ANSWER_HEAD 104
#ifndef ALLOCATION
#define ALLOCATION 8192
#endif
#define SAMPLES_MAX 4000000

typedef struct Load {
    const char *socket;
    int device;
    unsigned connections;
    unsigned idle;
    double seconds;
    pthread_barrier_t start;
} Load;

typedef struct Client {
    Load *load;
    pthread_t thread;
    uint64_t *samples;
    size_t n, allocated;
    uint32_t status; /* of the last answer */
} Client;

static const uint8_t read_keys[CDB_BYTES] = {
    0x5e, 0, 0, 0, 0, 0, 0, ALLOCATION >> 8, ALLOCATION & 0xff};

static void die(const char *what)
{
    fprintf(stderr, "pr-load: %s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* ---- one command ----------------------------------------------------------------------- */

static void read_whole(int fd, uint8_t *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = read(fd, bytes, len);

        if (n <= 0)
            die("the helper has closed the connection");
        bytes += n;
        len -= (size_t)n;
    }
}

static int connect_helper(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    uint8_t features[4] = {0};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        die(path);
    read_whole(fd, features, sizeof(features));
    if (write(fd, features, sizeof(features)) != sizeof(features))
        die(path);
    return fd;
}

static uint32_t ask_helper(int fd, int device)
{
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    struct iovec iov = {.iov_base = (void *)read_keys, .iov_len = CDB_BYTES};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    uint8_t answer[ANSWER_HEAD + ALLOCATION];
    uint32_t size;

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &device, sizeof(int));
    if (sendmsg(fd, &message, MSG_NOSIGNAL) != CDB_BYTES)
        die("sendmsg");
    read_whole(fd, answer, ANSWER_HEAD);
    size = (uint32_t)answer[4] << 24 | (uint32_t)answer[5] << 16 | (uint32_t)answer[6] << 8 |
           answer[7];
    if (size > ALLOCATION)
        die("an answer that is too long");
    read_whole(fd, answer + ANSWER_HEAD, size);
    return answer[3];
}

static uint32_t ask_device(int device)
{
    uint8_t data[ALLOCATION], sense[96];
    struct sg_io_hdr io = {
        .interface_id = 'S',
        .cmd_len = CDB_BYTES,
        .cmdp = (unsigned char *)read_keys,
        .dxfer_direction = SG_DXFER_FROM_DEV,
        .dxfer_len = sizeof(data),
        .dxferp = data,
        .mx_sb_len = sizeof(sense),
        .sbp = sense,
        .timeout = 60000,
    };

    return ioctl(device, SG_IO, &io) < 0 ? 2 : io.status;
}

/* ---- many ------------------------------------------------------------------------------ */

static void client_note(Client *client, uint64_t ns)
{
    if (client->n == client->allocated) {
        client->allocated = client->allocated ? 2 * client->allocated : 4096;
        client->samples = realloc(client->samples, client->allocated * sizeof(uint64_t));
        if (!client->samples)
            die("memory");
    }
    client->samples[client->n++] = ns;
}

static void *client_run(void *data)
{
    Client *client = data;
    Load *load = client->load;
    int fd = load->socket ? connect_helper(load->socket) : -1;
    uint64_t end, begin, now;

    pthread_barrier_wait(&load->start);
    begin = now_ns();
    end = begin + (uint64_t)(load->seconds * 1e9);
    do {
        client->status = fd >= 0 ? ask_helper(fd, load->device) : ask_device(load->device);
        now = now_ns();
        client_note(client, now - begin);
        begin = now;
    } while (now < end);
    if (fd >= 0)
        close(fd);
    return NULL;
}

static int by_value(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

static void report(const Load *load, Client *clients)
{
    size_t n = 0;
    uint64_t *all;

    for (unsigned i = 0; i < load->connections; i++)
        n += clients[i].n;
    all = malloc(n * sizeof(uint64_t));
    if (!all)
        die("memory");
    n = 0;
    for (unsigned i = 0; i < load->connections; i++) {
        memcpy(all + n, clients[i].samples, clients[i].n * sizeof(uint64_t));
        n += clients[i].n;
    }
    qsort(all, n, sizeof(uint64_t), by_value);
    printf("{\"n\": %zu, \"per_s\": %.1f, \"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f, "
           "\"status\": %u}\n",
           n, (double)n / load->seconds, (double)all[n / 2] / 1e3, (double)all[n * 99 / 100] / 1e3,
           (double)all[n - 1] / 1e3, clients[0].status);
    fflush(stdout);
    free(all);
}

static void run(Load *load)
{
    Client *clients = calloc(load->connections, sizeof(Client));

    if (!clients)
        die("memory");
    pthread_barrier_init(&load->start, NULL, load->connections);
    for (unsigned i = 0; i < load->connections; i++) {
        clients[i].load = load;
        if (pthread_create(&clients[i].thread, NULL, client_run, &clients[i]) != 0)
            die("a thread");
    }
    for (unsigned i = 0; i < load->connections; i++)
        pthread_join(clients[i].thread, NULL);
    report(load, clients);
    for (unsigned i = 0; i < load->connections; i++)
        free(clients[i].samples);
    free(clients);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"socket", required_argument, NULL, 's'},      {"device", required_argument, NULL, 'd'},
        {"connections", required_argument, NULL, 'c'}, {"seconds", required_argument, NULL, 't'},
        {"idle", required_argument, NULL, 'i'},        {NULL, 0, NULL, 0}};
    Load load = {.device = -1, .connections = 1, .seconds = 1};
    int letter;

    while ((letter = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (letter == 's')
            load.socket = optarg;
        else if (letter == 'd')
            load.device = open(optarg, O_RDWR | O_CLOEXEC);
        else if (letter == 'c')
            load.connections = (unsigned)atoi(optarg);
        else if (letter == 't')
            load.seconds = atof(optarg);
        else if (letter == 'i')
            load.idle = (unsigned)atoi(optarg);
        else
            return 2;
    }
    if (load.device < 0 || load.connections == 0)
        die("--device and --connections");
    for (unsigned i = 0; load.socket && i < load.idle; i++)
        ask_helper(connect_helper(load.socket), load.device); /* stays open until the end */
    run(&load);
    return EXIT_SUCCESS;
}
