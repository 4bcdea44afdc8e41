/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the native protocol's codec writes: it is JSON and UTF-8 whatever it tells of. */
#include "native-line.h"

/* The text of the member at a path of keys that are separated by blanks. */
static const char *member(json_object *object, const char *path)
{
    g_auto(GStrv) keys = g_strsplit(path, " ", -1);

    for (char **key = keys; *key; key++)
        g_assert_true(json_object_object_get_ex(object, *key, &object));
    return object ? json_object_get_string(object) : NULL;
}

static void test_encode_return(void)
{
    NativeRequest request;
    g_autofree char *line = NULL;
    g_autofree char *without = NULL;

    parse("{\"execute\":\"x\",\"id\":{\"n\":[1,\"\\u00e4\\n/\"]}}", &request);
    line = native_encode_return(&request, json_object_new_object());
    g_assert_cmpstr(line, ==, "{\"return\":{},\"id\":{\"n\":[1,\"\xc3\xa4\\n/\"]}}\n");
    native_request_clear(&request);
    parse("{\"execute\":\"x\",\"id\":null}", &request);
    without = native_encode_return(&request, json_object_new_object());
    g_assert_cmpstr(without, ==, "{\"return\":{},\"id\":null}\n");
    native_request_clear(&request);
}

static Fault *busy_fault(void)
{
    const struct hf_holder facts = {.disk = "/srv/a.img",
                                    .name = "web1",
                                    .uuid = UUID,
                                    .host = "n3",
                                    .pid = 4711,
                                    .since_usec = 1770000000123456,
                                    .mode = HF_MODE_SHARED};
    Fault *fault = fault_new(HF_ERR_BUSY, 16, "held");

    fault->disk = g_strdup("/srv/a.img");
    fault->driver = g_strdup("lockd");
    fault->space = g_strdup("");
    fault->key = g_strdup("/srv/a.img");
    fault->mode = HF_MODE_EXCLUSIVE;
    g_ptr_array_add(fault->holders, holder_new(&facts, HOLDER_FROM_RECORD));
    return fault;
}

static void test_encode_busy(void)
{
    static const char *const expected[][2] = {
        {"error class", "Busy"},           {"error desc", "held"},
        {"error data disk", "/srv/a.img"}, {"error data driver", "lockd"},
        {"error data lockspace", ""},      {"error data key", "/srv/a.img"},
        {"error data mode", "exclusive"},
    };
    static const char *const of_holder[][2] = {
        {"disk", "/srv/a.img"}, {"name", "web1"},     {"uuid", UUID},
        {"pid", "4711"},        {"host", "n3"},       {"since", "2026-02-02T02:40:00.123456Z"},
        {"mode", "shared"},     {"source", "record"},
    };
    const NativeRequest request = {0};
    g_autoptr(Fault) fault = busy_fault();
    g_autofree char *line = native_encode_error(&request, fault);
    json_object *object = assert_line(line), *holders;

    for (size_t i = 0; i < G_N_ELEMENTS(expected); i++)
        g_assert_cmpstr(member(object, expected[i][0]), ==, expected[i][1]);
    holders = json_object_object_get(
        json_object_object_get(json_object_object_get(object, "error"), "data"), "holders");
    g_assert_cmpuint(json_object_array_length(holders), ==, 1);
    for (size_t i = 0; i < G_N_ELEMENTS(of_holder); i++)
        g_assert_cmpstr(member(json_object_array_get_idx(holders, 0), of_holder[i][0]), ==,
                        of_holder[i][1]);
    json_object_put(object);
}

/* What is not known is null, not left out. */
static void test_encode_unknown_holder(void)
{
    static const char *const members[] = {"disk", "name", "uuid", "pid", "host", "since"};
    const struct hf_holder facts = {.mode = HF_MODE_EXCLUSIVE};
    g_autoptr(Holder) holder = holder_new(&facts, HOLDER_FROM_KERNEL);
    json_object *object = native_holder(holder), *value;

    for (size_t i = 0; i < G_N_ELEMENTS(members); i++) {
        g_assert_true(json_object_object_get_ex(object, members[i], &value));
        g_assert_null(value);
    }
    g_assert_cmpstr(member(object, "source"), ==, "kernel");
    json_object_put(object);
}

