/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Leases that outlive the daemon. What a lease needs is in two places: its descriptors with the
 * supervisor (vault.c), its facts in the ledger (protocol/ledger.c).
 *
 * Who holds the lock's descriptor, and what a death of the daemon costs, step by step:
 *
 *     1  the driver has locked           the daemon only; the lock is free again, nobody was told
 *     2  sent to the supervisor          also the kernel, in the supervisor's socket; the next
 * daemon finds no facts, reports and drops it; nobody was told 3  the ledger has the facts the
 * lease survives; the client repeats its request and hears "yes" (native), or finds its owner to
 * hold it 4  the client hears "yes"          the lease survives 5  released by the driver the lock
 * is gone; the next daemon finds that out, or takes it again for the owner, who repeats its release
 *     6  removed from supervisor, ledger nothing is left
 *
 * The next daemon's leases are in the table before it answers anybody; that each is really held is
 * checked by its driver in its lane, and until that is done every other op on it waits.
 */
#define G_LOG_DOMAIN "holdfast.handover"

#include <malloc.h>
#include <string.h>
#include <unistd.h>

#include "engine.h"
#include "protocol/ledger.h"
#include "vault.h"

/* The ledger is written anew when it is this large and mostly history. */
#define HANDOVER_COMPACT_BYTES (1024 * 1024)
/* So many leases of one lane are checked in one job: few threads, so that clients are answered
 * meanwhile. */
#define HANDOVER_BATCH 1024
/* An entry of a lease takes some 300 bytes. */
#define HANDOVER_LEASE_BYTES 512

/* ---- facts as ledger lines ------------------------------------------------------------- */

static char *handover_join(const GPtrArray *names)
{
    GString *out;

    if (!names || names->len == 0)
        return NULL;
    out = g_string_new(NULL);
    for (guint i = 0; i < names->len; i++)
        g_string_append_printf(out, "%s%s", i ? "," : "", (const char *)names->pdata[i]);
    return g_string_free(out, FALSE);
}

static void handover_put_owner(GString *out, const Owner *owner)
{
    g_autofree char *conns = handover_join(owner->conn_names);
    const LedgerOwner entry = {
        .conns = conns,
        .id = owner->id,
        .name = owner->name,
        .uuid = owner->uuid,
        .uri = owner->uri,
        .pid = owner->pid,
        .start_ticks = owner->start_ticks,
        .until_close = owner->until_close,
        .pidfd = owner->pidfd_name,
    };

    ledger_put_owner(out, &entry);
}

static char *handover_hex(const struct hf_saved *saved)
{
    GString *hex = g_string_new(NULL);

    for (unsigned i = 0; i < saved->n_bytes; i++)
        g_string_append_printf(hex, "%02x", (unsigned char)saved->bytes[i]);
    return g_string_free(hex, FALSE);
}

static gboolean handover_unhex(const char *hex, struct hf_saved *saved)
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

static void handover_put_lease(GString *out, const Lease *lease)
{
    g_autoptr(LedgerLease) entry = ledger_lease_new();

    entry->id = g_strdup(lease->id);
    entry->owner = g_strdup(lease->owner->id);
    entry->disk = g_strdup(lease->disk);
    entry->mode = lease->mode;
    entry->since_usec = lease->since_usec;
    entry->count = lease->count;
    for (guint i = 0; i < lease->claims->len; i++)
        g_ptr_array_add(entry->claims, g_strdup(g_ptr_array_index(lease->claims, i)));
    for (guint i = 0; i < lease->parts->len; i++) {
        const LeasePart *part = g_ptr_array_index(lease->parts, i);
        LedgerPart *entry_part = ledger_lease_add_part(entry);

        entry_part->driver = g_strdup(part->resource.driver->api.name);
        entry_part->space = g_strdup(part->resource.space);
        entry_part->key = g_strdup(part->resource.key);
        entry_part->fds = g_strdup(part->fd_names ? part->fd_names : "");
        entry_part->bytes = g_strdup(part->saved_bytes ? part->saved_bytes : "");
    }
    ledger_put_lease(out, entry);
}

/* Numbers of owners and leases in the ledger, never used twice. */
static char *handover_new_id(Engine *engine)
{
    return g_strdup_printf("%" G_GINT64_MODIFIER "x", engine->next_id++);
}

