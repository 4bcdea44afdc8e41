/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See minder.h. */
#include "prhelper/mpath/minder.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "prhelper/mpath/protocol.h"

/* A command waits for MPATH_ANSWER_MSEC: even the longest pause costs it nothing but time. */
#define MINDER_PAUSE_FIRST_MSEC 100
#define MINDER_PAUSE_LAST_MSEC 5000
#define MINDER_LASTS_SEC 60

static time_t minder_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

/* Until the child has ended; how. Children of earlier ones end here as well. */
static int minder_wait(pid_t child)
{
    int status = 0;
    pid_t found;

    do
        found = waitpid(-1, &status, 0);
    while (found != child && (found >= 0 || errno == EINTR));
    return found == child ? status : 0;
}

/* False: the helper has gone meanwhile. The socket stays open, and requests wait in it. */
static bool minder_pause(int msec)
{
    struct pollfd hangup = {.fd = MPATH_SOCKET, .events = 0};
    int n;

    do
        n = poll(&hangup, 1, msec);
    while (n < 0 && errno == EINTR);
    return n == 0;
}

static void minder_tell(int status)
{
    if (WIFSIGNALED(status))
        fprintf(stderr,
                "holdfast-pr-multipath: the process that serves was ended by SIG%s; it "
                "is started again\n",
                sigabbrev_np(WTERMSIG(status)));
    else
        fprintf(stderr,
                "holdfast-pr-multipath: the process that serves has failed (%d); it is "
                "started again\n",
                WEXITSTATUS(status));
}

bool minder_run(void)
{
    bool again = false;
    int pause = 0;

    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    for (;;) {
        const time_t begin = minder_now();
        pid_t child = fork();
        int status;

        if (child == 0)
            prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0);
        if (child <= 0)
            return again;
        status = minder_wait(child);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
            exit(EXIT_SUCCESS);
        again = true;
        minder_tell(status);
        if (minder_now() - begin >= MINDER_LASTS_SEC)
            pause = 0;
        if (!minder_pause(pause))
            exit(EXIT_SUCCESS);
        pause = pause == 0 ? MINDER_PAUSE_FIRST_MSEC : pause * 2;
        pause = pause > MINDER_PAUSE_LAST_MSEC ? MINDER_PAUSE_LAST_MSEC : pause;
    }
}
