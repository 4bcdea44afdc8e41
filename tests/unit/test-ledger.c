/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ledger: what one daemon writes the next one reads, whatever happened to the file between.
 */
#include "protocol/ledger.h"

#include <string.h>
#include <zlib.h>

#include "mutate.h"

#define ODD "tab\there, line\nthere, \"quoted\" \\ = \xc3\xa4 \xff \x01 end"

static const LedgerOwner web1 = {
    .id = "a",
    .name = "web1",
    .uuid = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0",
    .uri = "qemu:///system",
    .pid = 4711,
    .start_ticks = 1234567890123,
    .pidfd = "x",
};

/* A lease with one part; `claims` and `parts` are where its lists are. */
static LedgerLease lease_of(const char *id, const char *owner, const char *key,
                            const char *claims[2], LedgerPart *parts)
{
    claims[0] = "file:8:1:4711";
    claims[1] = key;
    parts[0] = (LedgerPart){
        .driver = "lockd",
        .space = "",
        .key = key,
        .fds = "1,2",
        .bytes = "3120",
    };
    return (LedgerLease){
        .id = id,
        .owner = owner,
        .disk = key,
        .mode = HF_MODE_SHARED,
        .since_usec = 1770000000123456,
        .count = 3,
        .claims = claims,
        .n_claims = 2,
        .parts = parts,
        .n_parts = 1,
    };
}

static void put_lease(GString *out, const char *id, const char *owner, const char *key)
{
    const char *claims[2];
    LedgerPart part;
    const LedgerLease lease = lease_of(id, owner, key, claims, &part);

    ledger_put_lease(out, &lease);
}

/* A line as any version writes it. */
static void put_line(GString *out, const char *text)
{
    g_string_append_printf(out, "%08x %s\n",
                           (guint32)crc32(0, (const Bytef *)text, (uInt)strlen(text)), text);
}

/* The ledger has a copy. */
static Ledger *parse_bytes(const char *text, gsize len, Fault **ret_fault)
{
    char *copy = g_malloc0(len + 1);

    memcpy(copy, text, len);
    return ledger_parse(copy, len, ret_fault);
}

static Ledger *parse(const GString *text)
{
    Fault *fault = NULL;
    Ledger *ledger = parse_bytes(text->str, text->len, &fault);

    g_assert_null(fault);
    g_assert_nonnull(ledger);
    return ledger;
}

static GString *header(void)
{
    return g_string_new(LEDGER_HEADER);
}

static void assert_lease(const Ledger *ledger, const char *id, const char *key)
{
    const LedgerLease *lease = g_hash_table_lookup(ledger->leases, id);
    const LedgerPart *part;

    g_assert_nonnull(lease);
    g_assert_cmpstr(lease->id, ==, id);
    g_assert_cmpstr(lease->disk, ==, key);
    g_assert_cmpint(lease->mode, ==, HF_MODE_SHARED);
    g_assert_cmpint(lease->since_usec, ==, 1770000000123456);
    g_assert_cmpuint(lease->count, ==, 3);
    g_assert_cmpuint(lease->n_claims, ==, 2);
    g_assert_cmpstr(lease->claims[1], ==, key);
    g_assert_cmpuint(lease->n_parts, ==, 1);
    part = lease->parts;
    g_assert_cmpstr(part->driver, ==, "lockd");
    g_assert_cmpstr(part->space, ==, "");
    g_assert_cmpstr(part->key, ==, key);
    g_assert_cmpstr(part->fds, ==, "1,2");
    g_assert_cmpstr(part->bytes, ==, "3120");
}

/* ---- good ledgers ---------------------------------------------------------------------- */

