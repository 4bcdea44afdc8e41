/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Connections, each with a thread of its own.
 *
 * Why threads and no event loop: a command is one ioctl that may take for ever, so each needs a
 * thread in any case; a thread that also reads the request and sends the answer spares two
 * hand-overs a command, which cost more than all else (measured: they are what qemu-pr-helper
 * spends its time on). For what is mostly over at once, reading from a device that is quick, even
 * one is too many: the reader (reader.h) deals with that, and wakes the connection's thread only
 * for the rest. A client sends one request at a time, so a connection never has two commands. What
 * a peer can make block (its descriptor's file system, a socket it does not read) blocks its own
 * thread, or one that is no longer the reader. A connection's state belongs to whoever deals with
 * its request: the reader, once it is armed, and its thread, once it has been given its turn. What
 * is shared (the list of connections, the gates, the known devices) is a list with a mutex that is
 * never held while anything blocks.
 *
 * An idle connection costs two or three pages of memory.
 */
#pragma once

#include "prhelper.h"

G_BEGIN_DECLS

/**
 * Before the first connection; `config` has to outlive all of them. `limit` of them at once.
 * Returns 0 or a negative errno.
 */
int pr_conns_init(const PrConfig *config, guint limit);

/** Serves the connected socket, which is taken over. 0 or a negative errno (it is closed then). */
int pr_conns_add(int socket);

/** How many there are. */
guint pr_conns_count(void);

/**
 * The end, orderly. No connection takes a request from now on; a request that was sent before is
 * carried out and answered, for at most `msec`. A peer that sends afterwards gets EPIPE, upon which
 * QEMU connects again and repeats the request. Returns the number of connections left, whose
 * commands have not returned; their sockets are shut.
 */
guint pr_conns_finish(guint msec);

G_END_DECLS