/* Names of guests and files may be of any bytes. */
static void test_encode_any_bytes(void)
{
    const NativeRequest request = {0};
    g_autoptr(Fault) fault = fault_new(HF_ERR_STORAGE, 5, "bad \xff\xc0\xaf \n \x01 \"");
    g_autofree char *line = NULL;
    json_object *object;

    fault->disk = g_strdup("/srv/\xff\n.img");
    fault->key = g_strdup("\xed\xa0\x80");
    line = native_encode_error(&request, fault);
    object = assert_line(line);
    g_assert_cmpstr(member(object, "error data errno"), ==, "5");
    json_object_put(object);
}

static void test_encode_greeting(void)
{
    g_autofree char *line = native_encode_greeting("0.1.0", "n3", 812, TRUE);
    g_autofree char *read = native_encode_greeting("0.1.0", "n3", 812, FALSE);

    g_assert_cmpstr(
        line, ==,
        "{\"holdfast\":{\"version\":\"0.1.0\",\"protocol\":1,\"host\":\"n3\",\"pid\":812,"
        "\"access\":\"full\"}}\n");
    g_assert_nonnull(strstr(read, "\"access\":\"read\""));
}

static void test_encode_event(void)
{
    g_autoptr(Owner) owner = owner_new("web1", UUID, NULL, 4711, 1);
    g_autofree char *line = NULL;

    owner->state = OWNER_STOPPING;
    line = native_encode_event("OWNER_STOPPING", native_owner(owner, "n3"), 1770000000123456);
    g_assert_cmpstr(line, ==,
                    "{\"event\":\"OWNER_STOPPING\",\"data\":{\"name\":\"web1\",\"uuid\":\"" UUID
                    "\","
                    "\"uri\":null,\"pid\":4711,\"host\":\"n3\",\"state\":\"stopping\"},"
                    "\"timestamp\":\"2026-02-02T02:40:00.123456Z\"}\n");
}

static Lease *some_lease(Owner *owner, const char *disk, const char *key)
{
    static const Driver driver = {.api = {.name = "lockd"}};
    const Resource resource = {&driver, (char *)"/d", (char *)key};
    Lease *lease = lease_new(owner, disk, HF_MODE_READONLY, 1770000000123456);

    lease_add_part(lease, &resource, NULL);
    lease_add_claim(lease, "file:8:1:4711");
    return lease;
}

/* The first lease of a line that has one or more. */
static json_object *first_lease(json_object *line)
{
    json_object *leases = json_object_object_get(json_object_object_get(line, "return"), "leases");

    g_assert_true(json_object_is_type(leases, json_type_array));
    return json_object_array_get_idx(leases, 0);
}

static void test_encode_lease(void)
{
    const NativeRequest request = {0};
    g_autoptr(Owner) owner = owner_new("web1", NULL, NULL, 4711, 1);
    g_autoptr(GPtrArray) leases = g_ptr_array_new();
    g_autofree char *line = NULL;
    json_object *object, *lease, *disk;

    g_ptr_array_add(leases, some_lease(owner, NULL, "k"));
    g_ptr_array_add(leases, some_lease(owner, "/b", "l"));
    line = native_encode_leases(&request, leases, "n3");
    object = assert_line(line);
    lease = first_lease(object);
    g_assert_true(json_object_object_get_ex(lease, "disk", &disk));
    g_assert_null(disk);
    g_assert_cmpstr(member(lease, "driver"), ==, "lockd");
    g_assert_cmpstr(member(lease, "lockspace"), ==, "/d");
    g_assert_cmpstr(member(lease, "key"), ==, "k");
    g_assert_cmpstr(member(lease, "mode"), ==, "readonly");
    g_assert_cmpstr(member(lease, "since"), ==, "2026-02-02T02:40:00.123456Z");
    g_assert_cmpstr(json_object_to_json_string_ext(json_object_object_get(lease, "claims"),
                                                   JSON_C_TO_STRING_PLAIN),
                    ==, "[\"file:8:1:4711\"]");
    g_assert_cmpstr(member(lease, "owner name"), ==, "web1");
    g_assert_cmpstr(member(lease, "owner pid"), ==, "4711");
    g_assert_cmpstr(member(lease, "owner state"), ==, "running");
    g_assert_false(json_object_object_get_ex(lease, "reason", NULL));
    json_object_put(object);
    for (guint i = 0; i < leases->len; i++)
        lease_free(g_ptr_array_index(leases, i));
}