static void handover_seen_id(Engine *engine, const char *id)
{
    guint64 number = g_ascii_strtoull(id, NULL, 16);

    engine->next_id = MAX(engine->next_id, number + 1);
}

/* ---- keeping --------------------------------------------------------------------------- */

static gboolean handover_survives(const Lease *lease)
{
    for (guint i = 0; i < lease->parts->len; i++)
        if (!((const LeasePart *)g_ptr_array_index(lease->parts, i))->survives)
            return FALSE;
    return TRUE;
}

static void handover_keep_owner(Engine *engine, Owner *owner, GString *out)
{
    Vault *vault = engine->vault;
    int pidfd = supervise_pidfd(owner);

    if (owner->id)
        return;
    owner->id = handover_new_id(engine);
    if (pidfd >= 0) {
        owner->pidfd_name = vault_new_name(vault);
        vault_store(vault, owner->pidfd_name, pidfd);
    }
    handover_put_owner(out, owner);
}

static void handover_keep_part(Vault *vault, LeasePart *part)
{
    GString *names = g_string_new(NULL);

    for (unsigned i = 0; i < part->saved->n_fds; i++) {
        g_autofree char *name = vault_new_name(vault);

        vault_store(vault, name, part->saved->fds[i]);
        g_string_append_printf(names, "%s%s", i ? "," : "", name);
    }
    part->fd_names = g_string_free(names, FALSE);
    part->saved_bytes = handover_hex(part->saved);
    g_clear_pointer(&part->saved, g_free);
}

void handover_keep(Engine *engine, GPtrArray *leases, void (*done)(void *data), void *data)
{
    Vault *vault = engine->vault;
    g_autoptr(GString) out = NULL;

    if (vault_kind(vault) == VAULT_NONE) {
        done(data);
        return;
    }
    out = g_string_new(NULL);
    for (guint i = 0; i < leases->len; i++) {
        Lease *lease = g_ptr_array_index(leases, i);

        if (lease->id || !handover_survives(lease))
            continue;
        handover_keep_owner(engine, lease->owner, out);
        lease->id = handover_new_id(engine);
        for (guint k = 0; k < lease->parts->len; k++)
            handover_keep_part(vault, g_ptr_array_index(lease->parts, k));
        handover_put_lease(out, lease);
    }
    vault_commit(vault, out->str, out->len, done, data);
}

static void handover_update_owner(Engine *engine, const Owner *owner)
{
    g_autoptr(GString) out = NULL;

    if (!owner->id)
        return; /* the line is written with its first lease */
    out = g_string_new(NULL);
    handover_put_owner(out, owner);
    vault_write(engine->vault, out->str, out->len);
}

char *handover_keep_connection(Engine *engine, Owner *owner, int fd)
{
    g_autofree char *name = NULL;

    if (vault_kind(engine->vault) == VAULT_NONE)
        return NULL;
    name = vault_new_name(engine->vault);
    vault_store(engine->vault, name, fd);
    if (!owner->conn_names)
        owner->conn_names = g_ptr_array_new_with_free_func(g_free);
    g_ptr_array_add(owner->conn_names, g_strdup(name));
    handover_update_owner(engine, owner);
    return g_steal_pointer(&name);
}

void handover_forget_connection(Engine *engine, Owner *owner, const char *name)
{
    guint index;

    if (owner->conn_names &&
        g_ptr_array_find_with_equal_func(owner->conn_names, name, g_str_equal, &index)) {
        g_ptr_array_remove_index_fast(owner->conn_names, index);
        handover_update_owner(engine, owner);
    }
    vault_remove(engine->vault, name);
}

void handover_update(Engine *engine, Lease *lease)
{
    g_autoptr(GString) out = NULL;

    if (!lease->id)
        return;
    out = g_string_new(NULL);
    handover_put_lease(out, lease);
    vault_write(engine->vault, out->str, out->len);
}

