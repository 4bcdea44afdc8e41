/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The system calls of the lockd driver: opening, locking and records of one file. Every function
 * may block on storage. Internal to the driver. */
#pragma once

#include <fcntl.h>
#include <glib.h>
#include <sys/stat.h>

#include "drivers.h"

/* The byte that stock locks; one byte long. */
#define LOCKD_BYTE 0

/* Reports err with the sentence "WHAT 'SPACE/KEY': reason; advice"; always returns -1. */
int lockd_fail(struct hf_call *call, int err, const char *what, const char *space, const char *key);

/* Opens the file of a resource and stats it; to write when `writable` and the mode wants it. With
 * HF_RESOURCE_AUTOCREATE a missing file in a lockspace directory is made. The descriptor is the
 * caller's. */
int lockd_open(struct hf_call *call, const struct hf_resource *resource, gboolean writable,
               int *ret_fd, struct stat *ret_st);

/* Takes the lock on one byte, at once; -1 with errno. */
int lockd_lock(int fd, hf_mode mode, off_t byte);
/* Gives back all that the descriptor has locked, whoever has copies of it; -1 with errno. */
int lockd_unlock(int fd);
/* What is in the way of an exclusive lock on byte 0; -1 with errno. */
int lockd_get_lock(int fd, struct flock *ret_lock);
/* TRUE on a network file system, where a holder's pid means nothing and data wants flushing. */
gboolean lockd_is_remote(int fd);

void lockd_claim(struct hf_call *call, const struct stat *st);
/* TRUE if the name is one inside its directory. */
gboolean lockd_name_stays(const char *key);
gboolean lockd_exists(const char *space, const char *key);
/* TRUE if the path still leads to the file that was opened (device and inode); what it is now. */
gboolean lockd_still_there(const char *space, const char *key, const struct stat *st,
                           struct stat *ret_now);
/* TRUE if the path certainly leads to another file, or to none. */
gboolean lockd_was_replaced(const char *space, const char *key, const struct stat *st);
/* Removes the file if it still is the one that was opened. -1 with errno. */
int lockd_unlink(const char *space, const char *key, const struct stat *st);

/* TRUE for a file that is empty or begins with our header: any other may be a disk. */
gboolean lockd_may_write(int fd, const struct stat *st);
/* Writes the owner's record into a free slot. A file that is not ours to write into gets none:
 * *ret_slot is -1 then. `now` is what it is since it is locked: the holder before may have emptied
 * it after it was opened. */
int lockd_write_record(struct hf_call *call, int fd, const struct hf_resource *resource,
                       const struct hf_holder *owner, const struct stat *now, int *ret_slot);
/* Empties the slot, or with `all` the file. -1 with errno. */
int lockd_clear_record(int fd, int slot, gboolean all);
/* Tells the call of every living record; their number. */
int lockd_read_records(struct hf_call *call, int fd);
