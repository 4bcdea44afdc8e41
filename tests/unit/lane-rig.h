/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What tests of lanes are made of: jobs that wait at a gate, never for a time. Knows nothing of how
 * a lane finds its threads.
 */
#pragma once

#include <glib.h>
#include <pthread.h>

#include "daemon/lane.h"

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

void gate_init(Gate *gate, gboolean open);
void gate_clear(Gate *gate);
/* Lets all jobs through, those that come later too. */
void gate_open(Gate *gate);
/* Waits until so many jobs have come to the gate. */
void gate_wait_for_begun(Gate *gate, guint count);

/* The two functions of a Job's LaneJob. */
void job_run(LaneJob *lane_job);
void job_done(LaneJob *lane_job);

/* ---- fixture --------------------------------------------------------------------------- */

typedef struct Fixture {
    sd_event *event;
    LaneHub *hub;
    Gate open;
    Gate shut;
} Fixture;

void fixture_up(Fixture *self, gconstpointer data);
void fixture_down(Fixture *self, gconstpointer data);

/* Hands `count` new jobs over, which the caller frees when they are done. */
Job *submit_jobs(Lane *lane, Gate *gate, guint count);
/* Turns the loop until all of these jobs are done. */
void wait_for_jobs(Fixture *self, Job *jobs, guint count);
void assert_done_once(const Job *jobs, guint count);
