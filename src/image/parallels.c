/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Parallels disks (.hds), in both spellings of their magic. Sources: QEMU's
 * docs/interop/parallels.txt and block/parallels.c. What a bundle's DiskDescriptor.xml says, and
 * names, is another file and not looked at.
 */
#include "image/formats.h"

#define PARALLELS_SECTOR 512u
#define PARALLELS_HEADER 64u
#define PARALLELS_IN_USE 0x746f6e59u
#define PARALLELS_CLOSED 0x312e3276u
/* QEMU: a cluster in bytes fits an int, and so does the table. */
#define PARALLELS_CLUSTER_MAX (INT32_MAX / 513)
#define PARALLELS_TABLE_MAX (INT32_MAX / 4u)
#define PARALLELS_EXTENSION 0xab234cef23dcea87ull
#define PARALLELS_DIRTY_BITMAP 0x20385fae252cb34aull
/* There is one bitmap for each backup that is going on. */
#define PARALLELS_MAX_FEATURES 64

static const char parallels_magic[] = "WithoutFreeSpace";
static const char parallels_extended_magic[] = "WithouFreSpacExt";

typedef struct ParallelsDisk {
    bool extended;
    uint64_t cluster; /* sectors */
    uint64_t entries;
    uint64_t sectors; /* of the disk */
    uint64_t data;    /* the first sector of clusters */
    uint64_t file;    /* sectors */
} ParallelsDisk;

static bool parallels_recognise(const ImageSample *sample)
{
    return image_sample_has(sample, 0, parallels_magic, 16) ||
           image_sample_has(sample, 0, parallels_extended_magic, 16);
}

/* ---- the format extension ------------------------------------------------------------------- */

/* QEMU reads it of disks that are opened read-only, and ignores it with a warning else. Its sum is
 * MD5 and not checked: that protects from accidents alone. */
static void parallels_check_extension(ImageCheck *check, const ParallelsDisk *disk, uint64_t sector)
{
    uint64_t at, end;
    uint8_t header[24];

    if (sector < disk->data || sector > disk->file || disk->cluster > disk->file - sector) {
        image_reason(check, IMAGE_TABLE_OUTSIDE, 56,
                     "The format extension is at sector %llu, outside the data.",
                     (unsigned long long)sector);
        return;
    }
    at = sector * PARALLELS_SECTOR;
    end = at + disk->cluster * PARALLELS_SECTOR;
    end = end < check->size ? end : check->size;
    if (end - at < sizeof(header) || !image_read(check, at, header, sizeof(header)))
        return;
    if (image_le64(header) != PARALLELS_EXTENSION) {
        image_reason(check, IMAGE_BAD_HEADER, at, "There is no format extension.");
        return;
    }
    at += sizeof(header);
    for (int n = 0; n < PARALLELS_MAX_FEATURES; n++) {
        uint64_t length;

        if (end - at < sizeof(header)) {
            image_reason(check, IMAGE_TABLE_OUTSIDE, at, "The format extension has no end.");
            return;
        }
        if (!image_read(check, at, header, sizeof(header)) || image_le64(header) == 0)
            return;
        if (image_le64(header) != PARALLELS_DIRTY_BITMAP || image_le64(header + 8) != 0) {
            image_reason(check, IMAGE_UNKNOWN_FEATURE, at,
                         "The format extension has feature 0x%llx, which is not known.",
                         (unsigned long long)image_le64(header));
            return;
        }
        at += sizeof(header);
        length = ((uint64_t)image_le32(header + 16) + 7) / 8 * 8;
        if (length > end - at) {
            image_reason(check, IMAGE_TABLE_OUTSIDE, at - 8,
                         "A feature of %llu bytes does not fit the format extension.",
                         (unsigned long long)length);
            return;
        }
        at += length;
    }
    image_reason(check, IMAGE_TABLE_SIZE, at, "The format extension has more than %d features.",
                 PARALLELS_MAX_FEATURES);
}

/* ---- header and table ----------------------------------------------------------------------- */

