/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What virtlockd-session.c and virtlockd-answers.c share; for no other file. */
#pragma once

#include "protocol/virtlockd-codec.h"
#include "session.h"

typedef struct Peer {
    Conn *conn;
    SessionContext *context;
    Owner *owner;      /* NULL until registered with an id other than 0 */
    gboolean is_owner; /* the peer is the VM's own process */
    gboolean restricted;
    gboolean refused;     /* the last call was an acquire that somebody else was in the way of */
    GPtrArray *fresh;     /* of Resource: newly taken on this connection */
    VirtlockdHeader call; /* the one that is being answered */
    VirtlockdArgs args;
    Acquire *acquire;      /* under way, or NULL */
    struct PeerWork *work; /* other work under way, or NULL */
} Peer;

/* ---- virtlockd-answers.c ---------------------------------------------------------------- */

/* Each answers the peer's current call. */
void peer_ok(Peer *peer);
void peer_error(Peer *peer, VirtlockdCode code, gint32 domain, int err, const char *format, ...)
    G_GNUC_PRINTF(5, 6);
void peer_no_space(Peer *peer);
void peer_fault(Peer *peer, const Fault *fault);
