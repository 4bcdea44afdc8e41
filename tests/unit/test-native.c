/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the native protocol's codec reads: every argument in every wrong form, the limits of a line,
 * and that whatever arrives gets a reply. What replies say is in test-native-encode.c.
 */
#include <string.h>

#include "mutate.h"
#include "native-line.h"

#define ACQUIRE (NATIVE_OWNER | NATIVE_WANTS | NATIVE_TIMEOUT)
#define RELEASE (NATIVE_OWNER_PID | NATIVE_WANTS | NATIVE_TIMEOUT)
#define QUERY_DISK (NATIVE_SUBJECT | NATIVE_TIMEOUT)
#define MOST (NATIVE_OWNER | NATIVE_WANTS | NATIVE_TIMEOUT | NATIVE_FILTER | NATIVE_EVENTS)

/* The arguments, which have to be good. */
static NativeArguments *arguments_of(const char *json, guint takes)
{
    g_autofree char *line = g_strdup_printf("{\"execute\":\"x\",\"arguments\":%s}", json);
    NativeRequest request;
    NativeArguments *arguments;
    Fault *fault = NULL;

    parse(line, &request);
    arguments = native_parse_arguments(&request, takes, &fault);
    g_assert_cmpstr(fault ? fault->message : NULL, ==, NULL);
    g_assert_nonnull(arguments);
    native_request_clear(&request);
    return arguments;
}

static const NativeWant *want_of(const NativeArguments *arguments, guint index)
{
    g_assert_cmpuint(index, <, arguments->wants->len);
    return g_ptr_array_index(arguments->wants, index);
}

/* A line in which bytes of any kind may stand, without a NUL behind it. */
static gboolean parse_bytes(const char *line, gsize len, NativeRequest *request, Fault **ret_fault)
{
    g_autofree char *exact = g_memdup2(line, MAX(len, 1));

    return native_parse_request(exact, len, request, ret_fault);
}

static void assert_not_a_request(const char *line, gsize len, hf_code code)
{
    NativeRequest request;
    Fault *fault = NULL;

    g_assert_false(parse_bytes(line, len, &request, &fault));
    g_assert_nonnull(fault);
    g_assert_cmpint(fault->code, ==, code);
    g_assert_nonnull(fault->message);
    fault_free(fault);
    native_request_clear(&request);
}

/* ---- requests -------------------------------------------------------------------------- */

static void test_request(void)
{
    NativeRequest request;

    parse(" { \"execute\" : \"acquire\", \"arguments\": {\"a\": 1}, \"id\": [1, \"x\"]} ",
          &request);
    g_assert_cmpstr(request.execute, ==, "acquire");
    g_assert_true(json_object_is_type(request.arguments, json_type_object));
    g_assert_true(request.has_id);
    g_assert_cmpstr(json_object_to_json_string_ext(request.id, JSON_C_TO_STRING_PLAIN), ==,
                    "[1,\"x\"]");
    native_request_clear(&request);
    parse("{\"execute\":\"x\"}", &request);
    g_assert_false(request.has_id);
    g_assert_null(request.arguments);
    native_request_clear(&request);
}

static void test_not_json(void)
{
    static const char *const lines[] = {
        " ",
        "x",
        "1",
        "\"execute\"",
        "null",
        "true",
        "[]",
        "[{\"execute\":\"x\"}]",
        "{",
        "}",
        "{\"execute\":\"x\"",
        "{\"execute\":\"x\"}}",
        "{\"execute\":\"x\"} {\"execute\":\"x\"}",
        "{'execute':'x'}",
        "{execute:\"x\"}",
        "{\"execute\":\"x\",}",
        "{\"execute\":\"x\"} // c",
        "/* c */ {\"execute\":\"x\"}",
        "{\"execute\":\"x\",\"id\":01}",
        "{\"execute\":\"x\",\"id\":+1}",
        "{\"execute\":\"x\",\"id\":.5}",
        "{\"execute\":\"x\",\"id\":0x10}",
        "{\"execute\":\"x\",\"id\":\"\\x41\"}",
        "{\"execute\":\"x\",\"id\":tru}",
        "{\"execute\":\"x\" \"id\":1}",
        "\xef\xbb\xbf{\"execute\":\"x\"}",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(lines); i++)
        assert_not_a_request(lines[i], strlen(lines[i]), HF_ERR_INVALID_SYNTAX);
}

