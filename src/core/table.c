/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The lock table of lease.h: three indexes over the same leases, all in one thread. What a lease is
 * found by is part of it anyway, so that an index is no more than an array of chains: with all a
 * lease takes some 400 bytes, and ten thousand are taken in within milliseconds.
 */
#include "lease.h"

#include <string.h>

/* Chains of an index with little in it; a power of 2. */
#define TABLE_MIN_CHAINS 64

typedef struct TableIndex {
    LeaseName **chains; /* the youngest first */
    guint n_chains;     /* a power of 2 */
    guint n;
    gboolean (*equal)(const LeaseName *name, gconstpointer what);
} TableIndex;

struct Table {
    Lease *first, *last; /* all leases, in the order in which they came */
    guint n;
    TableIndex resources; /* of LeasePart */
    TableIndex claims;    /* of LeaseClaim */
    GHashTable *owners;   /* pid -> GPtrArray of Owner, not owned */
};

/* ---- an index -------------------------------------------------------------------------- */

static gboolean table_part_equal(const LeaseName *name, gconstpointer what)
{
    return resource_equal(&((const LeasePart *)name)->resource, what);
}

static gboolean table_claim_equal(const LeaseName *name, gconstpointer what)
{
    return strcmp(((const LeaseClaim *)name)->text, what) == 0;
}

static LeaseName **table_chain(const TableIndex *index, guint hash)
{
    return &index->chains[hash & (index->n_chains - 1)];
}

static void table_push(TableIndex *index, LeaseName *name)
{
    LeaseName **chain = table_chain(index, name->hash);

    name->next = *chain;
    *chain = name;
}

/* As many chains as there are names, more or less. */
static void table_resize(TableIndex *index)
{
    guint before = index->n_chains;
    LeaseName **chains = index->chains;

    if (index->n > before)
        index->n_chains = before * 2;
    else if (index->n < before / 8 && before > TABLE_MIN_CHAINS)
        index->n_chains = before / 2;
    else
        return;
    index->chains = g_new0(LeaseName *, index->n_chains);
    for (guint i = 0; i < before; i++) {
        LeaseName *name = chains[i], *eldest = NULL, *next;

        for (; name; name = next) { /* turned round, for they are pushed from the eldest on */
            next = name->next;
            name->next = eldest;
            eldest = name;
        }
        for (; eldest; eldest = next) {
            next = eldest->next;
            table_push(index, eldest);
        }
    }
    g_free(chains);
}

static void table_index_init(TableIndex *index,
                             gboolean (*equal)(const LeaseName *name, gconstpointer what))
{
    index->n_chains = TABLE_MIN_CHAINS;
    index->chains = g_new0(LeaseName *, TABLE_MIN_CHAINS);
    index->equal = equal;
}

static void table_index_add(TableIndex *index, LeaseName *name, Lease *lease, guint hash)
{
    name->lease = lease;
    name->hash = hash;
    index->n++;
    table_resize(index);
    table_push(index, name);
}

static void table_index_remove(TableIndex *index, LeaseName *name)
{
    LeaseName **at = table_chain(index, name->hash);

    while (*at != name)
        at = &(*at)->next;
    *at = name->next;
    index->n--;
    table_resize(index);
}

/* The youngest of that name from `from` on; NULL: none. */
static LeaseName *table_next(const TableIndex *index, LeaseName *from, gconstpointer what,
                             guint hash)
{
    while (from && (from->hash != hash || !index->equal(from, what)))
        from = from->next;
    return from;
}

static LeaseName *table_youngest(const TableIndex *index, gconstpointer what, guint hash)
{
    return table_next(index, *table_chain(index, hash), what, hash);
}

/* ---- leases ---------------------------------------------------------------------------- */

Table *table_new(void)
{
    Table *table = g_new0(Table, 1);

    table_index_init(&table->resources, table_part_equal);
    table_index_init(&table->claims, table_claim_equal);
    table->owners = g_hash_table_new_full(NULL, NULL, NULL, (GDestroyNotify)g_ptr_array_unref);
    return table;
}

void table_free(Table *table)
{
    g_free(table->resources.chains);
    g_free(table->claims.chains);
    g_hash_table_unref(table->owners);
    g_free(table);
}

void table_insert(Table *table, Lease *lease)
{
    for (guint i = 0; i < lease->parts->len; i++) {
        LeasePart *part = g_ptr_array_index(lease->parts, i);

        table_index_add(&table->resources, &part->name, lease, resource_hash(&part->resource));
    }
    for (guint i = 0; i < lease->claims->len; i++) {
        LeaseClaim *claim = lease_claim_of(g_ptr_array_index(lease->claims, i));

        table_index_add(&table->claims, &claim->name, lease, g_str_hash(claim->text));
    }
    lease->previous = table->last;
    lease->next = NULL;
    *(table->last ? &table->last->next : &table->first) = lease;
    table->last = lease;
    table->n++;
    g_ptr_array_add(lease->owner->leases, lease);
}

