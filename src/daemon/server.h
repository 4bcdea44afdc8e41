/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The listening sockets: made here or handed over by systemd, and who is let in. It knows which
 * protocol a socket is for, and nothing of what is spoken.
 */
#pragma once

#include "conn.h"

typedef struct Server Server;

/* Who may connect to a socket. The daemon's own user always may do everything. */
typedef struct ServerAccess {
    gboolean group_may_read;
    gid_t group;
} ServerAccess;

typedef struct ServerSocket {
    const char *path;
    const char *protocol;
} ServerSocket;

Server *server_new(sd_event *event, ConnSet *conns);
/* Closes the sockets, and removes the paths that it made unless the next daemon goes on with them.
 */
void server_free(Server *server, gboolean keep_paths);

/* Binds and listens at `path`, which may be a socket that nobody listens to any more; its directory
 * is made if missing. Returns the descriptor, which stays the server's, or a negative errno:
 * -EADDRINUSE if another daemon listens. */
int server_listen(Server *server, const char *path, const ServerAccess *access,
                  const ConnProtocol *protocol, void *context);
/* The same for a listening descriptor that was handed over, which it takes over, also when it
 * fails; `made` if its path is ours to remove in the end. */
int server_adopt(Server *server, int fd, gboolean made, const ServerAccess *access,
                 const ConnProtocol *protocol, void *context);
/* TRUE if the descriptor is a socket that is bound to this path. */
gboolean server_is_at(int fd, const char *path);
/* All sockets: a new array of ServerSocket, freed with the array; strings are borrowed. */
GPtrArray *server_sockets(const Server *server);