/* Numbers that JSON does not have, and those that could not come back in a reply as they were. */
static void test_not_a_number(void)
{
    static const char *const values[] = {
        "NaN",
        "nan",
        "Infinity",
        "-Infinity",
        "inf",
        "1e999",
        "-1e999",
        "1.",
        "18446744073709551617",
        "-99999999999999999999",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(values); i++) {
        g_autofree char *line = g_strdup_printf("{\"execute\":\"x\",\"id\":%s}", values[i]);
        g_autofree char *deep =
            g_strdup_printf("{\"execute\":\"x\",\"id\":[{\"a\":%s}]}", values[i]);

        assert_not_a_request(line, strlen(line), HF_ERR_INVALID_SYNTAX);
        assert_not_a_request(deep, strlen(deep), HF_ERR_INVALID_SYNTAX);
    }
}

/* Bytes that are no UTF-8, anywhere. */
static void test_not_utf8(void)
{
    static const char *const bytes[] = {
        "\xff",
        "\xfe",
        "\x80",
        "\xc3",
        "\xc3(",
        "\xe2\x82",
        "\xf0\x9f\x98",
        "\xc0\xaf",         /* overlong */
        "\xe0\x80\xaf",     /* overlong */
        "\xc1\xbf",         /* overlong */
        "\xed\xa0\x80",     /* a surrogate */
        "\xf5\x80\x80\x80", /* beyond the last character */
        "\xf4\x90\x80\x80",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(bytes); i++) {
        g_autofree char *id = g_strdup_printf("{\"execute\":\"x\",\"id\":\"%s\"}", bytes[i]);
        g_autofree char *key = g_strdup_printf("{\"execute\":\"x\",\"%s\":1}", bytes[i]);
        g_autofree char *bare = g_strdup_printf("{\"execute\":\"x\"}%s", bytes[i]);

        assert_not_a_request(id, strlen(id), HF_ERR_INVALID_SYNTAX);
        assert_not_a_request(key, strlen(key), HF_ERR_INVALID_SYNTAX);
        assert_not_a_request(bare, strlen(bare), HF_ERR_INVALID_SYNTAX);
    }
}

/* A NUL byte ends nothing. */
static void test_nul_byte(void)
{
    static const char inside[] = "{\"execute\":\"x\0\"}";
    static const char behind[] = "{\"execute\":\"x\"}\0";
    static const char before[] = "\0{\"execute\":\"x\"}";

    assert_not_a_request(inside, sizeof(inside) - 1, HF_ERR_INVALID_SYNTAX);
    assert_not_a_request(behind, sizeof(behind) - 1, HF_ERR_INVALID_SYNTAX);
    assert_not_a_request(before, sizeof(before) - 1, HF_ERR_INVALID_SYNTAX);
}

/* `levels` arrays in one another as the id, which is the second level itself. */
static char *nested(guint levels)
{
    g_autofree char *open = g_strnfill(levels, '[');
    g_autofree char *close = g_strnfill(levels, ']');

    return g_strdup_printf("{\"execute\":\"x\",\"id\":%s%s}", open, close);
}

static void test_depth(void)
{
    g_autofree char *deepest = nested(NATIVE_MAX_DEPTH - 1);
    g_autofree char *too_deep = nested(NATIVE_MAX_DEPTH);
    g_autofree char *far_too_deep = nested(300000);
    NativeRequest request;

    parse(deepest, &request);
    native_request_clear(&request);
    assert_not_a_request(too_deep, strlen(too_deep), HF_ERR_INVALID_SYNTAX);
    assert_not_a_request(far_too_deep, strlen(far_too_deep), HF_ERR_INVALID_SYNTAX);
}

