/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See lane.h. The only mutex of the daemon is here (and used in lane-helm.c): it guards queues, and
 * nobody waits for anything else while holding it. */
#include "lane-private.h"

#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* An idle thread costs a stack; VM starts come in bursts of some seconds. */
#define LANE_IDLE_SECONDS 5
/* What drivers need is far less; sanitizers and other people's libraries need some more. */
#define LANE_STACK_BYTES (512 * 1024)
/* A bound for all lanes together: 128 hung lockspaces with 8 jobs each. A host with more of these
 * has no healthy one left to wait for. */
#define LANE_MAX_THREADS 1024

/* How long a thread looks for its next job before it sleeps. To sleep and be woken costs 10 to 50
 * us. */
#define LANE_LINGER_USEC 40

/* Storage that takes no longer than this for a lock answers from memory: on local file systems it
 * is 5 to 50 us. */
#define LANE_QUICK_USEC 100
#define LANE_QUICK_ITEMS 128
/* Their names are remembered, which is all that is kept of a lane without jobs. */
#define LANE_MAX_QUICK 1024

/* ---- in threads, with the hub's lock held ---------------------------------------------- */

/* Puts the lane where threads look for work, if it has any that may run. */
static void lane_offer(Lane *lane)
{
    if (lane->is_runnable || g_queue_is_empty(&lane->waiting) ||
        lane->running >= lane->hub->max_running)
        return;
    lane->is_runnable = TRUE;
    g_queue_push_tail_link(&lane->hub->runnable, &lane->link);
}

static LaneJob *lane_take(LaneHub *hub)
{
    GList *link = g_queue_pop_head_link(&hub->runnable);
    LaneJob *job;
    Lane *lane;

    if (!link)
        return NULL;
    lane = link->data;
    lane->is_runnable = FALSE;
    job = g_queue_pop_head_link(&lane->waiting)->data;
    lane->running++;
    if (lane->promised > 0)
        lane->promised--;
    __atomic_fetch_sub(&hub->waiting, 1, __ATOMIC_RELAXED);
    lane_offer(lane); /* behind the other lanes */
    return job;
}

void lane_finish(LaneHub *hub, LaneJob *job)
{
    static const uint64_t one = 1;

    g_queue_push_tail_link(&hub->finished, &job->link);
    __atomic_fetch_add(&hub->n_finished, 1, __ATOMIC_RELEASE);
    /* fails only when the counter is full, and then the main thread is woken anyway */
    if (!hub->awake && g_queue_get_length(&hub->finished) == 1 &&
        write(hub->eventfd, &one, sizeof(one)) < 0)
        return;
}

/* Looks for a job for a moment, without the lock. */
static void lane_look(LaneHub *hub)
{
    gint64 until = g_get_monotonic_time() + LANE_LINGER_USEC;

    pthread_mutex_unlock(&hub->lock);
    while (__atomic_load_n(&hub->waiting, __ATOMIC_RELAXED) == 0 && g_get_monotonic_time() < until)
        sched_yield(); /* the main thread may be waiting for this very processor */
    pthread_mutex_lock(&hub->lock);
}

/* Waits for a job; NULL when the thread should end. */
static LaneJob *lane_wait(LaneHub *hub)
{
    LaneJob *job = lane_take(hub);
    struct timespec until;
    int r = 0;

    if (!job && hub->lookers == 0 && hub->may_linger) {
        hub->lookers++; /* one is enough */
        lane_look(hub);
        hub->lookers--;
        job = lane_take(hub);
    }
    if (job)
        return job;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += LANE_IDLE_SECONDS;
    hub->idle++;
    while (!job && !hub->quit && r == 0) {
        r = pthread_cond_timedwait(&hub->work, &hub->lock, &until);
        if (hub->signalled > 0)
            hub->signalled--;
        job = lane_take(hub);
    }
    hub->idle--;
    return job;
}

void lane_returned(LaneHub *hub, LaneJob *job)
{
    job->lane->running--;
    lane_offer(job->lane);
    lane_finish(hub, job); /* from here on the job is the main thread's, and so is its lane */
}

void lane_serve(LaneHub *hub)
{
    LaneJob *job;

    while ((job = lane_wait(hub))) {
        gint64 begin;

        pthread_mutex_unlock(&hub->lock);
        begin = g_get_monotonic_time();
        job->run(job);
        job->took_usec = g_get_monotonic_time() - begin;
        pthread_mutex_lock(&hub->lock);
        lane_returned(hub, job);
    }
    hub->threads--;
    pthread_cond_signal(&hub->ended);
}

