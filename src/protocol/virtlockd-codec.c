/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See virtlockd-codec.h. The XDR routines themselves are made by rpcgen from virtlockd.x. */
#include "virtlockd-codec.h"

#include <rpc/rpc.h>
#include <stdlib.h>
#include <string.h>

#include "virtlockd_xdr.h"

gssize virtlockd_frame_length(const guint8 *data, gsize have)
{
    guint32 length;

    if (have < VIRTLOCKD_LENGTH_BYTES)
        return 0;
    memcpy(&length, data, sizeof(length));
    length = GUINT32_FROM_BE(length);
    if (length < VIRTLOCKD_LENGTH_BYTES + VIRTLOCKD_HEADER_BYTES || length > VIRTLOCKD_MAX_FRAME)
        return -1;
    return (gssize)length;
}

gboolean virtlockd_decode_header(const guint8 *frame, gsize len, VirtlockdHeader *ret_header)
{
    virtlockd_header header;
    gboolean ok;
    XDR xdr;

    if (len < VIRTLOCKD_LENGTH_BYTES + VIRTLOCKD_HEADER_BYTES)
        return FALSE;
    xdrmem_create(&xdr, (char *)frame + VIRTLOCKD_LENGTH_BYTES, VIRTLOCKD_HEADER_BYTES, XDR_DECODE);
    ok = xdr_virtlockd_header(&xdr, &header);
    xdr_destroy(&xdr);
    if (!ok)
        return FALSE;
    *ret_header = (VirtlockdHeader){header.prog, header.vers,   header.procedure,
                                    header.type, header.serial, header.status};
    return TRUE;
}

/* What was decoded has to give the same bytes again: otherwise the payload did not end where the
 * struct does, or a string had a NUL inside and was cut. */
static gboolean virtlockd_is_exact(const guint8 *payload, gsize len, xdrproc_t proc, void *args)
{
    g_autofree char *again = g_malloc0(len);
    gboolean ok;
    XDR xdr;

    xdrmem_create(&xdr, again, (u_int)len, XDR_ENCODE);
    ok = proc(&xdr, args) && xdr_getpos(&xdr) == len && memcmp(again, payload, len) == 0;
    xdr_destroy(&xdr);
    return ok;
}

/* Decodes one struct that has to fill the payload exactly. */
static gboolean virtlockd_decode(const guint8 *frame, gsize len, xdrproc_t proc, void *args)
{
    gsize skip = VIRTLOCKD_LENGTH_BYTES + VIRTLOCKD_HEADER_BYTES;
    const guint8 *payload = frame + skip;
    gboolean ok;
    XDR xdr;

    xdrmem_create(&xdr, (char *)payload, (u_int)(len - skip), XDR_DECODE);
    ok = proc(&xdr, args) && virtlockd_is_exact(payload, len - skip, proc, args);
    xdr_destroy(&xdr);
    if (!ok)
        xdr_free(proc, args);
    return ok;
}

static gboolean virtlockd_decode_register(const guint8 *frame, gsize len, VirtlockdArgs *args)
{
    virtlockd_register_args wire = {0};

    if (!virtlockd_decode(frame, len, (xdrproc_t)xdr_virtlockd_register_args, &wire))
        return FALSE;
    memcpy(args->uuid, wire.uuid, sizeof(args->uuid));
    args->name = wire.name;
    args->id = wire.id;
    args->pid = wire.pid;
    args->flags = wire.flags;
    return TRUE;
}

static gboolean virtlockd_decode_resource(const guint8 *frame, gsize len, VirtlockdArgs *args)
{
    virtlockd_resource_args wire = {0};

    if (!virtlockd_decode(frame, len, (xdrproc_t)xdr_virtlockd_resource_args, &wire))
        return FALSE;
    args->path = wire.path;
    args->name = wire.name;
    args->flags = wire.flags;
    return TRUE;
}