/* JSON, but no request. */
static void test_wrong_members(void)
{
    static const char *const lines[] = {
        "{}",
        "{\"id\":1}",
        "{\"execute\":1}",
        "{\"execute\":null}",
        "{\"execute\":[\"x\"]}",
        "{\"execute\":\"x\",\"arguments\":[]}",
        "{\"execute\":\"x\",\"arguments\":null}",
        "{\"execute\":\"x\",\"arguments\":\"a\"}",
        "{\"execute\":\"x\",\"argument\":{}}",
        "{\"Execute\":\"x\"}",
        "{\"execute\":\"x\",\"\":1}",
        "{\"execute\":\"x\\u0000y\"}",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(lines); i++)
        assert_not_a_request(lines[i], strlen(lines[i]), HF_ERR_INVALID_ARGUMENT);
}

/* The id of a request that is wrong otherwise is known all the same. */
static void test_id_of_wrong_request(void)
{
    const char *line = "{\"arguments\":1,\"id\":\"me\",\"execute\":\"x\"}";
    NativeRequest request;
    Fault *fault = NULL;
    g_autofree char *reply = NULL;

    g_assert_false(native_parse_request(line, strlen(line), &request, &fault));
    reply = native_encode_error(&request, fault);
    g_assert_true(g_str_has_suffix(reply, ",\"id\":\"me\"}\n"));
    native_request_clear(&request);
    fault_free(fault);
}

/* ---- good arguments -------------------------------------------------------------------- */

static void test_acquire_arguments(void)
{
    g_autoptr(NativeArguments) arguments = arguments_of(
        "{\"owner\":{\"pid\":4711,\"name\":\"web1\",\"uuid\":\"" UUID
        "\",\"uri\":\"qemu:///system\","
        "\"until\":\"connection\"},\"disks\":[{\"path\":\"/a\"},{\"path\":\"/"
        "b\",\"mode\":\"shared\"},"
        "{\"mode\":\"readonly\",\"path\":\"/c\"}],\"leases\":[{\"lockspace\":\"/d\",\"key\":\"k\","
        "\"mode\":\"exclusive\"}],\"timeout\":1500}",
        ACQUIRE);

    g_assert_true(arguments->has_owner);
    g_assert_cmpint(arguments->pid, ==, 4711);
    g_assert_cmpstr(arguments->name, ==, "web1");
    g_assert_cmpstr(arguments->uuid, ==, UUID);
    g_assert_cmpstr(arguments->uri, ==, "qemu:///system");
    g_assert_true(arguments->until_close);
    g_assert_cmpuint(arguments->wants->len, ==, 4);
    g_assert_cmpstr(want_of(arguments, 0)->path, ==, "/a");
    g_assert_cmpint(want_of(arguments, 0)->mode, ==, HF_MODE_EXCLUSIVE);
    g_assert_cmpint(want_of(arguments, 1)->mode, ==, HF_MODE_SHARED);
    g_assert_cmpint(want_of(arguments, 2)->mode, ==, HF_MODE_READONLY);
    g_assert_cmpstr(want_of(arguments, 3)->space, ==, "/d");
    g_assert_cmpstr(want_of(arguments, 3)->key, ==, "k");
    g_assert_null(want_of(arguments, 3)->path);
    g_assert_cmpuint(arguments->timeout_usec, ==, 1500 * 1000);
}

static void test_other_arguments(void)
{
    g_autoptr(NativeArguments) none = arguments_of("{}", NATIVE_FILTER | NATIVE_EVENTS);
    g_autoptr(NativeArguments) filter =
        arguments_of("{\"pid\":2147483647,\"uuid\":\"" UUID "\"}", NATIVE_FILTER);
    g_autoptr(NativeArguments) all = arguments_of("{\"owner\":{\"pid\":1}}", RELEASE);
    g_autoptr(NativeArguments) empty =
        arguments_of("{\"owner\":{\"pid\":1,\"until\":\"process\"},\"disks\":[]}", ACQUIRE);
    g_autoptr(NativeArguments) lease =
        arguments_of("{\"lease\":{\"lockspace\":\"/d\",\"key\":\"k\"}}", QUERY_DISK);
    g_autoptr(NativeArguments) events =
        arguments_of("{\"events\":[\"OWNER_GONE\",\"x\"]}", NATIVE_EVENTS);

    g_assert_cmpuint(none->wants->len, ==, 0);
    g_assert_null(none->events);
    g_assert_cmpint(filter->pid, ==, G_MAXINT);
    g_assert_cmpstr(filter->uuid, ==, UUID);
    g_assert_false(all->named_any);
    g_assert_true(empty->named_any);
    g_assert_false(empty->until_close);
    g_assert_cmpstr(want_of(lease, 0)->space, ==, "/d");
    g_assert_cmpuint(events->events->len, ==, 2);
}

