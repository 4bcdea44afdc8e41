/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lanes: the worker threads in which everything runs that can block on storage.
 *
 * Each lane has threads of its own, at most a fixed number, which are started when jobs wait and
 * end when there is nothing to do. A lane whose storage hangs fills up and delays its own callers;
 * no other lane notices. A job goes to its lane by value: from lane_submit() until done() the main
 * thread does not touch it. The only data shared between threads are the queues in lane.c.
 *
 * All functions are for the main thread.
 */
#pragma once

#include <glib.h>
#include <systemd/sd-event.h>

typedef struct LaneHub LaneHub;
typedef struct Lane Lane;
typedef struct LaneJob LaneJob;

struct LaneJob {
    void (*run)(LaneJob *job);  /* in the lane; may block */
    void (*done)(LaneJob *job); /* in the main thread; may free the job */
    const char *operation;      /* for status and time-outs; static text */
    gint64 submitted_usec;      /* wall clock */
    gboolean not_run;           /* no thread could be made: run() was never called */
    /* of lane.c */
    Lane *lane;
    LaneJob *next;
    GList link; /* in the lane's list of jobs under way, main thread only */
};

/* How a lane is doing. */
typedef struct LaneState {
    const char *name;
    guint threads;
    guint running;
    guint queued;
    gint64 oldest_usec;    /* when the oldest unfinished job was submitted; 0: none */
    const char *operation; /* what it is; NULL: none */
} LaneState;

/* `max_threads` is for each lane. Returns 0 or a negative errno. */
int lane_hub_new(sd_event *event, guint max_threads, LaneHub **ret_hub);
/* Lets idle threads end and waits for them up to `timeout_usec`. FALSE if a thread is stuck: then
 * nothing is freed and the process should leave with _exit(). */
gboolean lane_hub_free(LaneHub *hub, guint64 timeout_usec);

/* The lane of that name, made if needed. A transient lane goes away when its last job is done. */
Lane *lane_hub_get(LaneHub *hub, const char *name, gboolean transient);
/* The lane of that name or NULL. */
Lane *lane_hub_find(LaneHub *hub, const char *name);
/* Every lane: a new array of Lane, not owned. */
GPtrArray *lane_hub_list(LaneHub *hub);

/* Hands a job over; done() will be called exactly once. */
void lane_submit(Lane *lane, LaneJob *job);
LaneState lane_state(Lane *lane);
