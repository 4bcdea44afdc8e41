/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The listening socket: made at a path, or handed over by systemd. */
#pragma once

#include <glib.h>
#include <sys/types.h>

G_BEGIN_DECLS

typedef struct PrListener {
    int fd;       /**< non-blocking; -1: none */
    char *path;   /**< NULL: handed over, and to be left alone at the end */
    dev_t device; /**< of what was made at `path` */
    ino_t inode;
} PrListener;

/**
 * How many sockets were handed over to this process (sd_listen_fds(3)); the first is descriptor 3.
 * The environment is cleared of them. Before a fork, and once.
 */
guint pr_listen_handed_over(void);

/**
 * Takes the handed-over socket. FALSE with a sentence in `ret_error` when it is no listening unix
 * stream socket.
 */
gboolean pr_listen_adopt(PrListener *ret_listener, char **ret_error);

/**
 * Makes a socket at `path`. One that somebody serves is never taken over, and neither is a file
 * that is no socket; what a helper left that has died is replaced. FALSE with a sentence.
 */
gboolean pr_listen_make(const char *path, PrListener *ret_listener, char **ret_error);

/** Stops listening, and removes the path if it still is what was made. */
void pr_listen_close(PrListener *listener);

G_END_DECLS