/* ---- wrong arguments ------------------------------------------------------------------- */

typedef struct WrongCase {
    guint takes;
    const char *json;
    const char *argument; /* what the fault names */
} WrongCase;

#define OWNER "\"owner\":{\"pid\":1}"

static const WrongCase wrong_cases[] = {
    /* the owner */
    {ACQUIRE, "{}", "owner"},
    {RELEASE, "{}", "owner"},
    {ACQUIRE, "{\"owner\":1}", "owner"},
    {ACQUIRE, "{\"owner\":null}", "owner"},
    {ACQUIRE, "{\"owner\":[]}", "owner"},
    {ACQUIRE, "{\"owner\":{}}", "owner.pid"},
    {ACQUIRE, "{\"owner\":{\"pid\":0}}", "owner.pid"},
    {ACQUIRE, "{\"owner\":{\"pid\":-1}}", "owner.pid"},
    {ACQUIRE, "{\"owner\":{\"pid\":2147483648}}", "owner.pid"},
    {ACQUIRE, "{\"owner\":{\"pid\":4294967297}}", "owner.pid"},
    {ACQUIRE, "{\"owner\":{\"pid\":9223372036854775806}}", "owner.pid"},
    {ACQUIRE, "{\"owner\":{\"pid\":1.0}}", "owner.pid"},
    {ACQUIRE, "{\"owner\":{\"pid\":\"1\"}}", "owner.pid"},
    {ACQUIRE, "{\"owner\":{\"pid\":true}}", "owner.pid"},
    {ACQUIRE, "{\"owner\":{\"pid\":null}}", "owner.pid"},
    {ACQUIRE, "{\"owner\":{\"pid\":1,\"name\":1}}", "owner.name"},
    {ACQUIRE, "{\"owner\":{\"pid\":1,\"name\":null}}", "owner.name"},
    {ACQUIRE, "{\"owner\":{\"pid\":1,\"name\":\"a\\u0000b\"}}", "owner.name"},
    {ACQUIRE, "{\"owner\":{\"pid\":1,\"uuid\":\"x\"}}", "owner.uuid"},
    {ACQUIRE, "{\"owner\":{\"pid\":1,\"uuid\":\"" UUID "0\"}}", "owner.uuid"},
    {ACQUIRE, "{\"owner\":{\"pid\":1,\"uuid\":5}}", "owner.uuid"},
    {ACQUIRE, "{\"owner\":{\"pid\":1,\"uri\":{}}}", "owner.uri"},
    {ACQUIRE, "{\"owner\":{\"pid\":1,\"until\":\"never\"}}", "owner.until"},
    {ACQUIRE, "{\"owner\":{\"pid\":1,\"until\":1}}", "owner.until"},
    {ACQUIRE, "{\"owner\":{\"pid\":1,\"untill\":\"process\"}}", "untill"},
    {RELEASE, "{\"owner\":{\"pid\":1,\"name\":\"web1\"}}", "owner"},
    /* disks */
    {ACQUIRE, "{" OWNER ",\"disks\":{}}", "disks"},
    {ACQUIRE, "{" OWNER ",\"disks\":\"/a\"}", "disks"},
    {ACQUIRE, "{" OWNER ",\"disks\":[\"/a\"]}", "disks"},
    {ACQUIRE, "{" OWNER ",\"disks\":[null]}", "disks"},
    {ACQUIRE, "{" OWNER ",\"disks\":[{}]}", "path"},
    {ACQUIRE, "{" OWNER ",\"disks\":[{\"path\":1}]}", "path"},
    {ACQUIRE, "{" OWNER ",\"disks\":[{\"path\":\"\"}]}", "path"},
    {ACQUIRE, "{" OWNER ",\"disks\":[{\"path\":\"a.img\"}]}", "path"},
    {ACQUIRE, "{" OWNER ",\"disks\":[{\"path\":\"/a\\u0000b\"}]}", "path"},
    {ACQUIRE, "{" OWNER ",\"disks\":[{\"path\":\"/a\",\"mode\":\"rw\"}]}", "mode"},
    {ACQUIRE, "{" OWNER ",\"disks\":[{\"path\":\"/a\",\"mode\":\"Shared\"}]}", "mode"},
    {ACQUIRE, "{" OWNER ",\"disks\":[{\"path\":\"/a\",\"mode\":1}]}", "mode"},
    {ACQUIRE, "{" OWNER ",\"disks\":[{\"path\":\"/a\",\"mode\":null}]}", "mode"},
    {ACQUIRE, "{" OWNER ",\"disks\":[{\"path\":\"/a\",\"node\":\"shared\"}]}", "node"},
    {ACQUIRE, "{" OWNER ",\"disks\":[{\"path\":\"/a\"},{\"path\":\"b\"}]}", "path"},
    {RELEASE, "{" OWNER ",\"disks\":[{\"path\":\"/a\",\"mode\":\"shared\"}]}", "mode"},
    /* leases */
    {ACQUIRE, "{" OWNER ",\"leases\":1}", "leases"},
    {ACQUIRE, "{" OWNER ",\"leases\":[1]}", "leases"},
    {ACQUIRE, "{" OWNER ",\"leases\":[{}]}", "lockspace"},
    {ACQUIRE, "{" OWNER ",\"leases\":[{\"key\":\"k\"}]}", "lockspace"},
    {ACQUIRE, "{" OWNER ",\"leases\":[{\"lockspace\":\"/d\"}]}", "key"},
    {ACQUIRE, "{" OWNER ",\"leases\":[{\"lockspace\":\"d\",\"key\":\"k\"}]}", "lockspace"},
    {ACQUIRE, "{" OWNER ",\"leases\":[{\"lockspace\":\"\",\"key\":\"k\"}]}", "lockspace"},
    {ACQUIRE, "{" OWNER ",\"leases\":[{\"lockspace\":\"/d\",\"key\":1}]}", "key"},
    {ACQUIRE, "{" OWNER ",\"leases\":[{\"lockspace\":\"/d\",\"key\":\"k\\u0000\"}]}", "key"},
    {ACQUIRE, "{" OWNER ",\"leases\":[{\"lockspace\":\"/d\",\"key\":\"k\",\"path\":\"/a\"}]}",
     "path"},
    {ACQUIRE, "{" OWNER ",\"leases\":[{\"lockspace\":\"/d\",\"key\":\"k\",\"mode\":\"\"}]}",
     "mode"},
    {RELEASE, "{" OWNER ",\"leases\":[{\"lockspace\":\"/d\",\"key\":\"k\",\"mode\":\"shared\"}]}",
     "mode"},
    /* the rest */
    {ACQUIRE, "{" OWNER ",\"timeout\":-1}", "timeout"},
    {ACQUIRE, "{" OWNER ",\"timeout\":3600001}", "timeout"},
    {ACQUIRE, "{" OWNER ",\"timeout\":4294967296}", "timeout"},
    {ACQUIRE, "{" OWNER ",\"timeout\":0.5}", "timeout"},
    {ACQUIRE, "{" OWNER ",\"timeout\":\"1\"}", "timeout"},
    {ACQUIRE, "{" OWNER ",\"timeouts\":1}", "timeouts"},
    {ACQUIRE, "{" OWNER ",\"disk\":\"/a\"}", "disk"},
    {ACQUIRE, "{" OWNER ",\"\":1}", ""},
    {NATIVE_FILTER, "{\"pid\":0}", "pid"},
    {NATIVE_FILTER, "{\"pid\":\"1\"}", "pid"},
    {NATIVE_FILTER, "{\"uuid\":\"1\"}", "uuid"},
    {NATIVE_FILTER, "{\"owner\":{\"pid\":1}}", "owner"},
    {NATIVE_FILTER, "{\"timeout\":1}", "timeout"},
    {QUERY_DISK, "{}", "disk"},
    {QUERY_DISK, "{\"disk\":\"a\"}", "disk"},
    {QUERY_DISK, "{\"disk\":{\"path\":\"/a\"}}", "disk"},
    {QUERY_DISK, "{\"disk\":\"/a\",\"lease\":{\"lockspace\":\"/d\",\"key\":\"k\"}}", "lease"},
    {QUERY_DISK, "{\"lease\":\"k\"}", "leases"},
    {QUERY_DISK, "{\"lease\":{\"lockspace\":\"/d\",\"key\":\"k\",\"mode\":\"shared\"}}", "mode"},
    {NATIVE_EVENTS, "{\"events\":\"OWNER_GONE\"}", "events"},
    {NATIVE_EVENTS, "{\"events\":[1]}", "events"},
    {NATIVE_EVENTS, "{\"events\":[\"A\",null]}", "events"},
    {NATIVE_EVENTS, "{\"event\":[]}", "event"},
    {0, "{\"a\":1}", "a"},
};

