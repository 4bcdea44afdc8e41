/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lanes: order, the bound of jobs that run at once, that a stuck lane delays nobody else, and that
 * threads come and go.
 */
#include <dlfcn.h>
#include <errno.h>

#include "lane-rig.h"

/* ---- threads, counted and on demand not made ------------------------------------------- */

static gint threads_made;
static gboolean no_threads;

/* In place of the C library's, which it calls. */
int pthread_create(pthread_t *restrict thread, const pthread_attr_t *restrict attr,
                   void *(*start)(void *), void *restrict data)
{
    int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

    if (no_threads)
        return EAGAIN;
    g_atomic_int_inc(&threads_made);
    *(void **)(&real) = dlsym(RTLD_NEXT, "pthread_create");
    return real(thread, attr, start, data);
}

static guint count_threads(void)
{
    g_autoptr(GDir) dir = g_dir_open("/proc/self/task", 0, NULL);
    guint count = 0;

    while (g_dir_read_name(dir))
        count++;
    return count;
}

/* ---- one lane -------------------------------------------------------------------------- */

/* A job runs in another thread, and its end comes later, in the main thread. */
static void test_one_job(Fixture *self, gconstpointer data)
{
    Lane *lane = lane_hub_get(self->hub, "a");
    g_autofree Job *job = submit_jobs(lane, &self->open, 1);

    (void)data;
    g_assert_cmpuint(job->done, ==, 0);
    gate_wait_for_begun(&self->open, 1);
    g_assert_cmpuint(job->done, ==, 0);
    wait_for_jobs(self, job, 1);
    g_assert_false(pthread_equal(job->thread, pthread_self()));
    assert_done_once(job, 1);
    lane_unref(lane);
}

/* Jobs begin in the order in which they were handed over, and with one at a time they end so. */
static void test_order(void)
{
    sd_event *event = NULL;
    Fixture self = {0};
    GQueue finished = G_QUEUE_INIT;
    g_autofree Job *jobs = g_new0(Job, 200);
    Lane *lane;

    g_assert_cmpint(sd_event_new(&event), >=, 0);
    self.event = event;
    g_assert_cmpint(lane_hub_new(event, 1, &self.hub), >=, 0);
    gate_init(&self.open, TRUE);
    lane = lane_hub_get(self.hub, "a");
    for (guint i = 0; i < 200; i++) {
        jobs[i] = (Job){.job = {.run = job_run, .done = job_done, .operation = "x"},
                        .gate = &self.open,
                        .number = i,
                        .finished = &finished};
        lane_submit(lane, &jobs[i].job);
    }
    wait_for_jobs(&self, jobs, 200);
    g_assert_cmpuint(self.open.most, ==, 1);
    for (guint i = 0; i < 200; i++) {
        const Job *job = g_queue_pop_head(&finished);

        g_assert_cmpuint(GPOINTER_TO_UINT(g_queue_pop_head(&self.open.order)), ==, i);
        g_assert_cmpuint(job->number, ==, i);
    }
    lane_unref(lane);
    g_assert_true(lane_hub_free(self.hub, DEADLINE_USEC));
    sd_event_unref(event);
    gate_clear(&self.open);
}

/* No more than so many run at once; the others wait, and all get their turn. */
static void test_bound(Fixture *self, gconstpointer data)
{
    Lane *lane = lane_hub_get(self->hub, "a");
    g_autofree Job *jobs = submit_jobs(lane, &self->shut, 20);
    LaneState state;

    (void)data;
    gate_wait_for_begun(&self->shut, MAX_RUNNING);
    state = lane_state(lane);
    g_assert_cmpuint(state.running, ==, MAX_RUNNING);
    g_assert_cmpuint(state.queued, ==, 20 - MAX_RUNNING);
    gate_open(&self->shut);
    wait_for_jobs(self, jobs, 20);
    g_assert_cmpuint(self->shut.most, ==, MAX_RUNNING);
    assert_done_once(jobs, 20);
    lane_unref(lane);
}

