/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * See conn.h. A request is read byte by byte as it comes: half of one waits for the other half, as
 * long as the peer lives. What the protocol does not allow closes the connection without an answer,
 * in the same cases as with qemu-pr-helper.
 */
#define G_LOG_DOMAIN "holdfast.pr"

#include "conn.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "dispatch.h"
#include "peer.h"
#include "reader.h"
#include "thread.h"
#include "wire.h"

/* One is allowed, a second is noticed; the kernel closes those that do not fit. */
#define CONN_FDS 2

/*
 * The end of the helper, in ms after pr_conns_finish() was called. QEMU sends a command that
 * changes something in two parts, the CDB and then the parameters, and tells its guest of an error
 * if only the first one could be sent. If not even that could it connects again, to the next
 * helper, and repeats it. So:
 *
 *      0   Connections on which no request has begun to come are shut for reading: the next CDB
 *          goes to the next helper.
 *      0   On the others the request is read to its end. Of QEMU's two writes the second one
 *          follows within microseconds, or later on a host that has no processor to spare. When
 *          it is answered, the connection is shut as the ones above.
 *   1000   CONN_HALF_MSEC: who still has sent only half is shut as well, without an answer.
 *   3000   The caller's limit for commands under way (main.c). It is 25000 for a service, which
 *          systemd ends after 30000 (TimeoutStopSec=).
 *
 * What is left is a CDB that comes between the look at a connection and its shutdown(): less than
 * the time that one system call takes.
 */
#define CONN_HALF_MSEC 1000

typedef struct PrConn {
    struct PrConn *next, *before;
    int socket;
    int fd; /* what came with the request that is being read; -1: nothing yet */
    /* a request has come in part; set by whoever reads it, looked at by the one that ends all */
    atomic_bool half;
    /* from the reader to the connection's thread: it has got as much of a request as is said here
     */
    sem_t turn;
    uint8_t cdb[PR_CDB_BYTES];
    gsize got;
    gboolean over; /* the peer has gone, or said what the protocol does not allow */
    PrPeer peer;
} PrConn;

static struct {
    const PrConfig *config;
    guint limit;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    PrConn *first;
    guint count;
    atomic_bool ending;
} conns = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- bytes ----------------------------------------------------------------------------- */

/* Takes over what a message brought, if `wanted`; else it is closed. FALSE: too many descriptors
 * for one request. */
static gboolean conn_take_fds(PrConn *conn, struct msghdr *message, gboolean wanted)
{
    gboolean fine = !wanted || (message->msg_flags & MSG_CTRUNC) == 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        int fds[CONN_FDS];
        gsize n;

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        n = MIN((c->cmsg_len - CMSG_LEN(0)) / sizeof(int), (gsize)CONN_FDS);
        memcpy(fds, CMSG_DATA(c), n * sizeof(int));
        for (gsize i = 0; i < n; i++) {
            if (wanted && conn->fd < 0) {
                conn->fd = fds[i];
            } else {
                close(fds[i]);
                fine = fine && !wanted;
            }
        }
    }
    return fine;
}

/* What there is, up to `len` bytes, and the descriptor that comes with them, if one is wanted here:
 * that is the begin of a request. As recvmsg(2). */
