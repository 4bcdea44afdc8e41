/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the modes of the load generator share: the settings of a run, the clock, the disks, and the
 * process that owns the locks.
 */
#pragma once

#include "wire.h"

typedef struct Load {
    const char *socket;
    const char *dir;   /* where the disks are made */
    const char *space; /* "" or a lockspace directory */
    const char *hung;  /* a lockspace directory that does not answer, or "" */
    unsigned disks;    /* of one start */
    unsigned count;    /* of what is measured */
    unsigned idle;     /* connections beside it; with `hung`, those that wait there */
    unsigned at_once;
    bool made;  /* the disks are there already */
    bool leave; /* locks are not given back: the daemon's end is near */
    pid_t pid;  /* of the daemon, to be sent the signal */
    int signal;
    pid_t owner;
    char **paths; /* of disks, or names in the lockspace */
} Load;

uint64_t now_ns(void);
/* Zeroed memory; ends the program when there is none. */
void *allocate(size_t n, size_t size);
/* Prints all numbers of one run, in microseconds and seconds; sorts the samples. */
void report(uint64_t *samples, unsigned n, uint64_t total_ns);
/* Fills load->paths with n disks and makes them; in a lockspace only the names, which look like
 * those of libvirt. */
void make_disks(Load *load, unsigned n);
/* The call that takes load->paths[disk]. */
Call acquire_call(const Load *load, unsigned disk);
/* Makes the lockspace known, if there is one. */
void announce_space(const Load *load);
/* Gives the disks from `first` on back, as somebody else would: on a connection of its own. */
void release_disks(const Load *load, unsigned first, unsigned n);

/* The modes; each returns the program's exit code. */
int run_start(Load *load);
int run_native(Load *load);
int run_burst(Load *load);
int run_pairs(Load *load);
int run_hold(Load *load);
int run_outage(Load *load);
int run_free(Load *load);
int run_floor_lock(Load *load);
int run_floor_trip(Load *load);
int run_floor_start(Load *load);