static void test_round_trip(void)
{
    g_autoptr(GString) text = header();
    g_autoptr(Ledger) ledger = NULL;
    const LedgerOwner *owner;

    ledger_put_owner(text, &web1);
    put_lease(text, "b", "a", "/srv/a.img");
    ledger = parse(text);
    g_assert_cmpuint(ledger->damaged, ==, 0);
    g_assert_cmpuint(g_hash_table_size(ledger->owners), ==, 1);
    g_assert_cmpuint(g_hash_table_size(ledger->leases), ==, 1);
    owner = g_hash_table_lookup(ledger->owners, "a");
    g_assert_nonnull(owner);
    g_assert_cmpstr(owner->name, ==, web1.name);
    g_assert_cmpstr(owner->uuid, ==, web1.uuid);
    g_assert_cmpstr(owner->uri, ==, web1.uri);
    g_assert_cmpint(owner->pid, ==, web1.pid);
    g_assert_cmpuint(owner->start_ticks, ==, web1.start_ticks);
    g_assert_false(owner->until_close);
    g_assert_cmpstr(owner->pidfd, ==, "x");
    assert_lease(ledger, "b", "/srv/a.img");
}

static void test_what_may_be_missing(void)
{
    const LedgerOwner nobody = {.id = "a", .until_close = TRUE};
    g_autoptr(GString) text = header();
    g_autoptr(Ledger) ledger = NULL;
    const char *claims[2];
    LedgerPart part;
    LedgerLease lease = lease_of("b", "a", "k", claims, &part);
    const LedgerOwner *owner;
    const LedgerLease *read;

    lease.disk = NULL;
    lease.n_claims = 0;
    ledger_put_owner(text, &nobody);
    ledger_put_lease(text, &lease);
    ledger = parse(text);
    owner = g_hash_table_lookup(ledger->owners, "a");
    g_assert_nonnull(owner);
    g_assert_null(owner->name);
    g_assert_null(owner->uuid);
    g_assert_null(owner->uri);
    g_assert_null(owner->pidfd);
    g_assert_true(owner->until_close);
    read = g_hash_table_lookup(ledger->leases, "b");
    g_assert_nonnull(read);
    g_assert_null(read->disk);
    g_assert_cmpuint(read->n_claims, ==, 0);
}

static void test_empty(void)
{
    g_autoptr(GString) text = header();
    g_autoptr(Ledger) no_lines = parse(text);
    g_autoptr(Ledger) no_file = parse_bytes("", 0, NULL);

    g_assert_cmpuint(g_hash_table_size(no_lines->leases), ==, 0);
    g_assert_cmpuint(g_hash_table_size(no_file->owners), ==, 0);
    g_assert_cmpuint(no_lines->damaged + no_file->damaged, ==, 0);
}

static void test_odd_bytes(void)
{
    const LedgerOwner odd = {.id = "a", .name = ODD, .uri = ""};
    g_autoptr(GString) text = header();
    g_autoptr(Ledger) ledger = NULL;
    const LedgerOwner *owner;
    guint lines = 0;

    ledger_put_owner(text, &odd);
    put_lease(text, "b", "a", ODD);
    for (const char *p = text->str; (p = strchr(p, '\n')); p++)
        lines++;
    g_assert_cmpuint(lines, ==, 3);
    ledger = parse(text);
    owner = g_hash_table_lookup(ledger->owners, "a");
    g_assert_nonnull(owner);
    g_assert_cmpstr(owner->name, ==, ODD);
    g_assert_cmpstr(owner->uri, ==, "");
    assert_lease(ledger, "b", ODD);
    g_assert_cmpuint(ledger->damaged, ==, 0);
}

/* A name may have been written by anybody who knows C's escapes. */
static void test_escapes(void)
{
    static const struct {
        const char *written, *meant;
    } values[] = {
        {"a\\tb", "a\tb"},      {"\\b\\f\\n\\r\\v", "\b\f\n\r\v"},
        {"\\101\\0601", "A01"}, {"\\\\n", "\\n"},
        {"\\\"\\q", "\"q"},     {"end\\", "end"},
        {"\\18", "\0018"},      {"\\377", "\377"},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(values); i++) {
        g_autoptr(GString) text = header();
        g_autofree char *line = g_strdup_printf("owner\tid=a\tname=%s\tpid=7", values[i].written);
        g_autoptr(Ledger) ledger = NULL;
        const LedgerOwner *owner;

        put_line(text, line);
        ledger = parse(text);
        owner = g_hash_table_lookup(ledger->owners, "a");
        g_assert_nonnull(owner);
        g_assert_cmpstr(owner->name, ==, values[i].meant);
        g_assert_cmpint(owner->pid, ==, 7);
    }
}

