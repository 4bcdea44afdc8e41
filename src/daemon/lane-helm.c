/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The helm: which thread is the main thread.
 *
 * The main thread owns all state, and may not wait for storage. To hand each lock to a lane's
 * thread, and the result back, costs two wake-ups of a thread, 20 to 50 us, where the lock itself
 * costs 5. So the main thread runs a job itself if that job's lane has been quick so far. Nothing
 * can promise that storage is quick this time as well: a server may have died, a disk may have
 * gone, and no look at the file system tells. What is promised is that the loop goes on:
 *
 *     0 ms      the main thread writes down that it is away, for which job, and runs it. It holds
 *               no lock and is in no callback of the loop, so all state is as another needs it
 *     5 us      mostly that is all: it takes the note back and is the main thread as before
 *     0..1 ms   the stand-in, a thread that looks each millisecond, sees the note
 *     1..2 ms   it sees the same note again and exchanges it for its own: from this instruction on
 *               it is the main thread. The lane is not quick any more: its further jobs go to
 *               threads, as ever
 *     later     the job comes to its end, in a minute or never. Its thread finds that the note is
 *               not its own, hands the result in as every lane's thread does, and becomes the next
 *               stand-in or a lane's thread
 *
 * So "the main thread" is a role, which exactly one thread has at any time; one compare-and-swap
 * passes it on, and with it everything that was written before. Without a stand-in, because the
 * last one has just become the main thread, nothing is run here.
 *
 * The stand-in looks only while the main thread goes away now and then; after a while without that
 * it sleeps until it is called.
 *
 * The process's first thread runs no job: before the first one it hands the helm to a thread made
 * for that, and from then on only waits for the end of the process. By its own end, which comes at
 * once because it is never on storage, the closer knows that the process has ended while others of
 * its threads may hang; see keeper/closer.h.
 */
#include <time.h>
#include <unistd.h>

#include "lane-private.h"

#define HELM_LOOK_NSEC (1000 * 1000)
/* So many looks without anything having been run, and the stand-in sleeps. */
#define HELM_CALM_LOOKS 20
/* A thread that lost the helm to mere bad luck, such as a busy processor, is back within this time
 * and becomes the stand-in; after it, a new one is started. */
#define HELM_REPLACE_USEC (50 * G_TIME_SPAN_MILLISECOND)
/* A lane with a job that is older than this is not tried. */
#define HELM_OLD_USEC (20 * G_TIME_SPAN_MILLISECOND)
/* What would take longer, going by the lane's last job, goes to a thread: its wake-up does not
 * matter then, and the stand-in would come in between. */
#define HELM_MAX_USEC 800
/* The loop looks for other events after so many jobs. */
#define HELM_AT_ONCE 64
/* As much as a process's first thread usually has: the whole daemon may run on it. It costs what is
 * touched of it. */
#define HELM_STACK_BYTES (8 * 1024 * 1024)

void helm_init(Helm *helm, const pthread_condattr_t *attr)
{
    pthread_cond_init(&helm->left, attr);
}

void helm_clear(Helm *helm)
{
    pthread_cond_destroy(&helm->left);
}

/* ---- the stand-in ---------------------------------------------------------------------- */

/* Sleeps until the main thread has left, unless it has just done so. With the lock held. */
static void helm_sleep(LaneHub *hub)
{
    Helm *helm = &hub->helm;

    __atomic_store_n(&helm->looking, FALSE, __ATOMIC_SEQ_CST);
    /* the main thread writes its note first and looks for us second, we the other way round: one
     * of the two always sees the other */
    while (!hub->quit && !__atomic_load_n(&helm->looking, __ATOMIC_SEQ_CST) &&
           __atomic_load_n(&helm->away, __ATOMIC_SEQ_CST) == 0)
        pthread_cond_wait(&helm->left, &hub->lock);
    __atomic_store_n(&helm->looking, TRUE, __ATOMIC_SEQ_CST);
}

