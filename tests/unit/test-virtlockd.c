/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The codec of virtlockd's RPC, byte by byte: the frames below are written down as libvirt sends
 * them, without the help of any XDR library.
 */
#include "protocol/virtlockd-codec.h"

#include <string.h>

#define START (VIRTLOCKD_LENGTH_BYTES + VIRTLOCKD_HEADER_BYTES)

/* ---- frames ---------------------------------------------------------------------------- */

static void put(GByteArray *frame, guint32 number)
{
    guint32 wire = GUINT32_TO_BE(number);

    g_byte_array_append(frame, (const guint8 *)&wire, sizeof(wire));
}

static void put_bytes(GByteArray *frame, const char *bytes, gsize len)
{
    static const guint8 zeros[4];

    put(frame, (guint32)len);
    g_byte_array_append(frame, (const guint8 *)bytes, (guint)len);
    g_byte_array_append(frame, zeros, (guint)(-len & 3));
}

static void put_string(GByteArray *frame, const char *text)
{
    put_bytes(frame, text, strlen(text));
}

/* The length at the front, once all is there. */
static void finish(GByteArray *frame)
{
    guint32 wire = GUINT32_TO_BE(frame->len);

    memcpy(frame->data, &wire, sizeof(wire));
}

static GByteArray *begin(gint32 procedure)
{
    GByteArray *frame = g_byte_array_new();

    put(frame, 0);
    put(frame, VIRTLOCKD_PROGRAM);
    put(frame, VIRTLOCKD_VERSION);
    put(frame, (guint32)procedure);
    put(frame, VIRTLOCKD_CALL);
    put(frame, 42);
    put(frame, VIRTLOCKD_OK);
    return frame;
}

/* A good call of each procedure. */
static GByteArray *good_call(gint32 procedure)
{
    static const guint8 uuid[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
    GByteArray *frame = begin(procedure);

    switch ((VirtlockdProcedure)procedure) {
    case VIRTLOCKD_REGISTER:
        g_byte_array_append(frame, uuid, sizeof(uuid));
        put_string(frame, "web1");
        put(frame, 3);
        put(frame, 4711);
        break;
    case VIRTLOCKD_RESTRICT:
        break;
    case VIRTLOCKD_NEW:
    case VIRTLOCKD_CREATE_LOCKSPACE:
        put_string(frame, "/lockspace");
        break;
    case VIRTLOCKD_CREATE_RESOURCE:
    case VIRTLOCKD_DELETE_RESOURCE:
    case VIRTLOCKD_ACQUIRE_RESOURCE:
    case VIRTLOCKD_RELEASE_RESOURCE:
        put_string(frame, "/lockspace");
        put_string(frame, "key");
        break;
    }
    if (procedure != VIRTLOCKD_CREATE_LOCKSPACE)
        put(frame, 2);
    finish(frame);
    return frame;
}

/* Decodes a copy that ends where the frame ends, so that reading too far is noticed. */
static gboolean decode(const GByteArray *frame, VirtlockdHeader *header, VirtlockdArgs *args)
{
    g_autofree guint8 *exact = g_memdup2(frame->data, MAX(frame->len, 1));

    return virtlockd_decode_header(exact, frame->len, header) &&
           virtlockd_decode_args(header, exact, frame->len, args);
}

static void assert_refused(const GByteArray *frame)
{
    VirtlockdHeader header;
    VirtlockdArgs args;

    g_assert_false(decode(frame, &header, &args));
}

/* ---- decoding -------------------------------------------------------------------------- */

static void test_register(void)
{
    g_autoptr(GByteArray) frame = good_call(VIRTLOCKD_REGISTER);
    VirtlockdHeader header;
    VirtlockdArgs args;

    g_assert_true(decode(frame, &header, &args));
    g_assert_cmpuint(header.program, ==, VIRTLOCKD_PROGRAM);
    g_assert_cmpuint(header.version, ==, 1);
    g_assert_cmpint(header.procedure, ==, VIRTLOCKD_REGISTER);
    g_assert_cmpint(header.type, ==, VIRTLOCKD_CALL);
    g_assert_cmpuint(header.serial, ==, 42);
    g_assert_cmpint(header.status, ==, VIRTLOCKD_OK);
    g_assert_cmpuint(args.uuid[0], ==, 1);
    g_assert_cmpuint(args.uuid[15], ==, 16);
    g_assert_cmpstr(args.name, ==, "web1");
    g_assert_cmpuint(args.id, ==, 3);
    g_assert_cmpuint(args.pid, ==, 4711);
    g_assert_cmpuint(args.flags, ==, 2);
    g_assert_null(args.path);
    virtlockd_args_clear(&args);
    g_assert_null(args.name);
}

static void test_all_procedures(void)
{
    static const struct {
        gint32 procedure;
        const char *path;
        const char *name;
        guint32 flags;
    } cases[] = {
        {VIRTLOCKD_RESTRICT, NULL, NULL, 2},
        {VIRTLOCKD_NEW, "/lockspace", NULL, 2},
        {VIRTLOCKD_CREATE_RESOURCE, "/lockspace", "key", 2},
        {VIRTLOCKD_DELETE_RESOURCE, "/lockspace", "key", 2},
        {VIRTLOCKD_ACQUIRE_RESOURCE, "/lockspace", "key", 2},
        {VIRTLOCKD_RELEASE_RESOURCE, "/lockspace", "key", 2},
        {VIRTLOCKD_CREATE_LOCKSPACE, "/lockspace", NULL, 0},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GByteArray) frame = good_call(cases[i].procedure);
        VirtlockdHeader header;
        VirtlockdArgs args;

        g_assert_true(decode(frame, &header, &args));
        g_assert_cmpstr(args.path, ==, cases[i].path);
        g_assert_cmpstr(args.name, ==, cases[i].name);
        g_assert_cmpuint(args.flags, ==, cases[i].flags);
        virtlockd_args_clear(&args);
    }
}

