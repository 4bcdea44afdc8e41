/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who removes the socket and the pid file when the helper itself may not any more: it has given up
 * its user, or the right to write to any directory. A child process with nothing but that right,
 * which waits until the helper has ended in whatever way, removes the two, and ends.
 */
#pragma once

#include <glib.h>
#include <sys/types.h>

G_BEGIN_DECLS

/**
 * Starts the child, before privileges are dropped and before threads exist. Paths may be NULL;
 * what is removed are the files that are there now, not those of a later helper. Returns a
 * descriptor for pr_janitor_finish(), or a negative errno.
 */
int pr_janitor_start(const char *socket, const char *pid_file, pid_t *ret_child);

/** Lets the child do its work, and waits for its end, which is near. */
void pr_janitor_finish(int fd, pid_t child);

G_END_DECLS
