/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who is the main thread: a job that hangs in it makes another thread the main thread, which loses
 * nothing. What lanes do with jobs is in test-lane.c.
 */
#include <stdlib.h>
#include <unistd.h>

#include "lane-rig.h"

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

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/lane/helm", test_helm);
    return g_test_run();
}