static void test_unknown_procedures(void)
{
    static const gint32 procedures[] = {0, 9, -1, G_MAXINT, G_MININT};

    for (size_t i = 0; i < G_N_ELEMENTS(procedures); i++) {
        g_autoptr(GByteArray) frame = begin(procedures[i]);

        finish(frame);
        assert_refused(frame);
    }
}

/* A frame that ends after any of its bytes is not taken for a whole one. */
static void test_truncated(void)
{
    for (gint32 p = VIRTLOCKD_REGISTER; p <= VIRTLOCKD_CREATE_LOCKSPACE; p++) {
        g_autoptr(GByteArray) frame = good_call(p);

        for (guint len = frame->len; len-- > 0;) {
            g_byte_array_set_size(frame, len);
            assert_refused(frame);
            if (len >= 4)
                finish(frame);
            assert_refused(frame);
        }
    }
}

/* Nothing may follow the arguments. */
static void test_trailing_bytes(void)
{
    static const guint8 zeros[8];

    for (gint32 p = VIRTLOCKD_REGISTER; p <= VIRTLOCKD_CREATE_LOCKSPACE; p++) {
        for (guint extra = 1; extra <= sizeof(zeros); extra++) {
            g_autoptr(GByteArray) frame = good_call(p);

            g_byte_array_append(frame, zeros, extra);
            finish(frame);
            assert_refused(frame);
        }
    }
}

/* A NUL in a name would hide what comes behind it. */
static void test_embedded_nul(void)
{
    static const struct {
        const char *bytes;
        gsize len;
    } names[] = {{"\0", 1}, {"key\0", 4}, {"key\0x", 5}, {"\0key", 4}, {"a\0b\0", 4}};

    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autoptr(GByteArray) name = begin(VIRTLOCKD_ACQUIRE_RESOURCE);
        g_autoptr(GByteArray) path = begin(VIRTLOCKD_CREATE_LOCKSPACE);

        put_string(name, "/lockspace");
        put_bytes(name, names[i].bytes, names[i].len);
        put(name, 0);
        finish(name);
        assert_refused(name);
        put_bytes(path, names[i].bytes, names[i].len);
        finish(path);
        assert_refused(path);
    }
}

/* Names may be of any other bytes. */
static void test_any_bytes(void)
{
    g_autoptr(GByteArray) frame = begin(VIRTLOCKD_CREATE_LOCKSPACE);
    g_autoptr(GString) all = g_string_new("/");
    VirtlockdHeader header;
    VirtlockdArgs args;

    for (int byte = 1; byte < 256; byte++)
        g_string_append_c(all, (char)byte);
    put_string(frame, all->str);
    finish(frame);
    g_assert_true(decode(frame, &header, &args));
    g_assert_cmpstr(args.path, ==, all->str);
    virtlockd_args_clear(&args);
}

