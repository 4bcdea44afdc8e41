/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The floor under every lock daemon: the system calls that lock a file, a round trip over a socket
 * between two processes, and a daemon that does nothing but these.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

#define FLOOR_MAX_DISKS 1024

static void floor_lock(int fd, const char *path)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};

    if (fd < 0 || fcntl(fd, F_OFD_SETLK, &lock) < 0)
        die_errno("cannot lock %s", path);
}

/* Open, lock, close; with a lockspace what is done to a lock file: made and removed as well. */
int run_floor_lock(Load *load)
{
    uint64_t *samples = allocate(load->count, sizeof(samples[0])), total = 0;
    bool lease = *load->space != '\0';
    const char *path;

    load->space = "";
    make_disks(load, 1);
    path = load->paths[0];
    if (lease && unlink(path) < 0)
        die_errno("unlink %s", path);
    for (unsigned k = 0; k < load->count; k++) {
        uint64_t begin = now_ns();
        int fd = open(path, O_RDWR | O_CLOEXEC | (lease ? O_CREAT : 0), 0600);

        floor_lock(fd, path);
        if (lease)
            unlink(path);
        close(fd);
        samples[k] = now_ns() - begin;
        total += samples[k];
    }
    report(samples, load->count, total);
    return EXIT_SUCCESS;
}

/* Says yes to the first call, then locks a disk for each further one as long as there are any. It
 * has one client at a time, and lets go of all when that one leaves. */
static void floor_serve(const Load *load, int listening)
{
    static const uint8_t yes[28] = {0, 0, 0, sizeof(yes)};
    static uint8_t frame[65536];
    int fds[FLOOR_MAX_DISKS];

    for (;;) {
        int peer = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
        unsigned calls = 0, n = 0;

        while (peer >= 0 && recv(peer, frame, sizeof(frame), 0) > 0) {
            if (calls++ > 0 && n < load->disks) {
                fds[n] = open(load->paths[n], O_RDWR | O_CLOEXEC);
                floor_lock(fds[n], load->paths[n]);
                n++;
            }
            if (send(peer, yes, sizeof(yes), MSG_NOSIGNAL) < 0)
                break;
        }
        close(peer);
        while (n > 0)
            close(fds[--n]);
    }
}

static pid_t floor_start(Load *load)
{
    pid_t parent = getpid();
    int listening;
    pid_t pid;

    if (load->disks > FLOOR_MAX_DISKS)
        die("at most %d disks", FLOOR_MAX_DISKS);
    make_disks(load, load->disks);
    unlink(load->socket); /* of the run before */
    listening = wire_listen(load->socket);
    pid = fork();
    if (pid < 0)
        die_errno("fork");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent)
            floor_serve(load, listening);
        _exit(EXIT_FAILURE);
    }
    close(listening);
    return pid;
}

int run_floor_trip(Load *load)
{
    uint64_t *samples = allocate(load->count, sizeof(samples[0])), total = 0;
    Call call = wire_restrict();
    pid_t server;
    int fd;

    load->disks = 0;
    server = floor_start(load);
    fd = wire_connect(load->socket, true);
    for (unsigned k = 0; k < load->count; k++) {
        uint64_t begin = now_ns();

        wire_call(fd, &call);
        samples[k] = now_ns() - begin;
        total += samples[k];
    }
    report(samples, load->count, total);
    kill(server, SIGKILL);
    return EXIT_SUCCESS;
}

/* The calls of a VM's start, made to that daemon. */
int run_floor_start(Load *load)
{
    uint64_t *samples = allocate(load->count, sizeof(samples[0])), total = 0;
    unsigned calls = load->disks + 2;
    Call call = wire_restrict();
    pid_t server = floor_start(load);

    for (unsigned k = 0; k < load->count; k++) {
        uint64_t begin = now_ns();
        int fd = wire_connect(load->socket, true);

        for (unsigned i = 0; i < calls; i++)
            wire_call(fd, &call);
        samples[k] = now_ns() - begin;
        total += samples[k];
        close(fd);
        fd = wire_connect(load->socket, true); /* served when the one before has been let go */
        wire_call(fd, &call);
        close(fd);
    }
    report(samples, load->count, total);
    kill(server, SIGKILL);
    return EXIT_SUCCESS;
}
