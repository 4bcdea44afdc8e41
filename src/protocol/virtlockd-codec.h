/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The codec of virtlockd's RPC: frames to structs and back; the wire format is in virtlockd.x.
 * No I/O, no locks, no state. Safe in any thread.
 */
#pragma once

#include <glib.h>

#define VIRTLOCKD_PROGRAM 0x0EA7BEEF
#define VIRTLOCKD_VERSION 1
#define VIRTLOCKD_LENGTH_BYTES 4
#define VIRTLOCKD_HEADER_BYTES 24
/* Two strings of the greatest length, their lengths, and the flags: no call is longer. */
#define VIRTLOCKD_MAX_FRAME (VIRTLOCKD_LENGTH_BYTES + VIRTLOCKD_HEADER_BYTES + 2 * (4 + 65536) + 4)

typedef enum VirtlockdProcedure {
    VIRTLOCKD_REGISTER = 1,
    VIRTLOCKD_RESTRICT = 2,
    VIRTLOCKD_NEW = 3,
    VIRTLOCKD_CREATE_RESOURCE = 4,
    VIRTLOCKD_DELETE_RESOURCE = 5,
    VIRTLOCKD_ACQUIRE_RESOURCE = 6,
    VIRTLOCKD_RELEASE_RESOURCE = 7,
    VIRTLOCKD_CREATE_LOCKSPACE = 8,
} VirtlockdProcedure;

enum { VIRTLOCKD_CALL = 0, VIRTLOCKD_REPLY = 1 };
enum { VIRTLOCKD_OK = 0, VIRTLOCKD_ERROR = 1 };
enum { VIRTLOCKD_ACQUIRE_SHARED = 1, VIRTLOCKD_ACQUIRE_AUTOCREATE = 2 };

/* Codes and domains of libvirt's <libvirt/virterror.h>, as much as is needed. */
typedef enum VirtlockdCode {
    VIRTLOCKD_ERR_INTERNAL = 1,
    VIRTLOCKD_ERR_INVALID_ARG = 8,
    VIRTLOCKD_ERR_OPERATION_DENIED = 29,
    VIRTLOCKD_ERR_SYSTEM = 38,
    VIRTLOCKD_ERR_RPC = 39,
    VIRTLOCKD_ERR_OPERATION_INVALID = 55,
    VIRTLOCKD_ERR_OPERATION_TIMEOUT = 68,
    VIRTLOCKD_ERR_RESOURCE_BUSY = 87,
} VirtlockdCode;
enum { VIRTLOCKD_FROM_RPC = 7, VIRTLOCKD_FROM_LOCKSPACE = 51 };

typedef struct VirtlockdHeader {
    guint32 program;
    guint32 version;
    gint32 procedure;
    gint32 type;
    guint32 serial;
    gint32 status;
} VirtlockdHeader;

/* Arguments of all procedures; those that a procedure does not have are 0 or NULL. */
typedef struct VirtlockdArgs {
    guint8 uuid[16];
    char *path;
    char *name;
    guint32 id;
    guint32 pid;
    guint32 flags;
} VirtlockdArgs;

/* The length of the frame that begins at `data`, of which `have` bytes are there: 0 if that cannot
 * be told yet, -1 if it is too short or too long to be a frame. */
gssize virtlockd_frame_length(const guint8 *data, gsize have);
/* Decodes the header of a whole frame; FALSE if there is none. */
gboolean virtlockd_decode_header(const guint8 *frame, gsize len, VirtlockdHeader *ret_header);
/* Decodes the arguments of a whole frame; FALSE if they do not fit the procedure, end elsewhere
 * than the frame, or hold a NUL in a string. Free with virtlockd_args_clear() on success. */
gboolean virtlockd_decode_args(const VirtlockdHeader *header, const guint8 *frame, gsize len,
                               VirtlockdArgs *ret_args);
void virtlockd_args_clear(VirtlockdArgs *args);

/* An error as libvirt's clients show it: `message` is the whole sentence. */
typedef struct VirtlockdFault {
    VirtlockdCode code;
    gint32 domain;
    const char *message;
    gint32 system_errno; /* with VIRTLOCKD_ERR_SYSTEM, else 0 */
} VirtlockdFault;

/* Whole frames that answer `call`; the caller frees them. */
GBytes *virtlockd_encode_void(const VirtlockdHeader *call);
GBytes *virtlockd_encode_error(const VirtlockdHeader *call, const VirtlockdFault *fault);
