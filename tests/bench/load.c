/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The load generator of `make bench`: does what libvirt does with a lock daemon, stock or ours, and
 * prints one line of JSON with what it took. tests/bench/run starts it inside the daemon's
 * namespaces; the modes are at the end.
 *
 * Everything that only prepares or cleans up stays outside the measured time: calls are built and
 * files made before, locks are released after, and the daemon is given the time to deal with that.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

#define DISK_BYTES (1024 * 1024)
/* About as many descriptors as a QEMU has: whoever looks through them pays for them. */
#define OWNER_DESCRIPTORS 32
#define CALLS_OF_A_START 2 /* beside the acquires: register, restrict */

/* ---- what is measured with ------------------------------------------------------------- */

uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

void *allocate(size_t n, size_t size)
{
    void *data = calloc(n, size);

    if (!data)
        die("out of memory");
    return data;
}

void report(uint64_t *samples, unsigned n, uint64_t total_ns)
{
    qsort(samples, n, sizeof(samples[0]), by_value);
    printf("{\"n\": %u, \"p50_us\": %.2f, \"p99_us\": %.2f, \"max_us\": %.2f, \"total_s\": %.6f, "
           "\"per_s\": %.1f}\n",
           n, (double)samples[n / 2] / 1e3, (double)samples[(n * 99ULL) / 100] / 1e3,
           (double)samples[n - 1] / 1e3, (double)total_ns / 1e9, n / ((double)total_ns / 1e9));
}

/* ---- the stage ------------------------------------------------------------------------- */

/* A process to hold the locks: it lives as long as this one. */
static pid_t owner_start(void)
{
    pid_t parent = getpid();
    pid_t pid = fork();

    if (pid < 0)
        die_errno("fork");
    if (pid > 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(EXIT_FAILURE);
    for (int i = 0; i < OWNER_DESCRIPTORS; i++)
        if (eventfd(0, 0) < 0)
            _exit(EXIT_FAILURE);
    for (;;)
        pause();
}

static void make_disk(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0 || ftruncate(fd, DISK_BYTES) < 0)
        die_errno("cannot make %s", path);
    close(fd);
}

void make_disks(Load *load, unsigned n)
{
    load->paths = allocate(n, sizeof(char *));
    for (unsigned i = 0; i < n; i++) {
        int r = *load->space ? asprintf(&load->paths[i], "%064x", i)
                             : asprintf(&load->paths[i], "%s/disk-%u.img", load->dir, i);

        if (r < 0)
            die("out of memory");
        if (!*load->space)
            make_disk(load->paths[i]);
    }
}

static Call acquire_call(const Load *load, unsigned disk)
{
    return wire_acquire(load->space, load->paths[disk], *load->space ? WIRE_ACQUIRE_AUTOCREATE : 0);
}

static void announce_space(const Load *load)
{
    Call call = wire_create_lockspace(load->space);
    int fd;

    if (!*load->space)
        return;
    fd = wire_connect(load->socket, true);
    wire_call(fd, &call);
    close(fd);
    call_clear(&call);
}

/* Gives the disks from `first` on back, as somebody else would: on a connection of its own. */
static void release_disks(const Load *load, unsigned first, unsigned n)
{
    Call call = wire_register(load->owner, 1);
    int fd = wire_connect(load->socket, true);

    wire_call(fd, &call);
    call_clear(&call);
    for (unsigned i = first; i < first + n; i++) {
        call = wire_release(load->space, load->paths[i]);
        wire_call(fd, &call);
        call_clear(&call);
    }
    close(fd);
}

/* Lets the daemon see closed connections: when it answers twice, it has gone through its events. */
static void settle(int ping)
{
    Call call = wire_restrict(); /* refused on a connection that is not registered */

    wire_ping(ping, &call);
    wire_ping(ping, &call);
    call_clear(&call);
}

/* ---- VM starts, one after the other ------------------------------------------------------ */

int run_start(Load *load)
{
    unsigned n = load->disks + CALLS_OF_A_START;
    Call *calls = allocate(n, sizeof(Call));
    uint64_t *samples = allocate(load->count, sizeof(samples[0])), total = 0;
    int ping = wire_connect(load->socket, true);

    make_disks(load, load->disks);
    announce_space(load);
    calls[0] = wire_register(load->owner, 1);
    for (unsigned i = 0; i < load->disks; i++)
        calls[i + 1] = acquire_call(load, i);
    calls[n - 1] = wire_restrict();
    for (unsigned k = 0; k < load->count; k++) {
        uint64_t begin = now_ns();
        int fd = wire_connect(load->socket, true);

        for (unsigned i = 0; i < n; i++)
            wire_call(fd, &calls[i]);
        samples[k] = now_ns() - begin;
        total += samples[k];
        close(fd);
        release_disks(load, 0, load->disks);
        settle(ping);
    }
    report(samples, load->count, total);
    return EXIT_SUCCESS;
}

