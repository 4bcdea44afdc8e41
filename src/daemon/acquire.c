/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Acquiring a VM's whole set, or nothing.
 *
 *   plan     look up what the identity rules need to know of each disk (lanes of the disks)
 *   name     turn each disk into resources; skip what the owner holds already
 *   lock     one op for each lane, one lane after the other in the order of their names, so that
 *            of two requests for the same disks one always gets through
 *   keep     all locked: the leases are made to survive the daemon (handover.c)
 *   commit   they become visible as held, the caller hears "yes"
 *   undo     one refused, or the caller gave up: what was taken is released, then the caller
 *            hears why
 */
#define G_LOG_DOMAIN "holdfast.acquire"

#include <errno.h>

#include "acquire-private.h"
#include "metrics.h"

/* Each retry follows a release that was in the way; more would mean that it is in the way again
 * and again, which the caller should know. */
#define ACQUIRE_MAX_RETRIES 8

static void acquire_free(Acquire *acquire)
{
    g_assert(acquire->ops->len == 0 && !acquire->running && !acquire->is_waiting);
    deadline_clear(&acquire->deadline);
    g_ptr_array_unref(acquire->wants);
    g_ptr_array_unref(acquire->ops);
    g_ptr_array_unref(acquire->looking_up);
    fault_free(acquire->fault);
    supervise_unref(acquire->engine, acquire->owner);
    g_free(acquire);
}

/* ---- the end --------------------------------------------------------------------------- */

static void acquire_answer(Acquire *acquire, GPtrArray *leases, const Fault *fault)
{
    AcquireDone done = acquire->done;

    acquire->done = NULL;
    if (fault)
        engine_emit(acquire->engine, EVENT_LEASE_REFUSED, NULL, acquire->owner, fault, NULL);
    if (done)
        done(leases, fault, acquire->data);
}

static void acquire_undone(const Fault *left_behind, void *data)
{
    Acquire *acquire = data;

    (void)left_behind; /* release.c has reported it; the refusal is what the caller asked about */
    if (acquire->done)
        acquire_answer(acquire, NULL, acquire->fault);
    acquire_free(acquire);
}

/* Takes the request's new leases out of it, to be released. */
static GPtrArray *acquire_surrender(Acquire *acquire)
{
    GPtrArray *leases = g_ptr_array_new();

    for (guint i = 0; i < acquire->wants->len; i++) {
        Want *want = g_ptr_array_index(acquire->wants, i);

        if (want->lease && !want->existing)
            g_ptr_array_add(leases, want->lease);
        want->lease = NULL;
        want->existing = FALSE;
    }
    return leases;
}

/* Nothing of this request is under way any more: give back what it took, then answer. */
void acquire_undo(Acquire *acquire)
{
    g_autoptr(GPtrArray) leases = NULL;

    if (acquire->undoing)
        return;
    acquire->undoing = TRUE;
    leases = acquire_surrender(acquire);
    release_leases(acquire->engine, leases, NULL, 0, acquire_undone, acquire);
}

static void acquire_drop_ops(Acquire *acquire)
{
    for (guint i = 0; i < acquire->ops->len; i++)
        op_discard(g_ptr_array_index(acquire->ops, i));
    g_ptr_array_set_size(acquire->ops, 0);
}

void acquire_fail(Acquire *acquire, Fault *fault)
{
    g_autoptr(GPtrArray) leases = NULL;

    if (!acquire->fault)
        acquire->fault = fault;
    else
        fault_free(fault);
    acquire_drop_ops(acquire);
    if (acquire->is_waiting) {
        g_queue_unlink(&acquire->engine->waiting_for_release, &acquire->waiting);
        acquire->is_waiting = FALSE;
    }
    if (acquire->running) {
        /* storage keeps it: what other lanes have given goes back without waiting for that */
        leases = acquire_surrender(acquire);
        release_leases(acquire->engine, leases, NULL, 0, NULL, NULL);
    } else if (acquire->looking_up->len == 0 && !acquire->stepping_back && !acquire->keeping) {
        acquire_undo(acquire);
    }
}

/* FALSE if the owner's process has ended; the request has failed then. */
static gboolean acquire_owner_lives(Acquire *acquire)
{
    Fault *fault;

    if (acquire->owner->state != OWNER_GONE)
        return TRUE;
    fault = fault_new(HF_ERR_NO_SUCH_OWNER, ESRCH,
                      "the owner's process %d has ended: it cannot hold anything",
                      (int)acquire->owner->pid);
    fault->pid = acquire->owner->pid;
    acquire_fail(acquire, fault);
    return FALSE;
}

