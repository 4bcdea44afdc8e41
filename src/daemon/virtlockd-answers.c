/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The answers of virtlockd's protocol: stock's codes and domains for our results and faults. */
#include <errno.h>

#include "virtlockd-private.h"

static void peer_send(Peer *peer, GBytes *frame)
{
    gsize len;
    const void *data = g_bytes_get_data(frame, &len);

    conn_send(peer->conn, data, len);
    g_bytes_unref(frame);
    virtlockd_args_clear(&peer->args);
}

void peer_ok(Peer *peer)
{
    peer_send(peer, virtlockd_encode_void(&peer->call));
}

void peer_error(Peer *peer, VirtlockdCode code, gint32 domain, int err, const char *format, ...)
{
    g_autofree char *message = NULL;
    g_autofree char *valid = NULL;
    VirtlockdFault fault = {.code = code, .domain = domain, .system_errno = err};
    va_list args;

    va_start(args, format);
    message = g_strdup_vprintf(format, args);
    va_end(args);
    valid = g_utf8_make_valid(message, -1);
    fault.message = valid;
    peer_send(peer, virtlockd_encode_error(&peer->call, &fault));
}

void peer_no_space(Peer *peer)
{
    peer_error(peer, VIRTLOCKD_ERR_INTERNAL, VIRTLOCKD_FROM_RPC, 0,
               "internal error: Lockspace for path %s does not exist", peer->args.path);
}

/* Trouble with the lockspace itself has codes of its own with stock. TRUE if it was answered. */
static gboolean peer_space_fault(Peer *peer, const Fault *fault)
{
    gboolean making =
        peer->call.procedure == VIRTLOCKD_NEW || peer->call.procedure == VIRTLOCKD_CREATE_LOCKSPACE;

    if (!fault->key || *fault->key || !fault->space || !*fault->space)
        return FALSE;
    if (fault->err == ENOENT && !making)
        peer_no_space(peer);
    else if (fault->err == ENOTDIR)
        peer_error(peer, VIRTLOCKD_ERR_INTERNAL, VIRTLOCKD_FROM_LOCKSPACE, 0, "internal error: %s",
                   fault->message);
    else
        return FALSE;
    return TRUE;
}

/* libvirt's own errors begin with what kind they are, so ours do. */
void peer_fault(Peer *peer, const Fault *fault)
{
    gint32 space = VIRTLOCKD_FROM_LOCKSPACE;

    if (peer_space_fault(peer, fault))
        return;
    switch (fault->code) {
    case HF_ERR_BUSY:
        peer_error(peer, VIRTLOCKD_ERR_RESOURCE_BUSY, space, 0, "resource busy: %s",
                   fault->message);
        return;
    case HF_ERR_BAD_RESOURCE:
    case HF_ERR_STORAGE:
        peer_error(peer, VIRTLOCKD_ERR_SYSTEM, space, fault->err, "%s", fault->message);
        return;
    case HF_ERR_TIMEOUT:
        peer_error(peer, VIRTLOCKD_ERR_OPERATION_TIMEOUT, space, 0,
                   "Timed out during operation: %s", fault->message);
        return;
    case HF_ERR_NO_SUCH_OWNER:
        peer_error(peer, VIRTLOCKD_ERR_OPERATION_INVALID, space, 0,
                   "Requested operation is not valid: %s", fault->message);
        return;
    case HF_ERR_PERMISSION:
        peer_error(peer, VIRTLOCKD_ERR_OPERATION_DENIED, space, 0, "operation forbidden: %s",
                   fault->message);
        return;
    default:
        peer_error(peer, VIRTLOCKD_ERR_INTERNAL, VIRTLOCKD_FROM_RPC, 0, "internal error: %s",
                   fault->message);
        return;
    }
}