static bool parallels_check_header(ImageCheck *check, const uint8_t *header, ParallelsDisk *disk)
{
    uint32_t in_use = image_le32(header + 44);

    if (in_use == PARALLELS_IN_USE)
        image_reason(check, IMAGE_NOT_CLOSED, 44,
                     "The image was not closed; QEMU does not open it for writing.");
    else if (in_use != 0 && in_use != PARALLELS_CLOSED)
        image_reason(check, IMAGE_BAD_HEADER, 44, "0x%x is no mark of an open or closed image.",
                     in_use);
    if (image_le32(header + 52) & ~1u)
        image_reason(check, IMAGE_UNKNOWN_FEATURE, 52, "Unknown flags: 0x%x.",
                     image_le32(header + 52) & ~1u);
    if (disk->cluster == 0 || disk->cluster > PARALLELS_CLUSTER_MAX) {
        image_reason(check, IMAGE_BAD_HEADER, 28,
                     "A cluster of %llu sectors: it has to be from 1 to 4186127.",
                     (unsigned long long)disk->cluster);
        return false;
    }
    if (disk->sectors == 0 || disk->sectors > INT64_MAX / PARALLELS_SECTOR) {
        image_reason(check, IMAGE_SIZE_UNKNOWN, 36, "A disk of %llu sectors.",
                     (unsigned long long)disk->sectors);
        return false;
    }
    if (!disk->extended && disk->sectors > UINT32_MAX) {
        image_reason(check, IMAGE_SIZE_MISMATCH, 36,
                     "A disk of %llu sectors, of which QEMU sees the lower 32 bits.",
                     (unsigned long long)disk->sectors);
        return false;
    }
    return true;
}

static bool parallels_check_places(ImageCheck *check, const uint8_t *header, ParallelsDisk *disk)
{
    uint64_t end = PARALLELS_HEADER + disk->entries * 4;
    uint64_t end_sector = (end + PARALLELS_SECTOR - 1) / PARALLELS_SECTOR;

    if (disk->entries > PARALLELS_TABLE_MAX ||
        disk->entries < (disk->sectors + disk->cluster - 1) / disk->cluster) {
        image_reason(check, IMAGE_TABLE_SIZE, 32,
                     "A table of %llu entries, for %llu sectors in clusters of %llu.",
                     (unsigned long long)disk->entries, (unsigned long long)disk->sectors,
                     (unsigned long long)disk->cluster);
        return false;
    }
    if (end > check->size) {
        image_reason(check, IMAGE_TABLE_OUTSIDE, 32, "The file ends inside the table.");
        return false;
    }
    disk->data = image_le32(header + 48) ? image_le32(header + 48) : end_sector;
    /* QEMU puts new clusters where the header says, on top of the table if it does. */
    if (disk->data < end_sector) {
        image_reason(check, IMAGE_TABLE_OVERLAP, 48,
                     "The data begins at sector %llu, inside the table.",
                     (unsigned long long)disk->data);
        return false;
    }
    return true;
}

static void parallels_check_table(ImageCheck *check, const ParallelsDisk *disk)
{
    uint64_t unit = disk->extended ? disk->cluster : 1;
    uint64_t allowed = (check->max_size / PARALLELS_SECTOR / disk->cluster + 1) * 4;
    const uint8_t *entry;
    ImageTable table;

    image_grant(check, allowed < check->size ? allowed : check->size);
    image_table_begin(&table, PARALLELS_HEADER, disk->entries, 4);
    /* A file of 2 GiB, all of it a hole, has half a billion entries. */
    while ((entry = image_table_next_set(check, &table))) {
        uint64_t sector = image_le32(entry) * unit;

        if (sector < disk->data) {
            image_reason(check, IMAGE_TABLE_OVERLAP, table.offset,
                         "A cluster is at sector %llu; the data begins at sector %llu.",
                         (unsigned long long)sector, (unsigned long long)disk->data);
            return;
        }
        if (sector > disk->file || disk->cluster > disk->file - sector) {
            image_reason(check, IMAGE_TRUNCATED, table.offset,
                         "A cluster is at sector %llu; the file ends before.",
                         (unsigned long long)sector);
            return;
        }
    }
}

static void parallels_check(ImageCheck *check)
{
    const uint8_t *header = check->sample.head;
    ParallelsDisk disk;

    if (check->size < PARALLELS_HEADER) {
        image_reason(check, IMAGE_TRUNCATED, IMAGE_NO_OFFSET, "The file ends inside its header.");
        return;
    }
    if (image_le32(header + 16) != 2) {
        image_reason(check, IMAGE_UNKNOWN_VERSION, 16, "Version %u is not known.",
                     image_le32(header + 16));
        return;
    }
    disk = (ParallelsDisk){
        .extended = memcmp(header, parallels_extended_magic, 16) == 0,
        .cluster = image_le32(header + 28),
        .entries = image_le32(header + 32),
        .sectors = image_le64(header + 36),
        .file = (check->size + PARALLELS_SECTOR - 1) / PARALLELS_SECTOR,
    };
    if (!parallels_check_header(check, header, &disk))
        return;
    image_set_size(check, 36, disk.sectors * PARALLELS_SECTOR);
    if (!parallels_check_places(check, header, &disk))
        return;
    if (image_le64(header + 56))
        parallels_check_extension(check, &disk, image_le64(header + 56));
    parallels_check_table(check, &disk);
}

const ImageFormat image_parallels = {
    .name = "parallels",
    .title = "a Parallels disk",
    .also = IMAGE_ALSO_PARALLELS,
    .recognise = parallels_recognise,
    .check = parallels_check,
};
