/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What acquire.c and acquire-plan.c share; for no other file. */
#pragma once

#include "engine.h"

typedef struct Want {
    Acquire *acquire;
    char *disk;
    char *format; /* the disk is to be a safe image of it; NULL: nobody looks */
    Resource resources[IDENTITY_MAX_NAMES]; /* once named */
    unsigned flags[IDENTITY_MAX_NAMES];
    guint n_resources;
    IdentityFacts *facts;
    hf_mode mode;
    gboolean by_name; /* the resource was given; no rules apply */
    Lease *lease;     /* the owner's lease, existing or new; in the table */
    gboolean existing;
} Want;

struct Acquire {
    Engine *engine;
    Owner *owner;
    AcquireStyle style;
    guint64 timeout_usec;
    GPtrArray *wants;
    GPtrArray *ops;        /* of Op, prepared, still to be run; by lane */
    Op *running;           /* the one that is under way */
    GPtrArray *looking_up; /* of Op: of the plan, under way */
    guint retries;
    guint64 epoch; /* of the engine's releases, see acquire_wait() */
    gint64 since_usec;
    Fault *fault; /* why it will fail */
    Deadline deadline;
    GList waiting; /* link in the engine's queue of those who wait for a release */
    gboolean is_waiting;
    gboolean retry_now;
    gboolean keeping; /* the leases are on their way into the vault */
    gboolean undoing;
    gboolean stepping_back; /* it releases what it has before it tries again */
    AcquireDone done;       /* NULL: already answered, or nobody wants to know */
    void *data;
};

/* ---- acquire-plan.c -------------------------------------------------------------------- */

/* Looks up what the rules need to know, then goes on to acquire_name(). */
void acquire_plan(Acquire *acquire);
/* Names every want's resources, prepares the ops, then goes on to acquire_lock(). */
void acquire_name(Acquire *acquire);

/* A new fault: two wants are one thing (or one want stands twice in the request). */
Fault *acquire_twice(const Want *want, const Want *other);

/* ---- acquire.c ------------------------------------------------------------------------- */

/* Runs the next op, or if there is none left, finishes. */
void acquire_lock(Acquire *acquire);
/* The request cannot succeed: gives back what it has, as soon as nothing is under way, and answers
 * with `fault`, which it takes over. */
void acquire_fail(Acquire *acquire, Fault *fault);
/* The want cannot be had because of these leases (or, if there are none, these holders). */
void acquire_refused(Acquire *acquire, const Want *want, GPtrArray *leases, GPtrArray *holders);
/* The plan's last look-up has failed, and nothing is under way. */
void acquire_undo(Acquire *acquire);
