/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See listen.h. */
#include "listen.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* sd_listen_fds(3): SD_LISTEN_FDS_START */
#define LISTEN_FIRST_FD 3
#define LISTEN_BACKLOG 4096 /* the kernel takes less: net.core.somaxconn */
/* Two helpers that start at once settle who replaces a dead socket within milliseconds. */
#define LISTEN_LOCK_STEPS 100
#define LISTEN_LOCK_STEP_USEC 20000

guint pr_listen_handed_over(void)
{
    const char *pid = g_getenv("LISTEN_PID");
    const char *fds = g_getenv("LISTEN_FDS");
    guint64 value = 0, count = 0;

    if (!pid || !g_ascii_string_to_unsigned(pid, 10, 1, G_MAXINT, &value, NULL) ||
        value != (guint64)getpid() || !fds ||
        !g_ascii_string_to_unsigned(fds, 10, 0, 1024, &count, NULL))
        count = 0;
    g_unsetenv("LISTEN_PID");
    g_unsetenv("LISTEN_FDS");
    g_unsetenv("LISTEN_FDNAMES");
    for (guint64 i = 0; i < count; i++)
        fcntl(LISTEN_FIRST_FD + (int)i, F_SETFD, FD_CLOEXEC);
    return (guint)count;
}

static gboolean listen_option(int fd, int option, int wanted)
{
    int value = 0;
    socklen_t len = sizeof(value);

    return getsockopt(fd, SOL_SOCKET, option, &value, &len) == 0 && value == wanted;
}

gboolean pr_listen_adopt(PrListener *ret_listener, char **ret_error)
{
    int fd = LISTEN_FIRST_FD;

    if (!listen_option(fd, SO_DOMAIN, AF_UNIX) || !listen_option(fd, SO_TYPE, SOCK_STREAM) ||
        !listen_option(fd, SO_ACCEPTCONN, 1)) {
        *ret_error = g_strdup("what was handed over is no listening unix stream socket; use "
                              "ListenStream= with a path in the socket unit");
        return FALSE;
    }
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0) {
        *ret_error = g_strdup_printf("cannot use the socket handed over: %s", g_strerror(errno));
        return FALSE;
    }
    *ret_listener = (PrListener){.fd = fd};
    return TRUE;
}

/* ---- at a path ------------------------------------------------------------------------- */

/* A process whose first thread has ended, while another one is in a command that does not return,
 * still has its sockets, and does not serve them. */
static gboolean listen_process_is_dead(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/stat", (int)pid);
    g_autofree char *text = NULL;
    const char *state;

    if (!g_file_get_contents(path, &text, NULL, NULL))
        return FALSE; /* in doubt, it lives */
    state = strrchr(text, ')');
    return state && g_str_has_prefix(state, ") Z");
}

/* Whether somebody serves the socket. */
static gboolean listen_is_alive(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct ucred cred = {0};
    socklen_t len = sizeof(cred);
    gboolean alive = TRUE;

    if (fd < 0)
        return TRUE;
    if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0)
        alive = errno != ECONNREFUSED; /* EAGAIN: its backlog is full */
    else if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 && cred.pid > 0)
        alive = !listen_process_is_dead(cred.pid);
    close(fd);
    return alive;
}

static gboolean listen_clear(const struct sockaddr_un *address, char **ret_error)
{
    const char *path = address->sun_path;
    struct stat st;

    if (lstat(path, &st) < 0 && errno == ENOENT)
        return TRUE;
    if (!S_ISSOCK(st.st_mode))
        *ret_error =
            g_strdup_printf("%s exists and is no socket; remove it or use another path", path);
    else if (listen_is_alive(address))
        *ret_error =
            g_strdup_printf("another helper serves %s; stop it first, or use another path", path);
    else if (unlink(path) < 0 && errno != ENOENT)
        *ret_error =
            g_strdup_printf("cannot remove the dead socket %s: %s", path, g_strerror(errno));
    return *ret_error == NULL;
}

/* Holds the directory while a dead socket is replaced: of two that find it dead one would else
 * remove what the other one has just made. Who cannot have the lock goes on without. */
static int listen_lock(const char *path)
{
    g_autofree char *dir = g_path_get_dirname(path);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    for (int i = 0; fd >= 0 && i < LISTEN_LOCK_STEPS && flock(fd, LOCK_EX | LOCK_NB) < 0; i++)
        g_usleep(LISTEN_LOCK_STEP_USEC);
    return fd;
}

static gboolean listen_bind(const struct sockaddr_un *address, PrListener *listener,
                            char **ret_error)
{
    struct stat st;
    int lock = listen_lock(address->sun_path);
    gboolean fine = listen_clear(address, ret_error);

    if (fine) {
        fine = bind(listener->fd, (const struct sockaddr *)address, sizeof(*address)) == 0 &&
               lstat(address->sun_path, &st) == 0 && listen(listener->fd, LISTEN_BACKLOG) == 0;
        if (fine) {
            listener->device = st.st_dev;
            listener->inode = st.st_ino;
        } else {
            *ret_error =
                g_strdup_printf("cannot listen at %s: %s", address->sun_path, g_strerror(errno));
        }
    }
    if (lock >= 0)
        close(lock);
    return fine;
}

gboolean pr_listen_make(const char *path, PrListener *ret_listener, char **ret_error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    PrListener listener = {.fd = -1};

    if (strlen(path) >= sizeof(address.sun_path)) {
        *ret_error =
            g_strdup_printf("the socket's path %s is too long; use one of at most %zu bytes", path,
                            sizeof(address.sun_path) - 1);
        return FALSE;
    }
    strcpy(address.sun_path, path);
    listener.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener.fd < 0) {
        *ret_error = g_strdup_printf("cannot make a socket: %s", g_strerror(errno));
        return FALSE;
    }
    if (!listen_bind(&address, &listener, ret_error)) {
        close(listener.fd);
        return FALSE;
    }
    listener.path = g_strdup(path);
    *ret_listener = listener;
    return TRUE;
}

void pr_listen_close(PrListener *listener)
{
    struct stat st;

    /* the path first: who finds none waits for the next helper, who finds a dead one may give up */
    if (listener->path && lstat(listener->path, &st) == 0 && st.st_dev == listener->device &&
        st.st_ino == listener->inode)
        unlink(listener->path);
    if (listener->fd >= 0)
        close(listener->fd);
    g_free(listener->path);
    *listener = (PrListener){.fd = -1};
}
