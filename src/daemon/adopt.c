/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The start of a daemon that takes leases over from an earlier one: the second half of handover.c,
 * which says what there is to be taken over and what each step costs.
 *
 * Clients wait for this, so that it does no more than it must: it reads the ledger, fills the
 * table, and sees that each descriptor is there. All else comes later: the drivers look at what
 * they hold (adopt-check.c), and the ledger is gone on with as it is unless something is wrong
 * with it.
 */
#define G_LOG_DOMAIN "holdfast.handover"

#include <string.h>
#include <unistd.h>

#include "engine.h"
#include "keeper/keeper.h"
#include "metrics.h"
#include "protocol/ledger.h"
#include "vault.h"

/* What a daemon that starts is at. */
typedef struct Adopting {
    Engine *engine;
    Ledger *ledger;
    GHashTable *owners; /* id -> Owner, with a reference */
    GArray *strays;     /* of int: descriptors that no lease wants */
    guint leases;
    guint parts;      /* of these */
    gboolean rewrite; /* the ledger cannot be gone on with */
    const Driver *driver;
    const Owner *owner; /* of the lease before: mostly it is the same */
    const char *owner_id;
} Adopting;

/* The number of an id as we write it; 0: somebody else has written it. */
static guint64 adopt_id(const char *id)
{
    guint64 number = 0;
    gsize len = strlen(id);

    if (len == 0 || len > 15 || *id == '0')
        return 0;
    for (const char *p = id; *p; p++) {
        if (!g_ascii_isxdigit(*p) || g_ascii_isupper(*p))
            return 0;
        number = number * 16 + (guint64)g_ascii_xdigit_value(*p);
    }
    return number;
}

/* Ids are never used twice: ours come after all that were. */
static void adopt_see_ids(Engine *engine, GHashTable *entries)
{
    GHashTableIter iter;
    gpointer id;

    g_hash_table_iter_init(&iter, entries);
    while (g_hash_table_iter_next(&iter, &id, NULL))
        engine->next_id = MAX(engine->next_id, adopt_id(id) + 1);
}

static guint64 adopt_take_id(Adopting *adopting, const char *id)
{
    guint64 number = adopt_id(id);

    if (number > 0)
        return number;
    adopting->rewrite = TRUE; /* it would be named by an id that the ledger does not have */
    return adopting->engine->next_id++;
}

/* ---- leases ---------------------------------------------------------------------------- */

/* Calls back for each name in a list with commas; FALSE if one of the calls was. */
static gboolean adopt_each_name(const char *names, gboolean (*func)(const char *name, void *data),
                                void *data)
{
    gboolean all = TRUE;

    while (*names) {
        gsize len = strcspn(names, ",");
        char name[KEEPER_NAME_MAX + 1];

        if (len > KEEPER_NAME_MAX) {
            all = FALSE; /* nothing is kept under such a name */
        } else if (len > 0) {
            memcpy(name, names, len);
            name[len] = '\0';
            if (!func(name, data))
                all = FALSE;
        }
        names += len + (names[len] == ',');
    }
    return all;
}

static gboolean adopt_claim(const char *name, void *data)
{
    Adopting *adopting = data;

    return vault_claim(adopting->engine->vault, name);
}

static gboolean adopt_leave(const char *name, void *data)
{
    Adopting *adopting = data;
    int fd = vault_take(adopting->engine->vault, name);

    if (fd >= 0)
        g_array_append_val(adopting->strays, fd);
    return TRUE;
}

static char *adopt_kept(const LedgerPart *entry)
{
    gsize fds = strlen(entry->fds) + 1, bytes = strlen(entry->bytes) + 1;
    char *kept = g_malloc(fds + bytes);

    memcpy(kept, entry->fds, fds);
    memcpy(kept + fds, entry->bytes, bytes);
    return kept;
}

static const Driver *adopt_driver(Adopting *adopting, const char *name)
{
    if (!adopting->driver || strcmp(adopting->driver->api.name, name) != 0)
        adopting->driver = g_hash_table_lookup(adopting->engine->drivers, name);
    return adopting->driver;
}

/* FALSE if something is missing. */
static gboolean adopt_parts(Adopting *adopting, Lease *lease, const LedgerLease *entry)
{
    gboolean whole = TRUE;

    for (guint i = 0; i < entry->n_parts; i++) {
        const LedgerPart *from = &entry->parts[i];
        const Driver *driver = adopt_driver(adopting, from->driver);
        Resource resource = {driver, (char *)from->space, (char *)from->key};
        LeasePart *part;

        if (!driver || !(driver->api.capabilities & HF_SURVIVES)) {
            g_critical("driver %s is not there any more: its lease %s is lost", from->driver,
                       from->key);
            return FALSE;
        }
        part = lease_add_part(lease, &resource, NULL);
        part->survives = TRUE;
        part->unchecked = TRUE;
        part->kept = adopt_kept(from);
        if (!adopt_each_name(part->kept, adopt_claim, adopting))
            whole = FALSE;
    }
    return whole;
}

static void adopt_lose(Adopting *adopting, Lease *lease, const LedgerLease *entry)
{
    Owner *owner = lease->owner;

    g_critical("lease %s of VM %s (pid %d) is in the ledger, but its descriptors are not with the "
               "supervisor: the lock is lost",
               lease->parts->len ? lease_resource(lease)->key : entry->id,
               owner->name ? owner->name : "?", (int)owner->pid);
    if (lease->parts->len)
        engine_emit(adopting->engine, EVENT_LEASE_LOST, lease, owner, NULL,
                    "its descriptors are gone");
    else
        metrics_on_lost(adopting->engine);
    for (guint i = 0; i < lease->parts->len; i++) {
        const LeasePart *part = g_ptr_array_index(lease->parts, i);

        adopt_each_name(part->kept, adopt_leave, adopting);
    }
    handover_forget_lease(adopting->engine, lease);
    lease_free(lease);
}