static gboolean acquire_wait(Acquire *acquire, gboolean retry_now);
static Fault *acquire_busy(Acquire *acquire, const Want *want, GPtrArray *leases,
                           GPtrArray *holders);

/* What the owner had when the request began may have been released since: then it begins anew, or
 * fails. A lease that is not the request's own may be gone, so it is looked for, not looked at. */
static gboolean acquire_still_has(Acquire *acquire, Want *want)
{
    g_autoptr(GPtrArray) none = NULL;
    Lease *lease = table_find_owned(acquire->engine->table, acquire->owner, &want->resources[0]);

    if (lease && lease->state == LEASE_HELD && lease->mode == want->mode) {
        want->lease = lease;
        return TRUE;
    }
    want->lease = NULL;
    none = g_ptr_array_new();
    if (!acquire_wait(acquire, TRUE))
        acquire_fail(acquire, acquire_busy(acquire, want, none, NULL));
    return FALSE;
}

/* The leases survive this process: now the caller may hear of it. */
static void acquire_kept(void *data)
{
    Acquire *acquire = data;
    g_autoptr(GPtrArray) leases = NULL;

    acquire->keeping = FALSE;
    if (acquire->fault || !acquire_owner_lives(acquire)) {
        /* the caller gave up, or the owner ended, while they were on their way */
        acquire_undo(acquire);
        return;
    }
    for (guint i = 0; i < acquire->wants->len; i++) {
        Want *want = g_ptr_array_index(acquire->wants, i);

        if (want->existing && !acquire_still_has(acquire, want))
            return;
    }
    leases = g_ptr_array_new();
    for (guint i = 0; i < acquire->wants->len; i++) {
        Want *want = g_ptr_array_index(acquire->wants, i);

        g_ptr_array_add(leases, want->lease);
        if (want->existing) {
            if (acquire->style == ACQUIRE_COUNTED) {
                want->lease->count++;
                handover_update(acquire->engine, want->lease);
            }
            continue;
        }
        want->lease->state = LEASE_HELD;
        engine_emit(acquire->engine, EVENT_LEASE_ACQUIRED, want->lease, want->lease->owner, NULL,
                    NULL);
    }
    acquire_answer(acquire, leases, NULL);
    acquire_retry_waiting(acquire->engine);
    acquire_free(acquire);
}

static void acquire_commit(Acquire *acquire)
{
    g_autoptr(GPtrArray) fresh = NULL;

    if (!acquire_owner_lives(acquire))
        return;
    fresh = g_ptr_array_new();
    for (guint i = 0; i < acquire->wants->len; i++) {
        Want *want = g_ptr_array_index(acquire->wants, i);

        if (!want->existing)
            g_ptr_array_add(fresh, want->lease);
    }
    acquire->keeping = TRUE;
    handover_keep(acquire->engine, fresh, acquire_kept, acquire);
}

/* ---- refusals -------------------------------------------------------------------------- */

static Fault *acquire_busy(Acquire *acquire, const Want *want, GPtrArray *leases,
                           GPtrArray *holders)
{
    return refusal_new(acquire->engine, acquire->owner, &want->resources[0], want->disk, want->mode,
                       leases, holders);
}

/* TRUE if it is worth waiting: all of these leases are about to go, or are part of a request whose
 * end is not known yet. */
static gboolean acquire_worth_waiting(Acquire *acquire, GPtrArray *leases)
{
    for (guint i = 0; i < leases->len; i++) {
        Lease *lease = g_ptr_array_index(leases, i);

        if (lease->state == LEASE_HELD)
            supervise_has_ended(acquire->engine, lease->owner); /* starts its release */
        if (lease->state == LEASE_HELD)
            return FALSE;
    }
    return leases->len > 0;
}

static void acquire_stepped_back(const Fault *left_behind, void *data)
{
    Acquire *acquire = data;

    (void)left_behind;
    acquire->stepping_back = FALSE;
    if (acquire->fault) {
        acquire_undone(NULL, acquire);
    } else if (acquire->retry_now || acquire->engine->epoch != acquire->epoch) {
        acquire_name(acquire);
    } else {
        g_queue_push_tail_link(&acquire->engine->waiting_for_release, &acquire->waiting);
        acquire->is_waiting = TRUE;
    }
}

