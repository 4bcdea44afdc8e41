/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The whole daemon, as main.c brings it up and down; for loop.c and sockets.c only. */
#pragma once

#include "options.h"
#include "session.h"
#include "vault.h"

typedef struct Daemon {
    Options options;
    sd_event *event;
    GPtrArray *drivers;
    GHashTable *by_name;
    Engine *engine;
    Vault *vault;
    ConnSet *conns;
    Server *server;
    SessionContext context;
    char **argv;
    char *name; /* where the name in the list of processes is, and what follows */
    gsize name_len;
    gboolean restarting; /* the next daemon goes on with all that is held */
    gboolean abandoned;  /* the keeper has ended: no more than what is held now is to be served */
    int pid_fd;
    sd_event_source *idle_timer;
    gint64 idle_since; /* monotonic, when the last connection closed */
} Daemon;

/* In sockets.c: opens every socket that the daemon serves, those of an earlier daemon and those
 * that were handed over included. FALSE if it cannot; it has been said why. */
gboolean daemon_listen(Daemon *self);

/* ---- loop.c ---------------------------------------------------------------------------- */

/* These two return 0 or a negative errno. */
int daemon_add_signals(Daemon *self);
int daemon_start_idle_timer(Daemon *self);
/* For vault_on_lost(); `data` is the daemon. */
void daemon_on_vault_lost(void *data);
/* FALSE if another thread goes on with it; otherwise it has ended with *ret_code, an exit code or a
 * negative errno. */
gboolean daemon_loop(Daemon *self, int *ret_code);