int run_native(Load *load)
{
    uint64_t *samples = allocate(load->count, sizeof(samples[0])), total = 0;
    Call release = native_release(load->owner);
    Call acquire;

    make_disks(load, load->disks);
    acquire = native_acquire(load->owner, load->paths, load->disks);
    for (unsigned k = 0; k < load->count; k++) {
        uint64_t begin = now_ns();
        int fd = native_connect(load->socket);

        native_call(fd, &acquire);
        samples[k] = now_ns() - begin;
        total += samples[k];
        native_call(fd, &release);
        close(fd);
        close(native_connect(load->socket)); /* it has seen the close before */
    }
    report(samples, load->count, total);
    return EXIT_SUCCESS;
}

/* ---- VM starts, many at once ------------------------------------------------------------- */

/* One start under way: as many calls as run_start() makes, each sent when the one before is
 * answered. */
typedef struct Start {
    int fd; /* -1: to be connected */
    unsigned index;
    unsigned step;
    size_t have;
    uint8_t reply[4096];
    uint64_t begin;
} Start;

typedef struct Burst {
    const Load *load;
    int epoll;
    Call first, last, *acquires;
    Start *starts;
    unsigned begun, done, unconnected;
    uint64_t *samples;
} Burst;

static const Call *burst_call(const Burst *burst, const Start *start)
{
    unsigned disks = burst->load->disks;

    if (start->step == 0)
        return &burst->first;
    if (start->step > disks)
        return &burst->last;
    return &burst->acquires[start->index * disks + start->step - 1];
}

static void burst_connect(Burst *burst, Start *start)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = start};

    start->fd = wire_connect(burst->load->socket, false);
    if (start->fd < 0)
        return;
    burst->unconnected--;
    if (epoll_ctl(burst->epoll, EPOLL_CTL_ADD, start->fd, &event) < 0)
        die_errno("epoll_ctl");
    wire_send(start->fd, burst_call(burst, start));
}

static void burst_begin(Burst *burst, Start *start)
{
    *start = (Start){.fd = -1, .index = burst->begun++, .begin = now_ns()};
    burst->unconnected++;
    burst_connect(burst, start);
}

static void burst_read(Burst *burst, Start *start)
{
    ssize_t n = recv(start->fd, start->reply + start->have, sizeof(start->reply) - start->have, 0);

    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0)
        die("the daemon closed the connection");
    start->have += (size_t)n;
    if (wire_reply(start->reply, start->have) == 0)
        return;
    wire_check(start->reply, start->have);
    start->have = 0;
    if (++start->step < burst->load->disks + CALLS_OF_A_START) {
        wire_send(start->fd, burst_call(burst, start));
        return;
    }
    burst->samples[burst->done++] = now_ns() - start->begin;
    close(start->fd);
    if (burst->begun < burst->load->count)
        burst_begin(burst, start);
}

static uint64_t burst_run(Burst *burst)
{
    struct epoll_event events[64];
    uint64_t begin = now_ns();

    for (unsigned i = 0; i < burst->load->at_once; i++)
        burst_begin(burst, &burst->starts[i]);
    while (burst->done < burst->load->count) {
        int n = epoll_wait(burst->epoll, events, 64, burst->unconnected ? 1 : -1);

        if (n < 0 && errno != EINTR)
            die_errno("epoll_wait");
        for (int i = 0; i < n; i++)
            burst_read(burst, events[i].data.ptr);
        for (unsigned i = 0; burst->unconnected > 0 && i < burst->load->at_once; i++)
            if (burst->starts[i].fd < 0)
                burst_connect(burst, &burst->starts[i]);
    }
    return now_ns() - begin;
}

int run_burst(Load *load)
{
    unsigned disks = load->count * load->disks;
    Burst burst = {.load = load, .epoll = epoll_create1(EPOLL_CLOEXEC)};
    uint64_t total;

    if (load->at_once > load->count)
        load->at_once = load->count;
    make_disks(load, disks);
    announce_space(load);
    burst.first = wire_register(load->owner, 1);
    burst.last = wire_restrict();
    burst.acquires = allocate(disks, sizeof(Call));
    burst.starts = allocate(load->at_once, sizeof(Start));
    burst.samples = allocate(load->count, sizeof(uint64_t));
    for (unsigned i = 0; i < disks; i++)
        burst.acquires[i] = acquire_call(load, i);
    total = burst_run(&burst);
    report(burst.samples, load->count, total);
    fflush(stdout);
    release_disks(load, 0, disks);
    return EXIT_SUCCESS;
}

/* ---- pairs, and locks that are held ------------------------------------------------------ */

