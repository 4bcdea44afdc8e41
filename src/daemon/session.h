/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sessions: what each protocol's messages mean. A session turns decoded requests into calls of the
 * engine and their results into replies. One session a connection; state of its own is small.
 */
#pragma once

#include "conn.h"
#include "drivers-list.h"
#include "engine.h"
#include "server.h"

/* What all sessions share; outlives them. */
typedef struct SessionContext {
    Engine *engine;
    ConnSet *conns;
    Server *server;
    const char *driver_name; /* of disks and leases */
    GPtrArray *drivers;      /* of Driver */
    struct Vault *vault;
    gint64 since_usec;  /* the daemon's start */
    GQueue subscribers; /* of native-session.c */
} SessionContext;

extern const ConnProtocol native_protocol;
extern const ConnProtocol virtlockd_protocol;

/* The engine's listener that passes events to native subscribers and to the log; `data` is the
 * SessionContext. */
void session_on_event(EngineEvent event, const Lease *lease, const Owner *owner, const Fault *fault,
                      const char *text, void *data);

/* Engine.resume_connection of native connections; `data` is the SessionContext. */
void session_resume(int fd, Owner *owner, const char *name, void *data);

/* The value of query-status, of status.c: a new object. */
struct json_object *status_report(SessionContext *context);
/* How a lane is doing: "ok", "slow" or "stuck"; see there. */
const char *status_health(const LaneState *state);
/* The value of query-metrics, of metrics-report.c: a new object. */
struct json_object *metrics_report(SessionContext *context);