/* A string of `real` bytes that says it has `said`. */
static GByteArray *string_that_lies(guint32 said, gsize real)
{
    GByteArray *frame = begin(VIRTLOCKD_CREATE_LOCKSPACE);
    g_autofree char *text = g_strnfill(real, 'x');

    put(frame, said);
    g_byte_array_append(frame, (const guint8 *)text, (guint)real);
    finish(frame);
    return frame;
}

static void test_string_lengths(void)
{
    static const guint32 absurd[] = {5,          8,          65536,      65537,     0x7fffffff,
                                     0x80000000, 0xfffffffc, 0xfffffffd, 0xffffffff};
    g_autoptr(GByteArray) longest = string_that_lies(65536, 65536);
    g_autoptr(GByteArray) too_long = string_that_lies(65540, 65540);
    VirtlockdHeader header;
    VirtlockdArgs args;

    for (size_t i = 0; i < G_N_ELEMENTS(absurd); i++) {
        g_autoptr(GByteArray) frame = string_that_lies(absurd[i], 4);

        assert_refused(frame);
    }
    assert_refused(too_long);
    g_assert_true(decode(longest, &header, &args));
    g_assert_cmpuint(strlen(args.path), ==, 65536);
    virtlockd_args_clear(&args);
}

/* ---- the length in front --------------------------------------------------------------- */

static gssize frame_length(guint32 length, gsize have)
{
    guint32 wire = GUINT32_TO_BE(length);
    guint8 data[8] = {0};

    memcpy(data, &wire, sizeof(wire));
    return virtlockd_frame_length(data, have);
}

static void test_frame_length(void)
{
    for (gsize have = 0; have < 4; have++)
        g_assert_cmpint(frame_length(START, have), ==, 0);
    g_assert_cmpint(frame_length(START, 4), ==, START);
    g_assert_cmpint(frame_length(VIRTLOCKD_MAX_FRAME, 8), ==, VIRTLOCKD_MAX_FRAME);
    g_assert_cmpint(frame_length(0, 4), ==, -1);
    g_assert_cmpint(frame_length(START - 1, 4), ==, -1);
    g_assert_cmpint(frame_length(VIRTLOCKD_MAX_FRAME + 1, 4), ==, -1);
    g_assert_cmpint(frame_length(0x7fffffff, 4), ==, -1);
    g_assert_cmpint(frame_length(0x80000000, 4), ==, -1);
    g_assert_cmpint(frame_length(0xffffffff, 4), ==, -1);
}

/* The longest call that can be is not longer than the limit. */
static void test_longest_call(void)
{
    g_autoptr(GByteArray) frame = begin(VIRTLOCKD_ACQUIRE_RESOURCE);
    g_autofree char *text = g_strnfill(65536, 'x');
    VirtlockdHeader header;
    VirtlockdArgs args;

    put_string(frame, text);
    put_string(frame, text);
    put(frame, 0);
    finish(frame);
    g_assert_cmpint(virtlockd_frame_length(frame->data, frame->len), ==, frame->len);
    g_assert_true(decode(frame, &header, &args));
    virtlockd_args_clear(&args);
}

/* ---- encoding -------------------------------------------------------------------------- */

static guint32 get(GBytes *frame, gsize at)
{
    gsize len;
    const guint8 *data = g_bytes_get_data(frame, &len);
    guint32 wire;

    g_assert_cmpuint(at + 4, <=, len);
    memcpy(&wire, data + at, sizeof(wire));
    return GUINT32_FROM_BE(wire);
}

static const VirtlockdHeader some_call = {
    VIRTLOCKD_PROGRAM, VIRTLOCKD_VERSION, VIRTLOCKD_ACQUIRE_RESOURCE, VIRTLOCKD_CALL, 42,
    VIRTLOCKD_OK};

static void assert_reply_header(GBytes *frame, guint32 status)
{
    const guint32 expected[] = {(guint32)g_bytes_get_size(frame),
                                VIRTLOCKD_PROGRAM,
                                VIRTLOCKD_VERSION,
                                VIRTLOCKD_ACQUIRE_RESOURCE,
                                VIRTLOCKD_REPLY,
                                42,
                                status};

    for (gsize i = 0; i < G_N_ELEMENTS(expected); i++)
        g_assert_cmpuint(get(frame, 4 * i), ==, expected[i]);
}

static void test_encode_void(void)
{
    g_autoptr(GBytes) frame = virtlockd_encode_void(&some_call);

    g_assert_cmpuint(g_bytes_get_size(frame), ==, START);
    assert_reply_header(frame, VIRTLOCKD_OK);
}

