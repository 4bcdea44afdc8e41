/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Closing everything, with storage that may hang among it.
 *
 * A sweeper, a process of its own with the same descriptors, goes through them all. It asks each
 * file system something before it closes the first file there. Whoever else has these files, such
 * as systemd's first process, closes them at leisure meanwhile: the last to close a file has to
 * wait until its lock is given back, and with storage that hangs that must be us. So it hangs at
 * the first file of such storage, before it has closed one, and somebody else can see where:
 *
 *     0 ms      the sweeper begins. For ten thousand files it needs some 10 ms
 *     100 ms    if it stands at one file all the time, or 1 s if it is just slow: the mount of that
 *               file is left to it, and another sweeper goes through all the rest
 *     later     the storage answers: the first one goes on, closes what is left, and ends
 *
 * To know each file's mount beforehand would take longer than all else: the kernel tells it without
 * asking the storage only in /proc, where each look makes a file.
 */
#include "closer-private.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "closer.h"

/* A sweeper that has not come to its end by then is helped, even if it moves. */
#define SWEEP_SLOW_MSEC 1000
/* Sweepers at most: each but one stands on storage that hangs. */
#define SWEEPERS 64
/* File systems that a sweeper remembers to have asked; others are asked for each file. */
#define SWEEP_DEVICES 256
/* Before so many numbers of descriptors have been gone through, a sweeper's end is near. */
#define SWEEP_DEFAULT_FDS 65536

/* What a sweeper and who looks after it see; atomic. */
struct sweep {
    int at;    /* the descriptor that is being dealt with */
    int mount; /* its mount; -1: not known, the file is still open then */
    int done;
};

/* Mounts that are left to somebody else; those that are made later have a copy. */
static int sweep_hung[SWEEPERS];
static int sweep_n_hung;

/* ---- what is asked --------------------------------------------------------------------- */

int closer_mount(int fd)
{
    char path[64] = "/proc/self/fdinfo/", text[512], digits[16], *p;
    int n = 0, info;
    ssize_t len;

    do
        digits[n++] = (char)('0' + fd % 10);
    while ((fd /= 10) > 0);
    p = path + strlen(path);
    while (n > 0)
        *p++ = digits[--n];
    *p = '\0';
    info = open(path, O_RDONLY | O_CLOEXEC);
    if (info < 0)
        return -1;
    len = read(info, text, sizeof(text) - 1);
    close(info);
    text[len > 0 ? len : 0] = '\0';
    p = strstr(text, "mnt_id:\t");
    if (!p)
        return -1;
    n = 0;
    for (p += strlen("mnt_id:\t"); *p >= '0' && *p <= '9'; p++)
        n = n * 10 + (*p - '0');
    return n;
}

int closer_open_status(void)
{
    return open("/proc/self/status", O_RDONLY | O_CLOEXEC);
}

/* How many numbers of descriptors the table has room for; none beyond is open. */
static int sweep_table_size(int status)
{
    char text[2048], *p;
    ssize_t len = status < 0 ? -1 : pread(status, text, sizeof(text) - 1, 0);
    int n = 0;

    text[len > 0 ? len : 0] = '\0';
    p = strstr(text, "\nFDSize:\t");
    if (!p)
        return SWEEP_DEFAULT_FDS;
    for (p += strlen("\nFDSize:\t"); *p >= '0' && *p <= '9'; p++)
        n = n * 10 + (*p - '0');
    return n;
}

void closer_close_sockets(int status)
{
    int n = sweep_table_size(status), type;

    for (int fd = 0; fd < n; fd++) {
        socklen_t len = sizeof(type);

        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0)
            syscall(SYS_close, fd);
    }
}

/* ---- a sweeper ------------------------------------------------------------------------- */

static int sweep_is_hung(int mount)
{
    for (int i = 0; i < sweep_n_hung; i++)
        if (sweep_hung[i] == mount)
            return 1;
    return 0;
}

static void sweep_tell(int *what, int value)
{
    __atomic_store_n(what, value, __ATOMIC_RELEASE);
}

/* `own` is the file system of what these processes open themselves: leave that alone. */
static void sweep_run(struct sweep *sweep, int n_fds, dev_t own)
{
    struct {
        dev_t device;
        int mount;
    } asked[SWEEP_DEVICES];
    int n_asked = 0;

    for (int fd = 0; fd < n_fds; fd++) {
        struct statfs unused;
        struct stat st;
        int i = 0;

        sweep_tell(&sweep->mount, -1);
        sweep_tell(&sweep->at, fd);
        if ((sweep_n_hung > 0 && sweep_is_hung(closer_mount(fd))) || fstat(fd, &st) < 0 ||
            st.st_dev == own)
            continue;
        while (i < n_asked && asked[i].device != st.st_dev)
            i++;
        if (i == n_asked) {
            int mount = closer_mount(fd);

            sweep_tell(&sweep->mount, mount);
            fstatfs(fd, &unused); /* no cache knows the answer */
            if (i < SWEEP_DEVICES) {
                asked[n_asked].device = st.st_dev;
                asked[n_asked++].mount = mount;
            }
        } else {
            sweep_tell(&sweep->mount, asked[i].mount);
        }
        /* not by close(): thread sanitizer would say that threads that hang still use the file */
        syscall(SYS_close, fd);
    }
}

/* ---- who looks after them -------------------------------------------------------------- */

/* 1: it has done all; 0: it hangs, or is slow; -1: it is not to be waited for any longer. */
static int sweep_wait(const struct sweep *sweep, long long until)
{
    long long begun = closer_now_msec(), since = begun;
    struct timespec moment = {.tv_nsec = 100 * 1000};
    int seen = -1;

    for (;;) {
        int at = __atomic_load_n(&sweep->at, __ATOMIC_ACQUIRE);
        long long now = closer_now_msec();

        if (__atomic_load_n(&sweep->done, __ATOMIC_ACQUIRE))
            return 1;
        if (until >= 0 && now >= until)
            return -1;
        if (at != seen)
            since = now;
        seen = at;
        if (now - since > CLOSER_PATIENCE_MSEC || now - begun > SWEEP_SLOW_MSEC)
            return 0;
        nanosleep(&moment, NULL);
    }
}

static void sweep_leave_to(const struct sweep *sweep)
{
    int mount = __atomic_load_n(&sweep->mount, __ATOMIC_ACQUIRE);

    if (mount < 0)
        mount = closer_mount(__atomic_load_n(&sweep->at, __ATOMIC_ACQUIRE));
    if (mount >= 0 && !sweep_is_hung(mount))
        sweep_hung[sweep_n_hung++] = mount;
}

void closer_close_files(int status, long long until)
{
    struct sweep *sweeps = closer_share(SWEEPERS * sizeof(*sweeps));
    int n_fds = sweep_table_size(status);
    struct stat own;

    if (!sweeps || status < 0 || fstat(status, &own) < 0)
        return;
    sweep_n_hung = 0;
    for (int i = 0; i < SWEEPERS; i++) {
        long child = syscall(SYS_clone, CLONE_FILES, NULL, NULL, NULL, NULL);

        if (child == 0) {
            closer_rename();
            sweep_run(&sweeps[i], n_fds, own.st_dev);
            sweep_tell(&sweeps[i].done, 1);
            _exit(0);
        }
        if (child < 0 || sweep_wait(&sweeps[i], until) != 0)
            return;
        sweep_leave_to(&sweeps[i]);
    }
}