/* Becomes the main thread in place of the one that is on that trip; FALSE if it is just back. With
 * the lock held. */
static gboolean helm_take(LaneHub *hub, guint64 trip)
{
    Helm *helm = &hub->helm;
    LaneJob *job;

    if (!__atomic_compare_exchange_n(&helm->away, &trip, 0, FALSE, __ATOMIC_SEQ_CST,
                                     __ATOMIC_SEQ_CST))
        return FALSE;
    job = helm->job;
    job->lane->running++;
    hub->threads++; /* the one that runs it */
    g_hash_table_remove(hub->quick, job->lane->name);
    helm->has_stand_in = FALSE;
    helm->changed_usec = g_get_monotonic_time();
    return TRUE;
}

/* Waits, as the stand-in, to become the main thread: TRUE then, FALSE if it is not wanted any more.
 * With the lock held, and not held when it returns TRUE. */
static gboolean helm_stand_in(LaneHub *hub)
{
    static const struct timespec pause = {.tv_nsec = HELM_LOOK_NSEC};
    Helm *helm = &hub->helm;
    guint64 seen = 0, last = 0;
    guint calm = 0;

    __atomic_store_n(&helm->looking, TRUE, __ATOMIC_SEQ_CST);
    while (!hub->quit) {
        guint64 away, begun;

        pthread_mutex_unlock(&hub->lock);
        clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
        pthread_mutex_lock(&hub->lock);
        away = __atomic_load_n(&helm->away, __ATOMIC_SEQ_CST);
        begun = __atomic_load_n(&helm->begun, __ATOMIC_RELAXED);
        if (away != 0 && away == seen && helm_take(hub, away)) {
            pthread_mutex_unlock(&hub->lock);
            return TRUE;
        }
        seen = away;
        calm = begun == last ? calm + 1 : 0;
        last = begun;
        if (calm >= HELM_CALM_LOOKS) {
            helm_sleep(hub);
            calm = 0;
        }
    }
    helm->has_stand_in = FALSE;
    pthread_cond_signal(&hub->ended);
    return FALSE;
}

/* The life of a thread that can be the main thread: each time it has lost the helm it takes the
 * stand-in's place if that is free, and is a lane's thread otherwise. */
static void helm_live(LaneHub *hub, gboolean steers)
{
    Helm *helm = &hub->helm;

    for (;;) {
        if (steers)
            helm->steer(helm->data);
        pthread_mutex_lock(&hub->lock);
        if (steers && (helm->has_stand_in || hub->quit)) {
            lane_serve(hub);
            break;
        }
        if (steers) {
            hub->threads--;
            helm->has_stand_in = TRUE;
        }
        if (!helm_stand_in(hub))
            break;
        steers = TRUE;
    }
    pthread_mutex_unlock(&hub->lock);
}

static void *helm_steering_thread(void *data)
{
    helm_live(data, TRUE);
    return NULL;
}

static void *helm_standing_in_thread(void *data)
{
    helm_live(data, FALSE);
    return NULL;
}

/* ---- the main thread ------------------------------------------------------------------- */

void lane_hub_steer(LaneHub *hub, void (*steer)(void *data), void *data)
{
    hub->helm.steer = steer;
    hub->helm.data = data;
    hub->helm.is_first = TRUE;
    steer(data); /* until it has handed the helm over */
    for (;;)
        pause();
}

/* Makes another thread the main thread in place of the process's first one; FALSE if it cannot. */
static gboolean helm_hand_over(LaneHub *hub)
{
    Helm *helm = &hub->helm;

    if (g_get_monotonic_time() - helm->changed_usec <= HELM_REPLACE_USEC)
        return FALSE;
    helm->is_first = FALSE; /* now: once the thread is made, all is its */
    if (lane_start_thread(hub, HELM_STACK_BYTES, helm_steering_thread))
        return TRUE;
    helm->is_first = TRUE;
    helm->changed_usec = g_get_monotonic_time(); /* no sooner again */
    return FALSE;
}