static Owner *adopt_owner_of(Adopting *adopting, const LedgerLease *entry)
{
    if (!adopting->owner_id || strcmp(adopting->owner_id, entry->owner) != 0) {
        adopting->owner_id = entry->owner;
        adopting->owner = g_hash_table_lookup(adopting->owners, entry->owner);
    }
    return (Owner *)adopting->owner;
}

static void adopt_lease(Adopting *adopting, const LedgerLease *entry)
{
    Owner *owner = adopt_owner_of(adopting, entry);
    gboolean whole;
    Lease *lease;

    if (!owner)
        return;
    lease = lease_new(owner, entry->disk, entry->mode, entry->since_usec);
    whole = adopt_parts(adopting, lease, entry);
    for (guint i = 0; i < entry->n_claims; i++)
        lease_add_claim(lease, entry->claims[i]);
    lease->id = adopt_take_id(adopting, entry->id);
    lease->count = entry->count;
    lease->state = LEASE_HELD;
    if (!whole) {
        adopt_lose(adopting, lease, entry);
        return;
    }
    table_insert(adopting->engine->table, lease);
    adopting->leases++;
    adopting->parts += lease->parts->len;
}

/* ---- owners ---------------------------------------------------------------------------- */

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

static void adopt_owner(Adopting *adopting, const LedgerOwner *entry)
{
    Engine *engine = adopting->engine;
    int pidfd = entry->pidfd ? vault_take(engine->vault, entry->pidfd) : -1;
    Owner *owner = supervise_adopt_owner(engine, entry->name, entry->uuid, entry->uri, entry->pid,
                                         entry->start_ticks, pidfd);

    owner->id = adopt_take_id(adopting, entry->id);
    owner->pidfd_name = pidfd >= 0 ? g_strdup(entry->pidfd) : NULL;
    owner->until_close = entry->until_close;
    adopt_resume_connections(engine, owner, entry->conns);
    g_hash_table_insert(adopting->owners, (gpointer)entry->id, owner);
}

/* ---- the beginning --------------------------------------------------------------------- */

/* Descriptors that the supervisor kept and no lease wants: locks that nobody was told of. */
static void adopt_find_strays(Adopting *adopting)
{
    Vault *vault = adopting->engine->vault;
    g_autoptr(GPtrArray) names = vault_untaken(vault);
    guint found = 0;

    for (guint i = 0; i < names->len; i++) {
        const char *name = g_ptr_array_index(names, i);
        int fd;

        if (g_str_has_prefix(name, VAULT_SOCKET_PREFIX))
            continue;
        fd = vault_take(vault, name);
        g_array_append_val(adopting->strays, fd);
        vault_remove(vault, name);
        found++;
    }
    if (found)
        g_message("%u descriptors without a lease were dropped: requests that were never answered",
                  found);
}

/* A ledger that cannot be read is as good as none; one with a torn end goes on before that. */
static void adopt_read_ledger(Adopting *adopting)
{
    g_autoptr(Fault) fault = NULL;
    gsize len;
    char *text = vault_read(adopting->engine->vault, &len);

    adopting->ledger = ledger_parse(text, len, &fault);
    if (!adopting->ledger) {
        g_critical("%s: leases of an earlier daemon are lost", fault->message);
        adopting->ledger = ledger_parse(g_strdup(""), 0, NULL);
    }
    if (adopting->ledger->damaged)
        g_warning("%u damaged lines in the ledger were skipped", adopting->ledger->damaged);
    adopting->rewrite = adopting->ledger->damaged > 0 ||
                        !vault_cut(adopting->engine->vault, adopting->ledger->whole);
}

static void adopt_entries(Adopting *adopting)
{
    const Ledger *ledger = adopting->ledger;
    GHashTableIter iter;
    gpointer value;

    adopt_see_ids(adopting->engine, ledger->owners);
    adopt_see_ids(adopting->engine, ledger->leases);
    g_hash_table_iter_init(&iter, ledger->owners);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        adopt_owner(adopting, value);
    g_hash_table_iter_init(&iter, ledger->leases);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        adopt_lease(adopting, value);
}

/* TRUE if most of the ledger is about what is gone. */
static gboolean adopt_is_history(const Adopting *adopting)
{
    return !adopting->rewrite &&
           adopting->ledger->lines / 2 > adopting->leases + g_hash_table_size(adopting->owners);
}

guint handover_adopt(Engine *engine)
{
    g_autoptr(GHashTable) owners = NULL;
    g_autoptr(GArray) strays = NULL;
    Adopting adopting = {.engine = engine};
    GHashTableIter iter;
    gpointer value;

    if (vault_kind(engine->vault) == VAULT_NONE)
        return 0;
    handover_begin(engine);
    adopting.owners = owners = g_hash_table_new(g_str_hash, g_str_equal);
    adopting.strays = strays = g_array_new(FALSE, FALSE, sizeof(int));
    adopt_read_ledger(&adopting);
    adopt_entries(&adopting);
    adopt_find_strays(&adopting);
    adopt_drop_strays(strays);
    if (adopting.rewrite || (adopting.parts == 0 && adopting.ledger->lines > 0))
        handover_rewrite(engine);
    adopt_check_all(engine, adopting.parts, adopt_is_history(&adopting));
    g_hash_table_iter_init(&iter, owners);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        supervise_recheck(engine, value);
        supervise_unref(engine, value);
    }
    ledger_free(adopting.ledger);
    return adopting.leases;
}
