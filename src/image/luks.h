/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* LUKS headers, alone or in a qcow2; see luks.c. */
#pragma once

#include "image/image.h"

/*
 * Iterations of PBKDF2 for one key slot or digest. Who has the passphrase waits for them:
 * cryptsetup and QEMU choose as many as take two seconds, 5 to 20 million on today's machines; the
 * formats have room for 2^32.
 */
#define LUKS_MAX_ITERATIONS 100000000U

/*
 * Checks a LUKS 1 header at `offset`, of which, with its key slots, `length` bytes may be used.
 * `embedded`: it is a qcow2's, and the data is elsewhere. Else the disk's size is set from the
 * file's.
 */
void luks1_check(ImageCheck *check, uint64_t offset, uint64_t length, bool embedded);
/* A LUKS 2 volume that begins at byte 0. */
void luks2_check(ImageCheck *check);
