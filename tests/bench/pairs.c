/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Single locks: taken and given back beside connections that are silent or wait, or only kept. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "load.h"

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

/* Callers that wait for a lockspace which does not answer. */
static void open_hung(const Load *load)
{
    Call first = wire_register(load->owner, 1);

    for (unsigned i = 0; i < load->idle; i++) {
        int fd = wire_connect(load->socket, true);
        char name[32];
        Call call;

        snprintf(name, sizeof(name), "hung-%u", i);
        call = wire_acquire(load->hung, name, WIRE_ACQUIRE_AUTOCREATE);
        wire_call(fd, &first);
        wire_send(fd, &call);
        call_clear(&call);
    }
    call_clear(&first);
}

int run_pairs(Load *load)
{
    uint64_t *samples = allocate(load->count, sizeof(samples[0])), begin;
    Call first = wire_register(load->owner, 1);
    Call acquire, release;
    int fd = wire_connect(load->socket, true);

    make_disks(load, 1);
    announce_space(load);
    if (*load->hung)
        open_hung(load);
    else
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
    while (read(STDIN_FILENO, &byte, 1) > 0)
        ;
    release_disks(load, 0, load->count);
    return EXIT_SUCCESS;
}