/* libvirt's remote error, number by number. */
static void test_encode_error(void)
{
    const VirtlockdFault fault = {VIRTLOCKD_ERR_SYSTEM, VIRTLOCKD_FROM_LOCKSPACE, "no room", 28};
    const guint32 rest[] = {2,
                            0,
                            1,
                            2,
                            0x25730000 /* "%s" */,
                            1,
                            7,
                            0x6e6f2072 /* "no r" */,
                            0x6f6f6d00 /* "oom" */,
                            0,
                            28,
                            (guint32)-1,
                            0};
    g_autoptr(GBytes) frame = virtlockd_encode_error(&some_call, &fault);

    assert_reply_header(frame, VIRTLOCKD_ERROR);
    g_assert_cmpint((gint32)get(frame, START), ==, 38);
    g_assert_cmpint((gint32)get(frame, START + 4), ==, 51);
    g_assert_cmpuint(get(frame, START + 8), ==, 1);
    g_assert_cmpuint(get(frame, START + 12), ==, 7);
    g_assert_cmpuint(get(frame, START + 16), ==, 0x6e6f2072);
    g_assert_cmpuint(get(frame, START + 20), ==, 0x6f6f6d00);
    for (gsize i = 0; i < G_N_ELEMENTS(rest); i++)
        g_assert_cmpuint(get(frame, START + 24 + 4 * i), ==, rest[i]);
    g_assert_cmpuint(g_bytes_get_size(frame), ==, START + 24 + sizeof(rest));
}

/* Any message fits. */
static void test_encode_long_error(void)
{
    g_autofree char *text = g_strnfill(1000000, 'x');
    const VirtlockdFault fault = {VIRTLOCKD_ERR_INTERNAL, VIRTLOCKD_FROM_RPC, text, 0};
    g_autoptr(GBytes) frame = virtlockd_encode_error(&some_call, &fault);

    assert_reply_header(frame, VIRTLOCKD_ERROR);
    g_assert_cmpuint(get(frame, START + 12), <=, 65536);
    g_assert_cmpuint(g_bytes_get_size(frame), <, 4 * 65536);
}

/* ---- at random ------------------------------------------------------------------------- */

/* Random bytes in place of some, random lengths: refused or understood, never read too far. */
static void test_random(void)
{
    int rounds = g_test_slow() ? 2000000 : 100000;
    int good = 0;

    for (int i = 0; i < rounds; i++) {
        g_autoptr(GByteArray) frame =
            good_call(g_test_rand_int_range(VIRTLOCKD_REGISTER, VIRTLOCKD_CREATE_LOCKSPACE + 1));
        VirtlockdHeader header;
        VirtlockdArgs args;

        for (int n = g_test_rand_int_range(0, 4); n > 0; n--)
            frame->data[g_test_rand_int_range(0, (gint32)frame->len)] =
                (guint8)g_test_rand_int_range(0, 256);
        if (g_test_rand_int_range(0, 4) == 0)
            g_byte_array_set_size(frame, (guint)g_test_rand_int_range(0, (gint32)frame->len + 1));
        if (decode(frame, &header, &args)) {
            good++;
            virtlockd_args_clear(&args);
        }
    }
    /* Both ways have to be walked for this test to mean something. */
    g_assert_cmpint(good, >, rounds / 50);
    g_assert_cmpint(good, <, rounds - rounds / 50);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/virtlockd/register", test_register);
    g_test_add_func("/virtlockd/all-procedures", test_all_procedures);
    g_test_add_func("/virtlockd/unknown-procedures", test_unknown_procedures);
    g_test_add_func("/virtlockd/truncated", test_truncated);
    g_test_add_func("/virtlockd/trailing-bytes", test_trailing_bytes);
    g_test_add_func("/virtlockd/embedded-nul", test_embedded_nul);
    g_test_add_func("/virtlockd/any-bytes", test_any_bytes);
    g_test_add_func("/virtlockd/string-lengths", test_string_lengths);
    g_test_add_func("/virtlockd/frame-length", test_frame_length);
    g_test_add_func("/virtlockd/longest-call", test_longest_call);
    g_test_add_func("/virtlockd/encode-void", test_encode_void);
    g_test_add_func("/virtlockd/encode-error", test_encode_error);
    g_test_add_func("/virtlockd/encode-long-error", test_encode_long_error);
    g_test_add_func("/virtlockd/random", test_random);
    return g_test_run();
}
