/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The record in a lock file: what is written is what another host reads, and anything else reads
 * as "no record".
 */
#include "protocol/record.h"

#include <string.h>

#define MAGIC "HOLDFAST RECORD 1 "

static const struct hf_holder web1 = {
    .disk = "/srv/a.img",
    .name = "web1",
    .uuid = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0",
    .uri = "qemu:///system",
    .host = "n3",
    .pid = 4711,
    .since_usec = 1770000000123456,
    .mode = HF_MODE_SHARED,
};

static void assert_is_web1(const Holder *holder)
{
    g_assert_nonnull(holder);
    g_assert_cmpstr(holder->disk, ==, web1.disk);
    g_assert_cmpstr(holder->name, ==, web1.name);
    g_assert_cmpstr(holder->uuid, ==, web1.uuid);
    g_assert_cmpstr(holder->uri, ==, web1.uri);
    g_assert_cmpstr(holder->host, ==, web1.host);
    g_assert_cmpint(holder->pid, ==, web1.pid);
    g_assert_cmpint(holder->since_usec, ==, web1.since_usec);
    g_assert_cmpint(holder->mode, ==, web1.mode);
    g_assert_cmpint(holder->source, ==, HOLDER_FROM_RECORD);
}

/* A block that holds this JSON in a proper frame. */
static void frame_json(char *block, const char *json)
{
    g_autofree char *sum = g_compute_checksum_for_string(G_CHECKSUM_SHA256, json, -1);

    memset(block, 0, RECORD_BLOCK);
    g_snprintf(block, RECORD_BLOCK, MAGIC "%.16s %zu\n%s\n", sum, strlen(json), json);
}

static void assert_no_record(const char *block)
{
    g_autoptr(Holder) holder = record_decode(block);

    g_assert_null(holder);
}

/* ---- good records ---------------------------------------------------------------------- */

static void test_round_trip(void)
{
    char block[RECORD_BLOCK];
    g_autoptr(Holder) holder = NULL;

    memset(block, 'x', sizeof(block));
    record_encode(block, &web1);
    g_assert_cmpint(block[RECORD_BLOCK - 1], ==, 0);
    holder = record_decode(block);
    assert_is_web1(holder);
}

/* What is not known is left out and stays unknown. */
static void test_unknown_facts(void)
{
    const struct hf_holder nobody = {.mode = HF_MODE_EXCLUSIVE};
    char block[RECORD_BLOCK];
    g_autoptr(Holder) holder = NULL;

    record_encode(block, &nobody);
    holder = record_decode(block);
    g_assert_nonnull(holder);
    g_assert_null(holder->disk);
    g_assert_null(holder->name);
    g_assert_null(holder->uuid);
    g_assert_null(holder->uri);
    g_assert_null(holder->host);
    g_assert_cmpint(holder->pid, ==, 0);
    g_assert_cmpint(holder->since_usec, ==, 0);
    g_assert_cmpint(holder->mode, ==, HF_MODE_EXCLUSIVE);
}

/* Names that are too long for a block are cut between characters; the numbers always fit. */
static void test_long_names(void)
{
    static const char *const pieces[] = {
        "a", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\x01", "\"", "\\"};

    for (size_t i = 0; i < G_N_ELEMENTS(pieces); i++) {
        g_autoptr(GString) text = g_string_new(NULL);
        struct hf_holder holder = web1;
        char block[RECORD_BLOCK];
        g_autoptr(Holder) read = NULL;

        while (text->len < 5000)
            g_string_append(text, pieces[i]);
        holder.name = holder.disk = holder.uuid = holder.uri = holder.host = text->str;
        record_encode(block, &holder);
        read = record_decode(block);
        g_assert_nonnull(read);
        g_assert_cmpint(read->pid, ==, web1.pid);
        g_assert_cmpint(read->since_usec, ==, web1.since_usec);
        g_assert_cmpuint(strlen(read->name), >, 8);
        g_assert_true(g_str_has_prefix(text->str, read->name));
        g_assert_true(g_str_has_prefix(text->str, read->disk));
        g_assert_true(g_utf8_validate(read->name, -1, NULL));
        g_assert_cmpuint(strlen(read->name) % strlen(pieces[i]), ==, 0);
    }
}

/* An ordinary long path and name are not cut. */
static void test_ordinary_names(void)
{
    g_autofree char *name = g_strnfill(100, 'n');
    g_autofree char *tail = g_strnfill(255, 'd');
    g_autofree char *disk = g_strconcat("/var/lib/libvirt/images/", tail, NULL);
    g_autofree char *host = g_strnfill(63, 'h');
    struct hf_holder holder = web1;
    char block[RECORD_BLOCK];
    g_autoptr(Holder) read = NULL;

    holder.name = name;
    holder.disk = disk;
    holder.host = host;
    record_encode(block, &holder);
    read = record_decode(block);
    g_assert_cmpstr(read->name, ==, name);
    g_assert_cmpstr(read->disk, ==, disk);
    g_assert_cmpstr(read->host, ==, host);
}

