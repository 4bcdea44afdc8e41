/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SHA-256 (FIPS 180-4), for checksums inside formats: libraries for it load others, or call the
 * kernel. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define SHA256_SIZE 32

/* The digest of `length` bytes. */
void sha256(const uint8_t *bytes, size_t length, uint8_t digest[SHA256_SIZE]);
