/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * VM starts: one after the other over both protocols, and many at once. The disks are given back,
 * and the daemon is let to deal with closed connections, while the clock stands still.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

#define CALLS_OF_A_START 2 /* beside the acquires: register, restrict */

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
    if (!load->leave)
        release_disks(load, 0, disks);
    return EXIT_SUCCESS;
}
