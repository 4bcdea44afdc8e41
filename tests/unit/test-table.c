/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The lock table: what it finds by resource, by claim and by owner, and that nothing stays behind
 * when a lease leaves.
 */
#include "core/lease.h"

#include <string.h>

static const Driver driver_a = {.api = {.name = "a"}};
static const Driver driver_b = {.api = {.name = "b"}};

/* A lease of one resource that is not yet in a table. */
static Lease *make_lease(Owner *owner, const char *space, const char *key, const char *claim,
                         hf_mode mode)
{
    Lease *lease = lease_new(owner, NULL, mode, 1);
    Resource resource = {&driver_a, (char *)space, (char *)key};

    lease_add_part(lease, &resource, NULL);
    if (claim)
        lease_add_claim(lease, claim);
    lease->state = LEASE_HELD;
    return lease;
}

static void drop_lease(Table *table, Lease *lease)
{
    table_remove(table, lease);
    lease_free(lease);
}

static GPtrArray *claims_of(const char *first, const char *second)
{
    GPtrArray *claims = g_ptr_array_new();

    g_ptr_array_add(claims, (gpointer)first);
    if (second)
        g_ptr_array_add(claims, (gpointer)second);
    return claims;
}

/* ---- values ---------------------------------------------------------------------------- */

/* A process is told apart by pid and start time, what has no process by its UUID. */
static void test_owner_same(void)
{
    static const struct {
        pid_t pid;
        guint64 ticks;
        const char *uuid;
        gboolean same;
    } cases[] = {
        {100, 7, "u", TRUE},  {100, 7, "other", TRUE}, {100, 7, NULL, TRUE},
        {100, 8, "u", FALSE}, {101, 7, "u", FALSE},    {0, 7, "u", FALSE},
    };
    g_autoptr(Owner) owner = owner_new("name", "u", NULL, 100, 7);
    g_autoptr(Owner) without = owner_new(NULL, "u", NULL, 0, 0);

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        Owner other = {
            .pid = cases[i].pid, .start_ticks = cases[i].ticks, .uuid = (char *)cases[i].uuid};

        g_assert_cmpint(owner_same(owner, &other), ==, cases[i].same);
    }
    g_assert_true(owner_same(without, &(Owner){.uuid = (char *)"u"}));
    g_assert_false(owner_same(without, &(Owner){.uuid = (char *)"v"}));
    g_assert_false(owner_same(without, &(Owner){.uuid = NULL}));
}

