/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Bytes that a client sends to the virtlockd socket: a stream of frames. Whatever is understood has
 * to make sense, and has to be answerable.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "guard.h"
#include "protocol/virtlockd-codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(gboolean condition)
{
    if (!condition)
        abort();
}

static void check_reply(GBytes *frame, const VirtlockdHeader *call, gint32 status)
{
    gsize len;
    const guint8 *data = g_bytes_get_data(frame, &len);
    VirtlockdHeader header;

    check(virtlockd_frame_length(data, len) == (gssize)len || len > VIRTLOCKD_MAX_FRAME);
    check(virtlockd_decode_header(data, len, &header));
    check(header.type == VIRTLOCKD_REPLY && header.status == status &&
          header.serial == call->serial && header.procedure == call->procedure &&
          header.program == call->program && header.version == call->version);
    g_bytes_unref(frame);
}

/* The arguments as those of any procedure: what fits one may fit another. */
static void try_procedures(VirtlockdHeader header, const guint8 *frame, gsize len)
{
    for (gint32 p = VIRTLOCKD_REGISTER - 1; p <= VIRTLOCKD_CREATE_LOCKSPACE + 1; p++) {
        VirtlockdArgs args;
        VirtlockdFault fault = {.code = VIRTLOCKD_ERR_SYSTEM,
                                .domain = VIRTLOCKD_FROM_LOCKSPACE,
                                .system_errno = (gint32)(len % 133)};

        header.procedure = p;
        if (!virtlockd_decode_args(&header, frame, len, &args))
            continue;
        check(!args.path || strlen(args.path) <= 65536);
        check(!args.name || strlen(args.name) <= 65536);
        check(p != VIRTLOCKD_ACQUIRE_RESOURCE || (args.path && args.name));
        fault.message = args.name ? args.name : args.path ? args.path : "";
        check_reply(virtlockd_encode_error(&header, &fault), &header, VIRTLOCKD_ERROR);
        virtlockd_args_clear(&args);
        check(!args.path && !args.name);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (;;) {
        gssize len = virtlockd_frame_length(data, size);
        const guint8 *frame;
        VirtlockdHeader header;

        if (len <= 0 || (gsize)len > size)
            return 0;
        frame = (const guint8 *)guard_copy(data, (gsize)len);
        check(virtlockd_decode_header(frame, (gsize)len, &header));
        check_reply(virtlockd_encode_void(&header), &header, VIRTLOCKD_OK);
        try_procedures(header, frame, (gsize)len);
        data += len;
        size -= (size_t)len;
    }
}
