/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who is at the other end of a connection. */
#pragma once

#include "prhelper.h"

G_BEGIN_DECLS

/**
 * Fills `ret_peer` for the connected socket. What cannot be found out stays unknown; only -errno
 * when the socket has no peer. Reads /proc, and so wants to be called in the connection's thread.
 */
int pr_peer_read(int socket, PrPeer *ret_peer);

/** Frees what the peer holds, not the struct. */
void pr_peer_clear(PrPeer *peer);

/**
 * The VM's name from QEMU's command line as /proc/PID/cmdline has it: `len` bytes, arguments end
 * with NUL. NULL when there is none. The caller frees it. Pure.
 */
char *pr_peer_vm_of_cmdline(const char *cmdline, gsize len);

/** The same from a cgroup's path, such as "/machine.slice/machine-qemu\x2d1\x2dweb1.scope". */
char *pr_peer_vm_of_cgroup(const char *cgroup);

G_END_DECLS
