/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See gate.h. */
#define G_LOG_DOMAIN "holdfast.pr"

#include "gate.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

/* Commands that are reported in one look at the gates; the others are, a second later. */
#define GATE_NEWS 16

/* A list of tickets, and where the next one goes. */
typedef struct GateList {
    PrTicket *first, **end;
} GateList;

struct PrGate {
    PrGate *next;
    dev_t dev;
    gboolean is_char;
    GateList inside; /* the longest inside comes first; never empty: such a gate is freed */
    guint n_inside;
    GateList waiting;
};

static pthread_mutex_t gates_lock = PTHREAD_MUTEX_INITIALIZER;
static PrGate *gates; /* all that have a command in them: few, and so a list */
static pthread_condattr_t gates_clock;
static int gates_wake = -1;       /* eventfd */
static atomic_bool gates_watched; /* the main thread looks every second */

int pr_gate_init(void)
{
    int r = pthread_condattr_init(&gates_clock);

    if (r == 0)
        r = pthread_condattr_setclock(&gates_clock, CLOCK_MONOTONIC);
    if (r != 0)
        return -r;
    gates_wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return gates_wake < 0 ? -errno : 0;
}

static PrGate *gate_find(dev_t dev, gboolean is_char)
{
    PrGate *gate = gates;

    while (gate && (gate->dev != dev || gate->is_char != is_char))
        gate = gate->next;
    return gate;
}

static PrGate *gate_make(dev_t dev, gboolean is_char)
{
    PrGate *gate = g_new0(PrGate, 1);

    gate->dev = dev;
    gate->is_char = is_char;
    gate->inside.end = &gate->inside.first;
    gate->waiting.end = &gate->waiting.first;
    gate->next = gates;
    gates = gate;
    return gate;
}

static void gate_free(PrGate *gate)
{
    PrGate **link = &gates;

    while (*link != gate)
        link = &(*link)->next;
    *link = gate->next;
    g_free(gate);
}

static void gate_append(GateList *list, PrTicket *ticket)
{
    ticket->next = NULL;
    *list->end = ticket;
    list->end = &ticket->next;
}

static void gate_remove(GateList *list, PrTicket *ticket)
{
    PrTicket **link = &list->first;

    while (*link != ticket)
        link = &(*link)->next;
    *link = ticket->next;
    if (list->end == &ticket->next)
        list->end = link;
}

/* A command is inside for so long that no other one is let in. */
static gboolean gate_is_stuck(const PrGate *gate)
{
    return gate->inside.first &&
           pr_now_msec() - gate->inside.first->since_msec >= PR_GATE_PATIENCE_MSEC;
}

/* Whether the ticket may be inside together with those who are. */
static gboolean gate_admits(const PrGate *gate, const PrTicket *ticket)
{
    if (gate->n_inside == 0)
        return TRUE;
    return ticket->shared && gate->inside.first->shared && gate->n_inside < PR_GATE_SHARED_MAX;
}

static void gate_let_in(PrGate *gate, PrTicket *ticket)
{
    ticket->is_inside = TRUE;
    ticket->since_msec = pr_now_msec();
    gate_append(&gate->inside, ticket);
    gate->n_inside++;
}

/* Those at the head of the queue for whom there is room now. */
static void gate_let_in_next(PrGate *gate)
{
    PrTicket *next;

    while ((next = gate->waiting.first) && gate_admits(gate, next)) {
        gate_remove(&gate->waiting, next);
        gate_let_in(gate, next);
        pthread_cond_signal(&next->turn);
    }
}

/* Until when a ticket waits that has come at `begin`: its own patience, and that for the command
 * that is inside longest, whichever ends first. */
static gint64 gate_deadline(const PrGate *gate, gint64 begin)
{
    return MIN(gate->inside.first->since_msec, begin) + PR_GATE_PATIENCE_MSEC;
}

/* With the lock held, which the wait lets go. TRUE: the ticket is inside. */
static gboolean gate_wait(PrGate *gate, PrTicket *ticket)
{
    const gint64 begin = pr_now_msec();

    pthread_cond_init(&ticket->turn, &gates_clock);
    gate_append(&gate->waiting, ticket);
    /* as long as somebody waits, there is somebody inside, and so the gate stays */
    while (!ticket->is_inside) {
        const gint64 until = gate_deadline(gate, begin);
        const struct timespec when = {.tv_sec = until / 1000, .tv_nsec = until % 1000 * 1000000};

        if (pr_now_msec() >= until)
            break;
        pthread_cond_timedwait(&ticket->turn, &gates_lock, &when);
    }
    if (!ticket->is_inside) {
        gate_remove(&gate->waiting, ticket);
        /* it may have kept others out who could have shared the gate */
        gate_let_in_next(gate);
    }
    pthread_cond_destroy(&ticket->turn);
    return ticket->is_inside;
}

/* The main thread looks at whoever is inside, from now on. */
static void gate_be_watched(void)
{
    if (!atomic_load_explicit(&gates_watched, memory_order_relaxed) &&
        !atomic_exchange(&gates_watched, true))
        eventfd_write(gates_wake, 1);
}

