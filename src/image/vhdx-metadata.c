/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * VHDX: the metadata and the block allocation table. Sources: Microsoft, [MS-VHDX], 2.5 "BAT" and
 * 2.6 "Metadata Region"; QEMU's block/vhdx.c.
 */
#include "image/vhdx.h"

#define VHDX_METADATA_ENTRY ((size_t)32)
#define VHDX_REQUIRED 4u
#define VHDX_HAS_PARENT 2u
/* Sectors of a chunk, which is what one bitmap block is for. */
#define VHDX_CHUNK_SECTORS ((uint64_t)1 << 23)

enum {
    VHDX_NOT_PRESENT,
    VHDX_UNDEFINED,
    VHDX_ZERO,
    VHDX_UNMAPPED,
    VHDX_UNMAPPED_OLD = 5,
    VHDX_PRESENT,
    VHDX_PARTIAL
};

typedef enum VhdxItem {
    VHDX_PARAMETERS,
    VHDX_DISK_SIZE,
    VHDX_PAGE83,
    VHDX_LOGICAL,
    VHDX_PHYSICAL,
    VHDX_PARENT,
    VHDX_ITEMS
} VhdxItem;

static const struct {
    uint8_t guid[16];
    uint32_t length; /* 0: any */
    const char *name;
} vhdx_items[VHDX_ITEMS] = {
    [VHDX_PARAMETERS] = {{0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0,
                          0xaa, 0x44, 0xe7, 0x6b},
                         8,
                         "file parameters"},
    [VHDX_DISK_SIZE] = {{0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe,
                         0xd8, 0x3b, 0xf4, 0xb8},
                        8,
                        "virtual disk size"},
    [VHDX_PAGE83] = {{0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45, 0x93, 0xef, 0xc3, 0x09, 0xe0,
                      0x00, 0xc7, 0x46},
                     16,
                     "page 83 data"},
    [VHDX_LOGICAL] = {{0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47, 0xba, 0x47, 0xf2, 0x33, 0xa8,
                       0xfa, 0xab, 0x5f},
                      4,
                      "logical sector size"},
    [VHDX_PHYSICAL] = {{0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44, 0x9c, 0xc9, 0xe9, 0x88,
                        0x52, 0x51, 0xc5, 0x56},
                       4,
                       "physical sector size"},
    [VHDX_PARENT] = {{0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3, 0xd8, 0x48,
                      0x34, 0xab, 0x0c},
                     0,
                     "parent locator"},
};

/* ---- the metadata table --------------------------------------------------------------------- */

typedef struct VhdxMetadata {
    uint64_t at[VHDX_ITEMS]; /* in the file; 0: there is none */
} VhdxMetadata;

static bool vhdx_item(ImageCheck *check, const VhdxDisk *disk, VhdxMetadata *metadata,
                      const uint8_t *entry, uint64_t at)
{
    uint64_t offset = image_le32(entry + 16);
    uint32_t length = image_le32(entry + 20);
    size_t item = 0;

    while (item < VHDX_ITEMS && memcmp(entry, vhdx_items[item].guid, 16) != 0)
        item++;
    if (item == VHDX_ITEMS) {
        if (!(image_le32(entry + 24) & VHDX_REQUIRED))
            return true;
        image_reason(check, IMAGE_UNKNOWN_FEATURE, at,
                     "An item of metadata that is required is not known.");
        return false;
    }
    if (metadata->at[item]) {
        image_reason(check, IMAGE_BAD_HEADER, at, "The metadata has the %s twice.",
                     vhdx_items[item].name);
        return false;
    }
    if (offset < VHDX_METADATA_TABLE || offset > disk->metadata.length ||
        length > disk->metadata.length - offset ||
        (vhdx_items[item].length && length != vhdx_items[item].length)) {
        image_reason(check, IMAGE_TABLE_OUTSIDE, at + 16,
                     "The %s is %u bytes long, %llu bytes into the metadata.",
                     vhdx_items[item].name, length, (unsigned long long)offset);
        return false;
    }
    metadata->at[item] = disk->metadata.at + offset;
    return true;
}

