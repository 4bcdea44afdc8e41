/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libholdfast. Connecting: who listens, what greets, and what is none of it. */
#include "client-server.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

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
    return g_test_run();
}