static void test_several_parts(void)
{
    g_autoptr(GString) text = header();
    g_autoptr(Ledger) ledger = NULL;
    const char *claims[2];
    LedgerPart parts[2];
    LedgerLease lease = lease_of("b", "a", "one", claims, parts);
    const LedgerPart *part;
    const LedgerLease *read;

    parts[1] = (LedgerPart){
        .driver = "nop",
        .space = "/srv",
        .key = "two",
        .fds = "",
        .bytes = "",
    };
    lease.n_parts = 2;
    ledger_put_lease(text, &lease);
    ledger = parse(text);
    read = g_hash_table_lookup(ledger->leases, "b");
    g_assert_nonnull(read);
    g_assert_cmpuint(read->n_parts, ==, 2);
    part = &read->parts[0];
    g_assert_cmpstr(part->key, ==, "one");
    part = &read->parts[1];
    g_assert_cmpstr(part->driver, ==, "nop");
    g_assert_cmpstr(part->space, ==, "/srv");
    g_assert_cmpstr(part->key, ==, "two");
    g_assert_cmpstr(part->fds, ==, "");
}

static void test_later_lines_win(void)
{
    LedgerOwner renamed = web1;
    g_autoptr(GString) text = header();
    g_autoptr(Ledger) ledger = NULL;
    const LedgerOwner *owner;

    renamed.name = "web2";
    ledger_put_owner(text, &web1);
    put_lease(text, "b", "a", "old");
    put_lease(text, "c", "a", "other");
    put_lease(text, "b", "a", "new");
    ledger_put_owner(text, &renamed);
    ledger = parse(text);
    g_assert_cmpuint(g_hash_table_size(ledger->leases), ==, 2);
    assert_lease(ledger, "b", "new");
    assert_lease(ledger, "c", "other");
    owner = g_hash_table_lookup(ledger->owners, "a");
    g_assert_cmpstr(owner->name, ==, "web2");
}

static void test_free_and_gone(void)
{
    g_autoptr(GString) text = header();
    g_autoptr(Ledger) ledger = NULL;

    ledger_put_owner(text, &web1);
    put_lease(text, "b", "a", "k");
    put_lease(text, "c", "a", "l");
    ledger_put_free(text, "b");
    ledger_put_free(text, "no such lease");
    ledger_put_free(text, "c");
    ledger_put_gone(text, "a");
    ledger_put_owner(text, &web1);
    put_lease(text, "c", "a", "again");
    ledger = parse(text);
    g_assert_cmpuint(g_hash_table_size(ledger->leases), ==, 1);
    assert_lease(ledger, "c", "again");
    g_assert_cmpuint(g_hash_table_size(ledger->owners), ==, 1);
    g_assert_cmpuint(ledger->damaged, ==, 0);
}

/* ---- other versions -------------------------------------------------------------------- */

static void test_later_version(void)
{
    g_autoptr(GString) text = header();
    g_autoptr(Ledger) ledger = NULL;
    const LedgerLease *lease;
    const LedgerOwner *owner;

    put_line(text, "owner\tid=a\tmood=good\tname=web1\tpid=7\tbare");
    put_line(text, "weather\tid=b\tsun=1");
    put_line(text, "lease\tid=b\tcolour=red\towner=a\tmode=exclusive\tsince=5\tdriver=lockd\t"
                   "weight=9\tspace=\tkey=k\tfds=1\tbytes=\tlater=");
    put_line(text, "free\tid=zz\twhy=none");
    ledger = parse(text);
    g_assert_cmpuint(ledger->damaged, ==, 0);
    owner = g_hash_table_lookup(ledger->owners, "a");
    g_assert_nonnull(owner);
    g_assert_cmpstr(owner->name, ==, "web1");
    g_assert_cmpint(owner->pid, ==, 7);
    lease = g_hash_table_lookup(ledger->leases, "b");
    g_assert_nonnull(lease);
    g_assert_cmpint(lease->mode, ==, HF_MODE_EXCLUSIVE);
    g_assert_cmpuint(lease->count, ==, 1);
    g_assert_cmpuint(lease->n_parts, ==, 1);
}

