/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * CRC-32C, by the processor's own instruction where there is one: a VHDX has 136 KiB to be summed,
 * and a check of it should not take longer than that of anything else.
 */
#include "image/crc32c.h"

#include <string.h>

/* The polynomial 0x1EDC6F41 with its bits reversed. */
#define CRC32C_POLYNOMIAL 0x82f63b78u

static uint32_t crc32c_plain(uint32_t crc, const uint8_t *bytes, size_t length)
{
    uint32_t table[256];

    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;

        for (int bit = 0; bit < 8; bit++)
            value = value & 1 ? value >> 1 ^ CRC32C_POLYNOMIAL : value >> 1;
        table[i] = value;
    }
    for (size_t i = 0; i < length; i++)
        crc = crc >> 8 ^ table[(crc ^ bytes[i]) & 0xff];
    return crc;
}

#ifdef __x86_64__
__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const uint8_t *bytes,
                                                               size_t length)
{
    uint64_t wide = crc;

    for (; length >= 8; length -= 8, bytes += 8) {
        uint64_t word;

        memcpy(&word, bytes, 8);
        wide = __builtin_ia32_crc32di(wide, word);
    }
    crc = (uint32_t)wide;
    for (; length > 0; length--, bytes++)
        crc = __builtin_ia32_crc32qi(crc, *bytes);
    return crc;
}
#endif

uint32_t image_crc32c(uint32_t crc, const uint8_t *bytes, size_t length)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("sse4.2"))
        return ~crc32c_sse42(~crc, bytes, length);
#endif
    return ~crc32c_plain(~crc, bytes, length);
}
