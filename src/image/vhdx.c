/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * VHDX: headers, log, region tables. Sources: Microsoft, [MS-VHDX] "Virtual Hard Disk v2 (VHDX)
 * File Format"; QEMU's block/vhdx.c.
 *
 * An image with entries in its log is not what it seems: who opens it writes them over anything,
 * headers and metadata included. Such an image is refused, not replayed.
 */
#include "image/vhdx.h"
#include "image/crc32c.h"
#include "image/formats.h"

#define VHDX_KIB ((uint64_t)1024)
#define VHDX_HEADER ((size_t)4096)
#define VHDX_REGION_TABLE ((size_t)65536)
#define VHDX_REGION_ENTRY ((size_t)32)

static const uint8_t vhdx_bat_guid[16] = {0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42,
                                          0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08};
static const uint8_t vhdx_metadata_guid[16] = {0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b,
                                               0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e};

static bool vhdx_recognise(const ImageSample *sample)
{
    return image_sample_has(sample, 0, "vhdxfile", 8);
}

/* The sum of all bytes, with zero for the sum itself, which is at byte 4. */
static bool vhdx_sum_is_right(const uint8_t *bytes, size_t length)
{
    static const uint8_t zero[4];
    uint32_t crc = image_crc32c(0, bytes, 4);

    crc = image_crc32c(crc, zero, 4);
    return image_crc32c(crc, bytes + 8, length - 8) == image_le32(bytes + 4);
}

/* ---- the two headers ------------------------------------------------------------------------ */

static bool vhdx_header_is_valid(const uint8_t *header)
{
    return memcmp(header, "head", 4) == 0 && vhdx_sum_is_right(header, VHDX_HEADER) &&
           image_le16(header + 66) == 1;
}

/* The header that counts: the valid one with the higher sequence number. Returns where it is, with
 * its bytes in `header`, or 0. */
static uint64_t vhdx_find_header(ImageCheck *check, uint8_t header[VHDX_HEADER])
{
    uint8_t other[VHDX_HEADER];
    bool valid, other_valid;

    if (!image_read(check, 64 * VHDX_KIB, header, VHDX_HEADER) ||
        !image_read(check, 128 * VHDX_KIB, other, VHDX_HEADER))
        return 0;
    valid = vhdx_header_is_valid(header);
    other_valid = vhdx_header_is_valid(other);
    if (!valid && !other_valid) {
        image_reason(check, IMAGE_BAD_CHECKSUM, 64 * VHDX_KIB,
                     "Neither header is valid: signature, checksum or version is wrong.");
        return 0;
    }
    if (valid && other_valid && image_le64(header + 8) == image_le64(other + 8) &&
        memcmp(header, other, 80) != 0) {
        image_reason(check, IMAGE_BAD_HEADER, 64 * VHDX_KIB + 8,
                     "The two headers differ, and have the same sequence number.");
        return 0;
    }
    if (!valid || (other_valid && image_le64(other + 8) > image_le64(header + 8))) {
        memcpy(header, other, VHDX_HEADER);
        return 128 * VHDX_KIB;
    }
    return 64 * VHDX_KIB;
}

static void vhdx_add_region(VhdxDisk *disk, VhdxRegion region)
{
    disk->all[disk->n_all++] = region;
}

static bool vhdx_check_header(ImageCheck *check, VhdxDisk *disk)
{
    static const uint8_t no_log[16];
    uint8_t header[VHDX_HEADER];
    uint64_t at = vhdx_find_header(check, header);

    if (!at)
        return false;
    if (image_le16(header + 64) != 0)
        image_reason(check, IMAGE_UNKNOWN_VERSION, at + 64, "Version %u of the log is not known.",
                     image_le16(header + 64));
    if (memcmp(header + 48, no_log, 16) != 0)
        image_reason(check, IMAGE_NOT_CLOSED, at + 48,
                     "There is a log that has to be replayed before the image is read.");
    disk->log = (VhdxRegion){image_le64(header + 72), image_le32(header + 68)};
    if (disk->log.at < VHDX_MIB || disk->log.at % VHDX_MIB || disk->log.length % VHDX_MIB) {
        image_reason(check, IMAGE_TABLE_MISALIGNED, at + 68,
                     "The log is at byte %llu, %llu bytes long; both have to be whole MiB.",
                     (unsigned long long)disk->log.at, (unsigned long long)disk->log.length);
        return false;
    }
    if (!image_inside(check, disk->log.at, disk->log.length)) {
        image_reason(check, IMAGE_TABLE_OUTSIDE, at + 72,
                     "The log is at byte %llu, %llu bytes long; the file ends before.",
                     (unsigned long long)disk->log.at, (unsigned long long)disk->log.length);
        return false;
    }
    if (disk->log.length)
        vhdx_add_region(disk, disk->log);
    return true;
}

/* ---- the region table ----------------------------------------------------------------------- */

