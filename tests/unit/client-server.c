/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See client-server.h. */
#include "client-server.h"

#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- what scripts are made of -------------------------------------------------------------- */

void send_bytes(int fd, const char *text, gsize length)
{
    while (length > 0) {
        gssize n = send(fd, text, length, MSG_NOSIGNAL);

        if (n <= 0)
            return; /* the client has had enough: scripts are not told */
        text += n;
        length -= (gsize)n;
    }
}

void send_line(int fd, const char *text)
{
    g_autofree char *line = g_strconcat(text, "\n", NULL);

    send_bytes(fd, line, strlen(line));
}

/* The client's next line, which the server keeps, or NULL when it closed. */
const char *get_line(Server *server, int fd)
{
    g_autoptr(GString) line = g_string_new(NULL);
    char c;

    while (recv(fd, &c, 1, 0) == 1) {
        if (c == '\n') {
            g_ptr_array_add(server->lines, g_string_free(g_steal_pointer(&line), FALSE));
            return server->lines->pdata[server->lines->len - 1];
        }
        g_string_append_c(line, c);
    }
    return NULL;
}

long line_id(const char *line)
{
    const char *id = strstr(line, "\"id\":");

    g_assert_nonnull(id);
    return strtol(id + strlen("\"id\":"), NULL, 10);
}

void reply_to(int fd, const char *line, const char *member, const char *value)
{
    g_autofree char *text = g_strdup_printf("{\"%s\":%s,\"id\":%ld}", member, value, line_id(line));

    send_line(fd, text);
}

gboolean serve(Server *server, int fd, const char *member, const char *value)
{
    const char *line;

    send_line(fd, GREETING);
    while ((line = get_line(server, fd)))
        reply_to(fd, line, member, value);
    return FALSE;
}

void server_listen(Server *server)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    g_strlcpy(address.sun_path, server->path, sizeof(address.sun_path));
    server->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(server->listener, >=, 0);
    g_assert_no_errno(bind(server->listener, (struct sockaddr *)&address, sizeof(address)));
    g_assert_no_errno(listen(server->listener, 5));
}

static gpointer server_main(gpointer data)
{
    Server *server = data;
    gboolean more = TRUE;

    for (int i = 0; more; i++) {
        int fd = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC);

        if (fd < 0)
            break; /* server_stop() */
        more = server->script(server, fd, i);
        close(fd);
    }
    return NULL;
}

Server *server_start(Script script)
{
    Server *server = g_new0(Server, 1);
    g_autoptr(GError) error = NULL;

    server->dir = g_dir_make_tmp("holdfast-client-XXXXXX", &error);
    g_assert_no_error(error);
    server->path = g_build_filename(server->dir, "s", NULL);
    server->lines = g_ptr_array_new_with_free_func(g_free);
    server->script = script;
    server_listen(server);
    server->thread = g_thread_new("server", server_main, server);
    return server;
}

/* Waits for the script's end; its lines can be looked at then. */
void server_join(Server *server)
{
    if (server->thread) {
        shutdown(server->listener, SHUT_RDWR);
        g_thread_join(g_steal_pointer(&server->thread));
    }
}

void server_stop(Server *server)
{
    server_join(server);
    close(server->listener);
    g_unlink(server->path);
    g_rmdir(server->dir);
    g_ptr_array_unref(server->lines);
    g_free(server->path);
    g_free(server->dir);
    g_free(server);
}

hf_client *must_connect(Server *server)
{
    g_autoptr(hf_error) error = NULL;
    hf_client *client = hf_connect(server->path, 5000, &error);

    if (!client)
        g_error("%s", hf_error_message(error));
    return client;
}

void assert_error(const hf_error *error, hf_code code, const char *part)
{
    g_assert_nonnull(error);
    g_assert_cmpint(hf_error_code(error), ==, code);
    if (!strstr(hf_error_message(error), part))
        g_error("\"%s\" is not in \"%s\"", part, hf_error_message(error));
    g_assert_null(strchr(hf_error_message(error), '\n'));
}

void assert_event(hf_client *client, int timeout_ms, const char *expected)
{
    g_autoptr(hf_error) error = NULL;
    char *event = NULL;

    g_assert_cmpint(hf_next_event(client, timeout_ms, &event, &error), ==, expected ? 1 : 0);
    if (expected && !strstr(event, expected))
        g_error("\"%s\" is not in \"%s\"", expected, event);
    free(event);
}

void assert_command(hf_client *client, const char *command, const char *expected)
{
    g_autoptr(hf_error) error = NULL;
    char *reply = hf_command(client, command, NULL, &error);

    if (!reply)
        g_error("%s", hf_error_message(error));
    g_assert_cmpstr(reply, ==, expected);
    free(reply);
}

void assert_command_fails(hf_client *client, const char *command, const char *arguments,
                          hf_code code, const char *part)
{
    g_autoptr(hf_error) error = NULL;

    g_assert_null(hf_command(client, command, arguments, &error));
    assert_error(error, code, part);
}

void assert_fails_with(Script script, const char *command, const char *arguments, hf_code code,
                       const char *part)
{
    g_autoptr(Server) server = server_start(script);
    g_autoptr(hf_client) client = must_connect(server);

    assert_command_fails(client, command, arguments, code, part);
}

gboolean script_greet(Server *server, int fd, int index G_GNUC_UNUSED)
{
    return serve(server, fd, "return", "{}");
}
