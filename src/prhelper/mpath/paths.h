/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Persistent reservations on several paths to one LUN. For the LUN each path is a registrant of its
 * own; for the guest they are one. These are the rules that keep them one:
 *
 *   - a registration reaches every path that answers, and a path that had none gets one;
 *   - nothing is undone but what the same command has just done, so no registration that was there
 *     before is ever lost to a mistake on another path;
 *   - a path that does not answer is left out, for multipathd to register when it comes back;
 *   - a reservation has one path; when that is dead, the others act for it;
 *   - an answer that could mean two things is decided by reading keys and reservation back.
 *
 * Here are only the rules: what sends the commands is handed in, and tests hand in a LUN of their
 * own. Plain C, no allocation, no state, blocks as long as the ops do.
 *
 * Times, for a command in which everything goes wrong: libmpathpersist hangs and is given up at
 * 6 s (MPATH_LIBRARY_MSEC); a path does not answer and is left out at 14 s (8 s, MPATH_PATH_MSEC,
 * once for each command, since it is not tried again); the rest takes milliseconds. The helper
 * waits for 25 s (MPATH_ANSWER_MSEC), below the 30 s after which it gives a command up (gate.h).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "prhelper/spc-in.h"
#include "prhelper/spc-out.h"

#define PATHS_MAX 64

typedef struct PathResult {
    bool answered; /* false: no answer, nobody knows what became of it */
    uint8_t status;
    uint8_t sense[SPC_SENSE_SIZE];
} PathResult;

typedef struct PathOps {
    size_t count;
    void *context;
    /* Sends the command to every path that is `wanted`, at once, and fills its result. */
    void (*send)(void *context, const bool *wanted, const uint8_t cdb[16], const uint8_t *list,
                 size_t len, PathResult *results);
    /* PERSISTENT RESERVE IN by one path; `ret_len` bytes of `data` are then valid. */
    void (*ask)(void *context, size_t path, const uint8_t cdb[16], uint8_t *data, size_t size,
                size_t *ret_len, PathResult *result);
    /* Whether a TransportID is one of this host's: 1 or 0; -1: it can't be told. May be NULL. */
    int (*is_ours)(void *context, const uint8_t *transport_id, size_t len);
} PathOps;

/* What is to become of the key that multipathd has for the map. */
typedef enum PathsKey { PATHS_KEY_AS_IT_IS, PATHS_KEY_SET, PATHS_KEY_UNSET } PathsKey;

typedef struct PathsOutcome {
    PathResult result; /* for the guest */
    PathsKey key_change;
    uint64_t key; /* PATHS_KEY_SET: the new one; PATHS_KEY_UNSET: the old one, if it is known */
    bool aptpl;
    bool dead[PATHS_MAX]; /* did not answer */
    size_t repaired;      /* paths that had lost their registration, or never had one */
    const char *remark;   /* static; NULL: nothing odd */
} PathsOutcome;

/**
 * Carries out a PERSISTENT RESERVE OUT. `out` is the command, of a type that several paths can
 * have (see paths_check()).
 */
void paths_execute(const PathOps *ops, const SpcOut *out, PathsOutcome *ret_outcome);

/**
 * Why the command cannot be carried out on several paths; `ret_fault` is then for the guest. 0: it
 * can. Write Exclusive and Exclusive Access are for one path only: every other path of the holder
 * would be refused.
 */
int paths_check(const SpcOut *out, SpcOutFault *ret_fault);

/** The rest of a registration or its end on paths that may have come back meanwhile. */
void paths_catch_up(const PathOps *ops, PathsOutcome *outcome);

/**
 * Registers with `key` the paths that are not registered, if another one is, with that very key.
 * Returns how many were. Without `thorough` it is content when there are as many registrations as
 * paths: one of them may be that of a path which is no more, but nothing is sent in most cases.
 */
size_t paths_repair(const PathOps *ops, uint64_t key, bool thorough);

/** PERSISTENT RESERVE IN by the first path that answers. */
void paths_read(const PathOps *ops, const uint8_t cdb[16], uint8_t *data, size_t size,
                size_t *ret_len, PathResult *ret_result);
