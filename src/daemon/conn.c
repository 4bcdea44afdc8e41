/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See conn.h. */
#define G_LOG_DOMAIN "holdfast.conn"

#include "conn.h"

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#define CONN_READ_BYTES (64 * 1024)

/* Dealt with in one turn of the loop, so that timers and owners' ends are not kept waiting. */
#define CONN_AT_ONCE 64

/* All connections are in an epoll of their own: sd-event looks at all that are ready before each
 * one that it serves, so that n of them would cost n * n. And it is this epoll in which the loop
 * sleeps, with sd-event's own as one of its members, not the other way round: a client that sends
 * and then waits wakes whoever sleeps for its connection on its own processor, which is much faster
 * than another one, but only if there is no second epoll in between. */
struct ConnSet {
    int epoll;
    struct epoll_event ready[CONN_AT_ONCE]; /* of these the connections are still to be served */
    int n_ready;
    const Conn *speaker; /* one that was served last; only to be compared */
    gboolean again;      /* and before that, and alone */
    guint opened;        /* connections that were opened since the last look */
    GQueue conns;
    GQueue peeked;  /* of Conn: what they sent has been read, but is still in the socket */
    gsize buffered; /* bytes of unfinished messages of all connections */
    void (*closed)(void *data);
    void *closed_data;
};

static void conn_on_io(Conn *conn, uint32_t events);

int conn_set_new(sd_event *event, ConnSet **ret_set)
{
    ConnSet *set = g_new0(ConnSet, 1);
    struct epoll_event loop = {.events = EPOLLIN};
    int r;

    set->epoll = epoll_create1(EPOLL_CLOEXEC);
    r = set->epoll < 0 ? -errno : 0;
    if (r == 0 && epoll_ctl(set->epoll, EPOLL_CTL_ADD, sd_event_get_fd(event), &loop) < 0)
        r = -errno;
    if (r < 0) {
        conn_set_free(set);
        return r;
    }
    *ret_set = set;
    return 0;
}

Conn *conn_set_newest(ConnSet *set)
{
    return g_queue_peek_tail(&set->conns);
}

guint conn_set_count(const ConnSet *set)
{
    return g_queue_get_length((GQueue *)&set->conns);
}

void conn_set_on_closed(ConnSet *set, void (*func)(void *data), void *data)
{
    set->closed = func;
    set->closed_data = data;
}

/* Takes out of the socket what has been read. Only now, after the answer is sent: the kernel wakes
 * a client that sleeps in recv() when its request is taken out, to no avail, and on another
 * processor that delays the answer by half. */
static void conn_settle(Conn *conn)
{
    guint8 buffer[CONN_READ_BYTES];

    if (conn->peeked == 0)
        return;
    while (recv(conn->fd, buffer, conn->peeked, MSG_DONTWAIT) < 0 && errno == EINTR)
        ;
    conn->peeked = 0;
    g_queue_unlink(&conn->set->peeked, &conn->peeked_link);
}

int conn_set_wait(ConnSet *set, int timeout_msec)
{
    int result = 0, n;

    while (set->peeked.head) /* in any case before it is read again */
        conn_settle(set->peeked.head->data);
    n = epoll_wait(set->epoll, set->ready, CONN_AT_ONCE, timeout_msec);
    set->n_ready = MAX(n, 0);
    for (int i = 0; i < set->n_ready; i++)
        result |= set->ready[i].data.ptr ? CONN_READY : CONN_LOOP_READY;
    return result;
}

gboolean conn_set_has_one_speaker(ConnSet *set, int ready)
{
    guint opened = set->opened;

    set->opened = 0;
    return ready & CONN_READY ? set->again : opened == 1;
}

void conn_set_serve(ConnSet *set)
{
    const Conn *first = NULL;
    guint n = 0;

    for (int i = 0; i < set->n_ready; i++) {
        first = set->ready[i].data.ptr ? set->ready[i].data.ptr : first;
        n += set->ready[i].data.ptr != NULL;
    }
    set->again = n == 1 && first == set->speaker;
    set->speaker = first;
    for (int i = 0; i < set->n_ready; i++)
        if (set->ready[i].data.ptr)
            conn_on_io(set->ready[i].data.ptr, set->ready[i].events);
    set->n_ready = 0;
}

static void conn_forget_ready(const Conn *conn)
{
    for (int i = 0; i < conn->set->n_ready; i++)
        if (conn->set->ready[i].data.ptr == conn)
            conn->set->ready[i].data.ptr = NULL;
}

