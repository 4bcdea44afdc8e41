/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How long nobody is answered when the daemon is killed or restarted, and which locks are free
 * afterwards. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

/* Nobody waits longer than this for a first answer, and then some time for a second silence. */
#define OUTAGE_WINDOW_NS 3000000000
#define OUTAGE_AFTER_NS 500000000
#define OUTAGE_TIMEOUT_MS 1000
/* Stock dies of a SIGUSR1 with a client that is connected and not registered: it gets the signal a
 * while before anybody connects. */
#define OUTAGE_HEAD_START_NS 2000000
#define OUTAGE_PAUSE_NS 500000

static void outage_sleep(long ns)
{
    const struct timespec time = {.tv_nsec = ns};

    nanosleep(&time, NULL);
}

/* Registers again and again, on new connections: the longest time without an answer since the
 * signal, null if there never was one. */
int run_outage(Load *load)
{
    Call call = wire_register(load->owner, 1);
    uint64_t begin, last, end, longest = 0;
    unsigned answers = 0;

    if (load->pid <= 1 || kill(load->pid, load->signal) < 0)
        die_errno("cannot signal %d", (int)load->pid);
    begin = last = now_ns();
    end = begin + OUTAGE_WINDOW_NS;
    outage_sleep(OUTAGE_HEAD_START_NS);
    while (now_ns() < end) {
        if (wire_ask(load->socket, &call, OUTAGE_TIMEOUT_MS)) {
            uint64_t now = now_ns();

            if (now - last > longest) {
                longest = now - last;
                end = now + OUTAGE_AFTER_NS;
            }
            last = now;
            answers++;
        }
        outage_sleep(OUTAGE_PAUSE_NS);
    }
    if (answers == 0)
        printf("{\"outage_ms\": null, \"answers\": 0}\n");
    else
        printf("{\"outage_ms\": %.2f, \"answers\": %u}\n", (double)longest / 1e6, answers);
    return EXIT_SUCCESS;
}

/* How many of the disks can be locked by anybody. */
int run_free(Load *load)
{
    unsigned n = 0;

    make_disks(load, load->count);
    for (unsigned i = 0; i < load->count; i++) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
        int fd = open(load->paths[i], O_RDWR | O_CLOEXEC);

        if (fd < 0 || fcntl(fd, F_OFD_GETLK, &lock) < 0)
            die_errno("cannot look at %s", load->paths[i]);
        n += lock.l_type == F_UNLCK;
        close(fd);
    }
    printf("{\"free\": %u}\n", n);
    return EXIT_SUCCESS;
}
