/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libholdfast. Connections that are lost, and daemons that are silent. */
#include "client-server.h"

#include <glib/gstdio.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

static gboolean script_lost_twice(Server *server, int fd, int index)
{
    if (index == 2)
        return serve(server, fd, "return", "{\"leases\":[]}");
    send_line(fd, GREETING);
    get_line(server, fd);
    if (index == 1)
        send_bytes(fd, "{\"return\":{\"le", 14); /* the end of file in the middle of a reply */
    return TRUE;
}

static void test_repeat(void)
{
    g_autoptr(Server) server = server_start(script_lost_twice);
    hf_client *client = must_connect(server);

    assert_command(client, "query-leases", "{\"leases\":[]}");
    hf_disconnect(client);
    server_join(server);
    g_assert_cmpuint(server->lines->len, ==, 3);
    for (guint i = 1; i < server->lines->len; i++)
        g_assert_cmpstr(server->lines->pdata[i], ==, server->lines->pdata[0]);
}

static gboolean script_always_lost(Server *server, int fd, int index G_GNUC_UNUSED)
{
    send_line(fd, GREETING);
    get_line(server, fd);
    return TRUE;
}

/* A request that kills the daemon is not sent for ever. */
static void test_repeat_ends(void)
{
    g_autoptr(Server) server = server_start(script_always_lost);
    g_autoptr(hf_client) client = must_connect(server);

    assert_command_fails(client, "x", NULL, HF_ERR_CONNECTION, "closed the connection");
    hf_disconnect(g_steal_pointer(&client));
    server_join(server);
    g_assert_cmpuint(server->lines->len, ==, 4);
}

static gboolean script_restart(Server *server, int fd, int index)
{
    if (index == 1)
        return serve(server, fd, "return", "{}");
    send_line(fd, GREETING);
    get_line(server, fd);
    /* Stopped, and started again a little later: what systemctl restart looks like. */
    close(server->listener);
    g_unlink(server->path);
    shutdown(fd, SHUT_RDWR);
    g_usleep(300000);
    server_listen(server);
    return TRUE;
}

static void test_restart(void)
{
    g_autoptr(Server) server = server_start(script_restart);
    g_autoptr(hf_client) client = must_connect(server);

    assert_command(client, "x", "{}");
}

static gboolean script_gone(Server *server, int fd, int index G_GNUC_UNUSED)
{
    send_line(fd, GREETING);
    get_line(server, fd);
    shutdown(server->listener, SHUT_RDWR);
    close(server->listener);
    g_unlink(server->path);
    return FALSE;
}

/* The daemon does not come back: the request's own time ends the attempts. */
static void test_gone(void)
{
    g_autoptr(Server) server = server_start(script_gone);
    g_autoptr(hf_client) client = must_connect(server);
    gint64 start = g_get_monotonic_time();

    assert_command_fails(client, "x", "{\"timeout\":1}", HF_ERR_CONNECTION,
                         "no Holdfast daemon listens on");
    g_assert_cmpint(g_get_monotonic_time() - start, <, 30 * G_USEC_PER_SEC);
    g_thread_join(g_steal_pointer(&server->thread));
    server->listener = -1;
}

static gboolean script_silent(Server *server, int fd, int index G_GNUC_UNUSED)
{
    send_line(fd, GREETING);
    while (get_line(server, fd))
        ;
    return FALSE;
}

static void test_silence(void)
{
    g_autoptr(Server) server = server_start(script_silent);
    g_autoptr(hf_client) client = must_connect(server);
    gint64 start = g_get_monotonic_time();

    assert_command_fails(client, "acquire", "{\"timeout\":100}", HF_ERR_CONNECTION,
                         "has not answered \"acquire\" in time");
    g_assert_cmpint(g_get_monotonic_time() - start, >=, 100000);
    g_assert_cmpint(g_get_monotonic_time() - start, <, 30 * G_USEC_PER_SEC);
    /* A late reply must not be taken for the next one's. */
    g_assert_cmpint(hf_fd(client), ==, -1);
}

/* Bytes that never become a line, faster than any pause: the time is over all the same. */
static gboolean script_trickle(Server *server, int fd, int index G_GNUC_UNUSED)
{
    send_line(fd, GREETING);
    get_line(server, fd);
    while (send(fd, " ", 1, MSG_NOSIGNAL) == 1)
        g_usleep(1000);
    return FALSE;
}

static void test_trickle(void)
{
    assert_fails_with(script_trickle, "acquire", "{\"timeout\":1}", HF_ERR_CONNECTION, "in time");
}

static gboolean script_event_flood(Server *server, int fd, int index G_GNUC_UNUSED)
{
    send_line(fd, GREETING);
    get_line(server, fd);
    while (send(fd, "{\"event\":\"A\"}\n", 14, MSG_NOSIGNAL) == 14)
        ;
    return FALSE;
}

static void test_event_flood(void)
{
    assert_fails_with(script_event_flood, "acquire", "{\"timeout\":1}", HF_ERR_CONNECTION,
                      "in time");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    /* The library has to manage without the caller ignoring SIGPIPE. */
    signal(SIGPIPE, SIG_DFL);

    g_test_add_func("/client/lost/repeat", test_repeat);
    g_test_add_func("/client/lost/repeat-ends", test_repeat_ends);
    g_test_add_func("/client/lost/restart", test_restart);
    g_test_add_func("/client/lost/gone", test_gone);
    g_test_add_func("/client/lost/silence", test_silence);
    g_test_add_func("/client/lost/trickle", test_trickle);
    g_test_add_func("/client/lost/event-flood", test_event_flood);
    return g_test_run();
}
