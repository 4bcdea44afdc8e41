/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Acquiring a VM's whole set, or nothing.
 *
 *   plan     look up what the identity rules need to know of each disk (lanes of the disks)
 *   name     turn each disk into resources; skip what the owner holds already
 *   lock     one op for each lane, one lane after the other in the order of their names, so that
 *            of two requests for the same disks one always gets through
 *   commit   all locked: the leases become visible as held, the caller hears "yes"
 *   undo     one refused, or the caller gave up: what was taken is released, then the caller
 *            hears why
 */
#include "engine.h"

#include <errno.h>
#include <string.h>

/* Each retry follows a release that was in the way; more would mean that it is in the way again
 * and again, which the caller should know. */
#define ACQUIRE_MAX_RETRIES 8

typedef struct Want {
    Acquire *acquire;
    char *disk;
    GPtrArray *resources; /* of Resource (owned), once named */
    GArray *flags;        /* of unsigned, one for each resource */
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
    GPtrArray *ops;   /* of Op, prepared, still to be run; by lane */
    Op *running;      /* the one that is under way */
    guint looking_up; /* ops of the plan that are under way */
    guint retries;
    guint64 epoch; /* of the engine's releases, see acquire_wait() */
    gint64 since_usec;
    Fault *fault; /* why it will fail */
    sd_event_source *deadline;
    GList waiting; /* link in the engine's queue of those who wait for a release */
    gboolean is_waiting;
    gboolean stepping_back; /* it releases what it has before it tries again */
    AcquireDone done;       /* NULL: already answered, or nobody wants to know */
    void *data;
};

static void acquire_lock(Acquire *acquire);
static void acquire_name(Acquire *acquire);

static void acquire_resource_free(gpointer data)
{
    resource_clear(data);
    g_free(data);
}

static void acquire_want_free(gpointer data)
{
    Want *want = data;

    g_free(want->disk);
    g_ptr_array_unref(want->resources);
    g_array_unref(want->flags);
    identity_facts_free(want->facts);
    g_free(want);
}

Acquire *acquire_new(Engine *engine, Owner *owner, AcquireStyle style, guint64 timeout_usec)
{
    Acquire *acquire = g_new0(Acquire, 1);

    acquire->engine = engine;
    acquire->owner = owner_ref(owner);
    acquire->style = style;
    acquire->timeout_usec = timeout_usec ? timeout_usec : engine->config.request_timeout_usec;
    acquire->wants = g_ptr_array_new_with_free_func(acquire_want_free);
    acquire->ops = g_ptr_array_new();
    acquire->waiting.data = acquire;
    return acquire;
}

static void acquire_free(Acquire *acquire)
{
    g_assert(acquire->ops->len == 0 && !acquire->running && !acquire->is_waiting);
    sd_event_source_disable_unref(acquire->deadline);
    g_ptr_array_unref(acquire->wants);
    g_ptr_array_unref(acquire->ops);
    fault_free(acquire->fault);
    supervise_unref(acquire->engine, acquire->owner);
    g_free(acquire);
}

static Want *acquire_add(Acquire *acquire, const char *disk, hf_mode mode)
{
    Want *want = g_new0(Want, 1);

    want->acquire = acquire;
    want->disk = g_strdup(disk);
    want->mode = mode;
    want->resources = g_ptr_array_new_with_free_func(acquire_resource_free);
    want->flags = g_array_new(FALSE, FALSE, sizeof(unsigned));
    g_ptr_array_add(acquire->wants, want);
    return want;
}

static void acquire_want_resource(Want *want, const Driver *driver, const char *space,
                                  const char *key, unsigned flags)
{
    Resource *resource = g_new0(Resource, 1);

    resource_init(resource, driver, space, key);
    g_ptr_array_add(want->resources, resource);
    g_array_append_val(want->flags, flags);
}

void acquire_add_disk(Acquire *acquire, const char *path, hf_mode mode)
{
    acquire_add(acquire, path, mode);
}

