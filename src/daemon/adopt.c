/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The start of a daemon that takes leases over from an earlier one: the second half of handover.c,
 * which says what there is to be taken over and what each step costs.
 */
#define G_LOG_DOMAIN "holdfast.handover"

#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine.h"
#include "keeper/closer.h"
#include "metrics.h"
#include "protocol/ledger.h"
#include "vault.h"

/* So many leases of one lane are checked in one job: few threads, so that clients are answered
 * meanwhile. */
#define ADOPT_BATCH 1024
/* Clients are answered when what nobody holds is unlocked, which takes microseconds; but not later
 * than this, for storage may hang. */
#define ADOPT_STRAYS_SECONDS 1
/* By then those who have waited have been answered. */
#define ADOPT_FREE_USEC (500 * G_TIME_SPAN_MILLISECOND)

static gboolean adopt_unhex(const char *hex, struct hf_saved *saved)
{
    size_t len = strlen(hex) / 2;

    if (strlen(hex) % 2 || len > sizeof(saved->bytes))
        return FALSE;
    for (size_t i = 0; i < len; i++) {
        int high = g_ascii_xdigit_value(hex[2 * i]), low = g_ascii_xdigit_value(hex[2 * i + 1]);

        if (high < 0 || low < 0)
            return FALSE;
        saved->bytes[i] = (char)(high << 4 | low);
    }
    saved->n_bytes = (unsigned)len;
    return TRUE;
}

static void adopt_seen_id(Engine *engine, const char *id)
{
    guint64 number = g_ascii_strtoull(id, NULL, 16);

    engine->next_id = MAX(engine->next_id, number + 1);
}

/* A lease on its way through its lanes. */
typedef struct Adoption {
    Engine *engine;
    Lease *lease;
    guint parts; /* still to be checked */
    char *lost;  /* why; NULL: it is held */
} Adoption;

static void adopt_lose(Engine *engine, Lease *lease, const char *why)
{
    g_autofree char *what = refusal_subject(lease_resource(lease), lease->disk);
    g_autoptr(GPtrArray) one = g_ptr_array_new();

    /* who has ended has lost nothing: the daemon died in the middle of his release */
    if (supervise_has_ended(engine, lease->owner)) {
        g_message("%s was being released when an earlier daemon ended: %s", what, why);
    } else {
        g_critical("%s, held by VM %s (pid %d), is lost: %s", what,
                   lease->owner->name ? lease->owner->name : "?", (int)lease->owner->pid, why);
        engine_emit(engine, EVENT_LEASE_LOST, lease, lease->owner, NULL, why);
    }
    if (lease->state == LEASE_RELEASING)
        return;
    g_ptr_array_add(one, lease);
    release_leases(engine, one, NULL, 0, NULL, NULL);
}

static void adopt_part_adopted(Adoption *adoption, OpItem *item)
{
    if (item->done)
        item->part->handle = item->handle;
    else if (!adoption->lost)
        adoption->lost = g_strdup(item->why ? item->why : "its lane could not be entered");
    if (--adoption->parts > 0)
        return;
    if (adoption->lost)
        adopt_lose(adoption->engine, adoption->lease, adoption->lost);
    else
        engine_emit(adoption->engine, EVENT_LEASE_ADOPTED, adoption->lease, adoption->lease->owner,
                    NULL, NULL);
    g_free(adoption->lost);
    g_free(adoption);
}

static void adopt_op_done(Op *op, void *data)
{
    (void)data;
    for (guint i = 0; i < op->items->len; i++) {
        OpItem *item = g_ptr_array_index(op->items, i);

        adopt_part_adopted(item->data, item);
    }
}

/* Takes the part's descriptors out of the vault; FALSE if one is missing. */
static gboolean adopt_take_fds(Vault *vault, const LedgerPart *entry, struct hf_saved *saved)
{
    g_auto(GStrv) names = g_strsplit(entry->fds, ",", -1);
    gboolean whole = adopt_unhex(entry->bytes, saved);

    for (char **name = names; *name; name++) {
        int fd = **name ? vault_take(vault, *name) : -1;

        if (**name == '\0')
            continue;
        if (fd >= 0 && saved->n_fds < G_N_ELEMENTS(saved->fds))
            saved->fds[saved->n_fds++] = fd;
        else
            whole = FALSE;
    }
    return whole;
}