gboolean pr_gate_try(PrTicket *ticket, dev_t dev, gboolean is_char)
{
    gboolean entered;

    ticket->is_inside = ticket->reported = ticket->abandoned = FALSE;
    pthread_mutex_lock(&gates_lock);
    entered = gate_find(dev, is_char) == NULL;
    if (entered) {
        ticket->gate = gate_make(dev, is_char);
        gate_let_in(ticket->gate, ticket);
    }
    pthread_mutex_unlock(&gates_lock);
    if (entered)
        gate_be_watched();
    return entered;
}

gboolean pr_gate_enter(PrTicket *ticket, dev_t dev, gboolean is_char)
{
    gboolean entered = TRUE;
    PrGate *gate;

    ticket->is_inside = ticket->reported = ticket->abandoned = FALSE;
    pthread_mutex_lock(&gates_lock);
    gate = gate_find(dev, is_char);
    if (!gate)
        gate = gate_make(dev, is_char);
    ticket->gate = gate;
    if (!gate->waiting.first && gate_admits(gate, ticket) && !gate_is_stuck(gate))
        gate_let_in(gate, ticket);
    else
        entered = gate_wait(gate, ticket);
    pthread_mutex_unlock(&gates_lock);
    if (entered)
        gate_be_watched();
    return entered;
}

void pr_gate_leave(PrTicket *ticket)
{
    PrGate *gate = ticket->gate;

    pthread_mutex_lock(&gates_lock);
    gate_remove(&gate->inside, ticket);
    gate->n_inside--;
    gate_let_in_next(gate);
    if (gate->n_inside == 0)
        gate_free(gate);
    pthread_mutex_unlock(&gates_lock);
}

/* ---- the watch ------------------------------------------------------------------------- */

int pr_gate_watch_fd(void)
{
    return gates_wake;
}

/* What is to be said about a command, once the lock is let go: a log can block. */
typedef struct GateNews {
    const char *action;
    pid_t pid;
    dev_t dev;
    gboolean is_char;
    gboolean abandoned;
    gint64 msec;
} GateNews;

static void gate_report(const GateNews *news)
{
    g_warning("%s of pid %d on %s device %u:%u has not returned for %d s: %s", news->action,
              (int)news->pid, news->is_char ? "character" : "block", major(news->dev),
              minor(news->dev), (int)(news->msec / 1000),
              news->abandoned ? "its connection is closed; the command can't be called back"
                              : "other commands to the device are answered with BUSY");
}

/* TRUE: there is something to say. */
static gboolean gate_check(const PrGate *gate, PrTicket *ticket, gint64 now, GateNews *ret_news)
{
    const PrCommand *command = ticket->command;
    gint64 msec = now - ticket->since_msec;
    gboolean abandon = !ticket->abandoned && msec >= PR_GATE_ABANDON_MSEC;

    if (abandon)
        shutdown(ticket->socket, SHUT_RDWR);
    else if (ticket->reported || msec < PR_GATE_PATIENCE_MSEC)
        return FALSE;
    ticket->reported = TRUE;
    ticket->abandoned |= abandon;
    *ret_news = (GateNews){.action = pr_action_name(command->opcode, command->action),
                           .pid = command->peer->pid,
                           .dev = gate->dev,
                           .is_char = gate->is_char,
                           .abandoned = abandon,
                           .msec = msec};
    return TRUE;
}

gboolean pr_gate_watch(void)
{
    gint64 now = pr_now_msec();
    GateNews news[GATE_NEWS];
    guint n_news = 0;
    gboolean busy;
    eventfd_t ignored;

    eventfd_read(gates_wake, &ignored);
    pthread_mutex_lock(&gates_lock);
    busy = gates != NULL;
    for (PrGate *gate = gates; gate && n_news < GATE_NEWS; gate = gate->next)
        for (PrTicket *ticket = gate->inside.first; ticket && n_news < GATE_NEWS;
             ticket = ticket->next)
            n_news += gate_check(gate, ticket, now, &news[n_news]) ? 1 : 0;
    pthread_mutex_unlock(&gates_lock);
    for (guint i = 0; i < n_news; i++)
        gate_report(&news[i]);
    if (busy)
        return TRUE;
    /* whoever enters from here on wakes the main thread; who entered meanwhile is seen now */
    atomic_store(&gates_watched, false);
    return pr_gate_count(NULL) > 0 && !atomic_exchange(&gates_watched, true);
}

guint pr_gate_count(guint *ret_abandoned)
{
    guint count = 0, abandoned = 0;

    pthread_mutex_lock(&gates_lock);
    for (PrGate *gate = gates; gate; gate = gate->next) {
        count += gate->n_inside;
        for (const PrTicket *ticket = gate->inside.first; ticket; ticket = ticket->next)
            abandoned += ticket->abandoned != FALSE;
    }
    pthread_mutex_unlock(&gates_lock);
    if (ret_abandoned)
        *ret_abandoned = abandoned;
    return count;
}
