/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See server.h. */
#define G_LOG_DOMAIN "holdfast.server"

#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Accepted in one turn of the loop, so that a flood of connections leaves room for the others. */
#define SERVER_ACCEPT_AT_ONCE 64
/* Without free descriptors, accept() fails at once, again and again: look again after a while. */
#define SERVER_PAUSE_USEC (100 * G_TIME_SPAN_MILLISECOND)

typedef struct Listener {
    Server *server;
    int fd;
    char *path; /* "" when it has none */
    gboolean made;
    dev_t device; /* of the path that was made */
    ino_t inode;
    ServerAccess access;
    const ConnProtocol *protocol;
    void *context;
    sd_event_source *source;
    sd_event_source *pause;
} Listener;

struct Server {
    sd_event *event;
    ConnSet *conns;
    GPtrArray *listeners;
};

static void server_listener_free(gpointer data)
{
    Listener *listener = data;
    struct stat st;

    sd_event_source_disable_unref(listener->source);
    sd_event_source_disable_unref(listener->pause);
    close(listener->fd);
    /* not the socket of a daemon that has taken our place */
    if (listener->made && lstat(listener->path, &st) == 0 && st.st_dev == listener->device &&
        st.st_ino == listener->inode)
        unlink(listener->path);
    g_free(listener->path);
    g_free(listener);
}

Server *server_new(sd_event *event, ConnSet *conns)
{
    Server *server = g_new0(Server, 1);

    server->event = event;
    server->conns = conns;
    server->listeners = g_ptr_array_new_with_free_func(server_listener_free);
    return server;
}

void server_free(Server *server, gboolean keep_paths)
{
    for (guint i = 0; keep_paths && i < server->listeners->len; i++)
        ((Listener *)g_ptr_array_index(server->listeners, i))->made = FALSE;
    g_ptr_array_unref(server->listeners);
    g_free(server);
}

static gboolean server_is_member(int fd, const struct ucred *peer, gid_t group)
{
    gid_t groups[NGROUPS_MAX];
    socklen_t len = sizeof(groups);

    if (peer->gid == group)
        return TRUE;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) < 0)
        return FALSE;
    for (size_t i = 0; i < len / sizeof(groups[0]); i++)
        if (groups[i] == group)
            return TRUE;
    return FALSE;
}

static void server_let_in(Listener *listener, int fd)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);
    gboolean owner;
    int r;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0) {
        close(fd);
        return;
    }
    owner = peer.uid == geteuid();
    if (!owner &&
        !(listener->access.group_may_read && server_is_member(fd, &peer, listener->access.group))) {
        g_message("uid %u (pid %d) may not use %s: connection closed", (unsigned)peer.uid,
                  (int)peer.pid, listener->path);
        close(fd);
        return;
    }
    r = conn_open(listener->server->conns, fd, &peer, owner, listener->protocol, listener->context);
    if (r < 0)
        g_warning("cannot serve a connection to %s: %s", listener->path, g_strerror(-r));
}

static int server_on_pause_over(sd_event_source *source, uint64_t usec, void *data)
{
    Listener *listener = data;

    (void)source;
    (void)usec;
    listener->pause = sd_event_source_disable_unref(listener->pause);
    return sd_event_source_set_enabled(listener->source, SD_EVENT_ON);
}

static void server_pause(Listener *listener, int err)
{
    g_warning("cannot accept a connection to %s: %s; raise the limit of open files", listener->path,
              g_strerror(err));
    sd_event_source_set_enabled(listener->source, SD_EVENT_OFF);
    sd_event_add_time_relative(listener->server->event, &listener->pause, CLOCK_MONOTONIC,
                               SERVER_PAUSE_USEC, 0, server_on_pause_over, listener);
}

static int server_on_connect(sd_event_source *source, int fd, uint32_t events, void *data)
{
    Listener *listener = data;

    (void)source;
    (void)events;
    for (int i = 0; i < SERVER_ACCEPT_AT_ONCE; i++) {
        int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (peer >= 0) {
            server_let_in(listener, peer);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            server_pause(listener, errno);
            return 0;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            return 0;
        }
    }
    return 0;
}

