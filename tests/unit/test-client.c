/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libholdfast against a daemon that is a thread of this test: it says what a script tells it,
 * among it all that a daemon never should. Each test's script is a function that gets one
 * accepted connection after the other.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <holdfast/holdfast.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

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

static void send_bytes(int fd, const char *text, gsize length)
{
    while (length > 0) {
        gssize n = send(fd, text, length, MSG_NOSIGNAL);

        if (n <= 0)
            return; /* the client has had enough: scripts are not told */
        text += n;
        length -= (gsize)n;
    }
}

static void send_line(int fd, const char *text)
{
    g_autofree char *line = g_strconcat(text, "\n", NULL);

    send_bytes(fd, line, strlen(line));
}

/* The client's next line, which the server keeps, or NULL when it closed. */
static const char *get_line(Server *server, int fd)
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

static long line_id(const char *line)
{
    const char *id = strstr(line, "\"id\":");

    g_assert_nonnull(id);
    return strtol(id + strlen("\"id\":"), NULL, 10);
}

static void reply_to(int fd, const char *line, const char *member, const char *value)
{
    g_autofree char *text = g_strdup_printf("{\"%s\":%s,\"id\":%ld}", member, value, line_id(line));

    send_line(fd, text);
}

/* Greets, and answers everything with `value`. */
static gboolean serve_returns(Server *server, int fd, const char *value)
{
    const char *line;

    send_line(fd, GREETING);
    while ((line = get_line(server, fd)))
        reply_to(fd, line, "return", value);
    return FALSE;
}

/* Greets, and answers everything with an error. */
static gboolean serve_error(Server *server, int fd, const char *value)
{
    const char *line;

    send_line(fd, GREETING);
    while ((line = get_line(server, fd)))
        reply_to(fd, line, "error", value);
    return FALSE;
}

static void server_listen(Server *server)
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

static Server *server_start(Script script)
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
static void server_join(Server *server)
{
    if (server->thread) {
        shutdown(server->listener, SHUT_RDWR);
        g_thread_join(g_steal_pointer(&server->thread));
    }
}

