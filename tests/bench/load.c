/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The load generator of `make bench`: does what libvirt does with a lock daemon, stock or ours, and
 * prints one line of JSON with what it took. tests/bench/run starts it inside the daemon's
 * namespaces; the modes are at the end.
 *
 * Everything that only prepares or cleans up stays outside the measured time: calls are built and
 * files made before, locks are released after, and the daemon is given the time to deal with that.
 */
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

#define DISK_BYTES (1024 * 1024)
/* About as many descriptors as a QEMU has: whoever looks through them pays for them. */
#define OWNER_DESCRIPTORS 32

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
    fflush(stdout);
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
        if (!*load->space && !load->made)
            make_disk(load->paths[i]);
    }
}

Call acquire_call(const Load *load, unsigned disk)
{
    return wire_acquire(load->space, load->paths[disk], *load->space ? WIRE_ACQUIRE_AUTOCREATE : 0);
}

void announce_space(const Load *load)
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

void release_disks(const Load *load, unsigned first, unsigned n)
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
    {"outage", run_outage, false},          /* how long nobody is answered after a signal */
    {"free", run_free, true},               /* which disks are not locked */
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

typedef enum Kind { TEXT, NUMBER, FLAG } Kind;

/* What an option sets in Load. */
static const struct {
    const char *name;
    Kind kind;
    size_t at;
} settings[] = {
    {"--socket", TEXT, offsetof(Load, socket)}, {"--dir", TEXT, offsetof(Load, dir)},
    {"--space", TEXT, offsetof(Load, space)},   {"--hung", TEXT, offsetof(Load, hung)},
    {"--disks", NUMBER, offsetof(Load, disks)}, {"--count", NUMBER, offsetof(Load, count)},
    {"--idle", NUMBER, offsetof(Load, idle)},   {"--at-once", NUMBER, offsetof(Load, at_once)},
    {"--pid", NUMBER, offsetof(Load, pid)},     {"--signal", NUMBER, offsetof(Load, signal)},
    {"--made", FLAG, offsetof(Load, made)},     {"--leave", FLAG, offsetof(Load, leave)},
};

/* One option: --name=value, or --name for a flag. */
static void set(Load *load, const char *word)
{
    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        size_t len = strlen(settings[i].name);
        char *field = (char *)load + settings[i].at;
        const char *value;

        if (strncmp(word, settings[i].name, len) != 0 ||
            word[len] != (settings[i].kind == FLAG ? '\0' : '='))
            continue;
        value = word + len + 1;
        if (settings[i].kind == FLAG)
            memcpy(field, &(bool){true}, sizeof(bool));
        else if (settings[i].kind == NUMBER)
            memcpy(field, &(unsigned){number(value)}, sizeof(unsigned));
        else
            memcpy(field, &value, sizeof(value));
        return;
    }
    die("usage: load MODE --socket=S --dir=D [--space=P] [--disks=N] [--count=N] "
        "[--idle=N] [--at-once=N] [--hung=P] [--pid=N --signal=N] [--made] [--leave]");
}

static Load options(char **words)
{
    Load load = {
        .socket = "", .dir = "", .space = "", .hung = "", .disks = 1, .count = 1, .at_once = 1};

    while (*words)
        set(&load, *words++);
    if (load.count == 0 || load.at_once == 0)
        die("nothing to do");
    return load;
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    Load load = options(argv + (argc > 1 ? 2 : 1));

    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        int code;

        if (strcmp(modes[i].name, mode) != 0)
            continue;
        if (!modes[i].alone)
            load.owner = owner_start();
        code = modes[i].run(&load);
        if (load.owner)
            kill(load.owner, SIGKILL);
        fflush(stdout);
        _exit(code); /* nothing is freed: all of it was needed to the end */
    }
    die("no mode is called \"%s\"", mode);
}
