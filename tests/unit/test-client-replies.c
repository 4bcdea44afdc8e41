/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libholdfast. Commands, replies and errors, among them what no daemon should say. */
#include "client-server.h"

#include <signal.h>
#include <string.h>

static gboolean script_echo(Server *server, int fd, int index G_GNUC_UNUSED)
{
    return serve(server, fd, "return", "{\"a/b\":[1,\"\\u00e4\"],\"n\":null}");
}

static void test_command(void)
{
    g_autoptr(Server) server = server_start(script_echo);
    hf_client *client = must_connect(server);
    char *reply = hf_command(client, "query-x", "{\"pid\": 1}", NULL);

    g_assert_cmpstr(reply, ==, "{\"a/b\":[1,\"ä\"],\"n\":null}");
    free(reply);
    assert_command_fails(client, "query-x", "[1]", HF_ERR_INVALID_ARGUMENT, "not a JSON object");
    g_assert_null(hf_command(client, "query-x", "{} {}", NULL));
    g_assert_null(hf_command(client, "query-x", "", NULL));
    g_assert_null(hf_command(client, "query-x", "{\"a\":", NULL));
    reply = hf_command(client, "query-y", NULL, NULL);
    g_assert_nonnull(reply);
    free(reply);
    hf_disconnect(client);
    server_join(server);
    g_assert_cmpuint(server->lines->len, ==, 2);
    g_assert_cmpstr(server->lines->pdata[0], ==,
                    "{\"execute\":\"query-x\",\"arguments\":{\"pid\":1},\"id\":1}");
    g_assert_cmpstr(server->lines->pdata[1], ==, "{\"execute\":\"query-y\",\"id\":2}");
}

/* The daemon's counters are a command like any other. */
static void test_query_metrics(void)
{
    g_autoptr(Server) server = server_start(script_echo);
    hf_client *client = must_connect(server);
    char *reply = hf_query_metrics(client, NULL);

    g_assert_cmpstr(reply, ==, "{\"a/b\":[1,\"ä\"],\"n\":null}");
    free(reply);
    hf_disconnect(client);
    server_join(server);
    g_assert_cmpuint(server->lines->len, ==, 1);
    g_assert_nonnull(strstr(server->lines->pdata[0], "\"execute\":\"query-metrics\""));
}

static void test_command_too_long(void)
{
    g_autoptr(Server) server = server_start(script_greet);
    g_autoptr(hf_client) client = must_connect(server);
    g_autofree char *filler = g_strnfill(1024 * 1024 - 20, 'x');
    g_autofree char *arguments = g_strdup_printf("{\"a\":\"%s\"}", filler);
    int fd = hf_fd(client);

    assert_command_fails(client, "c", arguments, HF_ERR_INVALID_ARGUMENT, "bytes long");
    /* Nothing was sent, and the connection is as good as before. */
    g_assert_cmpint(hf_fd(client), ==, fd);
    free(hf_command(client, "c", NULL, NULL));
    g_assert_cmpint(hf_fd(client), ==, fd);
}

/* The reply dribbles in byte by byte, then several lines come at once. */
static gboolean script_chunks(Server *server, int fd, int index G_GNUC_UNUSED)
{
    const char *text = "{\"return\":{\"a\":1},\"id\":1}\n";

    send_line(fd, GREETING);
    get_line(server, fd);
    for (const char *p = text; *p; p++) {
        send_bytes(fd, p, 1);
        if ((p - text) % 5 == 0)
            g_usleep(2000);
    }
    get_line(server, fd);
    send_line(fd, "{\"event\":\"A\"}\n{\"event\":\"B\"}\n{\"return\":{\"b\":1},\"id\":2}\n"
                  "{\"event\":\"C\"}");
    get_line(server, fd);
    return FALSE;
}

static void test_chunks(void)
{
    g_autoptr(Server) server = server_start(script_chunks);
    g_autoptr(hf_client) client = must_connect(server);
    char *event = NULL;

    assert_command(client, "x", "{\"a\":1}");
    assert_command(client, "x", "{\"b\":1}");
    assert_event(client, 0, "A");
    assert_event(client, -1, "B");
    g_assert_cmpint(hf_next_event(client, 5000, &event, NULL), ==, 1);
    g_assert_cmpstr(event, ==, "{\"event\":\"C\"}");
    free(event);
    assert_event(client, 0, NULL);
    assert_event(client, 20, NULL);
}

