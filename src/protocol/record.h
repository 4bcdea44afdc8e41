/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The record that a holder writes into a lock file, so that other hosts can name it.
 *
 * A lock file with records begins with a header block, followed by one slot for each holder, each
 * RECORD_BLOCK bytes long:
 *
 *   block 0    "HOLDFAST LOCK FILE 1\n", zeros
 *   block 1+i  slot i: "HOLDFAST RECORD 1 " DIGEST " " LENGTH "\n" JSON "\n", zeros
 *
 * DIGEST is the first 16 hexadecimal digits of the SHA-256 of JSON, LENGTH its length in decimal.
 * JSON is an object with the members disk, name, uuid, uri, host (strings), pid (integer), since
 * (microseconds since 1970, integer) and mode; unknown members are skipped, absent ones unknown.
 * A slot that is empty, torn or of another version reads as "no record".
 *
 * Codec only: bytes to structs and back, no I/O. Safe in any thread.
 */
#pragma once

#include "core/holder.h"

#define RECORD_BLOCK 1024 /* fits a name and a path of ordinary length; longer ones are cut */

/* Fills RECORD_BLOCK bytes with the header. */
void record_encode_header(char *block);
/* TRUE if the block is a header of this version. */
gboolean record_is_header(const char *block);
/* Fills RECORD_BLOCK bytes with the record of `holder`. */
void record_encode(char *block, const struct hf_holder *holder);
/* The holder that a block describes, or NULL. */
Holder *record_decode(const char *block);
