/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The daemon's loop, and what ends it: signals, idleness, a keeper that is gone. */
#define G_LOG_DOMAIN "holdfast.main"

#include <sched.h>
#include <signal.h>
#include <string.h>

#include "daemon.h"
#include "keeper/closer.h"
#include "keeper/keeper.h"

/* sd-event is asked at least so often while there is work. A request's own deadline may pass 50 ms
 * late anyway. */
#define DAEMON_ASK_MSEC 10
/* To be woken from sleep costs 10 to 50 us on a virtual machine: that long it is worth to look. */
#define DAEMON_LINGER_USEC 50

/* ---- what ends it ---------------------------------------------------------------------- */

static int daemon_on_signal(sd_event_source *source, const struct signalfd_siginfo *info,
                            void *data)
{
    Daemon *self = data;

    (void)source;
    if (info->ssi_signo == SIGHUP) {
        g_message("SIGHUP: the configuration is read at the start only; SIGUSR1 starts anew");
        return 0;
    }
    if (info->ssi_signo == SIGUSR1 && vault_kind(self->vault) == VAULT_NONE) {
        g_warning("SIGUSR1: nothing would keep the locks while the daemon starts anew; ignored");
        return 0;
    }
    if (info->ssi_signo == SIGUSR1 && !handover_is_complete(self->engine)) {
        g_warning("SIGUSR1: some leases would be lost, which could not be written to the ledger or "
                  "not be kept by the supervisor; ignored");
        return 0;
    }
    self->restarting = info->ssi_signo == SIGUSR1;
    g_message("SIG%s: %s", sigabbrev_np((int)info->ssi_signo),
              self->restarting ? "starting anew" : "ending");
    return sd_event_exit(self->event, self->restarting ? KEEPER_RESTART : 0);
}

/* Other children are for whoever has started them: a lane that asks scsi_id, say. */
static int daemon_on_child(sd_event_source *source, const struct signalfd_siginfo *info, void *data)
{
    (void)source;
    (void)info;
    (void)data;
    closer_collect();
    return 0;
}

int daemon_add_signals(Daemon *self)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1};
    sigset_t set;
    int r = 0;

    sigemptyset(&set);
    for (size_t i = 0; i < G_N_ELEMENTS(numbers); i++)
        sigaddset(&set, numbers[i]);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; r >= 0 && i < G_N_ELEMENTS(numbers); i++)
        r = sd_event_add_signal(self->event, NULL, numbers[i], daemon_on_signal, self);
    if (r >= 0)
        r = sd_event_add_signal(self->event, NULL, SIGCHLD, daemon_on_child, self);
    return r;
}

static gboolean daemon_is_idle(const Daemon *self)
{
    return conn_set_count(self->conns) == 0 && table_size(self->engine->table) == 0;
}

static void daemon_on_closed(void *data)
{
    Daemon *self = data;

    self->idle_since = g_get_monotonic_time();
}

