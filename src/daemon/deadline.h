/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Deadlines of requests. Nearly all are cleared long before they pass, so they share one timer that
 * looks at all of them now and then; each passes up to DEADLINE_TICK_USEC late. To set and to clear
 * one costs no system call.
 *
 * All functions are for the main thread.
 */
#pragma once

#include <glib.h>
#include <systemd/sd-event.h>

#define DEADLINE_TICK_USEC (50 * G_TIME_SPAN_MILLISECOND)

typedef struct DeadlineClock DeadlineClock;

/* Part of the request that it is for; zeros are a deadline that is not set. */
typedef struct Deadline {
    gint64 at_usec; /* monotonic */
    void (*passed)(void *data);
    void *data;
    DeadlineClock *clock; /* NULL: not set */
    GList link;
} Deadline;

/* Returns 0 or a negative errno. */
int deadline_clock_new(sd_event *event, DeadlineClock **ret_clock);
/* No deadline may be set any more. */
void deadline_clock_free(DeadlineClock *clock);

/* passed() is called once, after `timeout_usec`, unless the deadline is cleared before. */
void deadline_set(DeadlineClock *clock, Deadline *deadline, guint64 timeout_usec,
                  void (*passed)(void *data), void *data);
void deadline_clear(Deadline *deadline);