static void handover_rewrite(Engine *engine)
{
    g_autoptr(GPtrArray) owners = table_owners(engine->table);
    g_autoptr(GPtrArray) leases = table_list(engine->table);
    g_autoptr(GString) out = g_string_new(LEDGER_HEADER);

    for (guint i = 0; i < owners->len; i++)
        if (((const Owner *)g_ptr_array_index(owners, i))->id)
            handover_put_owner(out, g_ptr_array_index(owners, i));
    for (guint i = 0; i < leases->len; i++)
        if (((const Lease *)g_ptr_array_index(leases, i))->id)
            handover_put_lease(out, g_ptr_array_index(leases, i));
    vault_rewrite(engine->vault, out->str, out->len);
}

static void handover_remove_fds(Vault *vault, const char *fd_names)
{
    g_auto(GStrv) names = g_strsplit(fd_names, ",", -1);

    for (char **name = names; *name; name++)
        if (**name)
            vault_remove(vault, *name);
}

void handover_forget_lease(Engine *engine, Lease *lease)
{
    g_autoptr(GString) out = NULL;

    if (!lease->id)
        return;
    out = g_string_new(NULL);
    /* first the facts: descriptors without facts are dropped, facts without descriptors alarm */
    ledger_put_free(out, lease->id);
    vault_write(engine->vault, out->str, out->len);
    for (guint i = 0; i < lease->parts->len; i++) {
        const LeasePart *part = g_ptr_array_index(lease->parts, i);

        if (part->fd_names)
            handover_remove_fds(engine->vault, part->fd_names);
    }
    g_clear_pointer(&lease->id, g_free);
    if (vault_ledger_size(engine->vault) > HANDOVER_COMPACT_BYTES &&
        vault_ledger_size(engine->vault) / 4 / HANDOVER_LEASE_BYTES > table_size(engine->table))
        handover_rewrite(engine);
}

void handover_forget_owner(Engine *engine, Owner *owner)
{
    g_autoptr(GString) out = NULL;

    if (!owner->id)
        return;
    out = g_string_new(NULL);
    ledger_put_gone(out, owner->id);
    vault_write(engine->vault, out->str, out->len);
    if (owner->pidfd_name)
        vault_remove(engine->vault, owner->pidfd_name);
    g_clear_pointer(&owner->id, g_free);
    g_clear_pointer(&owner->pidfd_name, g_free);
}

/* ---- adopting -------------------------------------------------------------------------- */

/* A lease on its way through its lanes. */
typedef struct Adoption {
    Engine *engine;
    Lease *lease;
    guint parts; /* still to be checked */
    char *lost;  /* why; NULL: it is held */
} Adoption;

static void handover_lose(Engine *engine, Lease *lease, const char *why)
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

static void handover_part_adopted(Adoption *adoption, OpItem *item)
{
    if (item->done)
        item->part->handle = item->handle;
    else if (!adoption->lost)
        adoption->lost = g_strdup(item->why ? item->why : "its lane could not be entered");
    if (--adoption->parts > 0)
        return;
    if (adoption->lost)
        handover_lose(adoption->engine, adoption->lease, adoption->lost);
    else
        engine_emit(adoption->engine, EVENT_LEASE_ADOPTED, adoption->lease, adoption->lease->owner,
                    NULL, NULL);
    g_free(adoption->lost);
    g_free(adoption);
}

static void handover_adopted(Op *op, void *data)
{
    (void)data;
    for (guint i = 0; i < op->items->len; i++) {
        OpItem *item = g_ptr_array_index(op->items, i);

        handover_part_adopted(item->data, item);
    }
}

/* Takes the part's descriptors out of the vault; FALSE if one is missing. */
static gboolean handover_take_fds(Vault *vault, const LedgerPart *entry, struct hf_saved *saved)
{
    g_auto(GStrv) names = g_strsplit(entry->fds, ",", -1);
    gboolean whole = handover_unhex(entry->bytes, saved);

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

static gboolean handover_adopt_parts(Engine *engine, Lease *lease, const LedgerLease *entry)
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
        if (!handover_take_fds(engine->vault, from, part->saved))
            whole = FALSE;
    }
    return whole;
}

static void handover_close_fds(Lease *lease)
{
    for (guint i = 0; i < lease->parts->len; i++) {
        const LeasePart *part = g_ptr_array_index(lease->parts, i);

        for (unsigned k = 0; part->saved && k < part->saved->n_fds; k++)
            close(part->saved->fds[k]);
    }
}

