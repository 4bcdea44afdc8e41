/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libholdfast. Requests for leases, and lists of them. */
#include "client-server.h"

#include <signal.h>
#include <unistd.h>

#define LEASE_1                                                                                    \
    "{\"disk\":\"/srv/a.img\",\"driver\":\"lockd\",\"lockspace\":\"\",\"key\":\"/srv/a.img\","     \
    "\"mode\":\"shared\",\"since\":\"2026-01-31T10:42:07.123456Z\",\"claims\":[],"                 \
    "\"owner\":{\"name\":\"web1\",\"uuid\":null,\"uri\":null,\"pid\":4711,\"host\":\"n3\","        \
    "\"state\":\"running\"},\"later\":1}"
#define LEASE_2                                                                                    \
    "{\"disk\":null,\"driver\":\"lockd\",\"lockspace\":\"/locks\",\"key\":\"k\","                  \
    "\"mode\":\"exclusive\",\"since\":\"1970-01-01T00:00:00.000001Z\",\"owner\":{\"pid\":1}}"

static gboolean script_leases(Server *server, int fd, int index G_GNUC_UNUSED)
{
    return serve(server, fd, "return", "{\"leases\":[" LEASE_1 "," LEASE_2 "]}");
}

static hf_request *sample_request(void)
{
    hf_request *request = hf_request_new(4711);

    g_assert_cmpint(hf_request_set_name(request, "x"), ==, 0);
    g_assert_cmpint(hf_request_set_name(request, "web1"), ==, 0);
    g_assert_cmpint(hf_request_set_uuid(request, "u"), ==, 0);
    g_assert_cmpint(hf_request_set_uri(request, "qemu:///system"), ==, 0);
    g_assert_cmpint(hf_request_set_uri(request, NULL), ==, 0);
    g_assert_cmpint(hf_request_set_timeout(request, 1500), ==, 0);
    g_assert_cmpint(hf_request_add_disk(request, "/srv/a.img", HF_MODE_SHARED), ==, 0);
    g_assert_cmpint(hf_request_add_disk(request, "/srv/ü \"b\"", HF_MODE_EXCLUSIVE), ==, 0);
    g_assert_cmpint(hf_request_add_lease(request, "/locks", "k", HF_MODE_READONLY), ==, 0);
    return request;
}

static void test_acquire(void)
{
    g_autoptr(Server) server = server_start(script_leases);
    g_autoptr(hf_request) request = sample_request();
    g_autoptr(hf_leases) leases = NULL;
    hf_client *client = must_connect(server);
    const hf_lease_info *info;

    g_assert_cmpint(hf_acquire(client, request, &leases, NULL), ==, 0);
    g_assert_cmpint(hf_acquire(client, request, NULL, NULL), ==, 0);
    g_assert_cmpint(hf_release(client, request, NULL), ==, 0);
    hf_disconnect(client);
    server_join(server);
    g_assert_cmpstr(server->lines->pdata[0], ==,
                    "{\"execute\":\"acquire\",\"arguments\":{\"owner\":{\"pid\":4711,"
                    "\"name\":\"web1\",\"uuid\":\"u\"},\"disks\":[{\"path\":\"/srv/a.img\","
                    "\"mode\":\"shared\"},{\"path\":\"/srv/ü \\\"b\\\"\",\"mode\":\"exclusive\"}],"
                    "\"leases\":[{\"lockspace\":\"/locks\",\"key\":\"k\",\"mode\":\"readonly\"}],"
                    "\"timeout\":1500},\"id\":1}");
    g_assert_cmpstr(server->lines->pdata[2], ==,
                    "{\"execute\":\"release\",\"arguments\":{\"owner\":{\"pid\":4711},"
                    "\"disks\":[{\"path\":\"/srv/a.img\"},{\"path\":\"/srv/ü \\\"b\\\"\"}],"
                    "\"leases\":[{\"lockspace\":\"/locks\",\"key\":\"k\"}],"
                    "\"timeout\":1500},\"id\":3}");

    g_assert_cmpuint(hf_leases_count(leases), ==, 2);
    info = hf_leases_get(leases, 0);
    g_assert_cmpstr(info->disk, ==, "/srv/a.img");
    g_assert_cmpstr(info->driver, ==, "lockd");
    g_assert_cmpstr(info->lockspace, ==, "");
    g_assert_cmpstr(info->key, ==, "/srv/a.img");
    g_assert_cmpint(info->mode, ==, HF_MODE_SHARED);
    g_assert_cmpint(info->since_usec, ==, G_GINT64_CONSTANT(1769856127123456));
    g_assert_cmpstr(info->owner_name, ==, "web1");
    g_assert_null(info->owner_uuid);
    g_assert_cmpint(info->owner_pid, ==, 4711);
    g_assert_cmpstr(info->host, ==, "n3");
    info = hf_leases_get(leases, 1);
    g_assert_null(info->disk);
    g_assert_null(info->host);
    g_assert_cmpint(info->since_usec, ==, 1);
    g_assert_null(hf_leases_get(leases, 2));
    hf_leases_free(NULL);
}