gboolean virtlockd_decode_args(const VirtlockdHeader *header, const guint8 *frame, gsize len,
                               VirtlockdArgs *ret_args)
{
    virtlockd_restrict_args restrict_args = {0};
    virtlockd_path_args path_args = {0};
    virtlockd_lockspace_args space_args = {0};

    memset(ret_args, 0, sizeof(*ret_args));
    switch ((VirtlockdProcedure)header->procedure) {
    case VIRTLOCKD_REGISTER:
        return virtlockd_decode_register(frame, len, ret_args);
    case VIRTLOCKD_RESTRICT:
        if (!virtlockd_decode(frame, len, (xdrproc_t)xdr_virtlockd_restrict_args, &restrict_args))
            return FALSE;
        ret_args->flags = restrict_args.flags;
        return TRUE;
    case VIRTLOCKD_NEW:
        if (!virtlockd_decode(frame, len, (xdrproc_t)xdr_virtlockd_path_args, &path_args))
            return FALSE;
        ret_args->path = path_args.path;
        ret_args->flags = path_args.flags;
        return TRUE;
    case VIRTLOCKD_CREATE_RESOURCE:
    case VIRTLOCKD_DELETE_RESOURCE:
    case VIRTLOCKD_ACQUIRE_RESOURCE:
    case VIRTLOCKD_RELEASE_RESOURCE:
        return virtlockd_decode_resource(frame, len, ret_args);
    case VIRTLOCKD_CREATE_LOCKSPACE:
        if (!virtlockd_decode(frame, len, (xdrproc_t)xdr_virtlockd_lockspace_args, &space_args))
            return FALSE;
        ret_args->path = space_args.path;
        return TRUE;
    }
    return FALSE;
}

void virtlockd_args_clear(VirtlockdArgs *args)
{
    /* rpcgen's routines use malloc() */
    free(args->path);
    free(args->name);
    memset(args, 0, sizeof(*args));
}

static GBytes *virtlockd_encode(const VirtlockdHeader *call, gint32 status, xdrproc_t proc,
                                void *payload)
{
    virtlockd_header header = {
        .prog = call->program,
        .vers = call->version,
        .procedure = call->procedure,
        .type = VIRTLOCKD_REPLY,
        .serial = call->serial,
        .status = status,
    };
    gsize len =
        VIRTLOCKD_LENGTH_BYTES + VIRTLOCKD_HEADER_BYTES + (payload ? xdr_sizeof(proc, payload) : 0);
    u_int length = (u_int)len;
    char *frame = g_malloc0(len);
    gboolean ok;
    XDR xdr;

    xdrmem_create(&xdr, frame, length, XDR_ENCODE);
    ok = xdr_u_int(&xdr, &length) && xdr_virtlockd_header(&xdr, &header) &&
         (!payload || proc(&xdr, payload));
    xdr_destroy(&xdr);
    g_assert(ok); /* the buffer has the size that the same routines asked for */
    return g_bytes_new_take(frame, len);
}

GBytes *virtlockd_encode_void(const VirtlockdHeader *call)
{
    return virtlockd_encode(call, VIRTLOCKD_OK, NULL, NULL);
}

GBytes *virtlockd_encode_error(const VirtlockdHeader *call, const VirtlockdFault *fault)
{
    g_autofree char *message = g_strndup(fault->message, VIRTLOCKD_STRING_MAX / 2);
    virtlockd_text text = message;
    virtlockd_text format = (char *)"%s";
    virtlockd_error error = {
        .code = (int)fault->code,
        .domain = fault->domain,
        .message = &text,
        .level = 2, /* VIR_ERR_ERROR */
        .str1 = &format,
        .str2 = &text,
        .int1 = fault->system_errno ? fault->system_errno : -1,
        .int2 = -1,
    };

    return virtlockd_encode(call, VIRTLOCKD_ERROR, (xdrproc_t)xdr_virtlockd_error, &error);
}
