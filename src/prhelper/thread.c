/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See thread.h. */
#include "prhelper/thread.h"

#include <pthread.h>

#include "prhelper/prhelper.h"

int pr_thread_start(void *(*run)(void *data), void *data)
{
    pthread_attr_t attr;
    pthread_t thread;
    int r = pthread_attr_init(&attr);

    if (r != 0)
        return -r;
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, PR_STACK_BYTES);
    r = pthread_create(&thread, &attr, run, data);
    pthread_attr_destroy(&attr);
    return -r;
}