static void server_stop(Server *server)
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

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Server, server_stop)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(hf_client, hf_disconnect)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(hf_error, hf_error_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(hf_request, hf_request_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(hf_leases, hf_leases_free)

static hf_client *must_connect(Server *server)
{
    g_autoptr(hf_error) error = NULL;
    hf_client *client = hf_connect(server->path, 5000, &error);

    if (!client)
        g_error("%s", hf_error_message(error));
    return client;
}

static void assert_error(const hf_error *error, hf_code code, const char *part)
{
    g_assert_nonnull(error);
    g_assert_cmpint(hf_error_code(error), ==, code);
    if (!strstr(hf_error_message(error), part))
        g_error("\"%s\" is not in \"%s\"", part, hf_error_message(error));
    g_assert_null(strchr(hf_error_message(error), '\n'));
}

/* ---- connecting ---------------------------------------------------------------------------- */

static void test_default_socket(void)
{
    char *path;

    g_setenv("HOLDFAST_SOCKET", "/a/b", TRUE);
    path = hf_default_socket();
    g_assert_cmpstr(path, ==, "/a/b");
    free(path);

    g_setenv("HOLDFAST_SOCKET", "", TRUE);
    g_setenv("XDG_RUNTIME_DIR", "/run/user/7", TRUE);
    path = hf_default_socket();
    g_assert_cmpstr(path, ==,
                    geteuid() == 0 ? "/run/holdfast/holdfast.sock"
                                   : "/run/user/7/holdfast/holdfast.sock");
    free(path);
    g_unsetenv("HOLDFAST_SOCKET");

    if (geteuid() != 0) {
        g_unsetenv("XDG_RUNTIME_DIR");
        g_setenv("HOME", "/home/x", TRUE);
        path = hf_default_socket();
        g_assert_cmpstr(path, ==, "/home/x/.cache/holdfast/holdfast.sock");
        free(path);
    }
}

static gboolean script_greet(Server *server, int fd, int index G_GNUC_UNUSED)
{
    return serve_returns(server, fd, "{}");
}

static void test_connect(void)
{
    g_autoptr(Server) server = server_start(script_greet);
    g_autoptr(hf_client) client = must_connect(server);

    g_assert_cmpstr(hf_greeting(client), ==, GREETING);
    g_assert_cmpint(hf_fd(client), >, 2);
    g_assert_true(fcntl(hf_fd(client), F_GETFD) & FD_CLOEXEC);
    g_assert_true(fcntl(hf_fd(client), F_GETFL) & O_NONBLOCK);
    hf_disconnect(NULL);
}

static void assert_no_connection(const char *path, int timeout_ms, const char *part)
{
    g_autoptr(hf_error) error = NULL;

    g_assert_null(hf_connect(path, timeout_ms, &error));
    assert_error(error, HF_ERR_CONNECTION, part);
    g_assert_cmpstr(hf_error_json(error), ==, "{}");
    g_assert_null(hf_connect(path, timeout_ms, NULL));
}

static void test_connect_nobody(void)
{
    g_autofree char *dir = g_dir_make_tmp("holdfast-client-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "s", NULL);
    g_autofree char *longer = g_strnfill(200, 'x');
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd;

    assert_no_connection(path, 100, path);
    assert_no_connection(path, 100, "systemctl ");
    assert_no_connection(longer, 100, "too long");

    /* A socket that nobody listens on any more: a daemon that was killed. */
    g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    g_assert_no_errno(bind(fd, (struct sockaddr *)&address, sizeof(address)));
    close(fd);
    assert_no_connection(path, 100, "no Holdfast daemon listens on");
    g_unlink(path);

    g_assert_true(g_file_set_contents(path, "x", 1, NULL));
    assert_no_connection(path, 100, path);
    g_unlink(path);
    g_rmdir(dir);
}

/* A full backlog refuses a non-blocking connect() with EAGAIN: the library tries until its time
 * is over, and gets in when there is room. */
static void test_connect_backlog(void)
{
    g_autofree char *dir = g_dir_make_tmp("holdfast-client-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "s", NULL);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), fds[2];

    g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    g_assert_no_errno(bind(listener, (struct sockaddr *)&address, sizeof(address)));
    g_assert_no_errno(listen(listener, 0));
    for (gsize i = 0; i < G_N_ELEMENTS(fds); i++) {
        fds[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (connect(fds[i], (struct sockaddr *)&address, sizeof(address)) < 0)
            g_assert_cmpint(errno, ==, EAGAIN);
    }
    assert_no_connection(path, 100, "did not accept the connection in time");
    for (gsize i = 0; i < G_N_ELEMENTS(fds); i++)
        close(fds[i]);
    close(listener);
    g_unlink(path);
    g_rmdir(dir);
}

static const char *greeting_text; /* what script_says sends; NULL: nothing, and it stays open */
static gint greeting_last;        /* atomic: the next connection is the last */

static gboolean script_says(Server *server, int fd, int index)
{
    char c;

    if (greeting_text) {
        send_bytes(fd, greeting_text, strlen(greeting_text));
    } else {
        while (recv(fd, &c, 1, 0) > 0)
            ;
    }
    (void)server;
    (void)index;
    return !g_atomic_int_get(&greeting_last);
}

static void test_greeting_bad(void)
{
    static const struct {
        const char *says;
        const char *part;
    } cases[] = {
        {"SSH-2.0-OpenSSH_9.2\r\n", "is not a Holdfast daemon: it sent \"SSH-2.0-OpenSSH_9.2\\x0d"},
        {"\n", "is not a Holdfast daemon"},
        {"[]\n", "is not a Holdfast daemon"},
        {"{}\n", "is not a Holdfast daemon: it greets with \"{}\""},
        {"{\"QMP\": {\"version\": {}}}\n", "is not a Holdfast daemon"},
        {"{\"holdfast\": 1}\n", "is not a Holdfast daemon"},
        {"{\"holdfast\": {\"protocol\": \"1\"}}\n", "is not a Holdfast daemon"},
        {"{\"holdfast\": {\"protocol\": 2}}\n", "speaks version 2 of the protocol"},
        {"{\"holdfast\": {\"protocol\": 1}} x\n", "is not a Holdfast daemon"},
        {"{\"holdfast\": {\"protocol\": 1}", "without a greeting"},
        {"{\"holdfast\": {\"protocol\": 1, \"a\": \"\xff\"}}\n", "\\xff"},
        {"", "without a greeting"},
        {NULL, "sent no greeting in time"},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(Server) server = NULL;

        greeting_text = cases[i].says;
        g_atomic_int_set(&greeting_last, 0);
        server = server_start(script_says);
        assert_no_connection(server->path, cases[i].says ? 5000 : 50, cases[i].part);
        g_atomic_int_set(&greeting_last, 1);
        assert_no_connection(server->path, 50, "");
    }
}

/* A program without standard streams must not get the socket as one of them. */
static void test_connect_closed_streams(void)
{
    g_autoptr(Server) server = server_start(script_greet);
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        hf_client *client;

        close(0);
        close(1);
        close(2);
        client = hf_connect(server->path, 5000, NULL);
        _exit(client && hf_fd(client) > 2 && (fcntl(hf_fd(client), F_GETFD) & FD_CLOEXEC) ? 0 : 1);
    }
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    g_assert_cmpint(status, ==, 0);
}

/* ---- commands and replies ------------------------------------------------------------------ */

static gboolean script_echo(Server *server, int fd, int index G_GNUC_UNUSED)
{
    return serve_returns(server, fd, "{\"a/b\":[1,\"\\u00e4\"],\"n\":null}");
}

static void test_command(void)
{
    g_autoptr(Server) server = server_start(script_echo);
    g_autoptr(hf_error) error = NULL;
    hf_client *client = must_connect(server);
    char *reply = hf_command(client, "query-x", "{\"pid\": 1}", NULL);

    g_assert_cmpstr(reply, ==, "{\"a/b\":[1,\"ä\"],\"n\":null}");
    free(reply);
    g_assert_null(hf_command(client, "query-x", "[1]", &error));
    assert_error(error, HF_ERR_INVALID_ARGUMENT, "not a JSON object");
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

static void test_command_too_long(void)
{
    g_autoptr(Server) server = server_start(script_greet);
    g_autoptr(hf_client) client = must_connect(server);
    g_autoptr(hf_error) error = NULL;
    g_autofree char *filler = g_strnfill(1024 * 1024 - 20, 'x');
    g_autofree char *arguments = g_strdup_printf("{\"a\":\"%s\"}", filler);
    int fd = hf_fd(client);

    g_assert_null(hf_command(client, "c", arguments, &error));
    assert_error(error, HF_ERR_INVALID_ARGUMENT, "bytes long");
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

static void assert_event(hf_client *client, int timeout_ms, const char *expected)
{
    g_autoptr(hf_error) error = NULL;
    char *event = NULL;

    g_assert_cmpint(hf_next_event(client, timeout_ms, &event, &error), ==, expected ? 1 : 0);
    if (expected && !strstr(event, expected))
        g_error("\"%s\" is not in \"%s\"", expected, event);
    free(event);
}

static void assert_command(hf_client *client, const char *command, const char *expected)
{
    g_autoptr(hf_error) error = NULL;
    char *reply = hf_command(client, command, NULL, &error);

    if (!reply)
        g_error("%s", hf_error_message(error));
    g_assert_cmpstr(reply, ==, expected);
    free(reply);
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
        g_autoptr(Server) server = NULL;
        g_autoptr(hf_client) client = NULL;
        g_autoptr(hf_error) error = NULL;

        bad_reply = cases[i].says;
        server = server_start(script_bad_reply);
        client = must_connect(server);
        g_assert_null(hf_command(client, "query-x", NULL, &error));
        assert_error(error, HF_ERR_CONNECTION, cases[i].part);
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
    g_autoptr(Server) server = server_start(script_nul);
    g_autoptr(hf_client) client = must_connect(server);
    g_autoptr(hf_error) error = NULL;

    g_assert_null(hf_command(client, "x", NULL, &error));
    assert_error(error, HF_ERR_CONNECTION, "is not a Holdfast daemon");
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
    g_autoptr(hf_error) error = NULL;
    char *reply = hf_command(client, "x", NULL, NULL);

    g_assert_nonnull(reply);
    g_assert_cmpuint(strlen(reply), ==, (12 << 20) + 2);
    free(reply);
    g_assert_null(hf_command(client, "x", NULL, &error));
    assert_error(error, HF_ERR_CONNECTION, "a line of more than 16 MiB");
    g_assert_cmpint(hf_fd(client), ==, -1);
}

/* ---- errors -------------------------------------------------------------------------------- */

static const char *error_text; /* what script_error answers */

static gboolean script_error(Server *server, int fd, int index G_GNUC_UNUSED)
{
    return serve_error(server, fd, error_text);
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
    g_autoptr(Server) server = server_start(script_error_without_id);
    g_autoptr(hf_client) client = must_connect(server);
    g_autoptr(hf_error) error = NULL;

    g_assert_null(hf_command(client, "x", NULL, &error));
    assert_error(error, HF_ERR_INVALID_SYNTAX, "too long");
}

/* ---- lost connections ---------------------------------------------------------------------- */

static gboolean script_lost_twice(Server *server, int fd, int index)
{
    if (index == 2)
        return serve_returns(server, fd, "{\"leases\":[]}");
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
    g_autoptr(hf_error) error = NULL;

    g_assert_null(hf_command(client, "x", NULL, &error));
    assert_error(error, HF_ERR_CONNECTION, "closed the connection");
    hf_disconnect(g_steal_pointer(&client));
    server_join(server);
    g_assert_cmpuint(server->lines->len, ==, 4);
}

static gboolean script_restart(Server *server, int fd, int index)
{
    if (index == 1)
        return serve_returns(server, fd, "{}");
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
    g_autoptr(hf_error) error = NULL;
    gint64 start = g_get_monotonic_time();

    g_assert_null(hf_command(client, "x", "{\"timeout\":1}", &error));
    assert_error(error, HF_ERR_CONNECTION, "no Holdfast daemon listens on");
    g_assert_cmpint(g_get_monotonic_time() - start, <, 4 * G_USEC_PER_SEC);
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
    g_autoptr(hf_error) error = NULL;
    gint64 start = g_get_monotonic_time();

    g_assert_null(hf_command(client, "acquire", "{\"timeout\":100}", &error));
    assert_error(error, HF_ERR_CONNECTION, "has not answered \"acquire\" in time");
    g_assert_cmpint(g_get_monotonic_time() - start, >=, 100000);
    g_assert_cmpint(g_get_monotonic_time() - start, <, 6 * G_USEC_PER_SEC);
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
    g_autoptr(Server) server = server_start(script_trickle);
    g_autoptr(hf_client) client = must_connect(server);
    g_autoptr(hf_error) error = NULL;

    g_assert_null(hf_command(client, "acquire", "{\"timeout\":1}", &error));
    assert_error(error, HF_ERR_CONNECTION, "in time");
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
    g_autoptr(Server) server = server_start(script_event_flood);
    g_autoptr(hf_client) client = must_connect(server);
    g_autoptr(hf_error) error = NULL;

    g_assert_null(hf_command(client, "acquire", "{\"timeout\":1}", &error));
    assert_error(error, HF_ERR_CONNECTION, "in time");
}

/* ---- events -------------------------------------------------------------------------------- */

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

/* ---- requests and lists of leases ---------------------------------------------------------- */

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
    return serve_returns(server, fd, "{\"leases\":[" LEASE_1 "," LEASE_2 "]}");
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
    return serve_error(server, fd, "{\"class\":\"NotHeld\",\"desc\":\"not held\"}");
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

static const char *leases_reply; /* what script_bad_leases returns */

static gboolean script_bad_leases(Server *server, int fd, int index G_GNUC_UNUSED)
{
    return serve_returns(server, fd, leases_reply);
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

    g_test_add_func("/client/default-socket", test_default_socket);
    g_test_add_func("/client/connect", test_connect);
    g_test_add_func("/client/connect/nobody", test_connect_nobody);
    g_test_add_func("/client/connect/backlog", test_connect_backlog);
    g_test_add_func("/client/connect/closed-streams", test_connect_closed_streams);
    g_test_add_func("/client/greeting/bad", test_greeting_bad);
    g_test_add_func("/client/command", test_command);
    g_test_add_func("/client/command/too-long", test_command_too_long);
    g_test_add_func("/client/reply/chunks", test_chunks);
    g_test_add_func("/client/reply/bad", test_replies_bad);
    g_test_add_func("/client/reply/nul", test_reply_nul);
    g_test_add_func("/client/reply/long", test_reply_long);
    g_test_add_func("/client/errors", test_errors);
    g_test_add_func("/client/errors/without-id", test_error_without_id);
    g_test_add_func("/client/lost/repeat", test_repeat);
    g_test_add_func("/client/lost/repeat-ends", test_repeat_ends);
    g_test_add_func("/client/lost/restart", test_restart);
    g_test_add_func("/client/lost/gone", test_gone);
    g_test_add_func("/client/lost/silence", test_silence);
    g_test_add_func("/client/lost/trickle", test_trickle);
    g_test_add_func("/client/lost/event-flood", test_event_flood);
    g_test_add_func("/client/lost/release", test_release_repeated);
    g_test_add_func("/client/events/renewed", test_subscription_renewed);
    g_test_add_func("/client/events/reconnect", test_next_event_reconnects);
    g_test_add_func("/client/events/unasked", test_next_event_unasked);
    g_test_add_func("/client/events/lost", test_events_lost);
    g_test_add_func("/client/events/both-talk", test_both_talk);
    g_test_add_func("/client/acquire", test_acquire);
    g_test_add_func("/client/request/own-pid", test_request_own_pid);
    g_test_add_func("/client/request/bad", test_request_bad);
    g_test_add_func("/client/leases/bad", test_leases_bad);
    return g_test_run();
}
