/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The protocol between QEMU and the helper, bytes to values and back. Pure: nothing is read,
 * written or allocated here.
 *
 * Source: QEMU's docs/interop/pr-helper and the behaviour of qemu-pr-helper 7.2. Both sides send
 * their features when a connection begins (a big-endian u32; there are none yet, so 0). Then:
 *
 *     client: 16 bytes of CDB, with one descriptor; after a PERSISTENT RESERVE OUT the parameters
 *     helper: s32 status, s32 size, 96 bytes of sense data, `size` bytes of data
 *
 * The client sends the next request when it has the answer.
 */
#pragma once

#include "prhelper.h"

G_BEGIN_DECLS

#define PR_WIRE_FEATURES_BYTES 4
#define PR_WIRE_REPLY_BYTES (4 + 4 + SPC_SENSE_SIZE)

/**
 * Reads a CDB into `command`: all that follows from it alone, the rest becomes zero. FALSE when it
 * is none that the protocol allows; the connection has to be closed then, without an answer.
 */
gboolean pr_wire_read_cdb(const uint8_t cdb[PR_CDB_BYTES], PrCommand *command);

/** Bytes of parameters that follow the CDB. */
gsize pr_wire_parameters(const PrCommand *command);

/** What precedes the data of an answer; `reply->size` bytes of data follow. */
void pr_wire_write_reply(const PrReply *reply, uint8_t ret_bytes[PR_WIRE_REPLY_BYTES]);

G_END_DECLS