static bool vhdx_table(ImageCheck *check, const VhdxDisk *disk, VhdxMetadata *metadata)
{
    const uint8_t *table = check->chunk;
    uint16_t entries;

    if (!image_read(check, disk->metadata.at, check->chunk, VHDX_METADATA_TABLE))
        return false;
    if (memcmp(table, "metadata", 8) != 0) {
        image_reason(check, IMAGE_BAD_HEADER, disk->metadata.at, "There is no metadata table.");
        return false;
    }
    entries = image_le16(table + 10);
    if (entries > 2047) {
        image_reason(check, IMAGE_TABLE_SIZE, disk->metadata.at + 10,
                     "The metadata table has %u entries; 2047 have room.", entries);
        return false;
    }
    for (size_t i = 1; i <= entries; i++) {
        size_t at = i * VHDX_METADATA_ENTRY;

        if (!vhdx_item(check, disk, metadata, table + at, disk->metadata.at + at))
            return false;
    }
    for (size_t item = 0; item < VHDX_PARENT; item++) {
        if (metadata->at[item])
            continue;
        image_reason(check, IMAGE_BAD_HEADER, disk->metadata.at, "The metadata lacks the %s.",
                     vhdx_items[item].name);
        return false;
    }
    return true;
}

/* ---- the items ------------------------------------------------------------------------------ */

static bool vhdx_check_parameters(ImageCheck *check, VhdxDisk *disk, const VhdxMetadata *metadata)
{
    uint64_t at = metadata->at[VHDX_PARAMETERS];
    uint8_t bytes[8];
    uint32_t flags;

    if (!image_read(check, at, bytes, sizeof(bytes)))
        return false;
    disk->block = image_le32(bytes);
    flags = image_le32(bytes + 4);
    if (flags & ~3u)
        image_reason(check, IMAGE_UNKNOWN_FEATURE, at + 4, "Unknown file parameters: 0x%x.",
                     flags & ~3u);
    if ((flags & VHDX_HAS_PARENT) || metadata->at[VHDX_PARENT])
        image_reason(check, IMAGE_BACKING_FILE,
                     metadata->at[VHDX_PARENT] ? metadata->at[VHDX_PARENT] : at + 4,
                     "The disk has a parent.");
    if (disk->block < VHDX_MIB || disk->block > 256 * VHDX_MIB ||
        (disk->block & (disk->block - 1))) {
        image_reason(check, IMAGE_BAD_HEADER, at,
                     "A block of %llu bytes: it has to be a power of two from 1 to 256 MiB.",
                     (unsigned long long)disk->block);
        return false;
    }
    return true;
}

static bool vhdx_check_sectors(ImageCheck *check, VhdxDisk *disk, const VhdxMetadata *metadata)
{
    uint8_t logical[4], physical[4];

    if (!image_read(check, metadata->at[VHDX_LOGICAL], logical, 4) ||
        !image_read(check, metadata->at[VHDX_PHYSICAL], physical, 4))
        return false;
    disk->sector = image_le32(logical);
    if (disk->sector != 512) {
        image_reason(check, disk->sector == 4096 ? IMAGE_UNKNOWN_FEATURE : IMAGE_BAD_HEADER,
                     metadata->at[VHDX_LOGICAL],
                     "Logical sectors of %llu bytes; QEMU opens disks with sectors of 512.",
                     (unsigned long long)disk->sector);
        return false;
    }
    if (image_le32(physical) != 512 && image_le32(physical) != 4096)
        image_reason(check, IMAGE_BAD_HEADER, metadata->at[VHDX_PHYSICAL],
                     "Physical sectors of %u bytes.", image_le32(physical));
    return true;
}

static bool vhdx_check_size(ImageCheck *check, VhdxDisk *disk, const VhdxMetadata *metadata)
{
    uint64_t at = metadata->at[VHDX_DISK_SIZE];
    uint8_t bytes[8];

    if (!image_read(check, at, bytes, sizeof(bytes)))
        return false;
    disk->size = image_le64(bytes);
    if (disk->size == 0 || disk->size % disk->sector || disk->size > 64 * VHDX_MIB * VHDX_MIB) {
        image_reason(check, IMAGE_SIZE_UNKNOWN, at,
                     "A size of %llu bytes: it has to be whole sectors, 64 TiB at most.",
                     (unsigned long long)disk->size);
        return false;
    }
    image_set_size(check, at, disk->size);
    return true;
}

