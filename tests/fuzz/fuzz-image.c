/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Images of the format FUZZ_FORMAT, hostile in any way: the check ends, within its bounds, with a
 * verdict that makes sense.
 *
 * An input describes a file, most of which is zero: flags (1 byte), the file's size (8 bytes,
 * little-endian), then pieces: place (4 bytes), length (2 bytes), as many bytes. A place with the
 * highest bit set counts from the file's end. With flag 1, check sums of VHD, VHDX and
 * LUKS2 are made right. tests/image/seeds.py writes such inputs.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "image/crc32c.h"
#include "image/image.h"
#include "image/sha256.h"

#define FUZZ_MEMORY ((size_t)6 << 20)
#define FUZZ_SUMS 1
#define FUZZ_FROM_END 0x80000000u
#define FUZZ_MAX_PIECES 256
#define FUZZ_MAX_SIZE ((uint64_t)1 << 44)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct Piece {
    size_t at, length;
} Piece;

static uint8_t memory[FUZZ_MEMORY];
static Piece pieces[FUZZ_MAX_PIECES];
static size_t n_pieces;

static void expect(int condition)
{
    if (!condition)
        abort();
}

/* A piece that can be undone. */
static void put(uint64_t at, const uint8_t *bytes, size_t length)
{
    if (at >= FUZZ_MEMORY || length > FUZZ_MEMORY - at || n_pieces == FUZZ_MAX_PIECES)
        return;
    memcpy(memory + at, bytes, length);
    pieces[n_pieces++] = (Piece){(size_t)at, length};
}

static void put_be32(uint64_t at, uint32_t value)
{
    uint8_t bytes[4] = {(uint8_t)(value >> 24), (uint8_t)(value >> 16), (uint8_t)(value >> 8),
                        (uint8_t)value};

    put(at, bytes, 4);
}

static void put_le32(uint64_t at, uint32_t value)
{
    uint8_t bytes[4] = {(uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16),
                        (uint8_t)(value >> 24)};

    put(at, bytes, 4);
}

static void seal_vhd(uint64_t at, size_t length, size_t sum_at)
{
    uint32_t sum = 0;

    if (at > FUZZ_MEMORY - length)
        return;
    for (size_t i = 0; i < length; i++)
        sum += i - sum_at < 4 ? 0 : memory[at + i];
    put_be32(at + sum_at, ~sum);
}

static void seal_vhdx(uint64_t at, size_t length)
{
    put_le32(at + 4, 0);
    put_le32(at + 4, image_crc32c(0, memory + at, length));
}

/* One copy of a LUKS2 header; the sum's field counts as zeroes. */
static void seal_luks2(uint64_t at, uint64_t length)
{
    static const uint8_t zero[64];
    uint8_t digest[SHA256_SIZE];

    if (length < 4096 || at > FUZZ_MEMORY || length > FUZZ_MEMORY - at)
        return;
    put(at + 448, zero, sizeof(zero));
    sha256(memory + at, (size_t)length, digest);
    put(at + 448, digest, sizeof(digest));
}

static void seal(uint64_t size)
{
    uint64_t header = image_be64(memory + 16);

    if (memcmp(memory, "LUKS\xba\xbe\0\2", 8) == 0) {
        seal_luks2(0, image_be64(memory + 8));
        seal_luks2(image_be64(memory + 8), image_be64(memory + 8));
    }

    if (memcmp(memory, "vhdxfile", 8) == 0) {
        seal_vhdx(64u << 10, 4096);
        seal_vhdx(128u << 10, 4096);
        seal_vhdx(192u << 10, 65536);
        seal_vhdx(256u << 10, 65536);
    }
    if (memcmp(memory, "conectix", 8) == 0) {
        seal_vhd(0, 512, 64);
        seal_vhd(header, 1024, 36);
    }
    if (size >= 512 && size <= FUZZ_MEMORY && memcmp(memory + size - 512, "conectix", 8) == 0)
        seal_vhd(size - 512, 512, 64);
}

static void build(const uint8_t *data, size_t left, uint64_t size)
{
    while (left >= 6) {
        uint64_t at = image_le32(data);
        size_t length = image_le16(data + 4);

        data += 6;
        left -= 6;
        length = length < left ? length : left;
        if (at & FUZZ_FROM_END)
            at = size - (at & ~FUZZ_FROM_END);
        put(at, data, length);
        data += length;
        left -= length;
    }
}

static void clear(void)
{
    while (n_pieces > 0) {
        n_pieces--;
        memset(memory + pieces[n_pieces].at, 0, pieces[n_pieces].length);
    }
}

static void run(uint64_t size)
{
    static ImageCheck check;

    check.format = image_format_find(FUZZ_FORMAT);
    expect(check.format != NULL);
    check.max_size = (uint64_t)1 << 34;
    check.fd = -1;
    check.size = size;
    check.memory = memory;
    check.memory_len = size < FUZZ_MEMORY ? (size_t)size : FUZZ_MEMORY;
    image_check(&check);
    /* memory does not change and cannot fail: everything else would be a fault of the check */
    expect(!check.verdict.failed);
    expect(check.verdict.n_reasons <= IMAGE_MAX_REASONS);
    expect(check.verdict.n_reasons > 0 ||
           (check.verdict.has_size && check.verdict.size <= check.max_size));
    for (uint32_t i = 0; i < check.verdict.n_reasons; i++) {
        const ImageReason *reason = &check.verdict.reasons[i];

        expect(reason->id < IMAGE_N_REASONS);
        expect(memchr(reason->sentence, 0, sizeof(reason->sentence)) && reason->sentence[0]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t file;

    if (size < 9)
        return 0;
    /* A file is never empty here: that is asked before. */
    file = image_le64(data + 1) % FUZZ_MAX_SIZE + 1;
    build(data + 9, size - 9, file);
    if (data[0] & FUZZ_SUMS)
        seal(file);
    run(file);
    clear();
    return 0;
}