static void test_request_own_pid(void)
{
    g_autoptr(Server) server = server_start(script_greet);
    g_autoptr(hf_request) request = hf_request_new(0);
    g_autofree char *expected =
        g_strdup_printf("{\"execute\":\"acquire\",\"arguments\":{\"owner\":{\"pid\":%d,"
                        "\"until\":\"connection\"}},\"id\":1}",
                        (int)getpid());
    hf_client *client = must_connect(server);

    g_assert_cmpint(hf_request_set_until_close(request), ==, 0);
    g_assert_cmpint(hf_acquire(client, request, NULL, NULL), ==, 0);
    hf_disconnect(client);
    server_join(server);
    g_assert_cmpstr(server->lines->pdata[0], ==, expected);
}

static void test_request_bad(void)
{
    g_autoptr(hf_request) request = hf_request_new(1);

    g_assert_cmpint(hf_request_add_disk(request, "a.img", HF_MODE_SHARED), ==,
                    HF_ERR_INVALID_ARGUMENT);
    g_assert_cmpint(hf_request_add_disk(request, "", HF_MODE_SHARED), ==, HF_ERR_INVALID_ARGUMENT);
    g_assert_cmpint(hf_request_add_disk(request, NULL, HF_MODE_SHARED), ==,
                    HF_ERR_INVALID_ARGUMENT);
    g_assert_cmpint(hf_request_add_disk(request, "/a", (hf_mode)3), ==, HF_ERR_INVALID_ARGUMENT);
    for (gsize i = 0; i < 9; i++) {
        static const char *const not_utf8[] = {"/\xff",
                                               "/\xc0\xaf",
                                               "/\xc3",
                                               "/\xed\xa0\x80",
                                               "/\xf4\x90\x80\x80",
                                               "/\xe0\x9f\xbf",
                                               "/\xf0\x8f\xbf\xbf",
                                               "/\xe2\x82x",
                                               "/\x80"};

        g_assert_cmpint(hf_request_add_disk(request, not_utf8[i], HF_MODE_SHARED), ==,
                        HF_ERR_INVALID_ARGUMENT);
        g_assert_cmpint(hf_request_set_name(request, not_utf8[i]), ==, HF_ERR_INVALID_ARGUMENT);
    }
    g_assert_cmpint(hf_request_add_disk(request, "/\xf0\x9f\x92\xbe \xed\x9f\xbf", HF_MODE_SHARED),
                    ==, 0);
    g_assert_cmpint(hf_request_add_lease(request, "l", "k", HF_MODE_SHARED), ==,
                    HF_ERR_INVALID_ARGUMENT);
    g_assert_cmpint(hf_request_add_lease(request, "/l", "", HF_MODE_SHARED), ==,
                    HF_ERR_INVALID_ARGUMENT);
    hf_request_free(NULL);
}

static gboolean script_not_held(Server *server, int fd, int index)
{
    if (index == 0) {
        send_line(fd, GREETING);
        get_line(server, fd);
        return TRUE;
    }
    return serve(server, fd, "error", "{\"class\":\"NotHeld\",\"desc\":\"not held\"}");
}

/* The reply to a release got lost; repeated, it finds nothing to release: that is success. Found
 * the first time, it is an error. */
static void test_release_repeated(void)
{
    g_autoptr(Server) server = server_start(script_not_held);
    g_autoptr(hf_client) client = must_connect(server);
    g_autoptr(hf_request) request = hf_request_new(1);
    g_autoptr(hf_error) error = NULL;

    g_assert_cmpint(hf_release(client, request, NULL), ==, 0);
    g_assert_cmpint(hf_release(client, request, &error), ==, HF_ERR_NOT_HELD);
    assert_error(error, HF_ERR_NOT_HELD, "not held");
    g_assert_cmpint(hf_release(client, request, NULL), ==, HF_ERR_NOT_HELD);
}

