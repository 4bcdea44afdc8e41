/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of the closer share; for no other file. */
#pragma once

#include <stddef.h>
#include <sys/types.h>

/* A close, or a question to the storage, that takes longer hangs: what comes after it gets another
 * process. */
#define CLOSER_PATIENCE_MSEC 100

/* Memory that is shared with the processes made from here on; NULL if there is none. */
void *closer_share(size_t size);
/* So that who ends a program by its name does not end this process with it. */
void closer_rename(void);

/* ---- closer-sweep.c -------------------------------------------------------------------- */

/* The process's own /proc/self/status: to be opened while there is room for one more. -1: none. */
int closer_open_status(void);
/* Closes all sockets. `status` is that file. */
void closer_close_sockets(int status);
/* Closes everything else, by processes that share this one's descriptors. Returns when it is done,
 * but for what is on storage that hangs, or at `until` (monotonic ms; -1: never). `status` is that
 * file, which is of no use afterwards. */
void closer_close_files(int status, long long until);

/* ---- closer-shed.c --------------------------------------------------------------------- */

/* In a process that was made by clone(2): gives all memory back but what these files need, which
 * is theirs, the C library's, the stack's and what is shared. Nothing else of the program may be
 * used afterwards. */
void closer_shed(void);
