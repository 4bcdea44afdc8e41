/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What native-session.c and native-commands.c share; for no other file. */
#pragma once

#include "protocol/native.h"
#include "session.h"

typedef struct Session {
    Conn *conn;
    SessionContext *context;
    NativeRequest request;   /* the one that is being answered */
    Acquire *acquire;        /* under way, or NULL */
    struct Pending *pending; /* other work under way, or NULL */
    GPtrArray *kept;   /* of char *: this connection's names in the vault, one for each owner */
    GPtrArray *owners; /* that last until this connection closes; of Owner, with references */
    gboolean subscribed;
    GPtrArray *events; /* names, or NULL for all */
    GList link;        /* in the context's subscribers */
} Session;

/* Work whose answer comes later. The session may go first. */
typedef struct Pending {
    Session *session;
    Owner *owner;
    Engine *engine;
    guint count;
} Pending;

typedef struct Command {
    const char *name;
    gboolean full;
    guint takes;
    void (*run)(Session *session, const NativeArguments *arguments);
} Command;

/* ---- native-session.c ------------------------------------------------------------------ */

/* Answers the current request; take `value` over. */
void session_return(Session *session, json_object *value);
void session_return_leases(Session *session, GPtrArray *leases);
void session_error(Session *session, const Fault *fault);
/* The owner's leases last until this connection is closed; `name` is what the vault has it under,
 * NULL if it is to be stored. */
void session_keep_owner(Session *session, Owner *owner, const char *name);
const char *session_host(const Session *session);
gboolean session_known_event(const char *name);
/* All names of events, for people; the caller frees it. */
char *session_all_events(void);
void session_start_events(Session *session, GPtrArray *names);
void session_stop_events(Session *session);

/* ---- native-commands.c ----------------------------------------------------------------- */

/* The command of that name, or NULL. */
const Command *session_command(const char *name);