/* Connections such as running VMs have: registered, restricted, and silent. */
static void open_idle(const Load *load)
{
    Call first = wire_register(load->owner, 1);
    Call last = wire_restrict();

    for (unsigned i = 0; i < load->idle; i++) {
        int fd = wire_connect(load->socket, true);

        wire_call(fd, &first);
        wire_call(fd, &last);
    }
    call_clear(&first);
    call_clear(&last);
}

int run_pairs(Load *load)
{
    uint64_t *samples = allocate(load->count, sizeof(samples[0])), begin;
    Call first = wire_register(load->owner, 1);
    Call acquire, release;
    int fd = wire_connect(load->socket, true);

    make_disks(load, 1);
    announce_space(load);
    open_idle(load);
    acquire = acquire_call(load, 0);
    release = wire_release(load->space, load->paths[0]);
    wire_call(fd, &first);
    begin = now_ns();
    for (unsigned k = 0; k < load->count; k++) {
        uint64_t since = now_ns();

        wire_call(fd, &acquire);
        samples[k] = now_ns() - since;
        wire_call(fd, &release);
    }
    report(samples, load->count, now_ns() - begin);
    return EXIT_SUCCESS;
}

/* Takes `count` locks and keeps them until standard input ends, then gives them back. */
int run_hold(Load *load)
{
    uint64_t begin = now_ns(), sample;
    Call call = wire_register(load->owner, 1);
    int fd = wire_connect(load->socket, true);
    char byte;

    make_disks(load, load->count);
    announce_space(load);
    wire_call(fd, &call);
    for (unsigned i = 0; i < load->count; i++) {
        call_clear(&call);
        call = acquire_call(load, i);
        wire_call(fd, &call);
    }
    sample = now_ns() - begin;
    report(&sample, 1, sample);
    fflush(stdout);
    while (read(STDIN_FILENO, &byte, 1) > 0)
        ;
    release_disks(load, 0, load->count);
    return EXIT_SUCCESS;
}

/* ---- the command line -------------------------------------------------------------------- */

static const struct {
    const char *name;
    int (*run)(Load *load);
    bool alone; /* needs no owner */
} modes[] = {
    {"start", run_start, false},            /* VM starts, one after the other */
    {"native", run_native, false},          /* the same over the native protocol */
    {"burst", run_burst, false},            /* VM starts, at_once of them at a time */
    {"pairs", run_pairs, false},            /* acquire and release beside idle connections */
    {"hold", run_hold, false},              /* locks, kept until standard input ends */
    {"floor-lock", run_floor_lock, true},   /* the lock without a daemon */
    {"floor-trip", run_floor_trip, true},   /* the round trip without a daemon */
    {"floor-start", run_floor_start, true}, /* VM starts with a daemon that does nothing else */
};

static unsigned number(const char *text)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);

    if (end == text || *end || value > 1000000)
        die("not a number up to a million: %s", text);
    return (unsigned)value;
}

static Load options(int argc, char **argv)
{
    static const struct option known[] = {
        {"socket", required_argument, NULL, 's'},  {"dir", required_argument, NULL, 'd'},
        {"space", required_argument, NULL, 'p'},   {"disks", required_argument, NULL, 'n'},
        {"count", required_argument, NULL, 'c'},   {"idle", required_argument, NULL, 'i'},
        {"at-once", required_argument, NULL, 'a'}, {NULL, 0, NULL, 0},
    };
    Load load = {.socket = "", .dir = "", .space = "", .disks = 1, .count = 1, .at_once = 1};
    int option;

    while ((option = getopt_long(argc, argv, "", known, NULL)) >= 0) {
        switch (option) {
        case 's':
            load.socket = optarg;
            break;
        case 'd':
            load.dir = optarg;
            break;
        case 'p':
            load.space = optarg;
            break;
        case 'n':
            load.disks = number(optarg);
            break;
        case 'c':
            load.count = number(optarg);
            break;
        case 'i':
            load.idle = number(optarg);
            break;
        case 'a':
            load.at_once = number(optarg);
            break;
        default:
            die("usage: load MODE --socket S --dir D [--space P] [--disks N] [--count N] "
                "[--idle N] [--at-once N]");
        }
    }
    if (load.count == 0 || load.at_once == 0 || optind != argc - 1)
        die("one mode, and something to do");
    return load;
}

int main(int argc, char **argv)
{
    Load load = options(argc, argv);

    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        int code;

        if (strcmp(modes[i].name, argv[optind]) != 0)
            continue;
        if (!modes[i].alone)
            load.owner = owner_start();
        code = modes[i].run(&load);
        if (load.owner)
            kill(load.owner, SIGKILL);
        return code;
    }
    die("no mode is called %s", argv[optind]);
}
