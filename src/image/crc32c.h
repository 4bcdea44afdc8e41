/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* CRC-32C (Castagnoli, as in iSCSI, RFC 3720 12.1) of these bytes, continuing `crc`; 0 begins. */
uint32_t image_crc32c(uint32_t crc, const uint8_t *bytes, size_t length);
