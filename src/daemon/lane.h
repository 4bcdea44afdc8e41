/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lanes: where everything runs that can block on storage.
 *
 * A lane is a queue with a limit of jobs that run at once. A lane whose storage hangs fills up and
 * delays its own callers; no other lane notices, for a thread is started whenever a job may run
 * and no thread is idle. Idle threads serve any lane and end after a while. A job goes to its lane
 * by value: from lane_submit() until done() the main thread does not touch it. The only data shared
 * between threads are the queues in lane.c.
 *
 * All functions are for the main thread. Which thread that is may change: to hand a job to another
 * thread and to hear of its end costs several times what a lock on healthy storage costs, so a job
 * of a lane that has been quick so far is run by the main thread itself, at the top of its loop.
 * Should it hang there all the same, another thread becomes the main thread within 3 ms and goes on
 * with the loop; see lane-helm.c. No job that hangs ever stops the loop for longer.
 */
#pragma once

#include <glib.h>
#include <systemd/sd-event.h>

/* For LaneJob.items: not in the main thread. */
#define LANE_NEVER_HERE G_MAXUINT

typedef struct LaneHub LaneHub;
typedef struct Lane Lane;
typedef struct LaneJob LaneJob;

struct LaneJob {
    void (*run)(LaneJob *job);  /* in some thread; may block */
    void (*done)(LaneJob *job); /* in the main thread; may free the job */
    const char *operation;      /* for status and time-outs; static text */
    gint64 submitted_usec;      /* wall clock */
    guint items;                /* how much work it is: locks to take, and the like; 0 is 1 */
    gboolean not_run;           /* no thread could be made: run() was never called */
    gint64 took_usec;           /* out: how long run() took */
    /* of lane.c */
    Lane *lane;
    GList link;    /* in the lane's queue, then among the finished; shared */
    GList journal; /* in the lane's list of jobs under way; main thread only */
};

/* How a lane is doing. */
typedef struct LaneState {
    const char *name;
    guint running;
    guint queued;
    gint64 oldest_usec;    /* when the oldest unfinished job was submitted; 0: none */
    const char *operation; /* what it is; NULL: none */
} LaneState;

/* `max_running` is for each lane. Returns 0 or a negative errno. */
int lane_hub_new(sd_event *event, guint max_running, LaneHub **ret_hub);
/* Lets idle threads end and waits for them up to `timeout_usec`. FALSE if a thread is stuck: then
 * nothing is freed and the process should leave with _exit(). */
gboolean lane_hub_free(LaneHub *hub, guint64 timeout_usec);

/* The lane of that name with a reference for the caller, who gives it back with lane_unref() after
 * its last job is done. A lane without references is gone. */
Lane *lane_hub_get(LaneHub *hub, const char *name);
void lane_unref(Lane *lane);
/* The lane of that name or NULL, without a reference. */
Lane *lane_hub_find(LaneHub *hub, const char *name);
/* Every lane: a new array of Lane, not owned. */
GPtrArray *lane_hub_list(LaneHub *hub);

/* For a loop that looks for results by itself before it sleeps, which saves waking it up. While it
 * is `awake`, results are not announced; they wait for lane_hub_poll(), which deals with them and
 * tells if there were any. After lane_hub_set_awake(FALSE) it has to be called once more. */
void lane_hub_set_awake(LaneHub *hub, gboolean awake);
gboolean lane_hub_poll(LaneHub *hub);
/* The calling thread is the main thread and does what steer() does, over and over: deal with what
 * there is, call lane_hub_run_here() with nothing else under way, sleep. When steer() returns, the
 * thread has lost that role, as lane_hub_run_here() said; the thread that has it now is in steer()
 * as well. Who wants to end the process does so inside steer(): this function never returns. It is
 * for the process's first thread, which itself runs none of the jobs. */
void lane_hub_steer(LaneHub *hub, void (*steer)(void *data), void *data) G_GNUC_NORETURN;
typedef enum LaneHere {
    LANE_NONE, /* there was nothing to be run here */
    LANE_RAN,  /* something was, and has been dealt with */
    LANE_LOST, /* it took too long: somebody else is the main thread now */
} LaneHere;
/* Runs jobs that are to be run in this thread, but not so many at once that other events wait. */
LaneHere lane_hub_run_here(LaneHub *hub);
/* TRUE if some are left. */
gboolean lane_hub_has_here(const LaneHub *hub);
/* From now on no job is run in this thread any more, because the loop has ended. */
void lane_hub_end_here(LaneHub *hub);

const char *lane_name(const Lane *lane);
/* Hands a job over; done() will be called exactly once, later. */
void lane_submit(Lane *lane, LaneJob *job);
LaneState lane_state(Lane *lane);
/* How many threads there are for all lanes, and how many of them wait for work. */
void lane_hub_threads(LaneHub *hub, guint *ret_threads, guint *ret_idle);
