/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * See reader.h. Who is the reader is said by one number, the job that is under way: it is changed
 * from zero by the reader, and back to zero by the reader, or by the one who takes its role away.
 * Whoever has changed it back is free to decide who comes next. What the reader has fetched and not
 * dealt with yet belongs to the role, and so does the wait for more.
 */
#define G_LOG_DOMAIN "holdfast.pr"

#include "prhelper/reader.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "prhelper/thread.h"

#define READER_EVENTS 16
/* Some times what it takes to be woken: 10 to 50 us on a virtual machine. */
#define READER_LINGER_USEC 200
/* Looks at a reader that has nothing to do, until nobody looks any more. */
#define READER_RESTS 25

static struct {
    PrReaderServe serve;
    gsize size; /* of its memory */
    int epoll, wake;
    gboolean started;        /* of the main thread */
    atomic_ullong job;       /* 0: none is under way */
    atomic_ullong jobs;      /* how many there were */
    atomic_bool is_vacant;   /* the role was taken away, and no thread could be started for it */
    atomic_bool is_watched;  /* the main thread looks */
    unsigned long long seen; /* of the main thread: the job, or the jobs, at its last look */
    unsigned rests;          /* of the main thread */
    /* of the reader: what has been fetched, and how much of it has been dealt with */
    struct epoll_event events[READER_EVENTS];
    int n, next;
    guint64 batch; /* how often something has been fetched */
} reader = {.epoll = -1, .wake = -1};

int pr_reader_init(PrReaderServe serve, gsize size)
{
    reader.serve = serve;
    reader.size = size;
    reader.epoll = epoll_create1(EPOLL_CLOEXEC);
    reader.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return reader.epoll < 0 || reader.wake < 0 ? -errno : 0;
}

int pr_reader_arm(int socket, gpointer connection, gboolean is_new)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.ptr = connection};

    return epoll_ctl(reader.epoll, is_new ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, socket, &event) < 0
               ? -errno
               : 0;
}

/* ---- the thread ------------------------------------------------------------------------ */

/*
 * A next request mostly follows at once: a client that works through a list of commands. To sleep
 * and be woken costs more than all else that a request needs, so try for a moment whether one
 * comes, and leave the processor to the clients meanwhile.
 */
static int reader_linger(void)
{
    gint64 end = 0;

    for (;;) {
        int n = epoll_wait(reader.epoll, reader.events, READER_EVENTS, 0);

        if (n != 0)
            return n;
        sched_yield();
        if (end == 0)
            end = g_get_monotonic_time() + READER_LINGER_USEC;
        else if (g_get_monotonic_time() >= end)
            return 0;
    }
}

/* Until there is at least one. */
static void reader_fetch(gboolean linger)
{
    int n = linger ? reader_linger() : 0;

    while (n <= 0)
        n = epoll_wait(reader.epoll, reader.events, READER_EVENTS, -1);
    reader.next = 0;
    reader.n = n;
    reader.batch++;
}

/* FALSE: the role was taken away meanwhile. */
static gboolean reader_do_one(gpointer memory)
{
    gpointer connection = reader.events[reader.next++].data.ptr;
    unsigned long long job = atomic_fetch_add(&reader.jobs, 1) + 1;
    const guint64 batch = reader.batch;

    /* from here on another thread may be the reader: what belongs to the role is not touched */
    atomic_store(&reader.job, job);
    if (!atomic_load_explicit(&reader.is_watched, memory_order_relaxed) &&
        !atomic_exchange(&reader.is_watched, true))
        eventfd_write(reader.wake, 1);
    reader.serve(connection, batch, memory);
    return atomic_compare_exchange_strong(&reader.job, &job, 0);
}

static void *reader_run(void *data)
{
    g_autofree void *memory = g_malloc0(reader.size);
    const void *last = NULL; /* the connection; only to be compared */

    (void)data;
    for (;;) {
        if (reader.next >= reader.n) {
            const void *now = reader.n == 1 ? reader.events[0].data.ptr : NULL;

            reader_fetch(now && now == last);
            last = now;
        }
        if (!reader_do_one(memory) && !atomic_exchange(&reader.is_vacant, false))
            return NULL;
    }
}

int pr_reader_start(void)
{
    int r = reader.started ? 0 : pr_thread_start(reader_run, NULL);

    reader.started = r == 0;
    return r;
}

/* ---- the watch ------------------------------------------------------------------------- */

int pr_reader_watch_fd(void)
{
    return reader.wake;
}

/* The role is nobody's: a new thread gets it, or, if there can be none now, whoever is first. */
static void reader_replace(void)
{
    if (pr_thread_start(reader_run, NULL) < 0)
        atomic_store(&reader.is_vacant, true);
}

gboolean pr_reader_watch(void)
{
    unsigned long long job = atomic_load(&reader.job);
    unsigned long long now = job ? job : atomic_load(&reader.jobs);
    eventfd_t ignored;

    eventfd_read(reader.wake, &ignored);
    if (atomic_exchange(&reader.is_vacant, false)) {
        reader_replace();
        return TRUE;
    }
    if (now != reader.seen) {
        reader.seen = now;
        reader.rests = 0;
        return TRUE;
    }
    if (job) {
        if (atomic_compare_exchange_strong(&reader.job, &job, 0))
            reader_replace();
        return TRUE;
    }
    if (++reader.rests < READER_RESTS)
        return TRUE;
    reader.rests = 0;
    /* whoever begins from here on wakes the main thread; who has begun meanwhile is seen now */
    atomic_store(&reader.is_watched, false);
    return (atomic_load(&reader.job) || atomic_load(&reader.jobs) != now) &&
           !atomic_exchange(&reader.is_watched, true);
}