/* None, an id, and a process that is not known. */
static void test_encode_few_leases(void)
{
    g_autoptr(Owner) owner = owner_new(NULL, NULL, NULL, 0, 0);
    g_autoptr(GPtrArray) leases = g_ptr_array_new();
    g_autofree char *none = NULL, *event = NULL;
    NativeRequest request;
    json_object *object;
    Lease *lease;

    parse("{\"execute\":\"x\",\"id\":[1,\"a/b\"]}", &request);
    none = native_encode_leases(&request, leases, "n3");
    g_assert_cmpstr(none, ==, "{\"return\":{\"leases\":[]},\"id\":[1,\"a/b\"]}\n");
    native_request_clear(&request);
    lease = some_lease(owner, "/a", "k");
    event = native_encode_event("LEASE_RELEASED", native_lease(lease, "n3", "owner-gone"), 1);
    object = assert_line(event);
    g_assert_cmpstr(member(object, "data reason"), ==, "owner-gone");
    g_assert_cmpstr(member(object, "data owner pid"), ==, NULL);
    json_object_put(object);
    lease_free(lease);
}

/* What is written as text is what a tree would have been. */
static void test_encode_lease_of_any_bytes(void)
{
    const NativeRequest request = {0};

    for (int i = 0; i < 20000; i++) {
        char name[12] = "";
        g_autoptr(Owner) owner = NULL;
        g_autoptr(GPtrArray) leases = g_ptr_array_new();
        g_autofree char *line = NULL, *valid = NULL;
        json_object *object;

        for (size_t k = 0; k < sizeof(name) - 1; k++)
            name[k] = (char)(i < 256 ? i : g_test_rand_int_range(i % 3 ? 0 : 1, 256));
        valid = g_utf8_make_valid(name, -1);
        owner = owner_new(name, NULL, NULL, 4711, 1);
        g_ptr_array_add(leases, some_lease(owner, name, name));
        line = native_encode_leases(&request, leases, name);
        object = assert_line(line);
        g_assert_cmpstr(member(first_lease(object), "disk"), ==, valid);
        g_assert_cmpstr(member(first_lease(object), "key"), ==, valid);
        g_assert_cmpstr(member(first_lease(object), "owner host"), ==, valid);
        json_object_put(object);
        lease_free(g_ptr_array_index(leases, 0));
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/native/encode-return", test_encode_return);
    g_test_add_func("/native/encode-busy", test_encode_busy);
    g_test_add_func("/native/encode-unknown-holder", test_encode_unknown_holder);
    g_test_add_func("/native/encode-any-bytes", test_encode_any_bytes);
    g_test_add_func("/native/encode-greeting", test_encode_greeting);
    g_test_add_func("/native/encode-event", test_encode_event);
    g_test_add_func("/native/encode-lease", test_encode_lease);
    g_test_add_func("/native/encode-few-leases", test_encode_few_leases);
    g_test_add_func("/native/encode-lease-of-any-bytes", test_encode_lease_of_any_bytes);
    return g_test_run();
}
