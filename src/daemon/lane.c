/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See lane.h. The only file of the daemon with mutexes: two kinds of queue, nothing else. */
#include "lane.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* An idle thread costs a stack; a VM's start comes in bursts of some seconds. */
#define LANE_IDLE_SECONDS 5
/* What drivers need is far less; sanitizers and other people's libraries need some more. */
#define LANE_STACK_BYTES (512 * 1024)

typedef struct LaneQueue {
    LaneJob *head;
    LaneJob **tail;
} LaneQueue;

struct LaneHub {
    sd_event_source *source;
    int eventfd;
    guint max_threads;
    GHashTable *lanes;    /* name -> Lane */
    pthread_mutex_t lock; /* of the two members below */
    LaneQueue finished;
    guint threads;
    pthread_cond_t ended; /* a thread has ended */
};

struct Lane {
    LaneHub *hub;
    char *name;
    gboolean transient;
    GQueue under_way; /* of LaneJob, oldest first; main thread only */

    pthread_mutex_t lock; /* of all below */
    pthread_cond_t work;
    LaneQueue waiting;
    guint queued;
    guint threads;
    guint idle;
    gboolean quit;
};

static void lane_queue_init(LaneQueue *queue)
{
    queue->head = NULL;
    queue->tail = &queue->head;
}

static void lane_queue_push(LaneQueue *queue, LaneJob *job)
{
    job->next = NULL;
    *queue->tail = job;
    queue->tail = &job->next;
}

static LaneJob *lane_queue_pop(LaneQueue *queue)
{
    LaneJob *job = queue->head;

    if (!job)
        return NULL;
    queue->head = job->next;
    if (!queue->head)
        queue->tail = &queue->head;
    return job;
}

static void lane_finish(LaneHub *hub, LaneJob *job)
{
    static const uint64_t one = 1;
    gboolean wake;

    pthread_mutex_lock(&hub->lock);
    wake = hub->finished.head == NULL;
    lane_queue_push(&hub->finished, job);
    pthread_mutex_unlock(&hub->lock);
    /* fails only when the counter is full, and then the main thread is woken anyway */
    if (wake && write(hub->eventfd, &one, sizeof(one)) < 0)
        return;
}

/* Waits for a job; NULL when the thread should end. The lane's lock is held. */
static LaneJob *lane_wait(Lane *lane)
{
    LaneJob *job = lane_queue_pop(&lane->waiting);
    struct timespec until;
    int r = 0;

    if (job)
        return job;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += LANE_IDLE_SECONDS;
    lane->idle++;
    while (!job && !lane->quit && r == 0) {
        r = pthread_cond_timedwait(&lane->work, &lane->lock, &until);
        job = lane_queue_pop(&lane->waiting);
    }
    lane->idle--;
    return job;
}

static void *lane_thread(void *data)
{
    Lane *lane = data;
    LaneHub *hub = lane->hub;
    LaneJob *job;

    pthread_mutex_lock(&lane->lock);
    while ((job = lane_wait(lane))) {
        lane->queued--;
        pthread_mutex_unlock(&lane->lock);
        job->run(job);
        /* the lane lives as long as a thread of its own does */
        lane_finish(hub, job);
        pthread_mutex_lock(&lane->lock);
    }
    lane->threads--;
    pthread_mutex_unlock(&lane->lock);

    pthread_mutex_lock(&hub->lock);
    hub->threads--;
    pthread_cond_signal(&hub->ended);
    pthread_mutex_unlock(&hub->lock);
    return NULL;
}

/* The lane's lock is held. */
static gboolean lane_start_thread(Lane *lane)
{
    pthread_attr_t attr;
    pthread_t thread;
    int r;

    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, LANE_STACK_BYTES);
    pthread_mutex_lock(&lane->hub->lock);
    r = pthread_create(&thread, &attr, lane_thread, lane);
    if (r == 0)
        lane->hub->threads++;
    pthread_mutex_unlock(&lane->hub->lock);
    pthread_attr_destroy(&attr);
    if (r == 0)
        lane->threads++;
    return r == 0;
}

void lane_submit(Lane *lane, LaneJob *job)
{
    gboolean stranded;

    job->lane = lane;
    job->submitted_usec = g_get_real_time();
    job->not_run = FALSE;
    job->link.data = job;
    g_queue_push_tail_link(&lane->under_way, &job->link);

    pthread_mutex_lock(&lane->lock);
    if (lane->idle <= lane->queued && lane->threads < lane->hub->max_threads)
        lane_start_thread(lane);
    stranded = lane->threads == 0;
    if (!stranded) {
        lane_queue_push(&lane->waiting, job);
        lane->queued++;
        pthread_cond_signal(&lane->work);
    }
    pthread_mutex_unlock(&lane->lock);
    if (stranded) {
        job->not_run = TRUE;
        lane_finish(lane->hub, job);
    }
}

LaneState lane_state(Lane *lane)
{
    LaneState state = {.name = lane->name};

    pthread_mutex_lock(&lane->lock);
    state.threads = lane->threads;
    state.queued = lane->queued;
    pthread_mutex_unlock(&lane->lock);
    state.running = g_queue_get_length(&lane->under_way) - state.queued;
    if (lane->under_way.head) {
        const LaneJob *oldest = lane->under_way.head->data;

        state.oldest_usec = oldest->submitted_usec;
        state.operation = oldest->operation;
    }
    return state;
}

