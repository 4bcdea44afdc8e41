/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lanes: order, the bound of jobs that run at once, that a stuck lane delays nobody else, and that
 * threads come and go. Jobs wait at a gate, never for a time.
 */
#include "daemon/lane.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Far more than any step takes on a busy machine; idle threads stay for 5 s. */
#define DEADLINE_USEC (60 * G_USEC_PER_SEC)
#define MAX_RUNNING 3

/* ---- gates and jobs -------------------------------------------------------------------- */

typedef struct Gate {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* GLib's own are unknown to the thread sanitizer */
    gboolean open;
    guint inside; /* jobs that have begun and not ended */
    guint most;   /* of these at any time */
    guint begun;
    GQueue order; /* numbers of the jobs that have begun */
} Gate;

typedef struct Job {
    LaneJob job;
    Gate *gate;
    guint number;
    pthread_t thread; /* that ran it */
    guint done;       /* how often done() was called */
    GQueue *finished; /* of Job, in the order of done(); may be NULL */
} Job;

static void gate_init(Gate *gate, gboolean open)
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

static void gate_clear(Gate *gate)
{
    g_queue_clear(&gate->order);
    pthread_cond_destroy(&gate->changed);
    pthread_mutex_destroy(&gate->lock);
}

static void gate_open(Gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate->open = TRUE;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}

static void gate_wait_for_begun(Gate *gate, guint count)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += DEADLINE_USEC / G_USEC_PER_SEC;
    pthread_mutex_lock(&gate->lock);
    while (gate->begun < count)
        g_assert_cmpint(pthread_cond_timedwait(&gate->changed, &gate->lock, &until), ==, 0);
    pthread_mutex_unlock(&gate->lock);
}

static void job_run(LaneJob *lane_job)
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

static void job_done(LaneJob *lane_job)
{
    Job *job = (Job *)lane_job;

    job->done++;
    if (job->finished)
        g_queue_push_tail(job->finished, job);
}

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

/* ---- fixture --------------------------------------------------------------------------- */

typedef struct Fixture {
    sd_event *event;
    LaneHub *hub;
    Gate open;
    Gate shut;
} Fixture;

static void fixture_up(Fixture *self, gconstpointer data)
{
    (void)data;
    g_assert_cmpint(sd_event_new(&self->event), >=, 0);
    g_assert_cmpint(lane_hub_new(self->event, MAX_RUNNING, &self->hub), >=, 0);
    gate_init(&self->open, TRUE);
    gate_init(&self->shut, FALSE);
}

static void fixture_down(Fixture *self, gconstpointer data)
{
    (void)data;
    g_assert_true(lane_hub_free(self->hub, DEADLINE_USEC));
    sd_event_unref(self->event);
    gate_clear(&self->open);
    gate_clear(&self->shut);
}

/* Turns the loop until all of these jobs are done. */
static void wait_for_jobs(Fixture *self, Job *jobs, guint count)
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

static Job *submit_jobs(Lane *lane, Gate *gate, guint count)
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

