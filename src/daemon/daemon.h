/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The whole daemon, as main.c brings it up and down; shared with sockets.c only. */
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