static gboolean adopt_parts(Engine *engine, Lease *lease, const LedgerLease *entry)
{
    gboolean whole = TRUE;

    for (guint i = 0; i < entry->parts->len; i++) {
        const LedgerPart *from = g_ptr_array_index(entry->parts, i);
        const Driver *driver = g_hash_table_lookup(engine->drivers, from->driver);
        Resource resource = {driver, from->space, from->key};
        LeasePart *part;

        if (!driver || !(driver->api.capabilities & HF_SURVIVES)) {
            g_critical("driver %s is not there any more: its lease %s is lost", from->driver,
                       from->key);
            return FALSE;
        }
        part = lease_add_part(lease, &resource, NULL);
        part->survives = TRUE;
        part->fd_names = g_strdup(from->fds);
        part->saved_bytes = g_strdup(from->bytes);
        part->saved = g_new0(struct hf_saved, 1);
        if (!adopt_take_fds(engine->vault, from, part->saved))
            whole = FALSE;
    }
    return whole;
}

/* What is left of the descriptors of a lease that is not whole. */
static void adopt_leave_fds(const Lease *lease, GArray *strays)
{
    for (guint i = 0; i < lease->parts->len; i++) {
        const LeasePart *part = g_ptr_array_index(lease->parts, i);

        if (part->saved)
            g_array_append_vals(strays, part->saved->fds, part->saved->n_fds);
    }
}

/* The op that gathers what is to be checked in that lane. Takes the lane's reference over. */
static Op *adopt_op_for(Engine *engine, GHashTable *ops, Lane *lane)
{
    Op *op = g_hash_table_lookup(ops, lane);

    if (op && op->items->len < ADOPT_BATCH) {
        lane_unref(lane);
        return op;
    }
    if (op) /* full: under a key of its own it only waits to be submitted with the others */
        g_hash_table_insert(ops, op, op);
    op = op_new(engine, OP_ADOPT, lane);
    g_hash_table_insert(ops, lane, op);
    return op;
}

static void adopt_check(Engine *engine, GHashTable *ops, Lease *lease)
{
    Adoption *adoption = g_new0(Adoption, 1);

    adoption->engine = engine;
    adoption->lease = lease;
    adoption->parts = lease->parts->len;
    for (guint i = 0; i < lease->parts->len; i++) {
        LeasePart *part = g_ptr_array_index(lease->parts, i);
        Op *op = adopt_op_for(engine, ops, op_lane(engine, &part->resource));
        OpItem *item = op_add(op, &part->resource, lease->disk, lease->mode, 0);

        item->saved = *part->saved;
        g_clear_pointer(&part->saved, g_free); /* the driver's from now on */
        item->part = part;
        item->data = adoption;
    }
}

/* Not before the whole table is there: threads that check would take the processor, and clients
 * wait for the table only. */
static void adopt_submit_all(GHashTable *ops)
{
    GHashTableIter iter;
    gpointer op;

    g_hash_table_iter_init(&iter, ops);
    while (g_hash_table_iter_next(&iter, NULL, &op))
        op_submit(op, adopt_op_done, NULL);
}

static gboolean adopt_lease(Engine *engine, GHashTable *ops, GArray *strays,
                            const LedgerLease *entry, Owner *owner)
{
    Lease *lease = lease_new(owner, entry->disk, entry->mode, entry->since_usec);
    gboolean whole = adopt_parts(engine, lease, entry);

    for (guint i = 0; i < entry->claims->len; i++)
        lease_add_claim(lease, g_ptr_array_index(entry->claims, i));
    lease->id = g_strdup(entry->id);
    lease->count = entry->count;
    lease->state = LEASE_HELD;
    if (!whole) {
        g_critical(
            "lease %s of VM %s (pid %d) is in the ledger, but its descriptors are not with the "
            "supervisor: the lock is lost",
            lease->parts->len ? lease_resource(lease)->key : entry->id,
            owner->name ? owner->name : "?", (int)owner->pid);
        if (lease->parts->len)
            engine_emit(engine, EVENT_LEASE_LOST, lease, owner, NULL, "its descriptors are gone");
        else
            metrics_on_lost(engine);
        adopt_leave_fds(lease, strays);
        handover_forget_lease(engine, lease);
        lease_free(lease);
        return FALSE;
    }
    table_insert(engine->table, lease);
    adopt_check(engine, ops, lease);
    return TRUE;
}