static void test_wrong_arguments(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(wrong_cases); i++) {
        const WrongCase *c = &wrong_cases[i];
        g_autofree char *line = g_strdup_printf("{\"execute\":\"x\",\"arguments\":%s}", c->json);
        NativeRequest request;
        Fault *fault = NULL;

        g_test_message("%s", c->json);
        parse(line, &request);
        g_assert_null(native_parse_arguments(&request, c->takes, &fault));
        g_assert_nonnull(fault);
        g_assert_cmpint(fault->code, ==, HF_ERR_INVALID_ARGUMENT);
        g_assert_cmpstr(fault->argument, ==, c->argument);
        g_assert_nonnull(strstr(fault->message, c->argument));
        fault_free(fault);
        native_request_clear(&request);
    }
}

/* ---- at random ------------------------------------------------------------------------- */

/* Whatever arrives, there is a request or a fault, and the reply is one line of UTF-8. */
static void check_any(const char *text, gsize len, int *good)
{
    NativeRequest request;
    Fault *fault = NULL;
    gboolean parsed = parse_bytes(text, len, &request, &fault);
    g_autofree char *reply = NULL;

    g_assert_true(parsed == (fault == NULL));
    if (parsed) {
        g_autoptr(NativeArguments) arguments = native_parse_arguments(&request, MOST, &fault);

        g_assert_true((arguments != NULL) == (fault == NULL));
        *good += arguments != NULL;
    }
    reply = fault ? native_encode_error(&request, fault)
                  : native_encode_return(&request, json_object_new_object());
    json_object_put(assert_line(reply));
    fault_free(fault);
    native_request_clear(&request);
}

