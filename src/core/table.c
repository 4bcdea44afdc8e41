/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The lock table of lease.h: three indexes over the same leases, all in one thread. */
#include "lease.h"

/* One of the leases that go by a name; mostly there is one, so an array would be mostly empty. */
typedef struct TableEntry {
    Lease *lease;
    gconstpointer name; /* as this lease has it; the first one's is the key in the index */
    struct TableEntry *next;
} TableEntry;

struct Table {
    GHashTable *leases;    /* set of Lease, owned */
    GHashTable *resources; /* Resource -> TableEntry */
    GHashTable *claims;    /* claim -> TableEntry */
    GHashTable *owners;    /* pid -> GPtrArray of Owner, not owned */
};

Table *table_new(void)
{
    Table *table = g_new0(Table, 1);

    table->leases = g_hash_table_new(NULL, NULL);
    table->resources = g_hash_table_new(resource_hash, resource_equal);
    table->claims = g_hash_table_new(g_str_hash, g_str_equal);
    table->owners = g_hash_table_new_full(NULL, NULL, NULL, (GDestroyNotify)g_ptr_array_unref);
    return table;
}

void table_free(Table *table)
{
    g_hash_table_unref(table->leases);
    g_hash_table_unref(table->resources);
    g_hash_table_unref(table->claims);
    g_hash_table_unref(table->owners);
    g_free(table);
}

static void table_index_add(GHashTable *index, gconstpointer name, Lease *lease)
{
    TableEntry *first = g_hash_table_lookup(index, name);
    TableEntry *entry = g_new(TableEntry, 1);

    entry->lease = lease;
    entry->name = name;
    if (first) { /* behind the first, so that the index keeps what it has */
        entry->next = first->next;
        first->next = entry;
    } else {
        entry->next = NULL;
        g_hash_table_insert(index, (gpointer)name, entry);
    }
}

static void table_index_remove(GHashTable *index, gconstpointer name, Lease *lease)
{
    TableEntry *entry = g_hash_table_lookup(index, name), *before = NULL;

    for (; entry && entry->lease != lease; entry = entry->next)
        before = entry;
    if (!entry)
        return;
    if (before)
        before->next = entry->next;
    else if (entry->next) /* the key goes with its lease */
        g_hash_table_replace(index, (gpointer)entry->next->name, entry->next);
    else
        g_hash_table_remove(index, name);
    g_free(entry);
}

typedef void (*TableIndexFunc)(GHashTable *index, gconstpointer name, Lease *lease);

static void table_for_each_name(Table *table, Lease *lease, TableIndexFunc func)
{
    for (guint i = 0; i < lease->parts->len; i++) {
        const LeasePart *part = g_ptr_array_index(lease->parts, i);

        func(table->resources, &part->resource, lease);
    }
    for (guint i = 0; i < lease->claims->len; i++)
        func(table->claims, g_ptr_array_index(lease->claims, i), lease);
}

void table_insert(Table *table, Lease *lease)
{
    table_for_each_name(table, lease, table_index_add);
    g_hash_table_add(table->leases, lease);
    g_ptr_array_add(lease->owner->leases, lease);
}

void table_remove(Table *table, Lease *lease)
{
    table_for_each_name(table, lease, table_index_remove);
    g_hash_table_remove(table->leases, lease);
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
    GPtrArray *list = g_ptr_array_new();
    GHashTableIter iter;
    gpointer lease;

    g_hash_table_iter_init(&iter, table->leases);
    while (g_hash_table_iter_next(&iter, &lease, NULL))
        g_ptr_array_add(list, lease);
    g_ptr_array_sort(list, table_by_age);
    return list;
}

guint table_size(const Table *table)
{
    return g_hash_table_size(table->leases);
}

static void table_collect(GHashTable *index, gconstpointer name, GPtrArray *out)
{
    for (const TableEntry *entry = g_hash_table_lookup(index, name); entry; entry = entry->next)
        if (!g_ptr_array_find(out, entry->lease, NULL))
            g_ptr_array_add(out, entry->lease);
}

GPtrArray *table_find(Table *table, const Resource *resource, GPtrArray *claims)
{
    GPtrArray *found = g_ptr_array_new();

    if (resource)
        table_collect(table->resources, resource, found);
    for (guint i = 0; claims && i < claims->len; i++)
        table_collect(table->claims, g_ptr_array_index(claims, i), found);
    return found;
}

Lease *table_find_owned(Table *table, const Owner *owner, const Resource *resource)
{
    for (const TableEntry *entry = g_hash_table_lookup(table->resources, resource); entry;
         entry = entry->next)
        if (entry->lease->state != LEASE_RELEASING && owner_same(entry->lease->owner, owner))
            return entry->lease;
    return NULL;
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
