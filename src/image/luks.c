/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * LUKS 1, alone or as the encryption of a qcow2, and the way to LUKS 2 (luks2.c). Sources: the LUKS
 * On-Disk Format Specification 1.2.3; what QEMU 7.2 checks in a header (crypto/block-luks.c).
 */
#include "image/luks.h"

#include <inttypes.h>

#include "image/formats.h"

#define LUKS1_HEADER 592
#define LUKS1_SLOTS 8
#define LUKS1_SLOT_ENABLED 0x00ac71f3U
#define LUKS1_SLOT_DISABLED 0x0000deadU
#define LUKS1_STRIPES 4000
#define LUKS_SECTOR 512
/* The header fills 4 KiB; key material begins behind them, and on multiples of them. */
#define LUKS1_HEADER_SECTORS 8
/* Twice what the longest cipher needs. */
#define LUKS1_MAX_KEY 512

typedef struct Luks1 {
    ImageCheck *check;
    uint64_t offset;
    uint64_t sectors; /* that may be used for header and key slots */
    uint64_t payload; /* in sectors, as the key slots are */
    uint64_t slot_sectors;
    uint64_t begins[LUKS1_SLOTS];
} Luks1;

static const uint8_t luks_magic[6] = {'L', 'U', 'K', 'S', 0xba, 0xbe};
static const uint8_t luks_second_magic[6] = {'S', 'K', 'U', 'L', 0xba, 0xbe};

/* libblkid, and so cryptsetup, which repairs it then, takes a file for LUKS 2 that has only the
 * second header, at the end of one of any size that is allowed; the version may be anything. */
static bool luks_recognise(const ImageSample *sample)
{
    if (image_sample_has(sample, 0, luks_magic, sizeof(luks_magic)) ||
        image_sample_has(sample, 0x4000, luks_second_magic, sizeof(luks_second_magic)) ||
        image_sample_has(sample, 0x8000, luks_second_magic, sizeof(luks_second_magic)))
        return true;
    for (size_t i = 0; i < IMAGE_FAR; i++) {
        if (memcmp(sample->far + i * IMAGE_FAR_SIZE, luks_second_magic,
                   sizeof(luks_second_magic)) == 0)
            return true;
    }
    return false;
}

/* ---- LUKS 1 --------------------------------------------------------------------------------- */

static bool luks1_slot(Luks1 *luks, unsigned i, const uint8_t *slot)
{
    uint64_t at = luks->offset + 208 + (uint64_t)i * 48;
    uint32_t active = image_be32(slot), iterations = image_be32(slot + 4);
    uint64_t begin = image_be32(slot + 40), end = begin + luks->slot_sectors;

    if ((active != LUKS1_SLOT_ENABLED && active != LUKS1_SLOT_DISABLED) ||
        (active == LUKS1_SLOT_ENABLED && iterations == 0) ||
        image_be32(slot + 44) != LUKS1_STRIPES) {
        image_reason(luks->check, IMAGE_BAD_ENTRY, at,
                     "Key slot %u is neither on nor off, or has an impossible number of stripes "
                     "or iterations.",
                     i);
        return false;
    }
    if (active == LUKS1_SLOT_ENABLED && iterations > LUKS_MAX_ITERATIONS) {
        image_reason(luks->check, IMAGE_UNLOCK_COST, at + 4,
                     "Key slot %u needs %" PRIu32 " iterations; up to %u are usual.", i, iterations,
                     LUKS_MAX_ITERATIONS);
        return false;
    }
    if (begin < LUKS1_HEADER_SECTORS || end > luks->payload || end > luks->sectors) {
        image_reason(luks->check, IMAGE_TABLE_OUTSIDE, at + 40,
                     "Key slot %u, sectors %" PRIu64 " to %" PRIu64
                     ", lies in the header, in the data, or beyond the file's end.",
                     i, begin, end);
        return false;
    }
    for (unsigned j = 0; j < i; j++) {
        if (begin < luks->begins[j] + luks->slot_sectors && luks->begins[j] < end) {
            image_reason(luks->check, IMAGE_TABLE_OVERLAP, at + 40,
                         "Key slots %u and %u lie on top of each other.", j, i);
            return false;
        }
    }
    luks->begins[i] = begin;
    return true;
}