static void conn_free(Conn *conn)
{
    ConnSet *set = conn->set;

    conn_settle(conn);
    conn->protocol->closed(conn);
    conn_forget_ready(conn);
    /* closing alone would not take it out of the epoll if a child had the descriptor */
    epoll_ctl(set->epoll, EPOLL_CTL_DEL, conn->fd, NULL);
    close(conn->fd);
    if (conn->in) {
        set->buffered -= conn->in->len;
        g_byte_array_unref(conn->in);
    }
    if (conn->out)
        g_byte_array_unref(conn->out);
    g_queue_unlink(&set->conns, &conn->link);
    g_free(conn);
    if (set->closed)
        set->closed(set->closed_data);
}

void conn_set_free(ConnSet *set)
{
    set->closed = NULL;
    while (set->conns.head)
        conn_free(set->conns.head->data);
    if (set->epoll >= 0)
        close(set->epoll);
    g_free(set);
}

static void conn_want(Conn *conn, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = conn};

    if (events == conn->events)
        return;
    conn->events = events;
    epoll_ctl(conn->set->epoll, EPOLL_CTL_MOD, conn->fd, &event);
}

/* What to wait for; a hang-up is always reported. While an answer is on its way, more input is left
 * where it is, but to say so costs a system call each time: that is done only if some comes. */
static void conn_update(Conn *conn)
{
    uint32_t events = 0;

    if (conn->out)
        events |= EPOLLOUT;
    else if (conn->waiting)
        events |= conn->events & EPOLLIN;
    else if (!conn->ended && !conn->closing)
        events |= EPOLLIN;
    conn_want(conn, events);
}