static void test_random(void)
{
    static const char seed[] =
        "{\"execute\":\"acquire\",\"arguments\":{\"owner\":{\"pid\":4711,\"name\":\"web1\","
        "\"uuid\":\"" UUID "\"},\"disks\":[{\"path\":\"/a\",\"mode\":\"shared\"}],\"leases\":"
        "[{\"lockspace\":\"/"
        "d\",\"key\":\"k\"}],\"timeout\":5},\"id\":[1,-2.5e3,\"x\\u00e4\",null]}";
    int rounds = g_test_slow() ? 1000000 : 20000;
    int good = 0;

    for (int i = 0; i < rounds; i++) {
        gsize len = 0;
        g_autofree char *text = mutate_text(seed, 4, &len);

        check_any(text, len, &good);
    }
    /* Both ways have to be walked for this test to mean something. */
    g_assert_cmpint(good, >, rounds / 50);
    g_assert_cmpint(good, <, rounds - rounds / 50);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/native/request", test_request);
    g_test_add_func("/native/not-json", test_not_json);
    g_test_add_func("/native/not-a-number", test_not_a_number);
    g_test_add_func("/native/not-utf8", test_not_utf8);
    g_test_add_func("/native/nul-byte", test_nul_byte);
    g_test_add_func("/native/depth", test_depth);
    g_test_add_func("/native/wrong-members", test_wrong_members);
    g_test_add_func("/native/id-of-wrong-request", test_id_of_wrong_request);
    g_test_add_func("/native/acquire-arguments", test_acquire_arguments);
    g_test_add_func("/native/other-arguments", test_other_arguments);
    g_test_add_func("/native/wrong-arguments", test_wrong_arguments);
    g_test_add_func("/native/random", test_random);
    return g_test_run();
}