/* The connections first: an owner whose process has ended lasts as long as they do. */
static void adopt_resume_connections(Engine *engine, Owner *owner, const char *conns)
{
    g_auto(GStrv) names = g_strsplit(conns ? conns : "", ",", -1);

    for (char **name = names; *name; name++) {
        int fd = **name ? vault_take(engine->vault, *name) : -1;

        if (fd < 0)
            continue;
        if (!owner->conn_names)
            owner->conn_names = g_ptr_array_new_with_free_func(g_free);
        g_ptr_array_add(owner->conn_names, g_strdup(*name));
        if (engine->resume_connection)
            engine->resume_connection(fd, owner, *name, engine->listener_data);
        else
            close(fd);
    }
}

static GHashTable *adopt_owners(Engine *engine, const Ledger *ledger)
{
    GHashTable *owners = g_hash_table_new(g_str_hash, g_str_equal);
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, ledger->owners);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        const LedgerOwner *entry = value;
        int pidfd = entry->pidfd ? vault_take(engine->vault, entry->pidfd) : -1;
        Owner *owner = supervise_adopt_owner(engine, entry->name, entry->uuid, entry->uri,
                                             entry->pid, entry->start_ticks, pidfd);

        owner->id = g_strdup(entry->id);
        owner->pidfd_name = pidfd >= 0 ? g_strdup(entry->pidfd) : NULL;
        owner->until_close = entry->until_close;
        adopt_resume_connections(engine, owner, entry->conns);
        g_hash_table_insert(owners, entry->id, owner);
        adopt_seen_id(engine, entry->id);
    }
    return owners;
}

/* ---- strays ---------------------------------------------------------------------------- */

/* Descriptors that the supervisor kept and no lease wants: locks that nobody was told of. */
static void adopt_find_strays(Engine *engine, GArray *strays)
{
    g_autoptr(GPtrArray) names = vault_untaken(engine->vault);
    guint found = 0;

    for (guint i = 0; i < names->len; i++) {
        const char *name = g_ptr_array_index(names, i);
        int fd;

        if (g_str_has_prefix(name, VAULT_SOCKET_PREFIX))
            continue;
        fd = vault_take(engine->vault, name);
        g_array_append_val(strays, fd);
        vault_remove(engine->vault, name);
        found++;
    }
    if (found)
        g_message("%u descriptors without a lease were dropped: requests that were never answered",
                  found);
}

/* The strays on one mount, which one thread unlocks. */
typedef struct Strays {
    GArray *fds;
    gboolean running;
    gint late; /* atomic: the thread has come to its end, nobody waits for that any more: the second
                * to say so has to clean up */
} Strays;

static void adopt_strays_free(gpointer data)
{
    Strays *strays = data;

    g_array_unref(strays->fds);
    g_free(strays);
}

/* Closing is not enough: it would leave the lock to the supervisor's copy, for a moment in which
 * somebody asks and is refused. What is not locked, or no file, does not mind. */
static void *adopt_unlock_strays(void *data)
{
    Strays *strays = data;

    for (guint i = 0; i < strays->fds->len; i++) {
        struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET};

        fcntl(g_array_index(strays->fds, int, i), F_OFD_SETLK, &lock);
    }
    if (g_atomic_int_add(&strays->late, 1) > 0) {
        for (guint i = 0; i < strays->fds->len; i++)
            close(g_array_index(strays->fds, int, i));
        adopt_strays_free(strays);
    }
    return NULL;
}

static void adopt_wait_for_strays(Strays *strays, gint64 until)
{
    while (strays->running && g_atomic_int_get(&strays->late) == 0 &&
           g_get_monotonic_time() < until)
        g_usleep(50);
    if (strays->running && g_atomic_int_add(&strays->late, 1) == 0)
        return; /* the thread does the rest */
    for (guint i = 0; i < strays->fds->len; i++)
        closer_close(g_array_index(strays->fds, int, i));
    adopt_strays_free(strays);
}

