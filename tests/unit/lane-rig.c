/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See lane-rig.h. */
#include "lane-rig.h"

#include <string.h>
#include <time.h>

/* ---- gates and jobs -------------------------------------------------------------------- */

void gate_init(Gate *gate, gboolean open)
{
    pthread_condattr_t attr;

    memset(gate, 0, sizeof(*gate));
    pthread_mutex_init(&gate->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&gate->changed, &attr);
    pthread_condattr_destroy(&attr);
    gate->open = open;
}

void gate_clear(Gate *gate)
{
    g_queue_clear(&gate->order);
    pthread_cond_destroy(&gate->changed);
    pthread_mutex_destroy(&gate->lock);
}

void gate_open(Gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate->open = TRUE;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}

void gate_wait_for_begun(Gate *gate, guint count)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += DEADLINE_USEC / G_USEC_PER_SEC;
    pthread_mutex_lock(&gate->lock);
    while (gate->begun < count)
        g_assert_cmpint(pthread_cond_timedwait(&gate->changed, &gate->lock, &until), ==, 0);
    pthread_mutex_unlock(&gate->lock);
}

void job_run(LaneJob *lane_job)
{
    Job *job = (Job *)lane_job;
    Gate *gate = job->gate;

    job->thread = pthread_self();
    pthread_mutex_lock(&gate->lock);
    gate->begun++;
    gate->inside++;
    gate->most = MAX(gate->most, gate->inside);
    g_queue_push_tail(&gate->order, GUINT_TO_POINTER(job->number));
    pthread_cond_broadcast(&gate->changed);
    while (!gate->open)
        pthread_cond_wait(&gate->changed, &gate->lock);
    gate->inside--;
    pthread_mutex_unlock(&gate->lock);
}

void job_done(LaneJob *lane_job)
{
    Job *job = (Job *)lane_job;

    job->done++;
    if (job->finished)
        g_queue_push_tail(job->finished, job);
}

/* ---- fixture --------------------------------------------------------------------------- */

void fixture_up(Fixture *self, gconstpointer data)
{
    (void)data;
    g_assert_cmpint(sd_event_new(&self->event), >=, 0);
    g_assert_cmpint(lane_hub_new(self->event, MAX_RUNNING, &self->hub), >=, 0);
    gate_init(&self->open, TRUE);
    gate_init(&self->shut, FALSE);
}

void fixture_down(Fixture *self, gconstpointer data)
{
    (void)data;
    g_assert_true(lane_hub_free(self->hub, DEADLINE_USEC));
    sd_event_unref(self->event);
    gate_clear(&self->open);
    gate_clear(&self->shut);
}

void wait_for_jobs(Fixture *self, Job *jobs, guint count)
{
    gint64 until = g_get_monotonic_time() + DEADLINE_USEC;

    for (guint i = 0; i < count; i++) {
        while (jobs[i].done == 0) {
            gint64 left = until - g_get_monotonic_time();

            g_assert_cmpint(left, >, 0);
            g_assert_cmpint(sd_event_run(self->event, (uint64_t)left), >=, 0);
        }
    }
}

Job *submit_jobs(Lane *lane, Gate *gate, guint count)
{
    Job *jobs = g_new0(Job, count);

    for (guint i = 0; i < count; i++) {
        jobs[i].job.run = job_run;
        jobs[i].job.done = job_done;
        jobs[i].job.operation = i == 0 ? "first" : "later";
        jobs[i].gate = gate;
        jobs[i].number = i;
        lane_submit(lane, &jobs[i].job);
    }
    return jobs;
}

void assert_done_once(const Job *jobs, guint count)
{
    for (guint i = 0; i < count; i++) {
        g_assert_cmpuint(jobs[i].done, ==, 1);
        g_assert_false(jobs[i].job.not_run);
    }
}