/* Somebody has killed the keeper, and so wants the daemon gone, but not while VMs need it. */
static int daemon_on_abandoned(sd_event_source *source, uint64_t usec, void *data)
{
    Daemon *self = data;

    (void)usec;
    if (table_size(self->engine->table) == 0) {
        g_message("the keeper has ended and nothing is held: ending");
        return sd_event_exit(self->event, 0);
    }
    sd_event_source_set_time_relative(source, G_USEC_PER_SEC);
    return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

void daemon_on_vault_lost(void *data)
{
    Daemon *self = data;

    if (!self->abandoned)
        sd_event_add_time_relative(self->event, NULL, CLOCK_MONOTONIC, 0, 0, daemon_on_abandoned,
                                   self);
    self->abandoned = TRUE;
}

static int daemon_on_idle_timer(sd_event_source *source, uint64_t usec, void *data)
{
    Daemon *self = data;
    gint64 limit = self->options.timeout_seconds * (gint64)G_USEC_PER_SEC;
    gint64 now = g_get_monotonic_time();

    (void)usec;
    if (!daemon_is_idle(self))
        self->idle_since = now;
    if (now - self->idle_since >= limit) {
        g_message("idle for %u s: ending", self->options.timeout_seconds);
        return sd_event_exit(self->event, 0);
    }
    sd_event_source_set_time_relative(source, (uint64_t)(self->idle_since + limit - now));
    return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

int daemon_start_idle_timer(Daemon *self)
{
    self->idle_since = g_get_monotonic_time();
    if (self->options.timeout_seconds == 0)
        return 0;
    conn_set_on_closed(self->conns, daemon_on_closed, self);
    return sd_event_add_time_relative(self->event, &self->idle_timer, CLOCK_MONOTONIC,
                                      self->options.timeout_seconds * (uint64_t)G_USEC_PER_SEC, 0,
                                      daemon_on_idle_timer, self);
}

/* ---- the loop -------------------------------------------------------------------------- */

/* One look for something to do: sleeps for it if there is nothing. Returns what conn_set_wait()
 * does, with CONN_LOOP_READY also when sd-event has to be asked before it may be slept for ever. */
static int daemon_sleep(Daemon *self, gboolean asked)
{
    LaneHub *lanes = self->engine->lanes;
    int ready = CONN_LOOP_READY; /* a result may have set a timer, which is not armed yet */

    lane_hub_set_awake(lanes, FALSE);
    if (!lane_hub_poll(lanes)) {
        ready = conn_set_wait(self->conns, asked ? -1 : DAEMON_ASK_MSEC);
        ready = ready ? ready : CONN_LOOP_READY;
    }
    lane_hub_set_awake(lanes, TRUE);
    return ready;
}

/* Deals with whatever there is, and sleeps when there is nothing. Connections come first, and come
 * often; sd-event, which has all else, costs several system calls each time it is asked. So it is
 * asked when its descriptor says so, and every few milliseconds while there is work: the timers
 * that requests set are armed then, and relative ones count from then. After a lane's result, and
 * while one client speaks again and again, the next one is looked for for a moment: to be woken
 * up would take longer.
 *
 * Returns FALSE if another thread goes on with it; otherwise it has ended with *ret_code, an exit
 * code or a negative errno. */
gboolean daemon_loop(Daemon *self, int *ret_code)
{
    LaneHub *lanes = self->engine->lanes;
    gint64 until = 0, asked_at = 0;
    const gboolean may_linger = g_get_num_processors() > 1;
    gboolean asked = FALSE; /* sd-event knows all that has been done */
    int code = 0, r = 0, ready = CONN_LOOP_READY;

    for (;;) {
        gint64 now = g_get_monotonic_time();
        LaneHere here;

        if ((ready & CONN_LOOP_READY) ||
            now - asked_at > DAEMON_ASK_MSEC * G_TIME_SPAN_MILLISECOND) {
            r = sd_event_run(self->event, 0);
            asked_at = now;
            asked = r == 0;
            if (r < 0 || sd_event_get_state(self->event) == SD_EVENT_FINISHED)
                break; /* it takes no new event sources, so nothing can be answered any more */
        }
        if (ready & CONN_READY) {
            conn_set_serve(self->conns);
            asked = FALSE;
        }
        /* Several clients are served best by sleeping: there is more to do at each awakening. And
         * on a single processor the client cannot speak while it is looked for. */
        if (may_linger && conn_set_has_one_speaker(self->conns, ready))
            until = now + DAEMON_LINGER_USEC;
        here = lane_hub_run_here(lanes);
        if (here == LANE_LOST)
            return FALSE;
        if (here == LANE_RAN)
            asked = FALSE;
        if (lane_hub_poll(lanes)) {
            asked = FALSE;
            until = now + DAEMON_LINGER_USEC;
        }
        if (r > 0) { /* there may be more; connections are not kept waiting for all of it */
            ready = CONN_LOOP_READY | conn_set_wait(self->conns, 0);
            r = 0;
        } else if (now < until || lane_hub_has_here(lanes)) {
            ready = conn_set_wait(self->conns, 0);
            if (!ready)
                sched_yield(); /* the thread may be waiting for this very processor */
        } else {
            ready = daemon_sleep(self, asked);
            until = 0;
        }
    }
    if (r >= 0)
        r = sd_event_get_exit_code(self->event, &code);
    *ret_code = r < 0 ? r : code;
    return TRUE;
}