void acquire_add_resource(Acquire *acquire, const Driver *driver, const char *space,
                          const char *key, const char *disk, hf_mode mode, unsigned flags)
{
    Want *want = acquire_add(acquire, disk, mode);

    want->by_name = TRUE;
    acquire_want_resource(want, driver, space, key, flags);
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
static void acquire_undo(Acquire *acquire)
{
    g_autoptr(GPtrArray) leases = acquire_surrender(acquire);

    release_leases(acquire->engine, leases, NULL, acquire_undone, acquire);
}

static void acquire_drop_ops(Acquire *acquire)
{
    for (guint i = 0; i < acquire->ops->len; i++)
        op_discard(g_ptr_array_index(acquire->ops, i));
    g_ptr_array_set_size(acquire->ops, 0);
}

static void acquire_fail(Acquire *acquire, Fault *fault)
{
    if (!acquire->fault)
        acquire->fault = fault;
    else
        fault_free(fault);
    acquire_drop_ops(acquire);
    if (acquire->is_waiting) {
        g_queue_unlink(&acquire->engine->waiting_for_release, &acquire->waiting);
        acquire->is_waiting = FALSE;
    }
    if (!acquire->running && acquire->looking_up == 0 && !acquire->stepping_back)
        acquire_undo(acquire);
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

static void acquire_commit(Acquire *acquire)
{
    g_autoptr(GPtrArray) leases = NULL;

    if (!acquire_owner_lives(acquire))
        return;
    leases = g_ptr_array_new();
    for (guint i = 0; i < acquire->wants->len; i++) {
        Want *want = g_ptr_array_index(acquire->wants, i);

        g_ptr_array_add(leases, want->lease);
        if (want->existing) {
            if (acquire->style == ACQUIRE_COUNTED)
                want->lease->count++;
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

/* ---- refusals -------------------------------------------------------------------------- */

static Fault *acquire_busy(Acquire *acquire, const Want *want, GPtrArray *leases,
                           GPtrArray *holders)
{
    return refusal_new(acquire->engine, acquire->owner, g_ptr_array_index(want->resources, 0),
                       want->disk, want->mode, leases, holders);
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
    } else if (acquire->engine->epoch != acquire->epoch) {
        acquire_name(acquire);
    } else {
        g_queue_push_tail_link(&acquire->engine->waiting_for_release, &acquire->waiting);
        acquire->is_waiting = TRUE;
    }
}

/* Waits for something to be released, and then begins anew. It holds nothing meanwhile, so that
 * two requests never wait for each other. A release that comes while it steps back is noticed by
 * the epoch, which counts them; the stepping back itself counts as one if it releases anything. */
static gboolean acquire_wait(Acquire *acquire, gboolean retry_now)
{
    g_autoptr(GPtrArray) leases = NULL;

    if (acquire->fault || acquire->retries >= ACQUIRE_MAX_RETRIES)
        return FALSE;
    acquire->retries++;
    acquire_drop_ops(acquire);
    acquire->stepping_back = TRUE;
    leases = acquire_surrender(acquire);
    acquire->epoch = acquire->engine->epoch + (leases->len > 0) - (retry_now ? 1 : 0);
    release_leases(acquire->engine, leases, NULL, acquire_stepped_back, acquire);
    return TRUE;
}

void acquire_retry_waiting(Engine *engine)
{
    guint n = g_queue_get_length(&engine->waiting_for_release);

    engine->epoch++;
    while (n-- > 0) {
        GList *link = g_queue_pop_head_link(&engine->waiting_for_release);
        Acquire *acquire = link->data;

        acquire->is_waiting = FALSE;
        acquire_name(acquire);
    }
}

/* TRUE if it is the owner's own lease, got by the same request sent twice. */
static gboolean acquire_is_repetition(const Acquire *acquire, const Want *want, GPtrArray *leases)
{
    const Lease *lease = leases->len == 1 ? g_ptr_array_index(leases, 0) : NULL;

    return lease && acquire->style == ACQUIRE_REPEATABLE && lease->state == LEASE_HELD &&
           lease->mode == want->mode &&
           table_find_owned(acquire->engine->table, acquire->owner,
                            g_ptr_array_index(want->resources, 0)) == lease;
}

/* The want cannot be had because of these leases (or, if there are none, these holders). */
static void acquire_refused(Acquire *acquire, const Want *want, GPtrArray *leases,
                            GPtrArray *holders)
{
    if (acquire_is_repetition(acquire, want, leases) && acquire_wait(acquire, TRUE))
        return;
    if (acquire_worth_waiting(acquire, leases) && acquire_wait(acquire, FALSE))
        return;
    acquire_fail(acquire, acquire_busy(acquire, want, leases, holders));
}

/* ---- locking --------------------------------------------------------------------------- */

/* All parts of the want are locked: does another lease claim the same thing? */
static gboolean acquire_check_claims(Acquire *acquire, Want *want)
{
    g_autoptr(GPtrArray) conflicts =
        table_conflicts(acquire->engine->table, want->lease->claims, want->mode);

    g_ptr_array_remove(conflicts, want->lease);
    if (conflicts->len == 0)
        return TRUE;
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

        if (!item->done)
            continue;
        if (want->lease) {
            table_remove(table, want->lease); /* it gets more names to be found by */
        } else {
            want->lease = lease_new(acquire->owner, want->disk ? want->disk : item->disk,
                                    want->mode, acquire->since_usec);
            if (want->facts)
                lease_add_claim(want->lease, want->facts->claim);
        }
        lease_add_part(want->lease, &item->resource, item->handle);
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

    if (!item->claims) { /* it never came to the driver */
        acquire_fail(acquire, g_steal_pointer(&op->fault));
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

/* Runs the next op, or if there is none left, finishes. */
static void acquire_lock(Acquire *acquire)
{
    if (acquire->ops->len > 0) {
        acquire->running = g_ptr_array_steal_index(acquire->ops, 0);
        op_submit(acquire->running, acquire_locked, acquire);
        return;
    }
    for (guint i = 0; i < acquire->wants->len; i++) {
        Want *want = g_ptr_array_index(acquire->wants, i);

        if (!want->existing && !acquire_check_claims(acquire, want))
            return;
    }
    acquire_commit(acquire);
}

static Holder *acquire_owner_facts(Acquire *acquire)
{
    struct hf_holder facts = {
        .name = acquire->owner->name,
        .uuid = acquire->owner->uuid,
        .uri = acquire->owner->uri,
        .host = acquire->engine->config.host,
        .pid = acquire->owner->pid,
        .since_usec = acquire->since_usec,
    };

    return holder_new(&facts, HOLDER_FROM_TABLE);
}

static Op *acquire_op_for(Acquire *acquire, Lane *lane)
{
    Op *op;

    for (guint i = 0; i < acquire->ops->len; i++) {
        op = g_ptr_array_index(acquire->ops, i);
        if (op->lane == lane)
            return op;
    }
    op = op_new(acquire->engine, OP_ACQUIRE, lane);
    op->owner = acquire_owner_facts(acquire);
    g_ptr_array_add(acquire->ops, op);
    return op;
}

static gint acquire_by_lane(gconstpointer a, gconstpointer b)
{
    const Op *x = *(Op *const *)a, *y = *(Op *const *)b;

    return strcmp(lane_state(x->lane).name, lane_state(y->lane).name);
}

static gint acquire_by_key(gconstpointer a, gconstpointer b)
{
    const OpItem *x = *(OpItem *const *)a, *y = *(OpItem *const *)b;

    return strcmp(x->resource.key, y->resource.key);
}

static void acquire_prepare(Acquire *acquire)
{
    for (guint i = 0; i < acquire->wants->len; i++) {
        Want *want = g_ptr_array_index(acquire->wants, i);

        for (guint k = 0; !want->existing && k < want->resources->len; k++) {
            const Resource *resource = g_ptr_array_index(want->resources, k);
            Op *op = acquire_op_for(acquire, op_lane(acquire->engine, resource));
            OpItem *item = op_add(op, resource, want->disk, want->mode,
                                  g_array_index(want->flags, unsigned, k));

            item->data = want;
        }
    }
    g_ptr_array_sort(acquire->ops, acquire_by_lane);
    for (guint i = 0; i < acquire->ops->len; i++) {
        Op *op = g_ptr_array_index(acquire->ops, i);

        g_ptr_array_sort(op->items, acquire_by_key);
    }
}

/* ---- naming ---------------------------------------------------------------------------- */

static void acquire_apply_rules(Acquire *acquire, Want *want)
{
    const Engine *engine = acquire->engine;
    g_autoptr(GPtrArray) names = NULL;

    if (want->by_name || want->resources->len > 0)
        return;
    names = identity_names(&engine->config.rules, want->disk, want->facts);
    for (guint i = 0; i < names->len; i++) {
        const IdentityName *name = g_ptr_array_index(names, i);

        acquire_want_resource(want, engine->disk_driver, name->space, name->key,
                              name->autocreate ? HF_RESOURCE_AUTOCREATE : 0);
    }
}

/* Does the owner hold it already? FALSE if it does in a way that refuses the request. */
static gboolean acquire_find_existing(Acquire *acquire, Want *want)
{
    const Resource *resource = g_ptr_array_index(want->resources, 0);
    Lease *lease = table_find_owned(acquire->engine->table, acquire->owner, resource);
    g_autoptr(GPtrArray) conflict = NULL;

    if (!lease)
        return TRUE;
    if (lease->state == LEASE_HELD && lease->mode == want->mode &&
        (acquire->style == ACQUIRE_REPEATABLE || want->mode != HF_MODE_EXCLUSIVE)) {
        want->lease = lease;
        want->existing = TRUE;
        return TRUE;
    }
    conflict = g_ptr_array_new();
    g_ptr_array_add(conflict, lease);
    acquire_refused(acquire, want, conflict, NULL);
    return FALSE;
}

static gboolean acquire_named_before(Acquire *acquire, guint index)
{
    const Want *want = g_ptr_array_index(acquire->wants, index);
    const Resource *resource = g_ptr_array_index(want->resources, 0);
    g_autofree char *id = resource_id(resource);
    g_autofree char *subject = refusal_subject(resource, want->disk);
    Fault *fault;

    for (guint i = 0; i < index; i++) {
        const Want *other = g_ptr_array_index(acquire->wants, i);
        g_autofree char *other_id = resource_id(g_ptr_array_index(other->resources, 0));

        if (strcmp(id, other_id) != 0)
            continue;
        fault = fault_new(HF_ERR_INVALID_ARGUMENT, EINVAL,
                          "%s is named twice in one request; name each disk once", subject);
        fault->argument = g_strdup(want->disk ? "disks" : "leases");
        acquire_fail(acquire, fault);
        return TRUE;
    }
    return FALSE;
}

static void acquire_name(Acquire *acquire)
{
    for (guint i = 0; i < acquire->wants->len; i++)
        acquire_apply_rules(acquire, g_ptr_array_index(acquire->wants, i));
    for (guint i = 0; i < acquire->wants->len; i++) {
        if (acquire_named_before(acquire, i))
            return;
        if (!acquire_find_existing(acquire, g_ptr_array_index(acquire->wants, i)))
            return;
    }
    acquire_prepare(acquire);
    acquire_lock(acquire);
}

/* ---- planning -------------------------------------------------------------------------- */

static void acquire_looked_up(Op *op, void *data)
{
    Want *want = data;
    Acquire *acquire = want->acquire;
    OpItem *item = g_ptr_array_index(op->items, 0);

    acquire->looking_up--;
    want->facts = g_steal_pointer(&item->facts);
    if (op->fault && !acquire->fault)
        acquire->fault = g_steal_pointer(&op->fault);
    if (acquire->looking_up > 0)
        return;
    if (acquire->fault)
        acquire_undo(acquire);
    else
        acquire_name(acquire);
}

static void acquire_look_up(Acquire *acquire, Want *want)
{
    Op *op = op_new(acquire->engine, OP_IDENTIFY, op_disk_lane(acquire->engine, want->disk));
    Resource none = {
        .driver = acquire->engine->disk_driver, .space = (char *)"", .key = want->disk};

    op_add(op, &none, want->disk, want->mode, 0);
    acquire->looking_up++;
    op_submit(op, acquire_looked_up, want);
}

static int acquire_on_deadline(sd_event_source *source, uint64_t usec, void *data)
{
    Acquire *acquire = data;
    Fault *fault;

    (void)source;
    (void)usec;
    if (acquire->running) {
        op_abandon(acquire->running);
        fault = op_timeout_fault(acquire->engine, acquire->running);
    } else {
        fault = fault_new(HF_ERR_TIMEOUT, ETIMEDOUT,
                          "the disks could not be looked up, or the lease of another owner was "
                          "not released, in time; see holdfast status for what is slow");
        fault->operation = g_strdup("look up");
        fault->since_usec = acquire->since_usec;
    }
    acquire_answer(acquire, NULL, fault);
    acquire_fail(acquire, fault);
    return 0;
}

void acquire_start(Acquire *acquire, AcquireDone done, void *data)
{
    acquire->done = done;
    acquire->data = data;
    acquire->since_usec = g_get_real_time();
    if (sd_event_add_time_relative(acquire->engine->event, &acquire->deadline, CLOCK_MONOTONIC,
                                   acquire->timeout_usec, 0, acquire_on_deadline, acquire) < 0)
        g_warning("cannot set a timer for a request: it may wait without limit");
    if (!acquire_owner_lives(acquire))
        return;
    for (guint i = 0; i < acquire->wants->len; i++) {
        Want *want = g_ptr_array_index(acquire->wants, i);

        if (!want->by_name && identity_needs_facts(&acquire->engine->config.rules, want->disk))
            acquire_look_up(acquire, want);
    }
    if (acquire->looking_up == 0)
        acquire_name(acquire);
}

void acquire_cancel(Acquire *acquire)
{
    acquire->done = NULL;
    if (acquire->running)
        op_abandon(acquire->running);
    acquire_fail(acquire, fault_new(HF_ERR_CONNECTION, ECONNRESET, "the caller went away"));
}