/* The bytes of version 1 as they were first released: they can be read for ever. */
static void test_fixed_bytes(void)
{
    g_autoptr(GString) text = header();
    g_autoptr(Ledger) ledger = NULL;

    put_line(text, "owner\tid=a\tname=web1\tuuid=u\turi=q\tpid=4711\tticks=99\tuntil-close=0\t"
                   "pidfd=x");
    put_line(text, "lease\tid=b\towner=a\tdisk=/srv/a.img\tmode=shared\tsince=1770000000123456\t"
                   "count=3\tclaim=file:8:1:4711\tclaim=/srv/a.img\tdriver=lockd\tspace=\t"
                   "key=/srv/a.img\tfds=1,2\tbytes=3120");
    ledger = parse(text);
    assert_lease(ledger, "b", "/srv/a.img");
    g_assert_nonnull(g_hash_table_lookup(ledger->owners, "a"));
}

static void test_no_ledger(void)
{
    static const char *const texts[] = {"HOLDFAST LEDGER 2\n", "HOLDFAST LEDGER 1", "HOLD", "\n",
                                        "something else\n"};

    for (gsize i = 0; i < G_N_ELEMENTS(texts); i++) {
        g_autoptr(Fault) fault = NULL;

        g_assert_null(parse_bytes(texts[i], strlen(texts[i]), &fault));
        g_assert_nonnull(fault);
    }
}

/* ---- damage ---------------------------------------------------------------------------- */

/* Wherever it was torn, what was written before is read, and nothing else. */
static void test_torn(void)
{
    g_autoptr(GString) text = header();
    gsize whole;

    ledger_put_owner(text, &web1);
    put_lease(text, "b", "a", "k");
    whole = text->len;
    put_lease(text, "c", "a", "l");
    for (gsize len = whole; len < text->len; len++) {
        g_autoptr(Ledger) ledger = parse_bytes(text->str, len, NULL);

        g_assert_nonnull(ledger);
        g_assert_cmpuint(g_hash_table_size(ledger->owners), ==, 1);
        g_assert_cmpuint(g_hash_table_size(ledger->leases), ==, 1);
        assert_lease(ledger, "b", "k");
        g_assert_cmpuint(ledger->whole, ==, whole);
    }
}

/* Any other byte anywhere costs the line that it is in, and not the others. */
static void test_wrong_bytes(void)
{
    g_autoptr(GString) text = header();
    gsize begin, end;

    ledger_put_owner(text, &web1);
    put_lease(text, "b", "a", "k");
    begin = text->len;
    put_lease(text, "c", "a", "l");
    end = text->len - 1;
    put_lease(text, "d", "a", "m");
    for (gsize at = begin; at < end; at++) {
        g_autoptr(GString) damaged = g_string_new_len(text->str, (gssize)text->len);
        g_autoptr(Ledger) ledger = NULL;

        damaged->str[at] ^= 0x41;
        if (damaged->str[at] == '\n' || damaged->str[at] == '\0')
            continue;
        ledger = parse(damaged);
        g_assert_cmpuint(ledger->damaged, ==, 1);
        g_assert_cmpuint(g_hash_table_size(ledger->leases), ==, 2);
        assert_lease(ledger, "b", "k");
        assert_lease(ledger, "d", "m");
    }
}

static void test_nul(void)
{
    g_autoptr(GString) text = header();
    g_autoptr(Ledger) ledger = NULL;

    ledger_put_owner(text, &web1);
    g_string_append_len(text, "\0\0\0\0\n", 5);
    put_lease(text, "b", "a", "k");
    ledger = parse(text);
    g_assert_cmpuint(ledger->damaged, ==, 1);
    assert_lease(ledger, "b", "k");
}

static void test_incomplete_lines(void)
{
    static const char *const lines[] = {
        "owner\tname=web1",
        "lease\tid=b\towner=a",
        "lease\tid=b\tdriver=lockd\tspace=\tkey=k\tfds=\tbytes=",
        "lease\towner=a\tdriver=lockd\tspace=\tkey=k\tfds=\tbytes=",
        "lease\tid=b\towner=a\tdriver=lockd\tkey=k\tfds=\tbytes=",
        "lease\tid=b\towner=a\tdriver=lockd\tspace=\tkey=k\tfds=\tbytes=\tdriver=x",
        "free\tname=b",
        "free",
        "",
        "\t",
        "\t\t==\t=",
    };

    for (gsize i = 0; i < G_N_ELEMENTS(lines); i++) {
        g_autoptr(GString) text = header();
        g_autoptr(Ledger) ledger = NULL;

        put_line(text, lines[i]);
        ledger = parse(text);
        g_assert_cmpuint(ledger->damaged, ==, 1);
        g_assert_cmpuint(g_hash_table_size(ledger->leases), ==, 0);
        g_assert_cmpuint(g_hash_table_size(ledger->owners), ==, 0);
    }
}