/* What a lane is at, and since when. */
static void test_state(Fixture *self, gconstpointer data)
{
    Lane *lane = lane_hub_get(self->hub, "a");
    gint64 before = g_get_real_time();
    g_autofree Job *jobs = NULL;
    LaneState state = lane_state(lane);

    (void)data;
    g_assert_cmpstr(state.name, ==, "a");
    g_assert_cmpstr(lane_name(lane), ==, "a");
    g_assert_cmpint(state.oldest_usec, ==, 0);
    g_assert_null(state.operation);
    jobs = submit_jobs(lane, &self->shut, 2);
    state = lane_state(lane);
    g_assert_cmpstr(state.operation, ==, "first");
    g_assert_cmpint(state.oldest_usec, >=, before);
    g_assert_cmpint(state.oldest_usec, <=, g_get_real_time());
    gate_open(&self->shut);
    wait_for_jobs(self, jobs, 2);
    state = lane_state(lane);
    g_assert_cmpuint(state.running, ==, 0);
    g_assert_cmpuint(state.queued, ==, 0);
    g_assert_null(state.operation);
    lane_unref(lane);
}

/* ---- several lanes --------------------------------------------------------------------- */

/* A lane that is full of stuck jobs does not delay another, nor do many such lanes. */
static void test_stuck(Fixture *self, gconstpointer data)
{
    enum { STUCK = 20, EACH = 5 };
    Lane *stuck[STUCK];
    Job *waiting[STUCK];
    Lane *lane = lane_hub_get(self->hub, "healthy");
    g_autofree Job *jobs = NULL;

    (void)data;
    for (guint i = 0; i < STUCK; i++) {
        g_autofree char *name = g_strdup_printf("stuck%u", i);

        stuck[i] = lane_hub_get(self->hub, name);
        waiting[i] = submit_jobs(stuck[i], &self->shut, EACH);
    }
    gate_wait_for_begun(&self->shut, STUCK * MAX_RUNNING);
    jobs = submit_jobs(lane, &self->open, 100);
    wait_for_jobs(self, jobs, 100);
    for (guint i = 0; i < STUCK; i++)
        for (guint k = 0; k < EACH; k++)
            g_assert_cmpuint(waiting[i][k].done, ==, 0);
    gate_open(&self->shut);
    for (guint i = 0; i < STUCK; i++) {
        wait_for_jobs(self, waiting[i], EACH);
        assert_done_once(waiting[i], EACH);
        g_free(waiting[i]);
        lane_unref(stuck[i]);
    }
    lane_unref(lane);
}

/* A lane lives as long as somebody has it. */
static void test_references(Fixture *self, gconstpointer data)
{
    Lane *lane = lane_hub_get(self->hub, "a");
    Lane *other = lane_hub_get(self->hub, "b");
    g_autoptr(GPtrArray) all = lane_hub_list(self->hub);

    (void)data;
    g_assert_cmpuint(all->len, ==, 2);
    g_assert_true(lane_hub_get(self->hub, "a") == lane);
    lane_unref(lane);
    g_assert_true(lane_hub_find(self->hub, "a") == lane);
    lane_unref(lane);
    g_assert_null(lane_hub_find(self->hub, "a"));
    g_assert_true(lane_hub_find(self->hub, "b") == other);
    lane_unref(other);
}

static void job_done_and_unref(LaneJob *lane_job)
{
    Lane *lane = lane_job->lane;

    job_done(lane_job);
    lane_unref(lane);
}

/* The last job may take its lane along. */
static void test_unref_in_done(Fixture *self, gconstpointer data)
{
    Job jobs[50];

    (void)data;
    for (guint i = 0; i < G_N_ELEMENTS(jobs); i++) {
        g_autofree char *name = g_strdup_printf("%u", i % 7);

        jobs[i] = (Job){.job = {.run = job_run, .done = job_done_and_unref, .operation = "x"},
                        .gate = &self->open,
                        .number = i};
        lane_submit(lane_hub_get(self->hub, name), &jobs[i].job);
    }
    wait_for_jobs(self, jobs, G_N_ELEMENTS(jobs));
    g_assert_null(lane_hub_find(self->hub, "0"));
}

/* ---- threads --------------------------------------------------------------------------- */

/* One job after the other needs one thread, whichever lanes they are of. */
static void test_threads_are_shared(Fixture *self, gconstpointer data)
{
    gint before = threads_made;

    (void)data;
    for (guint i = 0; i < 100; i++) {
        g_autofree char *name = g_strdup_printf("%u", i);
        Lane *lane = lane_hub_get(self->hub, name);
        g_autofree Job *job = submit_jobs(lane, &self->open, 1);

        wait_for_jobs(self, job, 1);
        lane_unref(lane);
    }
    /* a thread may still be on its way back to the queue */
    g_assert_cmpint(threads_made - before, <=, 3);
}