/* No two resources are the same, wherever the border between space and key is. */
static void test_resource_equal(void)
{
    const Resource resources[] = {
        {&driver_a, (char *)"", (char *)"/d/a"},
        {&driver_a, (char *)"/d", (char *)"a"},
        {&driver_a, (char *)"/d/a", (char *)""},
        {&driver_b, (char *)"/d", (char *)"a"},
        {&driver_a, (char *)"/d\x1f", (char *)"a"},
        {&driver_a, (char *)"/d",
         (char *)"\x1f"
                 "a"},
        {&driver_a, (char *)"/d", (char *)"/a"},
        {&driver_a, (char *)"/d/", (char *)"a"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(resources); i++) {
        g_autofree char *space = g_strdup(resources[i].space);
        g_autofree char *key = g_strdup(resources[i].key);
        const Resource same = {resources[i].driver, space, key};

        g_assert_true(resource_equal(&resources[i], &same));
        g_assert_cmpuint(resource_hash(&resources[i]), ==, resource_hash(&same));
        for (size_t k = 0; k < G_N_ELEMENTS(resources); k++)
            g_assert_cmpint(resource_equal(&resources[i], &resources[k]), ==, i == k);
    }
}

/* A lease tells as a holder who has it, and that its owner is being ended. */
static void test_lease_holder(void)
{
    g_autoptr(Owner) owner = owner_new("web1", "u", "qemu:///system", 4711, 1);
    Lease *lease = lease_new(owner, "/srv/a.img", HF_MODE_SHARED, 12345);
    g_autoptr(Holder) holder = lease_holder(lease, "n3");
    g_autoptr(Holder) stopping = NULL;

    g_assert_cmpstr(holder->disk, ==, "/srv/a.img");
    g_assert_cmpstr(holder->name, ==, "web1");
    g_assert_cmpstr(holder->uuid, ==, "u");
    g_assert_cmpstr(holder->uri, ==, "qemu:///system");
    g_assert_cmpstr(holder->host, ==, "n3");
    g_assert_cmpint(holder->pid, ==, 4711);
    g_assert_cmpint(holder->since_usec, ==, 12345);
    g_assert_cmpint(holder->mode, ==, HF_MODE_SHARED);
    g_assert_cmpint(holder->source, ==, HOLDER_FROM_TABLE);
    g_assert_false(holder->stopping);
    owner->state = OWNER_STOPPING;
    stopping = lease_holder(lease, "n3");
    g_assert_true(stopping->stopping);
    lease_free(lease);
}

/* ---- finding leases -------------------------------------------------------------------- */

/* By the whole resource: driver, lockspace and key. */
static void test_find_by_resource(void)
{
    Table *table = table_new();
    g_autoptr(Owner) owner = owner_new("web1", NULL, NULL, 1, 1);
    Lease *lease = make_lease(owner, "/d", "a", "file:1", HF_MODE_EXCLUSIVE);
    const Resource same = {&driver_a, (char *)"/d", (char *)"a"};
    const Resource others[] = {
        {&driver_b, (char *)"/d", (char *)"a"},
        {&driver_a, (char *)"", (char *)"a"},
        {&driver_a, (char *)"/d", (char *)"b"},
    };
    g_autoptr(GPtrArray) found = NULL;

    table_insert(table, lease);
    found = table_find(table, &same, NULL);
    g_assert_cmpuint(found->len, ==, 1);
    g_assert_true(g_ptr_array_index(found, 0) == lease);
    for (size_t i = 0; i < G_N_ELEMENTS(others); i++) {
        g_autoptr(GPtrArray) none = table_find(table, &others[i], NULL);

        g_assert_cmpuint(none->len, ==, 0);
    }
    drop_lease(table, lease);
    table_free(table);
}

/* A lease that two names lead to is found once. */
static void test_find_once(void)
{
    Table *table = table_new();
    g_autoptr(Owner) owner = owner_new("web1", NULL, NULL, 1, 1);
    Lease *lease = make_lease(owner, "/d", "a", "file:1", HF_MODE_EXCLUSIVE);
    const Resource second = {&driver_a, (char *)"/d", (char *)"b"};
    g_autoptr(GPtrArray) claims = claims_of("file:1", "file:2");
    g_autoptr(GPtrArray) found = NULL;

    lease_add_part(lease, &second, NULL);
    lease_add_claim(lease, "file:2");
    lease_add_claim(lease, "file:2");
    g_assert_cmpuint(lease->claims->len, ==, 2);
    table_insert(table, lease);
    found = table_find(table, &second, claims);
    g_assert_cmpuint(found->len, ==, 1);
    drop_lease(table, lease);
    table_free(table);
}

/* Only leases of the same thing in a mode that does not go with the wanted one are in the way. */
static void test_conflicts(void)
{
    for (hf_mode held = HF_MODE_EXCLUSIVE; held <= HF_MODE_READONLY; held++) {
        Table *table = table_new();
        g_autoptr(Owner) owner = owner_new("web1", NULL, NULL, 1, 1);
        Lease *lease = make_lease(owner, "", "/a", "file:1", held);
        g_autoptr(GPtrArray) same = claims_of("file:0", "file:1");
        g_autoptr(GPtrArray) other = claims_of("file:2", NULL);

        table_insert(table, lease);
        for (hf_mode wanted = HF_MODE_EXCLUSIVE; wanted <= HF_MODE_READONLY; wanted++) {
            gboolean together = held != HF_MODE_EXCLUSIVE && wanted != HF_MODE_EXCLUSIVE;
            g_autoptr(GPtrArray) conflicts = table_conflicts(table, same, wanted);
            g_autoptr(GPtrArray) none = table_conflicts(table, other, wanted);

            g_assert_cmpuint(conflicts->len, ==, together ? 0 : 1);
            g_assert_cmpuint(none->len, ==, 0);
        }
        drop_lease(table, lease);
        table_free(table);
    }
}

/* An owner's own lease is found, also by another object for the same process, until its release. */
static void test_find_owned(void)
{
    Table *table = table_new();
    g_autoptr(Owner) owner = owner_new("web1", NULL, NULL, 1, 1);
    const Owner again = {.pid = 1, .start_ticks = 1};
    const Owner other = {.pid = 2, .start_ticks = 1};
    const Resource resource = {&driver_a, (char *)"", (char *)"/a"};
    Lease *lease = make_lease(owner, "", "/a", NULL, HF_MODE_EXCLUSIVE);

    table_insert(table, lease);
    g_assert_true(table_find_owned(table, &again, &resource) == lease);
    g_assert_null(table_find_owned(table, &other, &resource));
    lease->state = LEASE_RELEASING;
    g_assert_null(table_find_owned(table, owner, &resource));
    drop_lease(table, lease);
    table_free(table);
}

/* The list is in the order of age. */
static void test_list(void)
{
    static const gint64 ages[] = {30, 10, 20};
    Table *table = table_new();
    g_autoptr(Owner) owner = owner_new("web1", NULL, NULL, 1, 1);
    g_autoptr(GPtrArray) list = NULL;

    for (size_t i = 0; i < G_N_ELEMENTS(ages); i++) {
        g_autofree char *key = g_strdup_printf("/%zu", i);
        Lease *lease = make_lease(owner, "", key, NULL, HF_MODE_EXCLUSIVE);

        lease->since_usec = ages[i];
        table_insert(table, lease);
    }
    g_assert_cmpuint(table_size(table), ==, 3);
    list = table_list(table);
    g_assert_cmpuint(list->len, ==, 3);
    for (guint i = 0; i < list->len; i++) {
        Lease *lease = g_ptr_array_index(list, i);

        g_assert_cmpint(lease->since_usec, ==, 10 * (i + 1));
        drop_lease(table, lease);
    }
    g_assert_cmpuint(table_size(table), ==, 0);
    g_assert_cmpuint(owner->leases->len, ==, 0);
    table_free(table);
}

/* Owners are found by process; two of one pid are kept apart by their start. */
static void test_owners(void)
{
    Table *table = table_new();
    g_autoptr(Owner) first = owner_new("web1", NULL, NULL, 1, 1);
    g_autoptr(Owner) second = owner_new("web2", NULL, NULL, 1, 2);
    g_autoptr(Owner) third = owner_new("web3", "u", NULL, 0, 0);
    g_autoptr(GPtrArray) all = NULL;

    table_add_owner(table, first);
    table_add_owner(table, second);
    table_add_owner(table, third);
    g_assert_true(table_owner(table, &(Owner){.pid = 1, .start_ticks = 2}) == second);
    g_assert_true(table_owner(table, &(Owner){.uuid = (char *)"u"}) == third);
    g_assert_null(table_owner(table, &(Owner){.pid = 1, .start_ticks = 3}));
    all = table_owners(table);
    g_assert_cmpuint(all->len, ==, 3);
    table_remove_owner(table, first);
    g_assert_null(table_owner(table, first));
    g_assert_true(table_owner(table, second) == second);
    table_remove_owner(table, second);
    table_remove_owner(table, third);
    table_free(table);
}

/* ---- at random ------------------------------------------------------------------------- */

#define RANDOM_KEYS 12

static const char *const random_claims[] = {"c0", "c1", "c2", "c3"};

static Lease *random_lease(Owner *owner)
{
    g_autofree char *key = g_strdup_printf("k%d", g_test_rand_int_range(0, RANDOM_KEYS));
    Lease *lease =
        make_lease(owner, "", key, NULL, (hf_mode)g_test_rand_int_range(0, HF_MODE_READONLY + 1));

    for (int n = g_test_rand_int_range(0, 3); n > 0; n--)
        lease_add_claim(lease, random_claims[g_test_rand_int_range(0, 4)]);
    return lease;
}

/* What the table has to find, from a plain list. */
static guint count_conflicts(GPtrArray *leases, const char *claim, hf_mode mode)
{
    guint count = 0;

    for (guint i = 0; i < leases->len; i++) {
        const Lease *lease = g_ptr_array_index(leases, i);

        count +=
            !mode_compatible(lease->mode, mode) &&
            g_ptr_array_find_with_equal_func((GPtrArray *)lease->claims, claim, g_str_equal, NULL);
    }
    return count;
}

static guint count_key(GPtrArray *leases, const char *key)
{
    guint count = 0;

    for (guint i = 0; i < leases->len; i++)
        count += strcmp(lease_resource(g_ptr_array_index(leases, i))->key, key) == 0;
    return count;
}

static void compare(Table *table, GPtrArray *leases)
{
    const char *claim = random_claims[g_test_rand_int_range(0, 4)];
    hf_mode mode = (hf_mode)g_test_rand_int_range(0, HF_MODE_READONLY + 1);
    g_autofree char *key = g_strdup_printf("k%d", g_test_rand_int_range(0, RANDOM_KEYS));
    const Resource resource = {&driver_a, (char *)"", key};
    g_autoptr(GPtrArray) claims = claims_of(claim, NULL);
    g_autoptr(GPtrArray) conflicts = table_conflicts(table, claims, mode);
    g_autoptr(GPtrArray) found = table_find(table, &resource, NULL);

    g_assert_cmpuint(table_size(table), ==, leases->len);
    g_assert_cmpuint(conflicts->len, ==, count_conflicts(leases, claim, mode));
    g_assert_cmpuint(found->len, ==, count_key(leases, key));
}

/* Whatever comes and goes, the table finds what a plain list finds. */
static void test_random(void)
{
    Table *table = table_new();
    g_autoptr(Owner) owner = owner_new("web1", NULL, NULL, 1, 1);
    g_autoptr(GPtrArray) leases = g_ptr_array_new();

    for (int i = 0; i < 20000; i++) {
        if (leases->len == 0 || (leases->len < 40 && g_test_rand_bit())) {
            Lease *lease = random_lease(owner);

            table_insert(table, lease);
            g_ptr_array_add(leases, lease);
        } else {
            guint at = (guint)g_test_rand_int_range(0, (gint32)leases->len);

            drop_lease(table, g_ptr_array_remove_index_fast(leases, at));
        }
        compare(table, leases);
    }
    for (guint i = 0; i < leases->len; i++)
        drop_lease(table, g_ptr_array_index(leases, i));
    g_assert_cmpuint(owner->leases->len, ==, 0);
    table_free(table);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/table/owner-same", test_owner_same);
    g_test_add_func("/table/resource-equal", test_resource_equal);
    g_test_add_func("/table/lease-holder", test_lease_holder);
    g_test_add_func("/table/find-by-resource", test_find_by_resource);
    g_test_add_func("/table/find-once", test_find_once);
    g_test_add_func("/table/conflicts", test_conflicts);
    g_test_add_func("/table/find-owned", test_find_owned);
    g_test_add_func("/table/list", test_list);
    g_test_add_func("/table/owners", test_owners);
    g_test_add_func("/table/random", test_random);
    return g_test_run();
}