bool vhdx_check_metadata(ImageCheck *check, VhdxDisk *disk)
{
    VhdxMetadata metadata = {0};

    return vhdx_table(check, disk, &metadata) && vhdx_check_parameters(check, disk, &metadata) &&
           vhdx_check_sectors(check, disk, &metadata) && vhdx_check_size(check, disk, &metadata);
}

/* ---- the block allocation table ------------------------------------------------------------- */

/* `length` is what has to be in the file of the block; it occupies more. */
static bool vhdx_check_block(ImageCheck *check, const VhdxDisk *disk, VhdxRegion block,
                             uint64_t length, uint64_t at)
{
    if (!image_inside(check, block.at, length)) {
        image_reason(check, IMAGE_TRUNCATED, at, "A block is at byte %llu; the file ends before.",
                     (unsigned long long)block.at);
        return false;
    }
    for (size_t i = 0; i < disk->n_all; i++) {
        if (!vhdx_overlap(block, disk->all[i]))
            continue;
        image_reason(check, IMAGE_TABLE_OVERLAP, at,
                     "A block is at byte %llu, on the region at byte %llu.",
                     (unsigned long long)block.at, (unsigned long long)disk->all[i].at);
        return false;
    }
    return true;
}

/* `left`: bytes of the disk from this block on; 0: it is a block of bitmaps. */
static bool vhdx_check_entry(ImageCheck *check, const VhdxDisk *disk, uint64_t entry, uint64_t left,
                             uint64_t at)
{
    unsigned state = entry & 7;
    uint64_t length = left ? disk->block : VHDX_MIB;
    VhdxRegion block = {entry & ~(VHDX_MIB - 1), length};
    bool known = left
                     ? state <= VHDX_UNMAPPED || state == VHDX_UNMAPPED_OLD || state == VHDX_PRESENT
                     : state == VHDX_NOT_PRESENT || state == VHDX_PRESENT;

    /* A part of a block is another disk's: without a parent there is none. */
    if (!known || (entry & (VHDX_MIB - 8))) {
        image_reason(check, IMAGE_BAD_ENTRY, at,
                     "An entry of the block allocation table is 0x%llx, which means nothing.",
                     (unsigned long long)entry);
        return false;
    }
    if (state != VHDX_PRESENT)
        return true;
    /* QEMU once left out what the last block has beyond the disk's end. */
    if (left && left < length)
        length = left;
    return vhdx_check_block(check, disk, block, length, at);
}

void vhdx_check_bat(ImageCheck *check, const VhdxDisk *disk)
{
    uint64_t blocks = (disk->size + disk->block - 1) / disk->block;
    uint64_t ratio = VHDX_CHUNK_SECTORS * disk->sector / disk->block;
    uint64_t entries = blocks + (blocks - 1) / ratio;
    uint64_t n = 0, index = 0;
    const uint8_t *entry;
    ImageTable table;

    if (entries > disk->bat.length / 8) {
        image_reason(check, IMAGE_TABLE_SIZE, disk->bat.at,
                     "The block allocation table has room for %llu entries; the disk needs %llu.",
                     (unsigned long long)disk->bat.length / 8, (unsigned long long)entries);
        return;
    }
    /* A bitmap block's entry for every 4,096 blocks of 1 MiB, and less for larger ones. */
    image_grant(check,
                (check->max_size / disk->block + check->max_size / disk->block / ratio + 2) * 8);
    image_table_begin(&table, disk->bat.at, entries, 8);
    while ((entry = image_table_next(check, &table))) {
        bool bitmap = n == ratio;
        uint64_t left = bitmap ? 0 : disk->size - index * disk->block;

        if (!vhdx_check_entry(check, disk, image_le64(entry), left, table.offset))
            return;
        n = bitmap ? 0 : n + 1;
        index += !bitmap;
    }
}
