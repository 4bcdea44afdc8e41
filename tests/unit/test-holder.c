/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What people read when they are refused: who has the disk, as far as it is known, and what to do;
 * and that a name from outside cannot paint the terminal.
 */
#include "core/holder.h"

#include <string.h>

#define UUID "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"

static const struct hf_holder web1 = {
    .disk = "/srv/a.img",
    .name = "web1",
    .uuid = UUID,
    .host = "n3",
    .pid = 4711,
    .since_usec = 1770000000123456,
    .mode = HF_MODE_EXCLUSIVE,
};

/* The refusal of "disk /srv/a.img" that `count` such holders cause. */
static char *refusal(const struct hf_holder *facts, HolderSource source, guint count)
{
    g_autoptr(GPtrArray) holders = g_ptr_array_new_with_free_func((GDestroyNotify)holder_free);

    for (guint i = 0; i < count; i++)
        g_ptr_array_add(holders, holder_new(facts, source));
    return holder_refusal("disk /srv/a.img", "/srv/a.img", holders);
}

static void assert_has(const char *text, const char *part)
{
    if (!strstr(text, part))
        g_error("no '%s' in: %s", part, text);
}

/* ---- sentences ------------------------------------------------------------------------- */

static void test_to_string(void)
{
    g_autoptr(Holder) holder = holder_new(&web1, HOLDER_FROM_TABLE);
    g_autofree char *text = holder_to_string(holder);
    g_autofree char *stopping = NULL;

    g_assert_cmpstr(text, ==,
                    "VM web1 (uuid " UUID ", pid 4711) on host n3 since "
                    "2026-02-02 02:40:00 UTC in exclusive mode");
    holder->stopping = TRUE;
    stopping = holder_to_string(holder);
    assert_has(stopping, "being ended");
}