static const char *bad_reply; /* what script_bad_reply answers */

static gboolean script_bad_reply(Server *server, int fd, int index G_GNUC_UNUSED)
{
    send_line(fd, GREETING);
    if (get_line(server, fd))
        send_line(fd, bad_reply);
    get_line(server, fd);
    return FALSE;
}

static void test_replies_bad(void)
{
    static const struct {
        const char *says;
        const char *part;
    } cases[] = {
        {"HTTP/1.1 400 Bad Request", "is not a Holdfast daemon: it sent \"HTTP/1.1"},
        {"{\"return\":{},\"id\":2}", "belongs to no request"},
        {"{\"return\":{},\"id\":\"1\"}", "belongs to no request"},
        {"{\"return\":{}}", "belongs to no request"},
        {"{\"id\":1}", "neither \"return\" nor \"error\""},
        {"{\"return\":null,\"id\":1}", "neither \"return\" nor \"error\""},
        {"{\"error\":\"no\",\"id\":1}", "neither \"return\" nor \"error\""},
        {"{\"return\":{},\"id\":1", "is not a Holdfast daemon"},
        {"{\"return\":{},\"id\":1}}", "is not a Holdfast daemon"},
        {"{\"return\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "is not a Holdfast daemon"},
        {"\x1b[31m", "\\x1b[31m"},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        bad_reply = cases[i].says;
        assert_fails_with(script_bad_reply, "query-x", NULL, HF_ERR_CONNECTION, cases[i].part);
    }
}

static gboolean script_nul(Server *server, int fd, int index G_GNUC_UNUSED)
{
    static const char text[] = "{\"return\":{},\"id\":1}\0{\n";

    send_line(fd, GREETING);
    if (get_line(server, fd))
        send_bytes(fd, text, sizeof(text) - 1);
    get_line(server, fd);
    return FALSE;
}

static void test_reply_nul(void)
{
    assert_fails_with(script_nul, "x", NULL, HF_ERR_CONNECTION, "is not a Holdfast daemon");
}

/* A line without an end: refused at 16 MiB. One of 12 MiB is long, and fine. */
static gboolean script_long(Server *server, int fd, int index G_GNUC_UNUSED)
{
    g_autofree char *mebibyte = g_strnfill(1 << 20, 'x');
    const char *line;

    send_line(fd, GREETING);
    line = get_line(server, fd);
    send_bytes(fd, "{\"return\":\"", 11);
    for (int i = 0; i < 12; i++)
        send_bytes(fd, mebibyte, 1 << 20);
    send_bytes(fd, "\"", 1);
    send_line(fd, line_id(line) == 1 ? ",\"id\":1}" : "?");
    if (get_line(server, fd)) {
        for (int i = 0; i < 40; i++)
            send_bytes(fd, mebibyte, 1 << 20);
    }
    return FALSE;
}

static void test_reply_long(void)
{
    g_autoptr(Server) server = server_start(script_long);
    g_autoptr(hf_client) client = must_connect(server);
    char *reply = hf_command(client, "x", NULL, NULL);

    g_assert_nonnull(reply);
    g_assert_cmpuint(strlen(reply), ==, (12 << 20) + 2);
    free(reply);
    assert_command_fails(client, "x", NULL, HF_ERR_CONNECTION, "a line of more than 16 MiB");
    g_assert_cmpint(hf_fd(client), ==, -1);
}

/* ---- errors -------------------------------------------------------------------------------- */

static const char *error_text; /* what script_error answers */

static gboolean script_error(Server *server, int fd, int index G_GNUC_UNUSED)
{
    return serve(server, fd, "error", error_text);
}

static void test_errors(void)
{
    static const struct {
        const char *says;
        hf_code code;
        const char *message;
    } cases[] = {
        {"{\"class\":\"Internal\",\"desc\":\"d\",\"data\":{}}", HF_ERR_INTERNAL, "d"},
        {"{\"class\":\"InvalidSyntax\",\"desc\":\"d\"}", HF_ERR_INVALID_SYNTAX, "d"},
        {"{\"class\":\"CommandNotFound\",\"desc\":\"d\"}", HF_ERR_COMMAND_NOT_FOUND, "d"},
        {"{\"class\":\"InvalidArgument\",\"desc\":\"d\"}", HF_ERR_INVALID_ARGUMENT, "d"},
        {"{\"class\":\"PermissionDenied\",\"desc\":\"d\"}", HF_ERR_PERMISSION, "d"},
        {"{\"class\":\"Busy\",\"desc\":\"d\",\"data\":{\"disk\":\"/a\"}}", HF_ERR_BUSY, "d"},
        {"{\"class\":\"NotHeld\",\"desc\":\"d\"}", HF_ERR_NOT_HELD, "d"},
        {"{\"class\":\"NoSuchOwner\",\"desc\":\"d\"}", HF_ERR_NO_SUCH_OWNER, "d"},
        {"{\"class\":\"LeaseRequired\",\"desc\":\"d\"}", HF_ERR_LEASE_REQUIRED, "d"},
        {"{\"class\":\"BadResource\",\"desc\":\"d\"}", HF_ERR_BAD_RESOURCE, "d"},
        {"{\"class\":\"StorageError\",\"desc\":\"d\"}", HF_ERR_STORAGE, "d"},
        {"{\"class\":\"Timeout\",\"desc\":\"d\"}", HF_ERR_TIMEOUT, "d"},
        /* Of a later daemon, odd, or hostile. */
        {"{\"class\":\"Eclipse\",\"desc\":\"d\"}", HF_ERR_INTERNAL, "d"},
        {"{\"class\":\"Busy\"}", HF_ERR_BUSY, "Busy"},
        {"{\"class\":1,\"desc\":2}", HF_ERR_INTERNAL, "the daemon refused without saying why"},
        {"{}", HF_ERR_INTERNAL, "the daemon refused without saying why"},
        {"{\"class\":\"Busy\",\"desc\":\"a\\nb\\u001b[0m\\u009b ü\"}", HF_ERR_BUSY,
         "a\\x0ab\\x1b[0m\\xc2\\x9b ü"},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(Server) server = NULL;
        g_autoptr(hf_client) client = NULL;
        g_autoptr(hf_error) error = NULL;

        error_text = cases[i].says;
        server = server_start(script_error);
        client = must_connect(server);
        g_assert_null(hf_command(client, "acquire", "{}", &error));
        g_assert_cmpint(hf_error_code(error), ==, cases[i].code);
        g_assert_cmpstr(hf_error_message(error), ==, cases[i].message);
        if (i == 5)
            g_assert_cmpstr(hf_error_json(error), ==, cases[i].says);
        g_assert_null(hf_command(client, "acquire", "{}", NULL));
    }
    g_assert_cmpint(hf_error_code(NULL), ==, HF_OK);
    g_assert_cmpstr(hf_error_message(NULL), ==, "");
    g_assert_cmpstr(hf_error_json(NULL), ==, "{}");
    hf_error_free(NULL);
}

/* An error without an id: the daemon could not read the line, so it cannot know its id. */
static gboolean script_error_without_id(Server *server, int fd, int index G_GNUC_UNUSED)
{
    send_line(fd, GREETING);
    get_line(server, fd);
    send_line(fd, "{\"error\":{\"class\":\"InvalidSyntax\",\"desc\":\"too long\"}}");
    return FALSE;
}

static void test_error_without_id(void)
{
    assert_fails_with(script_error_without_id, "x", NULL, HF_ERR_INVALID_SYNTAX, "too long");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    /* The library has to manage without the caller ignoring SIGPIPE. */
    signal(SIGPIPE, SIG_DFL);

    g_test_add_func("/client/command", test_command);
    g_test_add_func("/client/command/metrics", test_query_metrics);
    g_test_add_func("/client/command/too-long", test_command_too_long);
    g_test_add_func("/client/reply/chunks", test_chunks);
    g_test_add_func("/client/reply/bad", test_replies_bad);
    g_test_add_func("/client/reply/nul", test_reply_nul);
    g_test_add_func("/client/reply/long", test_reply_long);
    g_test_add_func("/client/errors", test_errors);
    g_test_add_func("/client/errors/without-id", test_error_without_id);
    return g_test_run();
}