void table_remove(Table *table, Lease *lease)
{
    for (guint i = 0; i < lease->parts->len; i++) {
        LeasePart *part = g_ptr_array_index(lease->parts, i);

        table_index_remove(&table->resources, &part->name);
    }
    for (guint i = 0; i < lease->claims->len; i++)
        table_index_remove(&table->claims,
                           &lease_claim_of(g_ptr_array_index(lease->claims, i))->name);
    *(lease->previous ? &lease->previous->next : &table->first) = lease->next;
    *(lease->next ? &lease->next->previous : &table->last) = lease->previous;
    table->n--;
    g_ptr_array_remove(lease->owner->leases, lease);
}

static gint table_by_age(gconstpointer a, gconstpointer b)
{
    const Lease *x = *(Lease *const *)a;
    const Lease *y = *(Lease *const *)b;

    return (x->since_usec > y->since_usec) - (x->since_usec < y->since_usec);
}

GPtrArray *table_list(Table *table)
{
    GPtrArray *list = g_ptr_array_sized_new(table->n);

    for (Lease *lease = table->first; lease; lease = lease->next)
        g_ptr_array_add(list, lease);
    g_ptr_array_sort(list, table_by_age);
    return list;
}

guint table_size(const Table *table)
{
    return table->n;
}

Lease *table_first(const Table *table)
{
    return table->first;
}

/* ---- finding --------------------------------------------------------------------------- */

/* Adds those of that name, the eldest first. */
static void table_collect(const TableIndex *index, gconstpointer what, guint hash, GPtrArray *out)
{
    guint before = out->len;

    for (LeaseName *name = table_youngest(index, what, hash); name;
         name = table_next(index, name->next, what, hash))
        if (!g_ptr_array_find(out, name->lease, NULL))
            g_ptr_array_add(out, name->lease);
    for (guint i = before, k = out->len; i + 1 < k; i++) {
        gpointer lease = out->pdata[i];

        out->pdata[i] = out->pdata[--k];
        out->pdata[k] = lease;
    }
}

GPtrArray *table_find(Table *table, const Resource *resource, GPtrArray *claims)
{
    GPtrArray *found = g_ptr_array_new();

    if (resource)
        table_collect(&table->resources, resource, resource_hash(resource), found);
    for (guint i = 0; claims && i < claims->len; i++) {
        const char *claim = g_ptr_array_index(claims, i);

        table_collect(&table->claims, claim, g_str_hash(claim), found);
    }
    return found;
}

Lease *table_find_owned(Table *table, const Owner *owner, const Resource *resource)
{
    guint hash = resource_hash(resource);

    for (LeaseName *name = table_youngest(&table->resources, resource, hash); name;
         name = table_next(&table->resources, name->next, resource, hash))
        if (name->lease->state != LEASE_RELEASING && owner_same(name->lease->owner, owner))
            return name->lease;
    return NULL;
}

GPtrArray *table_find_unchecked(Table *table, const Resource *resource)
{
    GPtrArray *found = g_ptr_array_new();
    guint hash = resource_hash(resource);

    for (LeaseName *name = table_youngest(&table->resources, resource, hash); name;
         name = table_next(&table->resources, name->next, resource, hash))
        if (((LeasePart *)name)->unchecked)
            g_ptr_array_add(found, name);
    return found;
}

GPtrArray *table_conflicts(Table *table, GPtrArray *claims, hf_mode mode)
{
    GPtrArray *found = table_find(table, NULL, claims);

    for (guint i = found->len; i-- > 0;) {
        const Lease *lease = g_ptr_array_index(found, i);

        if (mode_compatible(lease->mode, mode))
            g_ptr_array_remove_index(found, i);
    }
    return found;
}

/* ---- owners ---------------------------------------------------------------------------- */

Owner *table_owner(Table *table, const Owner *like)
{
    GPtrArray *list = g_hash_table_lookup(table->owners, GINT_TO_POINTER(like->pid));

    for (guint i = 0; list && i < list->len; i++)
        if (owner_same(g_ptr_array_index(list, i), like))
            return g_ptr_array_index(list, i);
    return NULL;
}

GPtrArray *table_owners_of(Table *table, pid_t pid)
{
    GPtrArray *list = g_hash_table_lookup(table->owners, GINT_TO_POINTER(pid));
    GPtrArray *found = g_ptr_array_new();

    if (list)
        g_ptr_array_extend(found, list, NULL, NULL);
    return found;
}

void table_add_owner(Table *table, Owner *owner)
{
    GPtrArray *list = g_hash_table_lookup(table->owners, GINT_TO_POINTER(owner->pid));

    if (!list) {
        list = g_ptr_array_new();
        g_hash_table_insert(table->owners, GINT_TO_POINTER(owner->pid), list);
    }
    g_ptr_array_add(list, owner);
}

void table_remove_owner(Table *table, Owner *owner)
{
    GPtrArray *list = g_hash_table_lookup(table->owners, GINT_TO_POINTER(owner->pid));

    if (list && g_ptr_array_remove_fast(list, owner) && list->len == 0)
        g_hash_table_remove(table->owners, GINT_TO_POINTER(owner->pid));
}

GPtrArray *table_owners(Table *table)
{
    GPtrArray *all = g_ptr_array_new();
    GHashTableIter iter;
    gpointer list;

    g_hash_table_iter_init(&iter, table->owners);
    while (g_hash_table_iter_next(&iter, NULL, &list))
        g_ptr_array_extend(all, list, NULL, NULL);
    return all;
}