/* The first try is lost when it has released the first of three things. */
static gboolean script_partly_released(Server *server, int fd, int index)
{
    const char *line;

    send_line(fd, GREETING);
    if (index == 0) {
        get_line(server, fd);
        return TRUE;
    }
    while ((line = get_line(server, fd)))
        if (strstr(line, "/a"))
            reply_to(fd, line, "error", "{\"class\":\"NotHeld\",\"desc\":\"not held\"}");
        else
            reply_to(fd, line, "return", "{\"released\":1}");
    return FALSE;
}

static void test_release_partly_repeated(void)
{
    g_autoptr(Server) server = server_start(script_partly_released);
    g_autoptr(hf_client) client = must_connect(server);
    g_autoptr(hf_request) request = hf_request_new(1);

    hf_request_add_disk(request, "/a", HF_MODE_EXCLUSIVE);
    hf_request_add_disk(request, "/b", HF_MODE_EXCLUSIVE);
    hf_request_add_lease(request, "/l", "k", HF_MODE_EXCLUSIVE);
    g_assert_cmpint(hf_release(client, request, NULL), ==, 0);
    g_clear_pointer(&client, hf_disconnect);
    server_join(server);
    g_assert_cmpuint(server->lines->len, ==, 5);
    g_assert_cmpstr(server->lines->pdata[3], ==,
                    "{\"execute\":\"release\",\"arguments\":{\"disks\":[{\"path\":\"/b\"}],"
                    "\"owner\":{\"pid\":1}},\"id\":3}");
    g_assert_cmpstr(server->lines->pdata[4], ==,
                    "{\"execute\":\"release\",\"arguments\":{\"leases\":[{\"lockspace\":\"/l\","
                    "\"key\":\"k\"}],\"owner\":{\"pid\":1}},\"id\":4}");
}

static const char *leases_reply; /* what script_bad_leases returns */

static gboolean script_bad_leases(Server *server, int fd, int index G_GNUC_UNUSED)
{
    return serve(server, fd, "return", leases_reply);
}

static void test_leases_bad(void)
{
    static const char *const cases[] = {
        "{}",
        "[]",
        "1",
        "{\"leases\":{}}",
        "{\"leases\":[1]}",
        "{\"leases\":[null]}",
        "{\"leases\":[{}]}",
        "{\"leases\":[" LEASE_1 ",{\"driver\":\"d\",\"lockspace\":\"\",\"key\":\"k\"}]}",
        "{\"leases\":[{\"driver\":\"d\",\"lockspace\":\"\",\"key\":\"k\",\"mode\":\"x\"}]}",
        "{\"leases\":[{\"driver\":\"d\",\"lockspace\":\"\",\"key\":\"k\",\"mode\":\"shared\","
        "\"since\":\"now\",\"owner\":{}}]}",
        "{\"leases\":[{\"driver\":\"d\",\"lockspace\":\"\",\"key\":\"k\",\"mode\":\"shared\","
        "\"since\":\"2026-01-31T10:42:07.123456Zx\",\"owner\":{}}]}",
        "{\"leases\":[{\"driver\":\"d\",\"lockspace\":\"\",\"key\":\"k\",\"mode\":\"shared\","
        "\"since\":\"2026-01-31T10:42:07.123456Z\",\"owner\":\"me\"}]}",
    };

    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(Server) server = NULL;
        g_autoptr(hf_client) client = NULL;
        g_autoptr(hf_error) error = NULL;
        hf_leases *leases = NULL;

        leases_reply = cases[i];
        server = server_start(script_bad_leases);
        client = must_connect(server);
        g_assert_cmpint(hf_query_leases(client, &leases, &error), ==, HF_ERR_CONNECTION);
        assert_error(error, HF_ERR_CONNECTION, "wrong answer to \"query-leases\"");
        g_assert_null(leases);
        g_assert_cmpint(hf_query_leases(client, &leases, NULL), ==, HF_ERR_CONNECTION);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    /* The library has to manage without the caller ignoring SIGPIPE. */
    signal(SIGPIPE, SIG_DFL);

    g_test_add_func("/client/lost/release", test_release_repeated);
    g_test_add_func("/client/lost/release-partly", test_release_partly_repeated);
    g_test_add_func("/client/acquire", test_acquire);
    g_test_add_func("/client/request/own-pid", test_request_own_pid);
    g_test_add_func("/client/request/bad", test_request_bad);
    g_test_add_func("/client/leases/bad", test_leases_bad);
    return g_test_run();
}
