/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A daemon for tests of libholdfast that is a thread of the test: it says what a script tells it,
 * among it all that a daemon never should. Each test's script is a function that gets one
 * accepted connection after the other.
 */
#pragma once

#include <glib.h>
#include <holdfast/holdfast.h>

#define GREETING                                                                                   \
    "{\"holdfast\":{\"version\":\"0.1.0\",\"protocol\":1,\"host\":\"n3\",\"pid\":812,"             \
    "\"access\":\"full\"}}"

typedef struct Server Server;
/* Serves the connection number `index` (from 0); FALSE: the last one. */
typedef gboolean (*Script)(Server *server, int fd, int index);

struct Server {
    char *dir;
    char *path;
    int listener;
    Script script;
    GThread *thread;
    GPtrArray *lines; /* all that clients sent, in order; read it after server_stop() */
};

/* ---- what scripts are made of -------------------------------------------------------------- */

void send_bytes(int fd, const char *text, gsize length);
void send_line(int fd, const char *text);
/* The client's next line, which the server keeps, or NULL when it closed. */
const char *get_line(Server *server, int fd);
long line_id(const char *line);
void reply_to(int fd, const char *line, const char *member, const char *value);
/* Greets, and answers everything with `value` in `member`, "return" or "error". Returns FALSE. */
gboolean serve(Server *server, int fd, const char *member, const char *value);
/* A whole script: greets, and answers everything with {}. */
gboolean script_greet(Server *server, int fd, int index G_GNUC_UNUSED);

/* ---- the server ---------------------------------------------------------------------------- */

Server *server_start(Script script);
/* Listens again, after a script has closed the listener. */
void server_listen(Server *server);
/* Waits for the script's end; its lines can be looked at then. */
void server_join(Server *server);
void server_stop(Server *server);

/* ---- the client ---------------------------------------------------------------------------- */

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Server, server_stop)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(hf_client, hf_disconnect)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(hf_error, hf_error_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(hf_request, hf_request_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(hf_leases, hf_leases_free)

hf_client *must_connect(Server *server);
/* The error has that code, and the part in its message. */
void assert_error(const hf_error *error, hf_code code, const char *part);
/* The next event has `expected` in it; NULL: there is none within that time. */
void assert_event(hf_client *client, int timeout_ms, const char *expected);
void assert_command(hf_client *client, const char *command, const char *expected);
/* The command fails with that code, and the part in the error's message. */
void assert_command_fails(hf_client *client, const char *command, const char *arguments,
                          hf_code code, const char *part);
/* The same against a server of its own, which follows `script`. */
void assert_fails_with(Script script, const char *command, const char *arguments, hf_code code,
                       const char *part);