static ssize_t conn_receive(PrConn *conn, void *bytes, gsize len, gboolean with_fd, int flags)
{
    union {
        char space[CMSG_SPACE(CONN_FDS * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = {.iov_base = bytes, .iov_len = len};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    ssize_t n;

    do
        n = recvmsg(conn->socket, &message, MSG_CMSG_CLOEXEC | flags);
    while (n < 0 && errno == EINTR);
    if (n < 0) /* the memory for descriptors says nothing then */
        return n;
    if (n > 0 && with_fd)
        atomic_store_explicit(&conn->half, true, memory_order_relaxed);
    return conn_take_fds(conn, &message, with_fd) ? n : 0;
}

/* Exactly `len` bytes. */
static gboolean conn_read(PrConn *conn, void *bytes, gsize len, gboolean with_fd)
{
    gsize done = 0;

    while (done < len) {
        ssize_t n = conn_receive(conn, (char *)bytes + done, len - done, with_fd, 0);

        if (n <= 0)
            return FALSE;
        done += (gsize)n;
    }
    return TRUE;
}

static gboolean conn_write(PrConn *conn, struct iovec *iov, gsize n_iov)
{
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = n_iov};

    while (message.msg_iovlen > 0) {
        ssize_t n = sendmsg(conn->socket, &message, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return FALSE;
        while (message.msg_iovlen > 0 && (gsize)n >= message.msg_iov->iov_len) {
            n -= (ssize_t)message.msg_iov->iov_len;
            message.msg_iov++;
            message.msg_iovlen--;
        }
        if (message.msg_iovlen > 0) {
            message.msg_iov->iov_base = (char *)message.msg_iov->iov_base + n;
            message.msg_iov->iov_len -= (gsize)n;
        }
    }
    return TRUE;
}

/* ---- one request ----------------------------------------------------------------------- */

static void conn_drop_fd(PrConn *conn)
{
    if (conn->fd >= 0)
        close(conn->fd);
    conn->fd = -1;
}

static gboolean conn_greet(PrConn *conn)
{
    static const uint8_t none[PR_WIRE_FEATURES_BYTES];
    uint8_t features[PR_WIRE_FEATURES_BYTES] = {0};
    struct iovec iov = {.iov_base = features, .iov_len = sizeof(features)};

    if (!conn_write(conn, &iov, 1) || !conn_read(conn, features, sizeof(features), FALSE))
        return FALSE;
    /* no feature is known; a client that needs one would be misunderstood */
    return memcmp(features, none, sizeof(none)) == 0;
}

/* No further request is read, unless one has begun to come. */
static void conn_stop_reading(PrConn *conn)
{
    char byte;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

    /* without room for a descriptor, of which a look would make a copy */
    if (recvmsg(conn->socket, &message, MSG_PEEK | MSG_DONTWAIT) <= 0 &&
        !atomic_load_explicit(&conn->half, memory_order_relaxed))
        shutdown(conn->socket, SHUT_RD);
}

/* For what comes next, by the reader. FALSE: the connection is over. The thread that calls it must
 * not touch the connection afterwards, unless it is the connection's own and waits for its turn. */
static gboolean conn_arm(PrConn *conn, gboolean is_new)
{
    if (atomic_load_explicit(&conns.ending, memory_order_relaxed))
        conn_stop_reading(conn);
    return pr_reader_arm(conn->socket, conn, is_new) == 0;
}

/* What the reader has begun to read, to its end. */
static gboolean conn_read_request(PrConn *conn, PrCommand *command, uint8_t *parameters)
{
    if (conn->over || !conn_read(conn, conn->cdb + conn->got, PR_CDB_BYTES - conn->got, TRUE) ||
        conn->fd < 0)
        return FALSE;
    if (!pr_wire_read_cdb(conn->cdb, command) ||
        !conn_read(conn, parameters, pr_wire_parameters(command), FALSE))
        return FALSE;
    command->fd = conn->fd;
    command->data = parameters;
    command->peer = &conn->peer;
    atomic_store_explicit(&conn->half, false, memory_order_relaxed);
    return TRUE;
}

static gboolean conn_write_reply(PrConn *conn, const PrReply *reply)
{
    uint8_t head[PR_WIRE_REPLY_BYTES];
    struct iovec iov[] = {{.iov_base = head, .iov_len = sizeof(head)},
                          {.iov_base = reply->data, .iov_len = reply->size}};

    pr_wire_write_reply(reply, head);
    return conn_write(conn, iov, reply->size > 0 ? 2 : 1);
}

/* The connection's own thread: what the reader has left to it. */
static void conn_serve(PrConn *conn)
{
    uint8_t data[SPC_LIST_MAX]; /* of a request, or of its answer */
    gboolean is_new = TRUE;
    PrCommand command;

    while (conn_arm(conn, is_new)) {
        PrReply reply = {.data = data};

        is_new = FALSE;
        while (sem_wait(&conn->turn) < 0)
            ; /* EINTR */
        if (!conn_read_request(conn, &command, data))
            break;
        pr_dispatch(conns.config, conn->socket, &command, &reply);
        /* before the answer: when the client has it, the helper has let go of the device */
        conn_drop_fd(conn);
        if (!conn_write_reply(conn, &reply))
            break;
    }
}

static void conn_hand_over(PrConn *conn, gsize got, gboolean over)
{
    conn->got = got;
    conn->over = over;
    sem_post(&conn->turn);
}

/* In the reader's thread: a request that can be dealt with at once is, else its own thread gets it.
 */
static void conn_take(gpointer data, guint64 batch, gpointer memory)
{
    PrConn *conn = data;
    PrCommand command;
    PrReply reply;
    ssize_t n = conn_receive(conn, conn->cdb, PR_CDB_BYTES, TRUE, MSG_DONTWAIT);

    if (n < PR_CDB_BYTES || conn->fd < 0 || !pr_wire_read_cdb(conn->cdb, &command)) {
        const gboolean again = n < 0 && errno == EAGAIN;

        conn_hand_over(conn, n > 0 ? (gsize)n : 0, n <= 0 && !again);
        return;
    }
    command.fd = conn->fd;
    command.peer = &conn->peer;
    if (!pr_dispatch_at_once(conns.config, conn->socket, &command, batch, memory, &reply)) {
        conn_hand_over(conn, PR_CDB_BYTES, FALSE);
        return;
    }
    atomic_store_explicit(&conn->half, false, memory_order_relaxed);
    conn_drop_fd(conn);
    if (!conn_write_reply(conn, &reply) || !conn_arm(conn, FALSE))
        conn_hand_over(conn, 0, TRUE);
}

/* ---- the list -------------------------------------------------------------------------- */

static void conns_unlink(PrConn *conn)
{
    if (conn->before)
        conn->before->next = conn->next;
    else
        conns.first = conn->next;
    if (conn->next)
        conn->next->before = conn->before;
    conns.count--;
}

/* Only here is a socket closed: as long as a connection is in the list, others may shut it. */
static void conn_free(PrConn *conn)
{
    conn_drop_fd(conn);
    pr_policy_forget_peer(conns.config->policy, &conn->peer);
    pr_peer_clear(&conn->peer);
    pthread_mutex_lock(&conns.lock);
    conns_unlink(conn);
    close(conn->socket);
    sem_destroy(&conn->turn);
    g_free(conn);
    pthread_cond_signal(&conns.ended);
    pthread_mutex_unlock(&conns.lock);
}

static void *conn_run(void *data)
{
    PrConn *conn = data;
    int r = pr_peer_read(conn->socket, &conn->peer);

    if (r < 0)
        g_warning("a connection without a peer is closed: %s", g_strerror(-r));
    else if (conn_greet(conn))
        conn_serve(conn);
    conn_free(conn);
    return NULL;
}

int pr_conns_init(const PrConfig *config, guint limit)
{
    pthread_condattr_t clock;

    conns.config = config;
    conns.limit = limit;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&conns.ended, &clock);
    pthread_condattr_destroy(&clock);
    return pr_reader_init(conn_take, sizeof(PrShared));
}

int pr_conns_add(int socket)
{
    PrConn *conn;
    int r = pr_reader_start();

    pthread_mutex_lock(&conns.lock);
    if (r == 0)
        r = conns.count < conns.limit ? 0 : -EMFILE;
    if (r == 0) {
        conn = g_new0(PrConn, 1);
        conn->socket = socket;
        conn->fd = -1;
        sem_init(&conn->turn, 0, 0);
        conn->peer.pidfd = -1;
        conn->next = conns.first;
        if (conn->next)
            conn->next->before = conn;
        conns.first = conn;
        conns.count++;
        r = pr_thread_start(conn_run, conn);
        if (r < 0) {
            conns_unlink(conn);
            sem_destroy(&conn->turn);
            g_free(conn);
        }
    }
    pthread_mutex_unlock(&conns.lock);
    if (r < 0)
        close(socket);
    return r;
}

guint pr_conns_count(void)
{
    guint count;

    pthread_mutex_lock(&conns.lock);
    count = conns.count;
    pthread_mutex_unlock(&conns.lock);
    return count;
}

/* With the lock, which the wait lets go: until there are none, or the time is over. */
static void conns_wait(gint64 until_usec)
{
    gint64 now;

    while (conns.first && (now = g_get_monotonic_time()) < until_usec) {
        const gint64 next = MIN(until_usec, now + PR_READER_LOOK_MSEC * G_TIME_SPAN_MILLISECOND);
        const struct timespec when = {.tv_sec = next / G_USEC_PER_SEC,
                                      .tv_nsec = next % G_USEC_PER_SEC * 1000};

        pthread_cond_timedwait(&conns.ended, &conns.lock, &when);
        pr_reader_watch();
    }
}

guint pr_conns_finish(guint msec)
{
    const gint64 begin = g_get_monotonic_time();
    guint left;

    pthread_mutex_lock(&conns.lock);
    atomic_store(&conns.ending, true);
    for (PrConn *conn = conns.first; conn; conn = conn->next)
        conn_stop_reading(conn);
    conns_wait(begin + CONN_HALF_MSEC * G_TIME_SPAN_MILLISECOND);
    /* What the peer has sent already can still be read (unix(7) sockets end after their queue). */
    for (PrConn *conn = conns.first; conn; conn = conn->next)
        shutdown(conn->socket, SHUT_RD);
    conns_wait(begin + msec * G_TIME_SPAN_MILLISECOND);
    /* A process with a command that never returns does not end, nor do its sockets: say it here. */
    for (PrConn *conn = conns.first; conn; conn = conn->next)
        shutdown(conn->socket, SHUT_RDWR);
    left = conns.count;
    pthread_mutex_unlock(&conns.lock);
    return left;
}
