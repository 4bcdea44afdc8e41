/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the rules of several paths (paths.c) are made of (paths-send.c); for these two alone. Plain
 * C, no allocation; whatever sends blocks as long as the PathOps do, in the caller's thread.
 */
#pragma once

#include "prhelper/mpath/paths.h"

/* One command that is carried out; on the stack of who does it. */
typedef struct Paths {
    const PathOps *ops;
    PathsOutcome *outcome;         /* `dead` is kept here while paths are sent to and asked */
    PathResult results[PATHS_MAX]; /* of the last command */
} Paths;

/* ---- one answer ---------------------------------------------------------------------------- */

/* There is an answer, with that status. */
bool path_result_is(const PathResult *result, uint8_t status);
bool path_result_good(const PathResult *result);
bool path_result_conflict(const PathResult *result);
/* Makes it a CHECK CONDITION of ours. */
void path_result_fail(PathResult *result, SpcSense sense);

/* ---- sending ------------------------------------------------------------------------------- */

/* Sends to the paths that are `wanted` (ops->count of them) and not dead; a path that does not
 * answer is dead from then on. Results are in paths->results; of the others "no answer". */
void paths_send(Paths *paths, const bool *wanted, const SpcOut *out);
/* The same to all paths. */
void paths_send_all(Paths *paths, const SpcOut *out);
/* The same to one; its result, which is valid until the next command. */
const PathResult *paths_send_one(Paths *paths, size_t path, const SpcOut *out);
/* REGISTER by one path, from one key to another; 0 is none. Its result, as above. */
const PathResult *paths_register(Paths *paths, size_t path, uint64_t from, uint64_t to);
/* How many of the last command's results are such. */
size_t paths_count(const Paths *paths, bool (*is)(const PathResult *result));
/* The answer that stands for all when none is GOOD: a conflict, else the first one that is any. */
void paths_take_failure(const Paths *paths, PathResult *result);

/* ---- reading ------------------------------------------------------------------------------- */

/* How many registrations have that key; -1: can't be told. */
int paths_count_key(const Paths *paths, uint64_t key);
/* Whether `key` holds a reservation that has one holder, as a registrant of its own. `ret_type` is
 * set if there is any reservation. */
bool paths_holds(const Paths *paths, uint64_t key, uint8_t *ret_type);
/* Whether registrations with the key can only be ours: by their names, else by their number. Paths
 * that are no more may have left some behind, under an iSCSI session's old identifier. */
bool paths_key_is_ours(const Paths *paths, uint64_t key, size_t at_most);