/* Threads that have nothing to do end by themselves. */
static void test_idle_threads_end(Fixture *self, gconstpointer data)
{
    Lane *lane = lane_hub_get(self->hub, "a");
    g_autofree Job *jobs = submit_jobs(lane, &self->shut, MAX_RUNNING);
    gint64 until = g_get_monotonic_time() + DEADLINE_USEC;
    guint busy;

    (void)data;
    gate_wait_for_begun(&self->shut, MAX_RUNNING);
    busy = count_threads();
    gate_open(&self->shut);
    wait_for_jobs(self, jobs, MAX_RUNNING);
    while (count_threads() > busy - MAX_RUNNING) {
        g_assert_cmpint(g_get_monotonic_time(), <, until);
        g_usleep(20 * G_TIME_SPAN_MILLISECOND);
    }
    lane_unref(lane);
}

/* Where no thread can be made a job is told so, instead of waiting for ever. */
static void test_no_threads(Fixture *self, gconstpointer data)
{
    Lane *lane = lane_hub_get(self->hub, "a");
    g_autofree Job *jobs = NULL;
    g_autofree Job *later = NULL;

    (void)data;
    no_threads = TRUE;
    jobs = submit_jobs(lane, &self->open, 2);
    wait_for_jobs(self, jobs, 2);
    no_threads = FALSE;
    for (guint i = 0; i < 2; i++) {
        g_assert_true(jobs[i].job.not_run);
        g_assert_cmpuint(jobs[i].done, ==, 1);
    }
    g_assert_cmpuint(self->open.begun, ==, 0);
    later = submit_jobs(lane, &self->open, 1);
    wait_for_jobs(self, later, 1);
    assert_done_once(later, 1);
    lane_unref(lane);
}

/* A hub with a stuck thread says so and stays as it is. */
static void test_free_while_stuck(Fixture *self, gconstpointer data)
{
    Lane *lane = lane_hub_get(self->hub, "a");
    g_autofree Job *job = submit_jobs(lane, &self->shut, 1);

    (void)data;
    gate_wait_for_begun(&self->shut, 1);
    g_assert_false(lane_hub_free(self->hub, 0));
    gate_open(&self->shut);
    wait_for_jobs(self, job, 1);
    lane_unref(lane);
}

/* ---- at random ------------------------------------------------------------------------- */

/* Many lanes, jobs that come in bursts: each is done exactly once. */
static void test_random(Fixture *self, gconstpointer data)
{
    enum { LANES = 6, BURST = 40 };
    Gate gates[LANES];

    (void)data;
    for (guint i = 0; i < LANES; i++)
        gate_init(&gates[i], TRUE);
    for (guint round = 0; round < 200; round++) {
        Lane *lanes[BURST];
        Job *jobs[BURST];

        for (guint i = 0; i < BURST; i++) {
            gint32 which = g_test_rand_int_range(0, LANES);
            g_autofree char *name = g_strdup_printf("%d", which);

            lanes[i] = lane_hub_get(self->hub, name);
            jobs[i] = submit_jobs(lanes[i], &gates[which], 1);
        }
        for (guint i = 0; i < BURST; i++)
            wait_for_jobs(self, jobs[i], 1);
        for (guint i = 0; i < BURST; i++) {
            assert_done_once(jobs[i], 1);
            g_free(jobs[i]);
            lane_unref(lanes[i]);
        }
    }
    for (guint i = 0; i < LANES; i++) {
        g_assert_cmpuint(gates[i].most, <=, MAX_RUNNING);
        gate_clear(&gates[i]);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD(name, function)                                                                        \
    g_test_add("/lane/" name, Fixture, NULL, fixture_up, function, fixture_down)
    ADD("one-job", test_one_job);
    g_test_add_func("/lane/order", test_order);
    ADD("bound", test_bound);
    ADD("state", test_state);
    ADD("stuck", test_stuck);
    ADD("references", test_references);
    ADD("unref-in-done", test_unref_in_done);
    ADD("threads-are-shared", test_threads_are_shared);
    ADD("idle-threads-end", test_idle_threads_end);
    ADD("no-threads", test_no_threads);
    ADD("free-while-stuck", test_free_while_stuck);
    ADD("random", test_random);
#undef ADD
    return g_test_run();
}
