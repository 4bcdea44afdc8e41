/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See deadline.h. */
#include "deadline.h"

struct DeadlineClock {
    sd_event_source *timer;
    gboolean ticking;
    GQueue deadlines; /* of Deadline */
};

/* Takes out the first deadline that has passed; NULL if none has. */
static Deadline *deadline_take(DeadlineClock *clock, gint64 now)
{
    for (GList *link = clock->deadlines.head; link; link = link->next) {
        Deadline *deadline = link->data;

        if (deadline->at_usec > now)
            continue;
        deadline_clear(deadline);
        return deadline;
    }
    return NULL;
}

static int deadline_on_tick(sd_event_source *source, uint64_t usec, void *data)
{
    DeadlineClock *clock = data;
    gint64 now = g_get_monotonic_time();
    Deadline *deadline;

    (void)usec;
    /* from the beginning after each: who is told may set, clear and free others */
    while ((deadline = deadline_take(clock, now)))
        deadline->passed(deadline->data);
    clock->ticking = !g_queue_is_empty(&clock->deadlines);
    if (!clock->ticking)
        return 0;
    sd_event_source_set_time_relative(source, DEADLINE_TICK_USEC);
    return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

int deadline_clock_new(sd_event *event, DeadlineClock **ret_clock)
{
    DeadlineClock *clock = g_new0(DeadlineClock, 1);
    int r = sd_event_add_time_relative(event, &clock->timer, CLOCK_MONOTONIC, DEADLINE_TICK_USEC, 0,
                                       deadline_on_tick, clock);

    if (r < 0) {
        g_free(clock);
        return r;
    }
    clock->ticking = TRUE; /* the first tick finds nothing and stops */
    *ret_clock = clock;
    return 0;
}

void deadline_clock_free(DeadlineClock *clock)
{
    sd_event_source_disable_unref(clock->timer);
    g_free(clock);
}

void deadline_set(DeadlineClock *clock, Deadline *deadline, guint64 timeout_usec,
                  void (*passed)(void *data), void *data)
{
    deadline_clear(deadline);
    deadline->at_usec = g_get_monotonic_time() + (gint64)timeout_usec;
    deadline->passed = passed;
    deadline->data = data;
    deadline->clock = clock;
    deadline->link.data = deadline;
    g_queue_push_tail_link(&clock->deadlines, &deadline->link);
    if (clock->ticking)
        return;
    clock->ticking = TRUE;
    sd_event_source_set_time_relative(clock->timer, DEADLINE_TICK_USEC);
    sd_event_source_set_enabled(clock->timer, SD_EVENT_ONESHOT);
}

void deadline_clear(Deadline *deadline)
{
    if (!deadline->clock)
        return;
    g_queue_unlink(&deadline->clock->deadlines, &deadline->link);
    deadline->clock = NULL;
}