static bool vhdx_region_place(ImageCheck *check, const VhdxDisk *disk, VhdxRegion region,
                              uint64_t at)
{
    if (region.at % VHDX_MIB || region.length % VHDX_MIB || region.length == 0) {
        image_reason(check, IMAGE_TABLE_MISALIGNED, at + 16,
                     "A region is at byte %llu, %llu bytes long; both have to be whole MiB.",
                     (unsigned long long)region.at, (unsigned long long)region.length);
        return false;
    }
    if (!image_inside(check, region.at, region.length)) {
        image_reason(check, IMAGE_TABLE_OUTSIDE, at + 16,
                     "A region is at byte %llu, %llu bytes long; the file ends before.",
                     (unsigned long long)region.at, (unsigned long long)region.length);
        return false;
    }
    for (size_t i = 0; i < disk->n_all; i++) {
        if (!vhdx_overlap(region, disk->all[i]))
            continue;
        image_reason(check, IMAGE_TABLE_OVERLAP, at + 16,
                     "The region at byte %llu lies on the one at byte %llu.",
                     (unsigned long long)region.at, (unsigned long long)disk->all[i].at);
        return false;
    }
    return true;
}

static bool vhdx_check_region(ImageCheck *check, VhdxDisk *disk, const uint8_t *entry, uint64_t at)
{
    VhdxRegion region = {image_le64(entry + 16), image_le32(entry + 24)};
    VhdxRegion *known = NULL;

    if (memcmp(entry, vhdx_bat_guid, 16) == 0)
        known = &disk->bat;
    else if (memcmp(entry, vhdx_metadata_guid, 16) == 0)
        known = &disk->metadata;
    if (known && known->length) {
        image_reason(check, IMAGE_BAD_HEADER, at, "A region is listed twice.");
        return false;
    }
    if (!known && (image_le32(entry + 28) & 1)) {
        image_reason(check, IMAGE_UNKNOWN_FEATURE, at, "A region that is required is not known.");
        return false;
    }
    if (!vhdx_region_place(check, disk, region, at))
        return false;
    if (known)
        *known = region;
    vhdx_add_region(disk, region);
    return true;
}

/* QEMU reads the first table, others may read the second. The check's chunk has it after. */
static bool vhdx_read_regions(ImageCheck *check)
{
    uint32_t sum, count;

    if (!image_read(check, 256 * VHDX_KIB, check->chunk, VHDX_REGION_TABLE))
        return false;
    sum = vhdx_sum_is_right(check->chunk, VHDX_REGION_TABLE) ? image_le32(check->chunk + 4) : 0;
    count = image_le32(check->chunk + 8);
    if (!image_read(check, 192 * VHDX_KIB, check->chunk, VHDX_REGION_TABLE))
        return false;
    if (memcmp(check->chunk, "regi", 4) != 0) {
        image_reason(check, IMAGE_BAD_HEADER, 192 * VHDX_KIB, "There is no region table.");
        return false;
    }
    if (!vhdx_sum_is_right(check->chunk, VHDX_REGION_TABLE)) {
        image_reason(check, IMAGE_BAD_CHECKSUM, 192 * VHDX_KIB + 4,
                     "The region table's checksum is wrong.");
        return false;
    }
    if (sum != image_le32(check->chunk + 4) || count != image_le32(check->chunk + 8))
        image_reason(check, IMAGE_BAD_HEADER, 256 * VHDX_KIB,
                     "The second region table is not the same as the first.");
    return true;
}

static bool vhdx_check_regions(ImageCheck *check, VhdxDisk *disk)
{
    uint32_t entries;

    if (!vhdx_read_regions(check))
        return false;
    entries = image_le32(check->chunk + 8);
    if (entries > VHDX_MAX_REGIONS - 2) {
        image_reason(check, IMAGE_TABLE_SIZE, 192 * VHDX_KIB + 8,
                     "The region table has %u entries; more than %d mean nothing.", entries,
                     VHDX_MAX_REGIONS - 2);
        return false;
    }
    for (uint32_t i = 0; i < entries; i++) {
        size_t at = 16 + i * VHDX_REGION_ENTRY;

        if (!vhdx_check_region(check, disk, check->chunk + at, 192 * VHDX_KIB + at))
            return false;
    }
    if (disk->bat.length == 0 || disk->metadata.length == 0) {
        image_reason(check, IMAGE_BAD_HEADER, 192 * VHDX_KIB,
                     "The region table lacks the block allocation table or the metadata.");
        return false;
    }
    return true;
}

static void vhdx_check(ImageCheck *check)
{
    VhdxDisk disk = {0};

    if (check->size < VHDX_MIB) {
        image_reason(check, IMAGE_TRUNCATED, IMAGE_NO_OFFSET, "The file ends inside its headers.");
        return;
    }
    vhdx_add_region(&disk, (VhdxRegion){0, VHDX_MIB});
    if (vhdx_check_header(check, &disk) && vhdx_check_regions(check, &disk) &&
        vhdx_check_metadata(check, &disk))
        vhdx_check_bat(check, &disk);
}

const ImageFormat image_vhdx = {
    .name = "vhdx",
    .title = "VHDX, Hyper-V's format",
    .also = IMAGE_ALSO_VHDX,
    .recognise = vhdx_recognise,
    .check = vhdx_check,
};