/* FALSE if the peer is gone. */
static gboolean conn_flush(Conn *conn)
{
    while (conn->out) {
        ssize_t n = send(conn->fd, conn->out->data + conn->out_sent,
                         conn->out->len - conn->out_sent, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        conn->out_sent += (gsize)n;
        if (conn->out_sent == conn->out->len) {
            g_clear_pointer(&conn->out, g_byte_array_unref);
            conn->out_sent = 0;
        }
    }
    return TRUE;
}

void conn_send(Conn *conn, const void *data, gsize len)
{
    if (!conn->out) { /* mostly there is room for all of it */
        ssize_t n = send(conn->fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n == (ssize_t)len) {
            conn_update(conn);
            return;
        }
        data = (const guint8 *)data + MAX(n, 0);
        len -= (gsize)MAX(n, 0);
    }
    if (!conn->out)
        conn->out = g_byte_array_new();
    /* a client that is always a little behind: what it has read is not kept */
    if (conn->out_sent > CONN_READ_BYTES && conn->out_sent > conn->out->len / 2) {
        g_byte_array_remove_range(conn->out, 0, (guint)conn->out_sent);
        conn->out_sent = 0;
    }
    g_byte_array_append(conn->out, data, (guint)len);
    /* when the peer is gone its hang-up arrives as an event, which closes the connection */
    conn_flush(conn);
    conn_update(conn);
}

gboolean conn_send_unasked(Conn *conn, const void *data, gsize len)
{
    if (conn->out && conn->out->len - conn->out_sent > CONN_MAX_UNREAD) {
        g_message("pid %d does not read its events: closing its connection", (int)conn->peer.pid);
        shutdown(conn->fd, SHUT_RDWR);
        return FALSE;
    }
    conn_send(conn, data, len);
    return TRUE;
}

void conn_close(Conn *conn)
{
    conn->closing = TRUE;
    if (!conn->out)
        shutdown(conn->fd, SHUT_RDWR); /* the event of the hang-up closes it */
    conn_update(conn);
}

void conn_wait(Conn *conn)
{
    conn->waiting = TRUE;
}

static void conn_drop_input(Conn *conn, gsize len)
{
    conn->set->buffered -= len;
    if (len == conn->in->len)
        g_clear_pointer(&conn->in, g_byte_array_unref);
    else
        g_byte_array_remove_range(conn->in, 0, (guint)len);
}

/* Deals with the messages that are there, until one has to wait. */
static void conn_process(Conn *conn)
{
    gsize used = 0;

    if (conn->processing)
        return;
    conn->processing = TRUE;
    /* not while an answer is still on its way: who asks without reading gets no more answers */
    while (conn->in && used < conn->in->len && !conn->waiting && !conn->closing && !conn->out) {
        gssize n = conn->protocol->message(conn, conn->in->data + used, conn->in->len - used);

        if (n < 0)
            conn->closing = TRUE;
        if (n <= 0)
            break;
        used += (gsize)n;
    }
    if (used > 0)
        conn_drop_input(conn, used);
    conn->processing = FALSE;
    conn_update(conn);
}

/* FALSE if there is nothing more to do for this connection. */
static gboolean conn_is_needed(const Conn *conn)
{
    if (conn->out || conn->waiting)
        return TRUE;
    return !conn->closing && !conn->ended;
}

void conn_resume(Conn *conn)
{
    conn->waiting = FALSE;
    conn_process(conn);
    if (!conn->processing && !conn_is_needed(conn))
        shutdown(conn->fd, SHUT_RDWR);
}

/* The connections keep too much: the one that keeps the most has to go, not the one that comes just
 * now. */
static void conn_drop_greediest(ConnSet *set)
{
    Conn *greediest = NULL;

    for (GList *link = set->conns.head; link; link = link->next) {
        Conn *conn = link->data;

        if (conn->in && !conn->processing && (!greediest || conn->in->len > greediest->in->len))
            greediest = conn;
    }
    if (!greediest)
        return;
    g_warning(
        "too many unfinished messages: closing the connection of pid %d, which keeps %u bytes",
        (int)greediest->peer.pid, greediest->in->len);
    conn_drop_input(greediest, greediest->in->len);
    greediest->closing = TRUE;
    shutdown(greediest->fd, SHUT_RDWR); /* the event of the hang-up frees it */
    conn_update(greediest);
}

/* FALSE if the connection is to be closed at once. */
static gboolean conn_read(Conn *conn)
{
    guint8 buffer[CONN_READ_BYTES];
    ssize_t n = recv(conn->fd, buffer, sizeof(buffer), MSG_DONTWAIT | MSG_PEEK);

    if (n > 0) {
        conn->peeked = (gsize)n;
        g_queue_push_tail_link(&conn->set->peeked, &conn->peeked_link);
    } else if (n < 0 && errno == EAGAIN) {
        /* a byte sent out of band, which cannot be looked at: it is dropped when what comes after
         * it is read, see unix(7); otherwise it would be announced for ever */
        n = recv(conn->fd, buffer, sizeof(buffer), MSG_DONTWAIT);
    }
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    if (n == 0) {
        conn->ended = TRUE;
        return TRUE;
    }
    if (!conn->in)
        conn->in = g_byte_array_new();
    g_byte_array_append(conn->in, buffer, (guint)n);
    conn->set->buffered += (gsize)n;
    if (conn->set->buffered > CONN_MAX_BUFFERED)
        conn_drop_greediest(conn->set);
    return TRUE;
}

static void conn_on_io(Conn *conn, uint32_t events)
{
    gboolean alive = TRUE;

    if ((events & EPOLLIN) && conn->waiting) {
        conn_want(conn, conn->events & ~(uint32_t)EPOLLIN);
        events &= ~(uint32_t)EPOLLIN;
    }
    if (events & EPOLLIN)
        alive = conn_read(conn);
    if (alive && (events & EPOLLOUT))
        alive = conn_flush(conn);
    if (alive)
        conn_process(conn);
    /* after a hang-up nobody reads an answer; what was readable has been dealt with */
    if ((events & (EPOLLHUP | EPOLLERR)) && !(events & EPOLLIN))
        alive = FALSE;
    if (!alive || !conn_is_needed(conn))
        conn_free(conn);
    else
        conn_update(conn);
}

int conn_open(ConnSet *set, int fd, const struct ucred *peer, gboolean may_write,
              const ConnProtocol *protocol, void *context)
{
    Conn *conn = g_new0(Conn, 1);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = conn};

    conn->set = set;
    conn->protocol = protocol;
    conn->fd = fd;
    conn->peer = *peer;
    conn->may_write = may_write;
    conn->context = context;
    conn->link.data = conn;
    conn->peeked_link.data = conn;
    if (epoll_ctl(set->epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
        int err = errno;

        close(fd);
        g_free(conn);
        return -err;
    }
    conn->events = EPOLLIN;
    g_queue_push_tail_link(&set->conns, &conn->link);
    set->opened++;
    protocol->opened(conn);
    return 0;
}