static void *lane_thread(void *data)
{
    LaneHub *hub = data;

    pthread_mutex_lock(&hub->lock);
    lane_serve(hub);
    pthread_mutex_unlock(&hub->lock);
    return NULL;
}

gboolean lane_start_thread(LaneHub *hub, size_t stack_bytes, void *(*start)(void *data))
{
    pthread_attr_t attr;
    pthread_t thread;
    int r;

    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, stack_bytes);
    r = pthread_create(&thread, &attr, start, hub);
    pthread_attr_destroy(&attr);
    return r == 0;
}

static gboolean lane_add_thread(LaneHub *hub)
{
    if (hub->threads >= LANE_MAX_THREADS || !lane_start_thread(hub, LANE_STACK_BYTES, lane_thread))
        return FALSE;
    hub->threads++;
    return TRUE;
}

/* ---- in the main thread ---------------------------------------------------------------- */

/* TRUE if one more job of the lane may run than threads are on their way to. */
static gboolean lane_wants_thread(const Lane *lane)
{
    return lane->running + lane->promised < lane->hub->max_running &&
           lane->promised < g_queue_get_length((GQueue *)&lane->waiting);
}

void lane_submit(Lane *lane, LaneJob *job)
{
    gboolean here;

    job->lane = lane;
    job->submitted_usec = g_get_real_time();
    job->not_run = FALSE;
    job->took_usec = 0;
    job->link.data = job->journal.data = job;
    here = helm_takes(lane, job);
    g_queue_push_tail_link(&lane->under_way, &job->journal);
    if (here) {
        lane->here++;
        g_queue_push_tail_link(&lane->hub->here, &job->link);
    } else {
        lane_submit_to_thread(lane, job);
    }
}

void lane_submit_to_thread(Lane *lane, LaneJob *job)
{
    LaneHub *hub = lane->hub;
    gboolean wake = FALSE;

    pthread_mutex_lock(&hub->lock);
    g_queue_push_tail_link(&lane->waiting, &job->link);
    __atomic_fetch_add(&hub->waiting, 1, __ATOMIC_RELAXED);
    lane_offer(lane);
    if (lane_wants_thread(lane)) {
        lane->promised++;
        if (hub->lookers > 0 && hub->waiting == 1)
            wake = FALSE; /* the one that looks will see it by itself */
        else if (hub->idle > hub->signalled)
            wake = TRUE;
        else if (!lane_add_thread(hub))
            lane->promised--;
        hub->signalled += wake ? 1 : 0;
    }
    if (hub->threads == 0) { /* not one could be made: nobody would ever come */
        g_queue_unlink(&hub->runnable, &lane->link);
        lane->is_runnable = FALSE;
        g_queue_unlink(&lane->waiting, &job->link);
        __atomic_fetch_sub(&hub->waiting, 1, __ATOMIC_RELAXED);
        job->not_run = TRUE;
        lane_finish(hub, job);
    }
    pthread_mutex_unlock(&hub->lock);
    if (wake) /* not before: the thread would run into the lock */
        pthread_cond_signal(&hub->work);
}

const char *lane_name(const Lane *lane)
{
    return lane->name;
}

LaneState lane_state(Lane *lane)
{
    LaneState state = {.name = lane->name};

    pthread_mutex_lock(&lane->hub->lock);
    state.queued = g_queue_get_length(&lane->waiting);
    state.running = lane->running;
    pthread_mutex_unlock(&lane->hub->lock);
    state.queued += lane->here;
    if (lane->under_way.head) {
        const LaneJob *oldest = lane->under_way.head->data;

        state.oldest_usec = oldest->submitted_usec;
        state.operation = oldest->operation;
    }
    return state;
}

void lane_hub_threads(LaneHub *hub, guint *ret_threads, guint *ret_idle)
{
    pthread_mutex_lock(&hub->lock);
    *ret_threads = hub->threads;
    *ret_idle = hub->idle + hub->lookers;
    pthread_mutex_unlock(&hub->lock);
}

void lane_judge(LaneHub *hub, const LaneJob *job)
{
    const char *name = job->lane->name;
    guint items = job->items == LANE_NEVER_HERE ? 1 : CLAMP(job->items, 1, LANE_QUICK_ITEMS);
    gpointer usec = GUINT_TO_POINTER((guint)CLAMP(job->took_usec / items, 1, G_MAXINT));

    if (job->not_run || job->took_usec > LANE_QUICK_USEC * (gint64)items) {
        g_hash_table_remove(hub->quick, name);
        return;
    }
    if (g_hash_table_lookup(hub->quick, name) == usec)
        return;
    if (g_hash_table_size(hub->quick) >= LANE_MAX_QUICK)
        g_hash_table_remove_all(hub->quick); /* each is found again by its next job */
    g_hash_table_replace(hub->quick, g_strdup(name), usec);
}