static void assert_done_once(const Job *jobs, guint count)
{
    for (guint i = 0; i < count; i++) {
        g_assert_cmpuint(jobs[i].done, ==, 1);
        g_assert_false(jobs[i].job.not_run);
    }
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

/* ---- who is the main thread ------------------------------------------------------------ */

/* What the main thread owns, whichever thread that is. Nothing here is guarded: the thread
 * sanitizer sees whether each really has it alone. */
typedef struct Helmsman {
    Fixture fixture;
    guint hangs; /* how often a job has hung in the main thread so far */
    gboolean is_hanging;
    Job hanging;
    Lane *lane;
} Helmsman;

#define HANGS 8

static gint64 helmsman_until;

static void helmsman_turn(Helmsman *self)
{
    g_assert_cmpint(g_get_monotonic_time(), <, helmsman_until);
    g_assert_cmpint(sd_event_run(self->fixture.event, 0), >=, 0);
    lane_hub_poll(self->fixture.hub);
}

static Job *helmsman_submit(Helmsman *self, Lane *lane)
{
    Job *job = g_new0(Job, 1);

    job->job = (LaneJob){.run = job_run, .done = job_done, .operation = "x"};
    job->gate = &self->fixture.open;
    lane_submit(lane, &job->job);
    return job;
}

typedef enum Where { HERE, THREAD, LOST } Where;

/* Runs one job: by this thread, or another, or this one has lost the helm meanwhile, which on a
 * busy processor happens without any harm meant. */
static Where helmsman_try(Helmsman *self)
{
    g_autofree Job *job = helmsman_submit(self, self->lane);

    while (job->done == 0) {
        if (lane_hub_run_here(self->fixture.hub) == LANE_LOST) {
            job = NULL; /* it is done in another thread, some time */
            return LOST;
        }
        helmsman_turn(self);
    }
    if (!pthread_equal(job->thread, pthread_self()))
        return THREAD;
    g_assert_cmpint(gettid(), !=, getpid()); /* never the process's first thread */
    return HERE;
}

/* This lane's jobs are not run here. */
static void helmsman_run_in_thread(Helmsman *self, Lane *lane)
{
    g_autofree Job *job = helmsman_submit(self, lane);

    while (job->done == 0)
        helmsman_turn(self);
    g_assert_false(pthread_equal(job->thread, pthread_self()));
}

/* In another thread than before: the job hangs, and all else goes on. */
static void helmsman_check_hung(Helmsman *self)
{
    g_autofree char *name = g_strdup_printf("other%u", self->hangs);
    Lane *other = lane_hub_get(self->fixture.hub, name);
    LaneState state = lane_state(self->lane);

    g_assert_cmpuint(self->hanging.done, ==, 0);
    g_assert_cmpuint(state.running, >=, 1);
    helmsman_run_in_thread(self, self->lane);
    helmsman_run_in_thread(self, other);
    g_assert_cmpuint(self->hanging.done, ==, 0);
    gate_open(&self->fixture.shut);
    while (self->hanging.done == 0)
        helmsman_turn(self);
    g_assert_cmpuint(self->hanging.done, ==, 1);
    g_assert_false(pthread_equal(self->hanging.thread, pthread_self()));
    self->is_hanging = FALSE;
    lane_unref(other);
}

static void helmsman_hang(Helmsman *self)
{
    gate_clear(&self->fixture.shut);
    gate_init(&self->fixture.shut, FALSE);
    self->hanging = (Job){.job = {.run = job_run, .done = job_done, .operation = "hang"},
                          .gate = &self->fixture.shut};
    self->hangs++;
    self->is_hanging = TRUE;
    lane_submit(self->lane, &self->hanging.job);
}

static void helmsman_steer(void *data)
{
    Helmsman *self = data;

    if (self->is_hanging)
        helmsman_check_hung(self);
    while (self->hangs < HANGS) {
        Where where;

        while ((where = helmsman_try(self)) == THREAD) /* until there is a stand-in */
            helmsman_turn(self);
        if (where == LOST)
            return;
        helmsman_hang(self);
        if (lane_hub_run_here(self->fixture.hub) == LANE_LOST)
            return;
        /* bad luck: the one job before had looked slow, so this went to a thread */
        gate_open(&self->fixture.shut);
        while (self->hanging.done == 0)
            helmsman_turn(self);
        self->is_hanging = FALSE;
        self->hangs--;
    }
    while (lane_state(self->lane).oldest_usec) /* one that was lost */
        helmsman_turn(self);
    lane_unref(self->lane);
    lane_hub_end_here(self->fixture.hub);
    fixture_down(&self->fixture, NULL);
    _exit(EXIT_SUCCESS);
}

/* A job that hangs in the main thread makes another thread the main thread, which loses nothing;
 * again and again. In a process of its own, for it ends with the process. */
static void test_helm(void)
{
    static Helmsman self;

    if (!g_test_subprocess()) {
        g_test_trap_subprocess(NULL, 0, G_TEST_SUBPROCESS_INHERIT_STDERR);
        g_test_trap_assert_passed();
        return;
    }
    helmsman_until = g_get_monotonic_time() + DEADLINE_USEC;
    fixture_up(&self.fixture, NULL);
    self.lane = lane_hub_get(self.fixture.hub, "a");
    lane_hub_steer(self.fixture.hub, helmsman_steer, &self);
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
    g_test_add_func("/lane/helm", test_helm);
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
