/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Going into the background, and the pid file. */
#pragma once

#include <glib.h>

/* Forks; the parent stays until background_ready() and then exits 0, or with 1 when the child ends
 * before. Returns in the child. Before any thread and any event loop. 0 or a negative errno. */
int background_start(void);
/* The daemon serves: lets the parent go and leaves the terminal. No-op in the foreground. */
void background_ready(void);
/* Where nothing keeps descriptors for this process, becomes a keeper that runs the daemon anew as
 * its child; the waiting parent of background_start() waits on. Returns only in the daemon under
 * its supervisor, or with FALSE if there is no keeper to be had. */
gboolean background_with_keeper(char **argv);

/* Writes the pid (under a keeper, the keeper's: that one stays when the daemon is started anew, and
 * passes signals on) into `path` and keeps it locked until the process ends. -EAGAIN if another
 * daemon has it; otherwise 0 or a negative errno. `ret_fd` is to be given to
 * background_remove_pid(). */
int background_write_pid(const char *path, int *ret_fd);
/* Removes the pid file if it still is ours, and closes it. fd -1 is allowed. */
void background_remove_pid(const char *path, int fd);