static void lane_deal_with_finished(LaneHub *hub)
{
    GQueue finished;
    GList *link;

    pthread_mutex_lock(&hub->lock);
    finished = hub->finished;
    g_queue_init(&hub->finished);
    __atomic_store_n(&hub->n_finished, 0, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&hub->lock);
    while ((link = g_queue_pop_head_link(&finished))) {
        LaneJob *job = link->data;

        g_queue_unlink(&job->lane->under_way, &job->journal);
        lane_judge(hub, job);
        job->done(job);
    }
}

static int lane_on_finished(sd_event_source *source, int fd, uint32_t events, void *data)
{
    (void)source;
    (void)fd; /* edge-triggered: the counter need not be read */
    (void)events;
    lane_deal_with_finished(data);
    return 0;
}

void lane_hub_set_awake(LaneHub *hub, gboolean awake)
{
    pthread_mutex_lock(&hub->lock);
    hub->awake = awake;
    pthread_mutex_unlock(&hub->lock);
}

gboolean lane_hub_poll(LaneHub *hub)
{
    if (__atomic_load_n(&hub->n_finished, __ATOMIC_ACQUIRE) == 0)
        return FALSE;
    lane_deal_with_finished(hub);
    return TRUE;
}

int lane_hub_new(sd_event *event, guint max_running, LaneHub **ret_hub)
{
    LaneHub *hub;
    pthread_condattr_t attr;
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int r;

    if (fd < 0)
        return -errno;
    hub = g_new0(LaneHub, 1);
    r = sd_event_add_io(event, &hub->source, fd, EPOLLIN | EPOLLET, lane_on_finished, hub);
    if (r < 0) {
        close(fd);
        g_free(hub);
        return r;
    }
    sd_event_source_set_description(hub->source, "lanes");
    hub->eventfd = fd;
    hub->max_running = max_running;
    /* with one processor, who looks keeps the other from what he looks for */
    hub->may_linger = g_get_num_processors() > 1;
    hub->lanes = g_hash_table_new(g_str_hash, g_str_equal);
    hub->quick = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    pthread_mutex_init(&hub->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&hub->work, &attr);
    pthread_cond_init(&hub->ended, &attr);
    helm_init(&hub->helm, &attr);
    pthread_condattr_destroy(&attr);
    *ret_hub = hub;
    return 0;
}

gboolean lane_hub_free(LaneHub *hub, guint64 timeout_usec)
{
    struct timespec until;
    int r = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)(timeout_usec / G_USEC_PER_SEC);
    pthread_mutex_lock(&hub->lock);
    hub->quit = TRUE;
    pthread_cond_broadcast(&hub->work);
    pthread_cond_broadcast(&hub->helm.left);
    while ((hub->threads > 0 || hub->helm.has_stand_in) && r == 0)
        r = pthread_cond_timedwait(&hub->ended, &hub->lock, &until);
    pthread_mutex_unlock(&hub->lock);
    if (r != 0)
        return FALSE;
    g_assert(g_hash_table_size(hub->lanes) == 0);
    g_hash_table_unref(hub->lanes);
    sd_event_source_disable_unref(hub->source);
    close(hub->eventfd);
    pthread_mutex_destroy(&hub->lock);
    pthread_cond_destroy(&hub->work);
    pthread_cond_destroy(&hub->ended);
    helm_clear(&hub->helm);
    g_hash_table_unref(hub->quick);
    g_free(hub);
    return TRUE;
}

Lane *lane_hub_get(LaneHub *hub, const char *name)
{
    Lane *lane = g_hash_table_lookup(hub->lanes, name);

    if (!lane) {
        lane = g_new0(Lane, 1);
        lane->hub = hub;
        lane->name = g_strdup(name);
        lane->link.data = lane;
        g_hash_table_insert(hub->lanes, lane->name, lane);
    }
    lane->refs++;
    return lane;
}

void lane_unref(Lane *lane)
{
    if (--lane->refs > 0)
        return;
    g_assert(g_queue_is_empty(&lane->under_way));
    g_hash_table_remove(lane->hub->lanes, lane->name);
    g_free(lane->name);
    g_free(lane);
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