/* Waits for something to be released, and then begins anew. It holds nothing meanwhile, so that
 * two requests never wait for each other. A release that comes while it steps back is noticed by
 * the epoch, which counts them; that its own are counted as well costs one try at most. */
static gboolean acquire_wait(Acquire *acquire, gboolean retry_now)
{
    g_autoptr(GPtrArray) leases = NULL;

    if (acquire->fault || acquire->retries >= ACQUIRE_MAX_RETRIES)
        return FALSE;
    acquire->retries++;
    acquire_drop_ops(acquire);
    acquire->stepping_back = TRUE;
    leases = acquire_surrender(acquire);
    acquire->epoch = acquire->engine->epoch;
    acquire->retry_now = retry_now;
    release_leases(acquire->engine, leases, NULL, 0, acquire_stepped_back, acquire);
    return TRUE;
}

/* One that succeeds comes here again, which only makes another round: a call within a call for each
 * of those who wait could be any number of them. */
void acquire_retry_waiting(Engine *engine)
{
    engine->epoch++;
    engine->retry_again = TRUE;
    if (engine->retrying)
        return;
    engine->retrying = TRUE;
    while (engine->retry_again) {
        guint n = g_queue_get_length(&engine->waiting_for_release);
        GList *link;

        engine->retry_again = FALSE;
        while (n-- > 0 && (link = g_queue_pop_head_link(&engine->waiting_for_release))) {
            Acquire *acquire = link->data;

            acquire->is_waiting = FALSE;
            acquire_name(acquire);
        }
    }
    engine->retrying = FALSE;
}

/* TRUE if it is the owner's own lease, got by the same request sent twice. */
static gboolean acquire_is_repetition(const Acquire *acquire, const Want *want, GPtrArray *leases)
{
    const Lease *lease = leases->len == 1 ? g_ptr_array_index(leases, 0) : NULL;

    return lease && acquire->style == ACQUIRE_REPEATABLE && lease->state == LEASE_HELD &&
           lease->mode == want->mode &&
           table_find_owned(acquire->engine->table, acquire->owner, &want->resources[0]) == lease;
}

void acquire_refused(Acquire *acquire, const Want *want, GPtrArray *leases, GPtrArray *holders)
{
    if (acquire_is_repetition(acquire, want, leases) && acquire_wait(acquire, TRUE))
        return;
    if (acquire_worth_waiting(acquire, leases) && acquire_wait(acquire, FALSE))
        return;
    acquire_fail(acquire, acquire_busy(acquire, want, leases, holders));
}

/* ---- locking --------------------------------------------------------------------------- */

static gboolean acquire_share_claim(const GPtrArray *a, GPtrArray *b)
{
    for (guint i = 0; i < a->len; i++)
        if (g_ptr_array_find_with_equal_func(b, a->pdata[i], g_str_equal, NULL))
            return TRUE;
    return FALSE;
}

/* Another want of the same request that is in this one's way: in the same op, where it has been
 * undone by now, or locked before. NULL if it is somebody else. */
static const Want *acquire_rival(const Acquire *acquire, const Op *op, const Want *want,
                                 const GPtrArray *claims)
{
    for (guint i = 0; op && i < op->items->len; i++) {
        const OpItem *item = g_ptr_array_index(op->items, i);

        if (item->data != want && item->claims && !mode_compatible(item->mode, want->mode) &&
            acquire_share_claim(claims, item->claims))
            return item->data;
    }
    for (guint i = 0; i < acquire->wants->len; i++) {
        const Want *other = g_ptr_array_index(acquire->wants, i);

        if (other != want && other->lease && !mode_compatible(other->mode, want->mode) &&
            acquire_share_claim(claims, other->lease->claims))
            return other;
    }
    return NULL;
}

/* All parts of the want are locked: does another lease claim the same thing? */
static gboolean acquire_check_claims(Acquire *acquire, Want *want)
{
    g_autoptr(GPtrArray) conflicts =
        table_conflicts(acquire->engine->table, want->lease->claims, want->mode);
    const Want *rival;

    g_ptr_array_remove(conflicts, want->lease);
    if (conflicts->len == 0)
        return TRUE;
    rival = acquire_rival(acquire, NULL, want, want->lease->claims);
    if (rival)
        acquire_fail(acquire, acquire_twice(want, rival));
    else
        acquire_refused(acquire, want, conflicts, NULL);
    return FALSE;
}

