/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Connections: bytes in, bytes out, one message at a time. A protocol plugs in with three
 * functions. Nothing here knows what the bytes mean.
 *
 * Bounded: a connection keeps at most one message and what is being sent; all connections
 * together keep at most CONN_MAX_BUFFERED bytes of unfinished messages, beyond which the one that
 * keeps most is closed. While a connection waits for the answer to a message, or does not read its
 * answers, nothing is read from it.
 */
#pragma once

#include <glib.h>
#include <sys/socket.h>
#include <systemd/sd-event.h>

typedef struct Conn Conn;
typedef struct ConnSet ConnSet;

typedef struct ConnProtocol {
    const char *name;
    /* The peer has been let in. */
    void (*opened)(Conn *conn);
    /* Looks for a message at the beginning of `data`: returns its length once it has been dealt
     * with, 0 if more bytes are needed, -1 if this cannot become a message (the connection is
     * closed once what was sent is gone). A message whose answer comes later calls conn_wait(). */
    gssize (*message)(Conn *conn, const guint8 *data, gsize len);
    /* The connection is about to go; conn->data is the protocol's to free. */
    void (*closed)(Conn *conn);
} ConnProtocol;

struct Conn {
    ConnSet *set;
    const ConnProtocol *protocol;
    int fd;
    struct ucred peer;
    gboolean may_write; /* may change things, not only look */
    void *context;      /* what the protocol was given for all connections */
    void *data;         /* of the protocol, for this connection */
    /* of conn.c */
    uint32_t events; /* what is waited for */
    GByteArray *in;  /* NULL when empty: most connections are idle */
    GByteArray *out;
    gsize out_sent;
    gsize peeked; /* bytes that have been read and are still in the socket */
    GList peeked_link;
    gboolean waiting;
    gboolean processing;
    gboolean ended;   /* the peer will send no more */
    gboolean closing; /* to be closed when `out` is sent */
    GList link;
};

#define CONN_MAX_BUFFERED (64 * 1024 * 1024)
/* What may wait for a client that does not read, beyond the answer to its own question. */
#define CONN_MAX_UNREAD (1024 * 1024)

/* Returns 0 or a negative errno. */
int conn_set_new(sd_event *event, ConnSet **ret_set);
/* Sleeps until something is ready, or so long at most; -1 is for ever. Returns what is, or-ed: */
int conn_set_wait(ConnSet *set, int timeout_msec);
#define CONN_READY 1      /* connections, see conn_set_serve() */
#define CONN_LOOP_READY 2 /* sources of the event loop that the set was made with */
/* Deals with the connections that conn_set_wait() has found. */
void conn_set_serve(ConnSet *set);
/* TRUE if a single connection may be about to speak: the same has done so the last two times, or it
 * is new. `ready` is what conn_set_wait() said before. */
gboolean conn_set_has_one_speaker(ConnSet *set, int ready);
/* Closes all connections. */
void conn_set_free(ConnSet *set);
/* The one that was opened last. */
Conn *conn_set_newest(ConnSet *set);
guint conn_set_count(const ConnSet *set);
/* Called whenever a connection has gone. */
void conn_set_on_closed(ConnSet *set, void (*func)(void *data), void *data);

/* Takes the descriptor over. Returns 0 or a negative errno. */
int conn_open(ConnSet *set, int fd, const struct ucred *peer, gboolean may_write,
              const ConnProtocol *protocol, void *context);
/* Queues bytes to be sent. */
void conn_send(Conn *conn, const void *data, gsize len);
/* The same for what the client has not asked for just now: a client that does not read is cut off,
 * and FALSE returned. */
gboolean conn_send_unasked(Conn *conn, const void *data, gsize len);
/* The answer to the current message comes later: no further message until conn_resume(). */
void conn_wait(Conn *conn);
void conn_resume(Conn *conn);
/* Closes once everything is sent. */
void conn_close(Conn *conn);