/* Bytes that are no UTF-8 are made valid. */
static void test_not_utf8(void)
{
    struct hf_holder holder = web1;
    char block[RECORD_BLOCK];
    g_autoptr(Holder) read = NULL;

    holder.disk = "/srv/\xff\xfe.img";
    record_encode(block, &holder);
    read = record_decode(block);
    g_assert_nonnull(read);
    g_assert_true(g_utf8_validate(read->disk, -1, NULL));
    g_assert_true(g_str_has_prefix(read->disk, "/srv/"));
}

/* A later version may add members; those with another type than ours are unknown. */
static void test_other_members(void)
{
    char block[RECORD_BLOCK];
    g_autoptr(Holder) more = NULL;
    g_autoptr(Holder) other = NULL;

    frame_json(block, "{\"name\":\"web1\",\"lease\":{\"a\":[1]},\"pid\":1,\"mode\":\"readonly\"}");
    more = record_decode(block);
    g_assert_cmpstr(more->name, ==, "web1");
    g_assert_cmpint(more->pid, ==, 1);
    g_assert_cmpint(more->mode, ==, HF_MODE_READONLY);
    frame_json(block, "{\"name\":1,\"pid\":\"1\",\"since\":-5,\"host\":null,\"mode\":\"own\"}");
    other = record_decode(block);
    g_assert_null(other->name);
    g_assert_null(other->host);
    g_assert_cmpint(other->pid, ==, 0);
    g_assert_cmpint(other->since_usec, ==, 0);
    g_assert_cmpint(other->mode, ==, HF_MODE_EXCLUSIVE);
}

/* A pid that no process can have is unknown: nobody must send it a signal. */
static void test_impossible_pid(void)
{
    static const char *const pids[] = {"0",
                                       "-1",
                                       "-4711",
                                       "2147483648",
                                       "4294967297",
                                       "9223372036854775807",
                                       "99999999999999999999",
                                       "1.5"};

    for (size_t i = 0; i < G_N_ELEMENTS(pids); i++) {
        g_autofree char *json = g_strdup_printf("{\"pid\":%s}", pids[i]);
        char block[RECORD_BLOCK];
        g_autoptr(Holder) holder = NULL;

        frame_json(block, json);
        holder = record_decode(block);
        g_assert_nonnull(holder);
        g_assert_cmpint(holder->pid, ==, 0);
    }
}

/* ---- no record ------------------------------------------------------------------------- */

/* Of a torn write only the beginning reached the disk, before zeros or an older record. */
static void test_torn(void)
{
    char old[RECORD_BLOCK], block[RECORD_BLOCK], torn[RECORD_BLOCK];
    struct hf_holder before = web1;
    size_t len;

    before.name = "db7";
    before.pid = 99;
    record_encode(old, &before);
    record_encode(block, &web1);
    len = strlen(block) - 1; /* the last line feed says nothing */
    for (size_t i = 0; i < len; i++) {
        g_autoptr(Holder) holder = NULL;

        memset(torn, 0, sizeof(torn));
        memcpy(torn, block, i);
        assert_no_record(torn);
        memcpy(torn, old, sizeof(torn));
        memcpy(torn, block, i);
        holder = record_decode(torn);
        /* while the beginnings are the same, it is still the old record */
        g_assert_true(!holder || g_strcmp0(holder->name, "db7") == 0);
    }
}

/* Any bit that flips is noticed, or does not change what is read. */
static void test_flipped_bits(void)
{
    char block[RECORD_BLOCK];
    guint noticed = 0, total = 0;
    size_t len;

    record_encode(block, &web1);
    len = strlen(block);
    for (size_t i = 0; i < 8 * len; i++) {
        g_autoptr(Holder) holder = NULL;

        block[i / 8] = (char)(block[i / 8] ^ (1 << i % 8));
        holder = record_decode(block);
        if (holder)
            assert_is_web1(holder);
        noticed += holder == NULL;
        total++;
        block[i / 8] = (char)(block[i / 8] ^ (1 << i % 8));
    }
    /* only the blank before the length and the line feed at the end carry nothing */
    g_assert_cmpuint(noticed, >=, total - 16);
}

static void test_malformed(void)
{
    static const char *const blocks[] = {
        "",
        "HOLDFAST RECORD 1",
        MAGIC,
        MAGIC "\n",
        MAGIC "0123456789abcdef\n{}",
        MAGIC "0123456789abcdef 2\n{}\n",
        MAGIC "44136fa355b3678a 3\n{}\n",
        MAGIC "44136fa355b3678a 1\n{}\n",
        MAGIC "44136fa355b3678a -2\n{}\n",
        MAGIC "44136fa355b3678a 2x\n{}\n",
        MAGIC "44136fa355b3678a \n{}\n",
        MAGIC "44136fa355b3678a 18446744073709551618\n{}\n",
        MAGIC "44136fa355b3678a 999999\n{}\n",
        MAGIC "44136fa355b3678a 2 {}\n",
        "HOLDFAST RECORD 2 44136fa355b3678a 2\n{}\n",
        "holdfast record 1 44136fa355b3678a 2\n{}\n",
    };
    char block[RECORD_BLOCK] = {0};
    g_autoptr(Holder) good = NULL;

    for (size_t i = 0; i < G_N_ELEMENTS(blocks); i++) {
        memset(block, 0, sizeof(block));
        memcpy(block, blocks[i], strlen(blocks[i]));
        assert_no_record(block);
    }
    /* the one that the others are made from */
    frame_json(block, "{}");
    g_assert_true(g_str_has_prefix(block, MAGIC "44136fa355b3678a 2\n{}\n"));
    good = record_decode(block);
    g_assert_nonnull(good);
}

