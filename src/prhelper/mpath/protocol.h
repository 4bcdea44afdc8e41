/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What holdfast-pr-helper and holdfast-pr-multipath say to each other, over sockets of the kind
 * SOCK_SEQPACKET that both have from one installation: native byte order, no versions.
 *
 *     helper                    holdfast-pr-multipath             its child, one for each command
 *       MpathRequest ─────────────> (descriptor 0) ──fork──────────> carries it out
 *       with two descriptors: the device, and a socket for the answer
 *       MpathAnswer <──────────────────────────────────────────────── and exits
 *
 * The socket for the answer closes without one: the child has died.
 */
#pragma once

#include <stdint.h>

#include "prhelper/spc-out.h"

/** The descriptor on which holdfast-pr-multipath finds its socket. */
#define MPATH_SOCKET 0

enum {
    MPATH_MAP = 1,    /* the device is a dm-multipath map */
    MPATH_KERNEL = 2, /* the kernel's reservation ioctls, on the device itself (NVMe) */
};

/* What may be used on a map. */
enum {
    MPATH_USE_PATHS = 0,   /* each path by itself */
    MPATH_USE_LIBRARY = 1, /* libmpathpersist for what it does well */
};

typedef struct MpathRequest {
    uint32_t kind;
    uint32_t use;
    uint8_t cdb[16];
    uint32_t size;              /* of `list`, or what PERSISTENT RESERVE IN may answer */
    uint8_t list[SPC_LIST_MAX]; /* sent only as far as it is used */
} MpathRequest;

#define MPATH_NOTE_SIZE 512

typedef struct MpathAnswer {
    int32_t status;
    uint8_t sense[SPC_SENSE_SIZE];
    char note[MPATH_NOTE_SIZE]; /* for the log; "" : nothing to say */
    uint32_t size;
    uint8_t data[SPC_LIST_MAX]; /* sent only as far as it is used */
} MpathAnswer;

/** Time-outs, in milliseconds; the worked timeline is in paths.h. */
#define MPATH_LIBRARY_MSEC 6000
#define MPATH_PATH_MSEC 8000
#define MPATH_ANSWER_MSEC 25000
