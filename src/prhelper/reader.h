/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The reader: one thread that waits for requests on all connections, and deals at once with what
 * mostly takes no time. Everything else it hands to the connection's own thread (conn.h).
 *
 * Why: to wake a connection's thread for each request, and the client for each answer, has the
 * processors change between helper and client all the time. With 16 busy connections that costs
 * twice what the request itself does (docs/persistent-reservations.rst has the figures). One thread
 * that goes from request to request stays on its processor.
 *
 * What it does at once may still hang: a device that was quick a moment ago, a descriptor on a file
 * system whose server is gone. So somebody looks at it as long as it is at work. ms after a job has
 * begun that does not return:
 *
 *      0   The reader has taken a request. Others wait behind it.
 *    0-2   The main thread looks: it is at job N.
 *    2-4   It looks again: still N. A new thread becomes the reader, and goes on with whatever the
 *          old one has left. No other connection has waited for longer than that.
 *          The old one is no more than the thread of that request: when it is back, it answers,
 *          and ends. While it hangs, its gate sends others for the device to their own threads; a
 *          device that is often slow is not dealt with at once for a while (device.h).
 *
 * The main thread looks every PR_READER_LOOK_MSEC only while there are requests; after some looks
 * without any it sleeps until it is told of the next one.
 */
#pragma once

#include "prhelper.h"

G_BEGIN_DECLS

#define PR_READER_LOOK_MSEC 2

/**
 * Deals with a connection on which something has come. In the reader's thread. When it returns, the
 * connection has either been armed again, or belongs to another thread. What is of the same batch
 * (a number, not zero) had all come before the first of it was dealt with. `memory` is the thread's
 * own, all zero at first.
 */
typedef void (*PrReaderServe)(gpointer connection, guint64 batch, gpointer memory);

/** Before the first connection. `size` is that of serve()'s memory. 0 or a negative errno. */
int pr_reader_init(PrReaderServe serve, gsize size);

/** Starts the thread unless it runs. Not before the process is confined. 0 or a negative errno. */
int pr_reader_start(void);

/**
 * Waits for what comes next at the socket, once: serve() is called then, and not again until the
 * connection is armed again. It must not be touched after the call. The first time with `is_new`.
 * Returns 0 or a negative errno. Any thread.
 */
int pr_reader_arm(int socket, gpointer connection, gboolean is_new);

/**
 * For the main thread: the descriptor becomes readable when the reader has something to do after a
 * time of rest. Then pr_reader_watch() wants to be called every PR_READER_LOOK_MSEC until it
 * returns FALSE.
 */
int pr_reader_watch_fd(void);
gboolean pr_reader_watch(void);

G_END_DECLS
