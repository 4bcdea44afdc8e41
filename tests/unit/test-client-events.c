/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libholdfast. Events, and what becomes of a subscription. */
#include "client-server.h"

#include <signal.h>
#include <string.h>

static gboolean script_subscribed(Server *server, int fd, int index)
{
    const char *line;

    send_line(fd, GREETING);
    line = get_line(server, fd);
    if (!line)
        return FALSE;
    reply_to(fd, line, "return", "{}");
    if (index == 0) {
        send_line(fd, "{\"event\":\"FIRST\"}");
        if (!get_line(server, fd)) /* a command that gets lost, or nothing at all */
            return TRUE;
        return TRUE;
    }
    send_line(fd, "{\"event\":\"SECOND\"}");
    while ((line = get_line(server, fd)))
        reply_to(fd, line, "return", "{\"n\":2}");
    return FALSE;
}

/* A command finds the connection lost: the subscription is renewed before it is repeated. */
static void test_subscription_renewed(void)
{
    g_autoptr(Server) server = server_start(script_subscribed);
    hf_client *client = must_connect(server);

    free(hf_command(client, "subscribe", "{\"events\":[\"FIRST\",\"SECOND\"]}", NULL));
    assert_command(client, "x", "{\"n\":2}");
    assert_event(client, 0, "FIRST");
    assert_event(client, 0, "{\"event\":\"EVENTS_LOST\",\"data\":{\"count\":null}");
    assert_event(client, 0, "SECOND");
    hf_disconnect(client);
    server_join(server);
    g_assert_cmpuint(server->lines->len, ==, 4);
    g_assert_nonnull(strstr(server->lines->pdata[2],
                            "\"subscribe\",\"arguments\":{\"events\":[\"FIRST\",\"SECOND\"]}"));
    g_assert_cmpstr(server->lines->pdata[3], ==, server->lines->pdata[1]);
}

static gboolean script_event_then_end(Server *server, int fd, int index)
{
    const char *line;

    send_line(fd, GREETING);
    line = get_line(server, fd);
    if (line)
        reply_to(fd, line, "return", "{}");
    send_line(fd, index == 0 ? "{\"event\":\"FIRST\"}" : "{\"event\":\"SECOND\"}");
    if (index > 0)
        get_line(server, fd);
    return index == 0;
}

/* Who waits for events is told of the loss once, and goes on with the next call. */
static void test_next_event_reconnects(void)
{
    g_autoptr(Server) server = server_start(script_event_then_end);
    g_autoptr(hf_client) client = must_connect(server);
    g_autoptr(hf_error) error = NULL;
    char *event = NULL;

    free(hf_command(client, "subscribe", NULL, NULL));
    assert_event(client, -1, "FIRST");
    g_assert_cmpint(hf_next_event(client, -1, &event, &error), ==, HF_ERR_CONNECTION);
    assert_error(error, HF_ERR_CONNECTION, "closed the connection");
    g_assert_null(event);
    g_assert_cmpint(hf_fd(client), ==, -1);
    assert_event(client, -1, "EVENTS_LOST");
    assert_event(client, -1, "SECOND");
    g_assert_cmpint(hf_fd(client), >, 2);
}

static gboolean script_unasked(Server *server, int fd, int index G_GNUC_UNUSED)
{
    send_line(fd, GREETING);
    send_line(fd, "{\"return\":{},\"id\":7}");
    get_line(server, fd);
    return FALSE;
}

static void test_next_event_unasked(void)
{
    g_autoptr(Server) server = server_start(script_unasked);
    g_autoptr(hf_client) client = must_connect(server);
    g_autoptr(hf_error) error = NULL;
    char *event = NULL;

    g_assert_cmpint(hf_next_event(client, 1000, &event, &error), ==, HF_ERR_CONNECTION);
    assert_error(error, HF_ERR_CONNECTION, "neither an event nor asked for");
}

#define MANY_EVENTS 10000

static gboolean script_many_events(Server *server, int fd, int index G_GNUC_UNUSED)
{
    g_autoptr(GString) events = g_string_new(NULL);
    const char *line;

    send_line(fd, GREETING);
    line = get_line(server, fd);
    for (int i = 0; i < MANY_EVENTS; i++)
        g_string_append_printf(events, "{\"event\":\"E%d\"}\n", i);
    send_bytes(fd, events->str, events->len);
    reply_to(fd, line, "return", "{}");
    send_line(fd, "{\"event\":\"LAST\"}");
    get_line(server, fd);
    return FALSE;
}

/* More events than the queue takes while a reply is awaited: the first ones, then how many are
 * missing, then those that come. */
static void test_events_lost(void)
{
    g_autoptr(Server) server = server_start(script_many_events);
    g_autoptr(hf_client) client = must_connect(server);
    g_autofree char *lost = NULL;
    int i;

    assert_command(client, "x", "{}");
    for (i = 0; i < MANY_EVENTS; i++) {
        g_autofree char *expected = g_strdup_printf("{\"event\":\"E%d\"}", i);
        char *event = NULL;

        g_assert_cmpint(hf_next_event(client, 1000, &event, NULL), ==, 1);
        if (strcmp(event, expected) != 0) {
            lost = g_strdup(event);
            free(event);
            break;
        }
        free(event);
    }
    g_assert_cmpint(i, >=, 1000);
    g_assert_nonnull(lost);
    g_assert_nonnull(strstr(lost, "EVENTS_LOST"));
    g_assert_cmpint(atoi(strstr(lost, "\"count\":") + strlen("\"count\":")), ==, MANY_EVENTS - i);
    assert_event(client, 1000, "LAST");
}

/* A daemon that is still sending does not read: the library must do both at once. */
static gboolean script_talks_first(Server *server, int fd, int index G_GNUC_UNUSED)
{
    g_autofree char *filler = g_strnfill(1000, 'x');
    g_autofree char *event = g_strdup_printf("{\"event\":\"%s\"}", filler);
    const char *line;

    send_line(fd, GREETING);
    for (int i = 0; i < 4000; i++)
        send_line(fd, event);
    line = get_line(server, fd);
    reply_to(fd, line, "return", "{}");
    get_line(server, fd);
    return FALSE;
}

static void test_both_talk(void)
{
    g_autoptr(Server) server = server_start(script_talks_first);
    g_autoptr(hf_client) client = must_connect(server);
    g_autoptr(hf_error) error = NULL;
    g_autofree char *filler = g_strnfill(900000, 'x');
    g_autofree char *arguments = g_strdup_printf("{\"a\":\"%s\"}", filler);
    char *reply = hf_command(client, "x", arguments, &error);

    g_assert_cmpstr(hf_error_message(error), ==, "");
    g_assert_cmpstr(reply, ==, "{}");
    free(reply);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    /* The library has to manage without the caller ignoring SIGPIPE. */
    signal(SIGPIPE, SIG_DFL);

    g_test_add_func("/client/events/renewed", test_subscription_renewed);
    g_test_add_func("/client/events/reconnect", test_next_event_reconnects);
    g_test_add_func("/client/events/unasked", test_next_event_unasked);
    g_test_add_func("/client/events/lost", test_events_lost);
    g_test_add_func("/client/events/both-talk", test_both_talk);
    return g_test_run();
}