/* A proper frame around something that is no object. */
static void test_not_an_object(void)
{
    static const char *const texts[] = {
        "", "[]", "1", "\"x\"", "null", "{", "{\"a\":", "}", "[[[[[[[[[[[[1]]]]]]]]]]]]"};

    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
        char block[RECORD_BLOCK];

        frame_json(block, texts[i]);
        assert_no_record(block);
    }
}

/* A block without any end is not read beyond. */
static void test_full_block(void)
{
    g_autofree char *block = g_strnfill(RECORD_BLOCK, 'x');
    g_autofree char *exact = g_memdup2(block, RECORD_BLOCK); /* no NUL behind it */

    assert_no_record(exact);
    memcpy(exact, MAGIC "0123456789abcdef 9", strlen(MAGIC "0123456789abcdef 9"));
    assert_no_record(exact);
    memset(exact, '9', RECORD_BLOCK);
    memcpy(exact, MAGIC "0123456789abcdef ", strlen(MAGIC "0123456789abcdef "));
    exact[RECORD_BLOCK - 1] = '\n';
    assert_no_record(exact);
}

/* ---- the header ------------------------------------------------------------------------ */

static void test_header(void)
{
    static const char *const others[] = {"", "HOLDFAST LOCK FILE 2\n", "HOLDFAST LOCK FILE 1",
                                         "HOLDFAST LOCK FILE 10\n", "QFI\xfb"};
    char block[RECORD_BLOCK];

    memset(block, 'x', sizeof(block));
    record_encode_header(block);
    g_assert_true(record_is_header(block));
    g_assert_cmpstr(block, ==, "HOLDFAST LOCK FILE 1\n");
    assert_no_record(block);
    for (size_t i = 0; i < G_N_ELEMENTS(others); i++) {
        memset(block, 0, sizeof(block));
        memcpy(block, others[i], strlen(others[i]));
        g_assert_false(record_is_header(block));
    }
}

/* ---- at random ------------------------------------------------------------------------- */

/* A damaged record says nothing, or what it said; seed: see the beginning of the output. */
static void test_random(void)
{
    char block[RECORD_BLOCK];
    int rounds = g_test_slow() ? 2000000 : 100000;

    record_encode(block, &web1);
    for (int i = 0; i < rounds; i++) {
        g_autofree char *damaged = g_memdup2(block, RECORD_BLOCK);
        g_autoptr(Holder) holder = NULL;

        for (int n = g_test_rand_int_range(1, 6); n > 0; n--)
            damaged[g_test_rand_int_range(0, 400)] = (char)g_test_rand_int_range(0, 256);
        holder = record_decode(damaged);
        if (holder)
            assert_is_web1(holder);
    }
}

/* Any name and path come back whole or cut. */
static void test_random_names(void)
{
    for (int i = 0; i < 2000; i++) {
        g_autoptr(GString) text = g_string_new(NULL);
        struct hf_holder holder = web1;
        char block[RECORD_BLOCK];
        g_autoptr(Holder) read = NULL;

        for (int n = g_test_rand_int_range(0, 1500); n > 0; n--)
            g_string_append_unichar(text, (gunichar)g_test_rand_int_range(1, 0xd800));
        holder.name = holder.disk = text->str;
        record_encode(block, &holder);
        read = record_decode(block);
        g_assert_nonnull(read);
        g_assert_true(g_str_has_prefix(text->str, read->name));
        g_assert_true(g_str_has_prefix(text->str, read->disk));
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/record/round-trip", test_round_trip);
    g_test_add_func("/record/unknown-facts", test_unknown_facts);
    g_test_add_func("/record/long-names", test_long_names);
    g_test_add_func("/record/ordinary-names", test_ordinary_names);
    g_test_add_func("/record/not-utf8", test_not_utf8);
    g_test_add_func("/record/other-members", test_other_members);
    g_test_add_func("/record/impossible-pid", test_impossible_pid);
    g_test_add_func("/record/torn", test_torn);
    g_test_add_func("/record/flipped-bits", test_flipped_bits);
    g_test_add_func("/record/malformed", test_malformed);
    g_test_add_func("/record/not-an-object", test_not_an_object);
    g_test_add_func("/record/full-block", test_full_block);
    g_test_add_func("/record/header", test_header);
    g_test_add_func("/record/random", test_random);
    g_test_add_func("/record/random-names", test_random_names);
    return g_test_run();
}