static int server_add(Server *server, int fd, const char *path, gboolean made,
                      const ServerAccess *access, const ConnProtocol *protocol, void *context)
{
    Listener *listener = g_new0(Listener, 1);
    struct stat st;
    int r;

    listener->server = server;
    listener->fd = fd;
    listener->path = g_strdup(path);
    listener->access = *access;
    listener->protocol = protocol;
    listener->context = context;
    if (made && lstat(path, &st) == 0) {
        listener->made = TRUE;
        listener->device = st.st_dev;
        listener->inode = st.st_ino;
    }
    g_ptr_array_add(server->listeners, listener);
    r = sd_event_add_io(server->event, &listener->source, fd, EPOLLIN, server_on_connect, listener);
    if (r < 0)
        g_ptr_array_remove(server->listeners, listener);
    return r;
}

/* Somebody answers at this path. */
static gboolean server_is_alive(const struct sockaddr_un *address, socklen_t len)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    gboolean alive;

    if (fd < 0)
        return TRUE; /* in doubt, nothing is taken over */
    alive = connect(fd, (const struct sockaddr *)address, len) == 0 || errno != ECONNREFUSED;
    close(fd);
    return alive;
}

/* Only a dead socket may be replaced: nothing else that happens to be at the path. */
static int server_clear_path(const struct sockaddr_un *address, socklen_t len)
{
    struct stat st;

    if (lstat(address->sun_path, &st) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(st.st_mode))
        return -EEXIST;
    if (server_is_alive(address, len))
        return -EADDRINUSE;
    return unlink(address->sun_path) < 0 && errno != ENOENT ? -errno : 0;
}

static int server_bind(int fd, const char *path, const ServerAccess *access)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1);
    mode_t mask;
    int r;

    if (strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, strlen(path) + 1);
    r = server_clear_path(&address, len);
    if (r < 0)
        return r;
    /* the socket never exists with wider rights than it is to have */
    mask = umask(0177);
    r = bind(fd, (struct sockaddr *)&address, len) < 0 ? -errno : 0;
    umask(mask);
    if (r < 0)
        return r;
    if (access->group_may_read &&
        (chown(path, (uid_t)-1, access->group) < 0 || chmod(path, 0660) < 0)) {
        r = -errno;
        unlink(path);
        return r;
    }
    return listen(fd, SOMAXCONN) < 0 ? -errno : 0;
}

int server_listen(Server *server, const char *path, const ServerAccess *access,
                  const ConnProtocol *protocol, void *context)
{
    g_autofree char *dir = g_path_get_dirname(path);
    int fd, r;

    /* private is the socket, not the directory: a group may have to get there */
    if (g_mkdir_with_parents(dir, 0755) < 0)
        return -errno;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    r = server_bind(fd, path, access);
    if (r < 0) {
        close(fd);
        return r;
    }
    r = server_add(server, fd, path, TRUE, access, protocol, context);
    return r < 0 ? r : fd;
}

int server_adopt(Server *server, int fd, gboolean made, const ServerAccess *access,
                 const ConnProtocol *protocol, void *context)
{
    struct sockaddr_un address = {0};
    socklen_t len = sizeof(address) - 1;
    int flags = fcntl(fd, F_GETFL);

    if (getsockname(fd, (struct sockaddr *)&address, &len) < 0 || flags < 0 ||
        fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
        int err = errno;

        close(fd);
        return -err;
    }
    return server_add(server, fd, address.sun_path, made, access, protocol, context);
}

gboolean server_is_at(int fd, const char *path)
{
    struct sockaddr_un address = {0};
    socklen_t len = sizeof(address) - 1;

    struct stat st;

    return lstat(path, &st) == 0 && S_ISSOCK(st.st_mode) &&
           getsockname(fd, (struct sockaddr *)&address, &len) == 0 &&
           address.sun_family == AF_UNIX && strcmp(address.sun_path, path) == 0;
}

GPtrArray *server_sockets(const Server *server)
{
    GPtrArray *all = g_ptr_array_new_with_free_func(g_free);

    for (guint i = 0; i < server->listeners->len; i++) {
        const Listener *listener = g_ptr_array_index(server->listeners, i);
        ServerSocket *entry = g_new0(ServerSocket, 1);

        entry->path = listener->path;
        entry->protocol = listener->protocol->name;
        g_ptr_array_add(all, entry);
    }
    return all;
}