/* What is not known is left out, without a gap. */
static void test_unknown(void)
{
    static const struct {
        struct hf_holder facts;
        HolderSource source;
        const char *text;
    } cases[] = {
        {{.mode = HF_MODE_SHARED}, HOLDER_FROM_KERNEL, "somebody in shared mode"},
        {{.pid = 7, .host = "n3"},
         HOLDER_FROM_KERNEL,
         "the process (pid 7) on host n3 in exclusive mode"},
        {{.name = "qemu", .pid = 7},
         HOLDER_FROM_KERNEL,
         "the process qemu (pid 7) in exclusive mode"},
        {{.name = "web1"}, HOLDER_FROM_RECORD, "VM web1 in exclusive mode"},
        {{.name = "web1", .uuid = "u", .mode = HF_MODE_READONLY},
         HOLDER_FROM_RECORD,
         "VM web1 (uuid u) in readonly mode"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(Holder) holder = holder_new(&cases[i].facts, cases[i].source);
        g_autofree char *text = holder_to_string(holder);

        g_assert_cmpstr(text, ==, cases[i].text);
    }
}

/* The whole refusal: which disk, who, where, since when, in which mode, and what to do. */
static void test_refusal(void)
{
    g_autofree char *text = refusal(&web1, HOLDER_FROM_TABLE, 1);

    g_assert_cmpstr(
        text, ==,
        "disk /srv/a.img is held by VM web1 (uuid " UUID ", pid 4711) on host n3 since "
        "2026-02-02 02:40:00 UTC in exclusive mode; shut that VM down first if it is to "
        "start here instead");
}

/* Who knows the disk by another name is shown with that name. */
static void test_other_name(void)
{
    struct hf_holder other = web1;
    g_autofree char *text = NULL;

    other.disk = "/srv/link.img";
    text = refusal(&other, HOLDER_FROM_TABLE, 1);
    assert_has(text, "exclusive mode under the name /srv/link.img; shut");
}

/* The advice fits the case. */
static void test_advice(void)
{
    struct hf_holder sharer = web1;
    g_autofree char *kernel = refusal(&web1, HOLDER_FROM_KERNEL, 1);
    g_autofree char *nobody = holder_refusal("disk /srv/a.img", NULL, NULL);
    g_autofree char *none = refusal(&web1, HOLDER_FROM_TABLE, 0);
    g_autofree char *shared = NULL;
    g_autofree char *stopping = NULL;
    g_autoptr(GPtrArray) holders = g_ptr_array_new_with_free_func((GDestroyNotify)holder_free);

    sharer.mode = HF_MODE_SHARED;
    shared = refusal(&sharer, HOLDER_FROM_TABLE, 1);
    g_ptr_array_add(holders, holder_new(&web1, HOLDER_FROM_TABLE));
    ((Holder *)g_ptr_array_index(holders, 0))->stopping = TRUE;
    stopping = holder_refusal("disk /srv/a.img", NULL, holders);
    assert_has(kernel, "lslocks");
    assert_has(nobody, "lslocks");
    g_assert_cmpstr(none, ==, nobody);
    assert_has(shared, "shared");
    assert_has(stopping, "try again");
}

/* A few holders are named, many are counted. */
static void test_many_holders(void)
{
    g_autofree char *three = refusal(&web1, HOLDER_FROM_TABLE, 3);
    g_autofree char *fifty = refusal(&web1, HOLDER_FROM_TABLE, 50);

    assert_has(three, " and by VM web1");
    g_assert_null(strstr(three, "more"));
    assert_has(fifty, "and by 47 more");
    g_assert_cmpuint(strlen(fifty), <, 2 * strlen(three));
}

/* ---- names from outside ---------------------------------------------------------------- */

static void test_text_for_people(void)
{
    static const char *const cases[][2] = {
        {"", ""},
        {"web1", "web1"},
        {"\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80", "\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80"},
        {"a\nb", "a\\u000ab"},
        {"\x1b[31m", "\\u001b[31m"},
        {"a\x7f", "a\\u007f"},
        {"\xc2\x9b"
         "31m",
         "\\u009b31m"}, /* CSI as one character */
        {"\xe2\x80\xae"
         "gpj",
         "\\u202egpj"}, /* writes from right to left */
        {"a\xe2\x80\x8b"
         "b",
         "a\\u200bb"}, /* has no width */
        {"\xff", "\xef\xbf\xbd"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *text = text_for_people(cases[i][0]);

        g_assert_cmpstr(text, ==, cases[i][1]);
    }
}

/* No part of a refusal brings a control character along. */
static void test_hostile_names(void)
{
    static const struct hf_holder hostile = {.disk = "/srv/\x1b[2J\n\xff",
                                             .name = "\x1b]0;x\x07\n\xff",
                                             .uuid = "\r\n\t",
                                             .host = "\x1b[H\x80"};
    g_autoptr(GPtrArray) holders = g_ptr_array_new_with_free_func((GDestroyNotify)holder_free);
    g_autofree char *text = NULL;

    g_ptr_array_add(holders, holder_new(&hostile, HOLDER_FROM_RECORD));
    text = holder_refusal("disk \x1b[1m\n\xff", "/srv/b.img", holders);
    g_assert_true(g_utf8_validate(text, -1, NULL));
    for (const char *p = text; *p; p = g_utf8_next_char(p))
        g_assert_false(g_unichar_iscntrl(g_utf8_get_char(p)));
}

/* Any text stays valid, in one line; seed: see the beginning of the output. */
static void test_random_names(void)
{
    for (int i = 0; i < 20000; i++) {
        char bytes[24] = {0};
        g_autofree char *text = NULL;

        for (int k = g_test_rand_int_range(0, 23); k > 0; k--)
            bytes[k - 1] = (char)g_test_rand_int_range(1, 256);
        text = text_for_people(bytes);
        g_assert_true(g_utf8_validate(text, -1, NULL));
        for (const char *p = text; *p; p++)
            g_assert_cmpint((guchar)*p, >=, 0x20);
    }
}

/* ---- small words ----------------------------------------------------------------------- */

static void test_modes(void)
{
    static const char *const names[] = {"exclusive", "shared", "readonly"};
    static const char *const others[] = {"", "Exclusive", "exclusive ", "excl", "rw", "unknown"};

    for (hf_mode mode = HF_MODE_EXCLUSIVE; mode <= HF_MODE_READONLY; mode++) {
        hf_mode read = HF_MODE_EXCLUSIVE;

        g_assert_cmpstr(mode_to_string(mode), ==, names[mode]);
        g_assert_true(mode_from_string(names[mode], &read));
        g_assert_cmpint(read, ==, mode);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(others); i++) {
        hf_mode untouched = HF_MODE_READONLY;

        g_assert_false(mode_from_string(others[i], &untouched));
        g_assert_cmpint(untouched, ==, HF_MODE_READONLY);
    }
}

/* Nobody beside a writer, everybody beside anybody else. */
static void test_compatible(void)
{
    for (hf_mode a = HF_MODE_EXCLUSIVE; a <= HF_MODE_READONLY; a++)
        for (hf_mode b = HF_MODE_EXCLUSIVE; b <= HF_MODE_READONLY; b++)
            g_assert_cmpint(mode_compatible(a, b), ==,
                            a != HF_MODE_EXCLUSIVE && b != HF_MODE_EXCLUSIVE);
}

static void test_time(void)
{
    static const struct {
        gint64 usec;
        const char *text;
    } cases[] = {
        {0, "1970-01-01T00:00:00.000000Z"},
        {1, "1970-01-01T00:00:00.000001Z"},
        {1770000000123456, "2026-02-02T02:40:00.123456Z"},
        {1770000000999999, "2026-02-02T02:40:00.999999Z"},
        {253402300799999999, "9999-12-31T23:59:59.999999Z"},
    };
    g_autofree char *beyond = time_to_iso8601(G_MAXINT64);

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *text = time_to_iso8601(cases[i].usec);

        g_assert_cmpstr(text, ==, cases[i].text);
    }
    g_assert_cmpuint(strlen(beyond), ==, strlen("1970-01-01T00:00:00.000000Z"));
}

/* A record of another host may claim any time. */
static void test_impossible_time(void)
{
    struct hf_holder holder = web1;
    g_autofree char *text = NULL;

    holder.since_usec = G_MAXINT64;
    text = refusal(&holder, HOLDER_FROM_RECORD, 1);
    assert_has(text, "since an unknown time");
}

static void test_copy(void)
{
    g_autoptr(Holder) holder = holder_new(&web1, HOLDER_FROM_RECORD);
    g_autoptr(Holder) copy = holder_copy(holder);
    g_autofree char *text = holder_to_string(holder);
    g_autofree char *again = holder_to_string(copy);

    g_assert_cmpstr(text, ==, again);
    g_assert_true(holder->name != copy->name);
    g_assert_cmpint(copy->source, ==, HOLDER_FROM_RECORD);
}

int main(int argc, char **argv)
{
    g_setenv("TZ", "UTC", TRUE);
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/holder/to-string", test_to_string);
    g_test_add_func("/holder/unknown", test_unknown);
    g_test_add_func("/holder/refusal", test_refusal);
    g_test_add_func("/holder/other-name", test_other_name);
    g_test_add_func("/holder/advice", test_advice);
    g_test_add_func("/holder/many-holders", test_many_holders);
    g_test_add_func("/holder/text-for-people", test_text_for_people);
    g_test_add_func("/holder/hostile-names", test_hostile_names);
    g_test_add_func("/holder/random-names", test_random_names);
    g_test_add_func("/holder/modes", test_modes);
    g_test_add_func("/holder/compatible", test_compatible);
    g_test_add_func("/holder/time", test_time);
    g_test_add_func("/holder/impossible-time", test_impossible_time);
    g_test_add_func("/holder/copy", test_copy);
    return g_test_run();
}