/* Leases enter the table at once, so that whoever runs into one can see whose it is. */
static void acquire_take_results(Acquire *acquire, Op *op)
{
    Table *table = acquire->engine->table;

    for (guint i = 0; i < op->items->len; i++) {
        OpItem *item = g_ptr_array_index(op->items, i);
        Want *want = item->data;
        LeasePart *part;

        if (!item->done)
            continue;
        if (want->lease) {
            table_remove(table, want->lease); /* it gets more names to be found by */
        } else {
            want->lease = lease_new(acquire->owner, want->disk ? want->disk : item->disk,
                                    want->mode, acquire->since_usec);
            want->lease->metrics =
                metrics_space(acquire->engine->metrics, item->resource.driver, lane_name(op->lane));
            if (want->facts)
                lease_add_claim(want->lease, want->facts->claim);
        }
        part = lease_add_part(want->lease, &item->resource, item->handle);
        part->saved = item->survives ? g_memdup2(&item->saved, sizeof(item->saved)) : NULL;
        part->survives = item->survives;
        for (guint k = 0; k < item->claims->len; k++)
            lease_add_claim(want->lease, g_ptr_array_index(item->claims, k));
        table_insert(table, want->lease);
    }
}

static void acquire_op_refused(Acquire *acquire, Op *op)
{
    OpItem *item = op->failed;
    Want *want = item->data;
    g_autoptr(GPtrArray) leases = NULL;
    const Want *rival;

    if (!item->claims) { /* it never came to the driver */
        acquire_fail(acquire, g_steal_pointer(&op->fault));
        return;
    }
    rival = acquire_rival(acquire, op, want, item->claims);
    if (rival) {
        acquire_fail(acquire, acquire_twice(want, rival));
        return;
    }
    leases = table_conflicts(acquire->engine->table, item->claims, want->mode);
    if (!want->disk && item->disk)
        want->disk = g_strdup(item->disk);
    acquire_refused(acquire, want, leases, item->holders);
}

static void acquire_locked(Op *op, void *data)
{
    Acquire *acquire = data;

    acquire->running = NULL;
    acquire_take_results(acquire, op);
    if (acquire->fault) {
        acquire_undo(acquire);
        return;
    }
    if (op->fault && op->fault->code == HF_ERR_BUSY) {
        acquire_drop_ops(acquire);
        acquire_op_refused(acquire, op);
        return;
    }
    if (op->fault) {
        acquire_fail(acquire, g_steal_pointer(&op->fault));
        return;
    }
    acquire_lock(acquire);
}

void acquire_lock(Acquire *acquire)
{
    if (acquire->ops->len > 0) {
        acquire->running = g_ptr_array_steal_index(acquire->ops, 0);
        op_submit(acquire->running, acquire_locked, acquire);
        return;
    }
    for (guint i = 0; i < acquire->wants->len; i++) {
        Want *want = g_ptr_array_index(acquire->wants, i);

        if (want->existing ? !acquire_still_has(acquire, want)
                           : !acquire_check_claims(acquire, want))
            return;
    }
    acquire_commit(acquire);
}

static void acquire_on_deadline(void *data)
{
    Acquire *acquire = data;
    Fault *fault;
    Op *stuck;

    if (acquire->undoing) { /* only the release of what it had is slow */
        acquire_answer(acquire, NULL, acquire->fault);
        return;
    }
    stuck = acquire->running;
    if (!stuck && acquire->looking_up->len > 0)
        stuck = g_ptr_array_index(acquire->looking_up, 0);
    if (stuck) {
        op_abandon(stuck);
        fault = op_timeout_fault(stuck);
    } else {
        fault = fault_new(HF_ERR_TIMEOUT, ETIMEDOUT,
                          "the lease of another owner that has ended was not released in time; see "
                          "holdfast status for what is slow");
        fault->operation = g_strdup("wait for a release");
        fault->since_usec = acquire->since_usec;
    }
    acquire_answer(acquire, NULL, fault);
    acquire_fail(acquire, fault);
}

void acquire_start(Acquire *acquire, AcquireDone done, void *data)
{
    acquire->done = done;
    acquire->data = data;
    acquire->since_usec = g_get_real_time();
    deadline_set(acquire->engine->clock, &acquire->deadline, acquire->timeout_usec,
                 acquire_on_deadline, acquire);
    if (!acquire_owner_lives(acquire))
        return;
    acquire_plan(acquire);
}

void acquire_cancel(Acquire *acquire)
{
    acquire->done = NULL;
    if (acquire->running)
        op_abandon(acquire->running);
    acquire_fail(acquire, fault_new(HF_ERR_CONNECTION, ECONNRESET, "the caller went away"));
}
