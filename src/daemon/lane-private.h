/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What lane.c and lane-helm.c share; for no other file. */
#pragma once

#include <pthread.h>

#include "lane.h"

/* Who is the main thread, see lane-helm.c. */
typedef struct Helm {
    void (*steer)(void *data); /* what the main thread does; NULL: nobody may stand in for it */
    void *data;
    gboolean is_first;   /* the main thread is the process's first thread; main thread only */
    guint64 trips;       /* how often the main thread has gone away; main thread only */
    guint64 away;        /* atomic: number of the trip under way; 0: the main thread is there */
    guint64 begun;       /* atomic: number of the last trip */
    gboolean looking;    /* atomic: the stand-in looks from time to time */
    LaneJob *job;        /* what the main thread is away for */
    gint64 changed_usec; /* when somebody else became the main thread; main thread only */
    /* guarded by the hub's lock */
    gboolean has_stand_in;
    pthread_cond_t left;
} Helm;

struct LaneHub {
    sd_event_source *source;
    int eventfd;
    guint max_running;
    GHashTable *lanes;   /* name -> Lane; main thread only */
    gboolean may_linger; /* there is more than one processor; never changes */
    guint waiting;    /* jobs that no thread has taken; written with the lock held, read without */
    guint n_finished; /* the same for results */

    pthread_mutex_t lock; /* of all below, and of the lanes' queues */
    pthread_cond_t work;
    pthread_cond_t ended; /* a thread has ended */
    GQueue runnable;      /* of Lane: something waits and may run */
    GQueue finished;      /* of LaneJob */
    guint threads;
    guint idle;
    guint signalled; /* idle threads that have been told to look for work */
    guint lookers;   /* threads that look for a job before they sleep */
    gboolean awake;  /* the main thread lingers: no need to wake it */
    gboolean quit;

    Helm helm;
    GQueue here; /* of LaneJob: to be run by the main thread itself; main thread only */
    /* names of lanes whose last job was quick -> usec for each item; main thread only */
    GHashTable *quick;
};

struct Lane {
    LaneHub *hub;
    char *name;
    guint refs;       /* main thread only */
    GQueue under_way; /* of LaneJob, oldest first; main thread only */
    guint here;       /* its jobs in the hub's queue of that name; main thread only */

    GQueue waiting; /* of LaneJob; these four are guarded by the hub's lock */
    guint running;
    guint promised; /* threads that are on their way to a waiting job */
    gboolean is_runnable;
    GList link; /* in the hub's runnable lanes */
};

/* With the hub's lock held: the job has been run, the main thread is to hear of it. */
void lane_finish(LaneHub *hub, LaneJob *job);
/* The same: the job was run in this thread, which is none of the lane's. */
void lane_returned(LaneHub *hub, LaneJob *job);
/* Runs jobs until there are none for a while. With the lock held. */
void lane_serve(LaneHub *hub);
/* Starts a thread that does this, not counted; FALSE if none can be made. */
gboolean lane_start_thread(LaneHub *hub, size_t stack_bytes, void *(*start)(void *data));
/* A result arrived: whether the lane is one whose jobs the main thread may run itself. */
void lane_judge(LaneHub *hub, const LaneJob *job);
/* Gives the job to a thread. */
void lane_submit_to_thread(Lane *lane, LaneJob *job);

/* ---- lane-helm.c ----------------------------------------------------------------------- */

void helm_init(Helm *helm, const pthread_condattr_t *attr);
void helm_clear(Helm *helm);
/* TRUE if the main thread should run this new job itself. */
gboolean helm_takes(Lane *lane, const LaneJob *job);