static void lane_free(Lane *lane)
{
    pthread_mutex_destroy(&lane->lock);
    pthread_cond_destroy(&lane->work);
    g_free(lane->name);
    g_free(lane);
}

/* A transient lane without jobs tells its threads to end, and is freed once they have. */
static void lane_collect(Lane *lane)
{
    gboolean ended;

    if (!lane->transient || lane->under_way.head)
        return;
    pthread_mutex_lock(&lane->lock);
    ended = lane->threads == 0;
    if (!ended && !lane->quit) {
        lane->quit = TRUE;
        pthread_cond_broadcast(&lane->work);
    }
    pthread_mutex_unlock(&lane->lock);
    if (ended) {
        g_hash_table_remove(lane->hub->lanes, lane->name);
        lane_free(lane);
    }
}

static void lane_collect_all(LaneHub *hub)
{
    g_autoptr(GPtrArray) lanes = lane_hub_list(hub);

    for (guint i = 0; i < lanes->len; i++)
        lane_collect(g_ptr_array_index(lanes, i));
}

static int lane_on_finished(sd_event_source *source, int fd, uint32_t events, void *data)
{
    LaneHub *hub = data;
    LaneJob *job, *next;
    uint64_t count;

    (void)source;
    (void)events;
    if (read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
        return -errno;
    pthread_mutex_lock(&hub->lock);
    job = hub->finished.head;
    lane_queue_init(&hub->finished);
    pthread_mutex_unlock(&hub->lock);
    for (; job; job = next) {
        next = job->next;
        g_queue_unlink(&job->lane->under_way, &job->link);
        job->done(job);
    }
    return 0;
}

int lane_hub_new(sd_event *event, guint max_threads, LaneHub **ret_hub)
{
    LaneHub *hub;
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int r;

    if (fd < 0)
        return -errno;
    hub = g_new0(LaneHub, 1);
    hub->eventfd = fd;
    hub->max_threads = max_threads;
    hub->lanes = g_hash_table_new(g_str_hash, g_str_equal);
    pthread_mutex_init(&hub->lock, NULL);
    pthread_cond_init(&hub->ended, NULL);
    lane_queue_init(&hub->finished);
    r = sd_event_add_io(event, &hub->source, fd, EPOLLIN, lane_on_finished, hub);
    if (r < 0) {
        close(fd);
        g_hash_table_unref(hub->lanes);
        g_free(hub);
        return r;
    }
    sd_event_source_set_description(hub->source, "lanes");
    *ret_hub = hub;
    return 0;
}

static gboolean lane_hub_wait(LaneHub *hub, guint64 timeout_usec)
{
    struct timespec until;
    int r = 0;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += (time_t)(timeout_usec / G_USEC_PER_SEC);
    pthread_mutex_lock(&hub->lock);
    while (hub->threads > 0 && r == 0)
        r = pthread_cond_timedwait(&hub->ended, &hub->lock, &until);
    pthread_mutex_unlock(&hub->lock);
    return r == 0;
}

gboolean lane_hub_free(LaneHub *hub, guint64 timeout_usec)
{
    g_autoptr(GPtrArray) lanes = lane_hub_list(hub);

    for (guint i = 0; i < lanes->len; i++) {
        Lane *lane = g_ptr_array_index(lanes, i);

        pthread_mutex_lock(&lane->lock);
        lane->quit = TRUE;
        pthread_cond_broadcast(&lane->work);
        pthread_mutex_unlock(&lane->lock);
    }
    if (!lane_hub_wait(hub, timeout_usec))
        return FALSE;
    for (guint i = 0; i < lanes->len; i++)
        lane_free(g_ptr_array_index(lanes, i));
    g_hash_table_unref(hub->lanes);
    sd_event_source_disable_unref(hub->source);
    close(hub->eventfd);
    pthread_mutex_destroy(&hub->lock);
    pthread_cond_destroy(&hub->ended);
    g_free(hub);
    return TRUE;
}

static Lane *lane_new(LaneHub *hub, const char *name, gboolean transient)
{
    Lane *lane = g_new0(Lane, 1);
    pthread_condattr_t attr;

    lane->hub = hub;
    lane->name = g_strdup(name);
    lane->transient = transient;
    pthread_mutex_init(&lane->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&lane->work, &attr);
    pthread_condattr_destroy(&attr);
    lane_queue_init(&lane->waiting);
    g_hash_table_insert(hub->lanes, lane->name, lane);
    return lane;
}

Lane *lane_hub_get(LaneHub *hub, const char *name, gboolean transient)
{
    Lane *lane = g_hash_table_lookup(hub->lanes, name);

    if (lane) {
        pthread_mutex_lock(&lane->lock);
        lane->quit = FALSE;
        pthread_mutex_unlock(&lane->lock);
        return lane;
    }
    lane_collect_all(hub);
    return lane_new(hub, name, transient);
}

Lane *lane_hub_find(LaneHub *hub, const char *name)
{
    return g_hash_table_lookup(hub->lanes, name);
}

GPtrArray *lane_hub_list(LaneHub *hub)
{
    GPtrArray *all = g_ptr_array_new();
    GHashTableIter iter;
    gpointer lane;

    g_hash_table_iter_init(&iter, hub->lanes);
    while (g_hash_table_iter_next(&iter, NULL, &lane))
        g_ptr_array_add(all, lane);
    return all;
}