/* The op that gathers what is to be checked in that lane. Takes the lane's reference over. */
static Op *handover_op_for(Engine *engine, GHashTable *ops, Lane *lane)
{
    Op *op = g_hash_table_lookup(ops, lane);

    if (op && op->items->len < HANDOVER_BATCH) {
        lane_unref(lane);
        return op;
    }
    if (op)
        op_submit(op, handover_adopted, NULL);
    op = op_new(engine, OP_ADOPT, lane);
    g_hash_table_insert(ops, lane, op);
    return op;
}

static void handover_check(Engine *engine, GHashTable *ops, Lease *lease)
{
    Adoption *adoption = g_new0(Adoption, 1);

    adoption->engine = engine;
    adoption->lease = lease;
    adoption->parts = lease->parts->len;
    for (guint i = 0; i < lease->parts->len; i++) {
        LeasePart *part = g_ptr_array_index(lease->parts, i);
        Op *op = handover_op_for(engine, ops, op_lane(engine, &part->resource));
        OpItem *item = op_add(op, &part->resource, lease->disk, lease->mode, 0);

        item->saved = *part->saved;
        g_clear_pointer(&part->saved, g_free); /* the driver's from now on */
        item->part = part;
        item->data = adoption;
    }
}

static void handover_submit_all(GHashTable *ops)
{
    GHashTableIter iter;
    gpointer op;

    g_hash_table_iter_init(&iter, ops);
    while (g_hash_table_iter_next(&iter, NULL, &op))
        op_submit(op, handover_adopted, NULL);
}

static gboolean handover_adopt_lease(Engine *engine, GHashTable *ops, const LedgerLease *entry,
                                     Owner *owner)
{
    Lease *lease = lease_new(owner, entry->disk, entry->mode, entry->since_usec);
    gboolean whole = handover_adopt_parts(engine, lease, entry);

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
        handover_close_fds(lease);
        handover_forget_lease(engine, lease);
        lease_free(lease);
        return FALSE;
    }
    table_insert(engine->table, lease);
    handover_check(engine, ops, lease);
    return TRUE;
}

/* The connections first: an owner whose process has ended lasts as long as they do. */
static void handover_resume_connections(Engine *engine, Owner *owner, const char *conns)
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

static GHashTable *handover_adopt_owners(Engine *engine, const Ledger *ledger)
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
        handover_resume_connections(engine, owner, entry->conns);
        g_hash_table_insert(owners, entry->id, owner);
        handover_seen_id(engine, entry->id);
    }
    return owners;
}

/* Descriptors that the supervisor kept and no lease wants: locks that nobody was told of. */
static void handover_drop_strays(Engine *engine)
{
    g_autoptr(GPtrArray) names = vault_untaken(engine->vault);
    guint strays = 0;

    for (guint i = 0; i < names->len; i++) {
        const char *name = g_ptr_array_index(names, i);

        if (g_str_has_prefix(name, VAULT_SOCKET_PREFIX))
            continue;
        close(vault_take(engine->vault, name));
        vault_remove(engine->vault, name);
        strays++;
    }
    if (strays)
        g_message("%u descriptors without a lease were dropped: requests that were never answered",
                  strays);
}

guint handover_adopt(Engine *engine)
{
    g_autoptr(Ledger) ledger = NULL;
    g_autoptr(GHashTable) owners = NULL;
    g_autoptr(GHashTable) ops = NULL; /* Lane -> Op */
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
    owners = handover_adopt_owners(engine, ledger);
    ops = g_hash_table_new(NULL, NULL);
    g_hash_table_iter_init(&iter, ledger->leases);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        const LedgerLease *entry = value;
        Owner *owner = g_hash_table_lookup(owners, entry->owner);

        handover_seen_id(engine, entry->id);
        if (owner && handover_adopt_lease(engine, ops, entry, owner))
            adopted++;
    }
    handover_submit_all(ops);
    handover_drop_strays(engine);
    handover_rewrite(engine);
    g_hash_table_iter_init(&iter, owners);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        supervise_recheck(engine, value);
        supervise_unref(engine, value);
    }
    g_clear_pointer(&ledger, ledger_free);
    malloc_trim(0); /* the parsed ledger was as large as the table */
    return adopted;
}
