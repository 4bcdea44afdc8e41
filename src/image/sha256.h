/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SHA-256 (FIPS 180-4), for checksums inside formats: libraries for it load others, or call the
 * kernel. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define SHA256_SIZE 32

/* The digest of `length` bytes: with the processor's own instructions for it, where it has some. */
void sha256(const uint8_t *bytes, size_t length, uint8_t digest[SHA256_SIZE]);
/* The same without them; for tests. */
void sha256_portable(const uint8_t *bytes, size_t length, uint8_t digest[SHA256_SIZE]);

/* ---- between sha256.c and sha256-x86.c ------------------------------------------------------ */

/* Takes whole blocks of 64 bytes into the state. */
typedef void (*Sha256Blocks)(uint32_t state[8], const uint8_t *bytes, size_t blocks);

extern const uint32_t sha256_k[64];
/* NULL: this processor has no instructions for it. Asks nobody but memory: no system call, and no
 * CPUID, which a hypervisor traps. */
Sha256Blocks sha256_x86(void);