/* The names of cipher, mode and hash. */
static bool luks1_names(const Luks1 *luks, const uint8_t *header)
{
    static const unsigned names[] = {8, 40, 72};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (!memchr(header + names[i], 0, 32) || header[names[i]] == 0) {
            image_reason(luks->check, IMAGE_BAD_HEADER, luks->offset + names[i],
                         "The name of the cipher, its mode or the hash is empty or has no end.");
            return false;
        }
    }
    if (memcmp(header + 8, "cipher_null", sizeof("cipher_null") - 1) == 0)
        image_reason(luks->check, IMAGE_LEGACY_ENCRYPTION, luks->offset + 8,
                     "The cipher is the one that leaves all as it is.");
    return true;
}

static bool luks1_payload(Luks1 *luks, bool embedded)
{
    ImageCheck *check = luks->check;
    uint64_t bytes = luks->payload * LUKS_SECTOR;

    if (embedded)
        return true;
    if (luks->payload == 0 || bytes == check->size) {
        image_reason(check, IMAGE_DETACHED_HEADER, 104,
                     "This is a header alone: its data is elsewhere.");
        return false;
    }
    if (bytes > check->size) {
        image_reason(check, IMAGE_TRUNCATED, 104,
                     "The data begins at byte %" PRIu64 ", the file ends at byte %" PRIu64 ".",
                     bytes, check->size);
        return false;
    }
    image_set_size(check, 104, (check->size - bytes) & ~(uint64_t)(LUKS_SECTOR - 1));
    return true;
}

void luks1_check(ImageCheck *check, uint64_t offset, uint64_t length, bool embedded)
{
    uint8_t header[LUKS1_HEADER];
    Luks1 luks = {.check = check, .offset = offset, .sectors = length / LUKS_SECTOR};
    uint32_t key;

    if (length < sizeof(header)) {
        image_reason(check, IMAGE_TRUNCATED, offset, "The LUKS header ends too early.");
        return;
    }
    if (!image_read(check, offset, header, sizeof(header)))
        return;
    if (memcmp(header, "LUKS\xba\xbe\0\1", 8) != 0) {
        image_reason(check, IMAGE_BAD_HEADER, offset, "This is no header of LUKS 1.");
        return;
    }
    key = image_be32(header + 108);
    luks.payload = image_be32(header + 104);
    luks.slot_sectors = ((uint64_t)key * LUKS1_STRIPES + LUKS_SECTOR - 1) / LUKS_SECTOR;
    luks.slot_sectors = (luks.slot_sectors + 7) & ~(uint64_t)7;
    if (!luks1_payload(&luks, embedded) || !luks1_names(&luks, header))
        return;
    if (key == 0 || key > LUKS1_MAX_KEY || image_be32(header + 164) == 0 ||
        luks.payload < LUKS1_HEADER_SECTORS) {
        image_reason(check, IMAGE_BAD_HEADER, offset + 104,
                     "A key of %" PRIu32 " bytes, checked in %" PRIu32
                     " iterations, with data from sector %" PRIu64 " on: impossible.",
                     key, image_be32(header + 164), luks.payload);
        return;
    }
    if (image_be32(header + 164) > LUKS_MAX_ITERATIONS)
        image_reason(check, IMAGE_UNLOCK_COST, offset + 164,
                     "The key is checked in %" PRIu32 " iterations; up to %u are usual.",
                     image_be32(header + 164), LUKS_MAX_ITERATIONS);
    for (unsigned i = 0; i < LUKS1_SLOTS; i++) {
        if (!luks1_slot(&luks, i, header + 208 + (size_t)i * 48))
            return;
    }
}

/* ---- both ----------------------------------------------------------------------------------- */

static void luks_check(ImageCheck *check)
{
    uint16_t version = image_be16(check->head + 6);

    if (memcmp(check->head, luks_magic, sizeof(luks_magic)) != 0)
        image_reason(check, IMAGE_BAD_HEADER, 0,
                     "The first header is missing or damaged; there is a second one of LUKS 2.");
    else if (version == 1)
        luks1_check(check, 0, check->size, false);
    else if (version == 2)
        luks2_check(check);
    else
        image_reason(check, IMAGE_UNKNOWN_VERSION, 6,
                     "The version is %u; versions 1 and 2 are known.", version);
}

const ImageFormat image_luks = {
    .name = "luks",
    .title = "a LUKS volume",
    .also = IMAGE_ALSO_LUKS,
    .recognise = luks_recognise,
    .check = luks_check,
};