/* Takes the descriptors over. */
static void adopt_drop_strays(const GArray *all)
{
    g_autoptr(GHashTable) mounts = g_hash_table_new(NULL, NULL); /* mount -> Strays */
    pthread_attr_t detached;
    pthread_t thread;
    gint64 until;
    GHashTableIter iter;
    gpointer value;

    for (guint i = 0; i < all->len; i++) {
        int fd = g_array_index(all, int, i);
        gpointer mount = GINT_TO_POINTER(closer_mount(fd));
        Strays *strays = g_hash_table_lookup(mounts, mount);

        if (!strays) {
            strays = g_new0(Strays, 1);
            strays->fds = g_array_new(FALSE, FALSE, sizeof(int));
            g_hash_table_insert(mounts, mount, strays);
        }
        g_array_append_val(strays->fds, fd);
    }
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    g_hash_table_iter_init(&iter, mounts);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        Strays *strays = value;

        strays->running = pthread_create(&thread, &detached, adopt_unlock_strays, strays) == 0;
    }
    pthread_attr_destroy(&detached);
    until = g_get_monotonic_time() + ADOPT_STRAYS_SECONDS * G_USEC_PER_SEC;
    g_hash_table_iter_init(&iter, mounts);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        adopt_wait_for_strays(value, until);
}

/* The parsed ledger is as large as the table. To free it takes longer than to answer those who have
 * waited for this daemon, so that comes later. */
static int adopt_free_ledger(sd_event_source *source, uint64_t usec, void *data)
{
    (void)usec;
    sd_event_source_set_destroy_callback(source, NULL);
    ledger_free(data);
    malloc_trim(0);
    return 0;
}

static void adopt_free_later(Engine *engine, Ledger *ledger)
{
    sd_event_source *source;

    if (sd_event_add_time_relative(engine->event, &source, CLOCK_MONOTONIC, ADOPT_FREE_USEC, 0,
                                   adopt_free_ledger, ledger) < 0) {
        ledger_free(ledger);
        return;
    }
    /* the event loop has it from now on, and at the latest frees it at its end */
    sd_event_source_set_destroy_callback(source, (sd_event_destroy_t)ledger_free);
    sd_event_source_set_floating(source, TRUE);
    sd_event_source_unref(source);
}

guint handover_adopt(Engine *engine)
{
    g_autoptr(Ledger) ledger = NULL;
    g_autoptr(GHashTable) owners = NULL;
    g_autoptr(GHashTable) ops = NULL; /* Lane -> Op */
    g_autoptr(GArray) strays = g_array_new(FALSE, FALSE, sizeof(int));
    g_autoptr(Fault) fault = NULL;
    g_autofree char *text = NULL;
    GHashTableIter iter;
    gpointer value;
    guint adopted = 0;
    gsize len;

    if (vault_kind(engine->vault) == VAULT_NONE)
        return 0;
    text = vault_read(engine->vault, &len);
    ledger = ledger_parse(text, len, &fault);
    if (!ledger) {
        g_critical("%s: leases of an earlier daemon are lost", fault->message);
        ledger = ledger_parse("", 0, NULL);
    }
    if (ledger->damaged)
        g_warning("%u damaged lines in the ledger were skipped", ledger->damaged);
    owners = adopt_owners(engine, ledger);
    ops = g_hash_table_new(NULL, NULL);
    g_hash_table_iter_init(&iter, ledger->leases);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        const LedgerLease *entry = value;
        Owner *owner = g_hash_table_lookup(owners, entry->owner);

        adopt_seen_id(engine, entry->id);
        if (owner && adopt_lease(engine, ops, strays, entry, owner))
            adopted++;
    }
    adopt_find_strays(engine, strays);
    adopt_drop_strays(strays);
    adopt_submit_all(ops);
    handover_rewrite(engine);
    g_hash_table_iter_init(&iter, owners);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        supervise_recheck(engine, value);
        supervise_unref(engine, value);
    }
    adopt_free_later(engine, g_steal_pointer(&ledger));
    return adopted;
}