static void check_whole(gpointer id, gpointer value, gpointer data)
{
    const LedgerLease *lease = value;

    g_assert_cmpstr(lease->id, ==, id);
    g_assert_nonnull(lease->owner);
    g_assert_cmpuint(lease->n_parts, >, 0);
    g_assert_cmpuint(lease->count, >, 0);
    (void)data;
}

/* With right check sums, so that the fields are read as well. */
static void test_random_fields(void)
{
    static const char *const seeds[] = {
        "owner\tid=a\tname=web1\tuuid=u\turi=q\tpid=4711\tticks=99\tuntil-close=1\tpidfd=x",
        "lease\tid=b\towner=a\tdisk=/a\\tb\tmode=shared\tsince=17\tcount=3\tclaim=c\tdriver=lockd\t"
        "space=\tkey=/a\tfds=1,2\tbytes=3120\tdriver=d\tspace=s\tkey=k\tfds=\tbytes=",
        "free\tid=b",
        "gone\tid=a",
    };

    for (int round = 0; round < 20000; round++) {
        g_autoptr(GString) text = header();
        g_autoptr(Ledger) ledger = NULL;

        for (gsize i = 0; i < 3; i++) {
            const char *seed = seeds[g_test_rand_int_range(0, G_N_ELEMENTS(seeds))];
            gsize len;
            g_autofree char *damaged = mutate_text(seed, 4, &len);
            g_autofree char *line = g_strndup(damaged, len);

            /* about half an escape, which nobody writes, GLib would warn */
            put_line(text, g_strdelimit(line, "\n\\", '.'));
        }
        ledger = parse(text);
        g_hash_table_foreach(ledger->leases, check_whole, NULL);
    }
}

static void test_random_bytes(void)
{
    g_autoptr(GString) text = header();

    ledger_put_owner(text, &web1);
    put_lease(text, "b", "a", ODD);
    ledger_put_free(text, "b");
    put_lease(text, "c", "a", "k");
    for (int round = 0; round < 20000; round++) {
        g_autoptr(Fault) fault = NULL;
        gsize len;
        g_autofree char *damaged = mutate_text(text->str, 6, &len);
        g_autoptr(Ledger) ledger = parse_bytes(damaged, len, &fault);

        g_assert_true((ledger == NULL) == (fault != NULL));
        if (ledger)
            g_hash_table_foreach(ledger->leases, check_whole, NULL);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/ledger/round-trip", test_round_trip);
    g_test_add_func("/ledger/what-may-be-missing", test_what_may_be_missing);
    g_test_add_func("/ledger/empty", test_empty);
    g_test_add_func("/ledger/odd-bytes", test_odd_bytes);
    g_test_add_func("/ledger/escapes", test_escapes);
    g_test_add_func("/ledger/several-parts", test_several_parts);
    g_test_add_func("/ledger/later-lines-win", test_later_lines_win);
    g_test_add_func("/ledger/free-and-gone", test_free_and_gone);
    g_test_add_func("/ledger/later-version", test_later_version);
    g_test_add_func("/ledger/fixed-bytes", test_fixed_bytes);
    g_test_add_func("/ledger/no-ledger", test_no_ledger);
    g_test_add_func("/ledger/torn", test_torn);
    g_test_add_func("/ledger/wrong-bytes", test_wrong_bytes);
    g_test_add_func("/ledger/nul", test_nul);
    g_test_add_func("/ledger/incomplete-lines", test_incomplete_lines);
    g_test_add_func("/ledger/random-fields", test_random_fields);
    g_test_add_func("/ledger/random-bytes", test_random_bytes);
    return g_test_run();
}