/* TRUE if somebody would stand in; otherwise, and if it is time, finds somebody. */
static gboolean helm_is_safe(LaneHub *hub)
{
    Helm *helm = &hub->helm;
    gboolean safe;

    pthread_mutex_lock(&hub->lock);
    safe = helm->has_stand_in;
    if (!safe && g_get_monotonic_time() - helm->changed_usec > HELM_REPLACE_USEC) {
        helm->changed_usec = g_get_monotonic_time(); /* no sooner if it fails */
        safe = helm->has_stand_in =
            lane_start_thread(hub, HELM_STACK_BYTES, helm_standing_in_thread);
    }
    pthread_mutex_unlock(&hub->lock);
    return safe;
}

gboolean helm_takes(Lane *lane, const LaneJob *job)
{
    LaneHub *hub = lane->hub;
    const LaneJob *oldest = lane->under_way.head ? lane->under_way.head->data : NULL;
    guint64 usec = GPOINTER_TO_UINT(g_hash_table_lookup(hub->quick, lane->name));

    if (!hub->helm.steer ||
        (oldest && job->submitted_usec - oldest->submitted_usec > HELM_OLD_USEC))
        return FALSE;
    return usec > 0 && usec * MAX(job->items, 1) <= HELM_MAX_USEC;
}

static void helm_leave(Helm *helm, LaneJob *job, LaneHub *hub)
{
    helm->job = job;
    helm->trips++;
    __atomic_store_n(&helm->begun, helm->trips, __ATOMIC_RELAXED);
    __atomic_store_n(&helm->away, helm->trips, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&helm->looking, __ATOMIC_SEQ_CST))
        return;
    pthread_mutex_lock(&hub->lock);
    __atomic_store_n(&helm->looking, TRUE, __ATOMIC_SEQ_CST);
    pthread_cond_signal(&helm->left);
    pthread_mutex_unlock(&hub->lock);
}

/* FALSE if somebody else is the main thread now: then nothing may be touched but the job. */
static gboolean helm_run(LaneHub *hub, LaneJob *job)
{
    Helm *helm = &hub->helm;
    gint64 begin = g_get_monotonic_time();
    guint64 trip = helm->trips + 1;

    helm_leave(helm, job, hub);
    job->run(job);
    job->took_usec = g_get_monotonic_time() - begin;
    if (__atomic_compare_exchange_n(&helm->away, &trip, 0, FALSE, __ATOMIC_SEQ_CST,
                                    __ATOMIC_SEQ_CST))
        return TRUE;
    pthread_mutex_lock(&hub->lock);
    lane_returned(hub, job);
    pthread_mutex_unlock(&hub->lock);
    return FALSE;
}

LaneHere lane_hub_run_here(LaneHub *hub)
{
    LaneHere result = LANE_NONE;
    GList *link;

    if (hub->here.head && hub->helm.is_first && helm_hand_over(hub))
        return LANE_LOST;
    for (guint i = 0; i < HELM_AT_ONCE && (link = g_queue_pop_head_link(&hub->here)); i++) {
        LaneJob *job = link->data;
        Lane *lane = job->lane;

        result = LANE_RAN;
        lane->here--;
        if (!g_hash_table_contains(hub->quick, lane->name) || hub->helm.is_first ||
            !helm_is_safe(hub)) {
            lane_submit_to_thread(lane, job);
            continue;
        }
        if (!helm_run(hub, job))
            return LANE_LOST;
        g_queue_unlink(&lane->under_way, &job->journal);
        lane_judge(hub, job);
        job->done(job);
    }
    return result;
}

gboolean lane_hub_has_here(const LaneHub *hub)
{
    return hub->here.head != NULL;
}

void lane_hub_end_here(LaneHub *hub)
{
    GList *link;

    hub->helm.steer = NULL;
    while ((link = g_queue_pop_head_link(&hub->here))) {
        LaneJob *job = link->data;

        job->lane->here--;
        lane_submit_to_thread(job->lane, job);
    }
}
