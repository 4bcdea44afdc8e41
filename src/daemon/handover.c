/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Leases that outlive the daemon. What a lease needs is in two places: its descriptors with the
 * supervisor (vault.c), its facts in the ledger (protocol/ledger.c). First the descriptors, then
 * the facts, then the client hears "yes"; and first the facts go, then the descriptors.
 * ARCHITECTURE.md has the timeline: who holds the lock's descriptor at each step, and what a death
 * there costs.
 *
 * The next daemon's half is in adopt.c.
 */
#define G_LOG_DOMAIN "holdfast.handover"

#include <string.h>

#include "engine.h"
#include "protocol/ledger.h"
#include "vault.h"

/* The ledger is written anew when it is this large and mostly history. */
#define HANDOVER_COMPACT_BYTES (1024 * 1024)
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

/* Numbers of owners and leases in the ledger are hexadecimal. */
typedef char HandoverId[17];

static const char *handover_id(HandoverId text, guint64 id)
{
    g_snprintf(text, sizeof(HandoverId), "%" G_GINT64_MODIFIER "x", id);
    return text;
}

static void handover_put_owner(GString *out, const Owner *owner)
{
    g_autofree char *conns = handover_join(owner->conn_names);
    HandoverId id;
    const LedgerOwner entry = {
        .conns = conns,
        .id = handover_id(id, owner->id),
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

/* As LeasePart has it. Takes the names, which it frees. */
static char *handover_kept(GString *names, const struct hf_saved *saved)
{
    g_string_append_c(names, '\0');
    for (unsigned i = 0; i < saved->n_bytes; i++) {
        g_string_append_c(names, "0123456789abcdef"[(unsigned char)saved->bytes[i] >> 4]);
        g_string_append_c(names, "0123456789abcdef"[(unsigned char)saved->bytes[i] & 15]);
    }
    names->str = g_realloc(names->str, names->len + 1); /* no more than is needed, for it stays */
    return g_string_free(names, FALSE);
}

/* The entry borrows all that is the lease's. */
static void handover_put_lease(GString *out, const Lease *lease)
{
    g_autofree LedgerPart *parts = g_new(LedgerPart, lease->parts->len);
    HandoverId id, owner;
    const LedgerLease entry = {
        .id = handover_id(id, lease->id),
        .owner = handover_id(owner, lease->owner->id),
        .disk = lease->disk,
        .mode = lease->mode,
        .since_usec = lease->since_usec,
        .count = lease->count,
        .claims = (const char **)lease->claims->pdata,
        .n_claims = lease->claims->len,
        .parts = parts,
        .n_parts = lease->parts->len,
    };

    for (guint i = 0; i < lease->parts->len; i++) {
        const LeasePart *part = g_ptr_array_index(lease->parts, i);

        parts[i] = (LedgerPart){
            .driver = part->resource.driver->api.name,
            .space = part->resource.space,
            .key = part->resource.key,
            .fds = part->kept ? part->kept : "",
            .bytes = part->kept ? lease_part_saved(part) : "",
        };
    }
    ledger_put_lease(out, &entry);
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
    owner->id = engine->next_id++;
    if (pidfd >= 0) {
        owner->pidfd_name = vault_new_name(vault);
        /* without it the next daemon knows the process by its pid and when it was started */
        if (!vault_store(vault, owner->pidfd_name, pidfd))
            g_clear_pointer(&owner->pidfd_name, g_free);
    }
    handover_put_owner(out, owner);
}

static void handover_remove_fds(Vault *vault, const char *fd_names)
{
    g_auto(GStrv) names = g_strsplit(fd_names, ",", -1);

    for (char **name = names; *name; name++)
        if (**name)
            vault_remove(vault, *name);
}

static gboolean handover_keep_part(Vault *vault, LeasePart *part)
{
    GString *names = g_string_new(NULL);

    for (unsigned i = 0; i < part->saved->n_fds; i++) {
        g_autofree char *name = vault_new_name(vault);

        if (!vault_store(vault, name, part->saved->fds[i])) {
            handover_remove_fds(vault, names->str);
            g_string_free(names, TRUE);
            return FALSE;
        }
        g_string_append_printf(names, "%s%s", i ? "," : "", name);
    }
    part->kept = handover_kept(names, part->saved);
    g_clear_pointer(&part->saved, g_free);
    return TRUE;
}

static void handover_keep_lease(Engine *engine, Lease *lease, GString *out)
{
    handover_keep_owner(engine, lease->owner, out);
    for (guint i = 0; i < lease->parts->len; i++) {
        LeasePart *part = g_ptr_array_index(lease->parts, i);

        if (part->kept || handover_keep_part(engine->vault, part))
            continue;
        engine->unkept = TRUE;
        g_critical("the lock of %s, held by VM %s (pid %d), cannot be handed to the supervisor: no "
                   "descriptor is free, raise the limit of open files; it is tried again with the "
                   "next lease, until then the lock will not survive this process",
                   part->resource.key, lease->owner->name ? lease->owner->name : "?",
                   (int)lease->owner->pid);
        return;
    }
    lease->id = engine->next_id++;
    handover_put_lease(out, lease);
}

static void handover_nothing(void *data)
{
    (void)data;
}

/* Once more those that could not be kept. */
static void handover_keep_rest(Engine *engine)
{
    g_autoptr(GPtrArray) leases = table_list(engine->table);
    g_autoptr(GString) out = g_string_new(NULL);

    engine->unkept = FALSE;
    for (guint i = 0; !engine->unkept && i < leases->len; i++) {
        Lease *lease = g_ptr_array_index(leases, i);

        if (!lease->id && lease->state == LEASE_HELD && handover_survives(lease))
            handover_keep_lease(engine, lease, out);
    }
    vault_commit(engine->vault, out->str, out->len, handover_nothing, NULL);
}

gboolean handover_is_complete(Engine *engine)
{
    if (vault_kind(engine->vault) != VAULT_NONE && !vault_ledger_is_whole(engine->vault) &&
        !vault_is_waiting(engine->vault))
        handover_rewrite(engine); /* there may be room again */
    if (vault_kind(engine->vault) != VAULT_NONE && engine->unkept)
        handover_keep_rest(engine);
    return vault_ledger_is_whole(engine->vault) && !engine->unkept && vault_has_all(engine->vault);
}

/* TRUE if the name is in the list, which has commas. Without a copy: there are many to look at. */
static gboolean handover_names(const char *list, const char *name)
{
    gsize len = strlen(name), n;

    for (;; list += n + 1) {
        n = strcspn(list, ",");
        if (n == len && memcmp(list, name, n) == 0)
            return TRUE;
        if (!list[n])
            return FALSE;
    }
}

/* There was no room for a descriptor, of which the client has heard that it is kept. */
static void handover_refused(const char *name, void *data)
{
    Engine *engine = data;

    for (const Lease *lease = table_first(engine->table); lease; lease = lease->next) {
        for (guint i = 0; i < lease->parts->len; i++) {
            const LeasePart *part = g_ptr_array_index(lease->parts, i);

            if (!part->kept || !handover_names(part->kept, name))
                continue;
            g_critical("the lock of %s, held by VM %s (pid %d), was not kept by the supervisor, "
                       "which has no room: it will not survive this process, which therefore does "
                       "not start anew; raise the limit of open files, then take the lock again",
                       part->key, lease->owner->name ? lease->owner->name : "?",
                       (int)lease->owner->pid);
            return;
        }
    }
    g_warning("descriptor %s was not kept by the supervisor, which has no room; raise the limit of "
              "open files",
              name);
}

void handover_begin(Engine *engine)
{
    vault_on_refused(engine->vault, handover_refused, engine);
}

void handover_keep(Engine *engine, GPtrArray *leases, void (*done)(void *data), void *data)
{
    Vault *vault = engine->vault;
    g_autoptr(GString) out = NULL;

    if (vault_kind(vault) == VAULT_NONE) {
        done(data);
        return;
    }
    handover_is_complete(engine);
    out = g_string_new(NULL);
    if (leases->len > 1)
        vault_hold(vault);
    for (guint i = 0; i < leases->len; i++) {
        Lease *lease = g_ptr_array_index(leases, i);

        if (!lease->id && handover_survives(lease))
            handover_keep_lease(engine, lease, out);
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
    /* behind the lines that wait: an older one of this owner may be among them */
    vault_commit(engine->vault, out->str, out->len, handover_nothing, NULL);
}

char *handover_keep_connection(Engine *engine, Owner *owner, int fd)
{
    g_autofree char *name = NULL;

    if (vault_kind(engine->vault) == VAULT_NONE)
        return NULL;
    name = vault_new_name(engine->vault);
    if (!vault_store(engine->vault, name, fd)) {
        g_critical("a connection that leases last with cannot be handed to the supervisor: no "
                   "descriptor is free, raise the limit of open files");
        return NULL;
    }
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
    /* behind the lines that wait, as above */
    vault_commit(engine->vault, out->str, out->len, handover_nothing, NULL);
}

void handover_rewrite(Engine *engine)
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

/* The table has leases whose descriptors wait to be sent: a ledger that named them would, were this
 * process to die now, have the next daemon report them as lost. So not while anything waits; what
 * is released next tries again. */
void handover_compact(Engine *engine, gboolean always)
{
    gsize size = vault_ledger_size(engine->vault);

    if (!vault_is_waiting(engine->vault) &&
        (always || (size > HANDOVER_COMPACT_BYTES &&
                    size / 4 / HANDOVER_LEASE_BYTES > table_size(engine->table))))
        handover_rewrite(engine);
}

void handover_forget_lease(Engine *engine, Lease *lease)
{
    g_autoptr(GString) out = g_string_new(NULL);
    HandoverId id;

    /* first the facts: descriptors without facts are dropped, facts without descriptors alarm */
    if (lease->id) {
        ledger_put_free(out, handover_id(id, lease->id));
        vault_write(engine->vault, out->str, out->len);
        /* at once, for its caller hears of it; and again behind a line of its own that waits */
        if (vault_is_waiting(engine->vault))
            vault_commit(engine->vault, out->str, out->len, handover_nothing, NULL);
    }
    for (guint i = 0; i < lease->parts->len; i++) {
        const LeasePart *part = g_ptr_array_index(lease->parts, i);

        if (part->kept)
            handover_remove_fds(engine->vault, part->kept);
    }
    lease->id = 0;
    handover_compact(engine, FALSE);
}

void handover_forget_owner(Engine *engine, Owner *owner)
{
    g_autoptr(GString) out = NULL;
    HandoverId id;

    if (!owner->id)
        return;
    out = g_string_new(NULL);
    ledger_put_gone(out, handover_id(id, owner->id));
    vault_write(engine->vault, out->str, out->len);
    if (owner->pidfd_name)
        vault_remove(engine->vault, owner->pidfd_name);
    owner->id = 0;
    g_clear_pointer(&owner->pidfd_name, g_free);
}
