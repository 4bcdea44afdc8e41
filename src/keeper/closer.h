/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The closer: a process that shares our descriptors, and closes them in our stead.
 *
 * close(2) of a file on FUSE, or on NFS with data to be written, waits for the server, and so does
 * the end of a process, which closes all that it has. Who may not wait has a closer. The closer
 * has the same table of descriptors (CLONE_FILES, see clone(2)), so that our own end closes nothing
 * and is over at once; nor does our closing one descriptor take the file away from under it.
 * When our main thread has ended, even though others hang in the kernel, it closes everything:
 * sockets first, so that whoever talks to us hears of it, and then the files. Storage that hangs
 * keeps one process for each mount until it answers, and nobody waits for that.
 *
 * All functions are for the main thread. Plain C: the keeper links nothing else.
 */
#pragma once

#include <sys/types.h>

/* Starts one, unless there is one. `name` (may be NULL) is where the name in the list of processes
 * is, `name_len` bytes of it: those are overwritten in the new process alone. Returns 0 or a
 * negative errno: then closing is done by whoever wants it. */
int closer_start(char *name, size_t name_len);
/* In a child of fork(2): the closer is the parent's. */
void closer_forget(void);
/* The descriptor is closed soon, and is not ours any more; this never waits. */
void closer_close(int fd);
/* A descriptor that was handed over and is still open: it is ours again. -1 if there is none, and
 * then what the closer has taken is out of our table. */
int closer_take_back(void);
/* The process is about to end: closes all files, storage that hangs excepted, and waits for that so
 * long. Without it they are closed a moment after the end. Nothing may be used afterwards. */
void closer_close_all(int patience_msec);
/* Monotonic. */
long long closer_now_msec(void);
/* The number of the mount that the file is on, or -1. It can be had without asking the storage. */
int closer_mount(int fd);
/* For each SIGCHLD: collects the closer's processes that have ended, no other child's, and starts
 * others for them. */
void closer_collect(void);
/* The same for who collects all children by itself: that one has ended and was collected. */
void closer_reaped(pid_t pid);
