/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ISO 9660: the file system of a CD, given to a VM as it is. What matters is that the file is that
 * and nothing else: its first 32 KiB are free for anything. An MBR or a GPT may be there, and is in
 * every isohybrid image; a header of a disk format may not. Sources: ECMA-119 (ISO 9660), 8 "Volume
 * Descriptors"; "El Torito" Bootable CD-ROM Format Specification 1.0.
 *
 * Directories are the guest's business: nobody on the host should mount them.
 */
#include "image/formats.h"

#define ISO_SECTOR ((uint64_t)2048)
#define ISO_FIRST ((uint64_t)16)
/* Volume descriptors; discs have three or four. */
#define ISO_MAX_DESCRIPTORS 32

enum { ISO_BOOT, ISO_PRIMARY, ISO_SUPPLEMENTARY, ISO_PARTITION, ISO_TERMINATOR = 255 };

/* ISO 9660 or UDF, as blkid tells them; the first two descriptors may be in either order. */
static bool iso_recognise(const ImageSample *sample)
{
    static const char *const ids[] = {"CD001", "BEA01", "NSR02", "NSR03", "BOOT2", "CDW02", NULL};

    for (size_t at = 32768; at <= 34816; at += 2048) {
        for (const char *const *id = ids; *id; id++) {
            if (image_sample_has(sample, at + 1, *id, 5))
                return true;
        }
        /* High Sierra, the draft from which it came */
        if (image_sample_has(sample, at + 9, "CDROM", 5))
            return true;
    }
    return false;
}

/* A number that is there twice, in both byte orders. */
static bool iso_both32(ImageCheck *check, const uint8_t *bytes, uint64_t at, uint32_t *number)
{
    *number = image_le32(bytes);
    if (*number == image_be32(bytes + 4))
        return true;
    image_reason(check, IMAGE_BAD_HEADER, at,
                 "A number is %u in one byte order and %u in the other.", *number,
                 image_be32(bytes + 4));
    return false;
}

static void iso_check_extent(ImageCheck *check, uint64_t at, const char *name, uint64_t block,
                             uint32_t first, uint64_t length)
{
    if (!image_inside(check, first * block, length))
        image_reason(check, IMAGE_TABLE_OUTSIDE, at,
                     "The %s is at byte %llu, %llu bytes long; the file ends before.", name,
                     (unsigned long long)(first * block), (unsigned long long)length);
}

/* A primary or supplementary descriptor: a volume with a root directory and a table of paths. */
static void iso_check_volume(ImageCheck *check, const uint8_t *bytes, uint64_t at)
{
    uint32_t space, paths, root, root_length;
    uint16_t block = image_le16(bytes + 128);

    if (block != image_be16(bytes + 130) || (block != 512 && block != 1024 && block != 2048)) {
        image_reason(check, IMAGE_BAD_HEADER, at + 128, "A block has %u or %u bytes.", block,
                     image_be16(bytes + 130));
        return;
    }
    if (!iso_both32(check, bytes + 80, at + 80, &space) ||
        !iso_both32(check, bytes + 132, at + 132, &paths) ||
        !iso_both32(check, bytes + 158, at + 158, &root) ||
        !iso_both32(check, bytes + 166, at + 166, &root_length))
        return;
    if (!image_inside(check, 0, (uint64_t)space * block))
        image_reason(check, IMAGE_TRUNCATED, at + 80,
                     "The volume has %u blocks of %u bytes; the file ends before.", space, block);
    if (bytes[156] < 34)
        image_reason(check, IMAGE_BAD_HEADER, at + 156, "There is no root directory.");
    iso_check_extent(check, at + 140, "path table", block, image_le32(bytes + 140), paths);
    iso_check_extent(check, at + 148, "path table", block, image_be32(bytes + 148), paths);
    iso_check_extent(check, at + 158, "root directory", block, root, root_length);
}

static void iso_check_boot(ImageCheck *check, const uint8_t *bytes, uint64_t at)
{
    if (memcmp(bytes + 7, "EL TORITO SPECIFICATION", 23) == 0)
        iso_check_extent(check, at + 71, "boot catalogue", ISO_SECTOR, image_le32(bytes + 71),
                         ISO_SECTOR);
}

static void iso_check(ImageCheck *check)
{
    uint8_t bytes[ISO_SECTOR];
    uint64_t at = ISO_FIRST * ISO_SECTOR;

    /* QEMU gives it to the VM as a raw disk. */
    image_set_size(check, IMAGE_NO_OFFSET, (check->size + 511) & ~(uint64_t)511);
    for (int n = 0; n < ISO_MAX_DESCRIPTORS; n++, at += ISO_SECTOR) {
        if (!image_inside(check, at, ISO_SECTOR)) {
            image_reason(check, IMAGE_TRUNCATED, at, "The file ends inside its descriptors.");
            return;
        }
        if (!image_read(check, at, bytes, sizeof(bytes)))
            return;
        if (memcmp(bytes + 1, "CD001", 5) != 0) {
            image_reason(check, IMAGE_BAD_HEADER, at,
                         n == 0 ? "There is no ISO 9660 volume, though it may be one of UDF."
                                : "The descriptors end without a terminator.");
            return;
        }
        if (bytes[6] != 1 && !(bytes[0] == ISO_SUPPLEMENTARY && bytes[6] == 2))
            image_reason(check, IMAGE_UNKNOWN_VERSION, at + 6,
                         "A descriptor of version %u is not known.", bytes[6]);
        if (n == 0 && bytes[0] != ISO_PRIMARY)
            image_reason(check, IMAGE_BAD_HEADER, at, "The first descriptor has type %u, not 1.",
                         bytes[0]);
        if (bytes[0] == ISO_PRIMARY || bytes[0] == ISO_SUPPLEMENTARY)
            iso_check_volume(check, bytes, at);
        else if (bytes[0] == ISO_BOOT)
            iso_check_boot(check, bytes, at);
        else if (bytes[0] == ISO_TERMINATOR)
            return;
    }
    image_reason(check, IMAGE_TABLE_SIZE, at, "There are more than %d descriptors.",
                 ISO_MAX_DESCRIPTORS);
}

const ImageFormat image_iso = {
    .name = "iso",
    .title = "an ISO 9660 or UDF file system",
    .also = IMAGE_ALSO_ISO,
    .recognise = iso_recognise,
    .check = iso_check,
    .beside = image_partitions,
};
