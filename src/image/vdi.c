/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * VDI, VirtualBox's format. Sources: QEMU's block/vdi.c; VirtualBox's VDICore.h for the fields that
 * QEMU does not look at (types, extra bytes of a block).
 */
#include "image/formats.h"

#define VDI_SECTOR 512u
#define VDI_HEADER ((size_t)512)
#define VDI_SIGNATURE_AT 64u
#define VDI_VERSION 0x00010001u
#define VDI_BLOCK ((uint64_t)1 << 20)
/* QEMU: a map of more blocks would not fit an int. */
#define VDI_BLOCKS_MAX ((0x80000000u - 512) / 4)
/* From here on, an entry of the map is no block: never written, or discarded. */
#define VDI_NO_BLOCK 0xfffffffeu

enum { VDI_DYNAMIC = 1, VDI_FIXED, VDI_UNDO, VDI_DIFFERENCING };

typedef struct VdiDisk {
    uint64_t map, data; /* places, in bytes */
    uint64_t size;
    uint32_t blocks, allocated;
} VdiDisk;

static bool vdi_recognise(const ImageSample *sample)
{
    return image_sample_has(sample, VDI_SIGNATURE_AT, "\x7f\x10\xda\xbe", 4);
}

static bool vdi_is_zero(const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (bytes[i])
            return false;
    }
    return true;
}

static void vdi_check_kind(ImageCheck *check, const uint8_t *header)
{
    uint32_t type = image_le32(header + 76);

    if (type < VDI_DYNAMIC || type > VDI_DIFFERENCING)
        image_reason(check, IMAGE_UNKNOWN_FEATURE, 76, "An image of type %u is not known.", type);
    else if (type >= VDI_UNDO)
        image_reason(check, IMAGE_BACKING_FILE, 76, "An image of type %u has a parent.", type);
    /* Links to the parent: its UUID, and its UUID of modification. */
    else if (!vdi_is_zero(header + 424, 32))
        image_reason(check, IMAGE_BACKING_FILE, 424, "The image has the UUID of a parent.");
    if (image_le32(header + 360) != VDI_SECTOR)
        image_reason(check, IMAGE_UNKNOWN_FEATURE, 360, "Sectors of %u bytes; QEMU has only 512.",
                     image_le32(header + 360));
    if (image_le32(header + 380) != 0)
        image_reason(check, IMAGE_UNKNOWN_FEATURE, 380,
                     "Each block has %u bytes more, which QEMU would take for the next block.",
                     image_le32(header + 380));
}

/* False: the map cannot be walked. */
static bool vdi_check_numbers(ImageCheck *check, const uint8_t *header, VdiDisk *disk)
{
    if (image_le32(header + 376) != VDI_BLOCK) {
        image_reason(check, IMAGE_UNKNOWN_FEATURE, 376, "Blocks of %u bytes; QEMU has only 1 MiB.",
                     image_le32(header + 376));
        return false;
    }
    if (disk->size == 0 || disk->size > (uint64_t)VDI_BLOCKS_MAX * VDI_BLOCK) {
        image_reason(check, IMAGE_SIZE_UNKNOWN, 368,
                     "A size of %llu bytes: it has to be from 1 to 562949819203584.",
                     (unsigned long long)disk->size);
        return false;
    }
    if (disk->blocks > VDI_BLOCKS_MAX || disk->blocks * VDI_BLOCK < disk->size) {
        image_reason(check, IMAGE_TABLE_SIZE, 384, "A map of %u blocks for a disk of %llu bytes.",
                     disk->blocks, (unsigned long long)disk->size);
        return false;
    }
    if (disk->allocated > disk->blocks)
        image_reason(check, IMAGE_BAD_HEADER, 388, "%u blocks of %u are said to be in use.",
                     disk->allocated, disk->blocks);
    return true;
}

static bool vdi_check_places(ImageCheck *check, const uint8_t *header, const VdiDisk *disk)
{
    uint64_t map_length = (uint64_t)disk->blocks * 4;

    /* The size of what follows the signature and the version. */
    if (image_le32(header + 72) > VDI_HEADER - 72) {
        image_reason(check, IMAGE_BAD_HEADER, 72, "The header is said to be %u bytes long.",
                     image_le32(header + 72));
        return false;
    }
    if (disk->map % VDI_SECTOR || disk->data % VDI_SECTOR) {
        image_reason(
            check, IMAGE_TABLE_MISALIGNED, 340,
            "The map is at byte %llu, the data at byte %llu; both have to be where sectors "
            "begin.",
            (unsigned long long)disk->map, (unsigned long long)disk->data);
        return false;
    }
    if (!image_inside(check, disk->map, map_length) || disk->data > check->size) {
        image_reason(check, IMAGE_TABLE_OUTSIDE, 340,
                     "The map is at byte %llu, the data at byte %llu; the file ends before.",
                     (unsigned long long)disk->map, (unsigned long long)disk->data);
        return false;
    }
    if (disk->map < VDI_HEADER || disk->map + map_length > disk->data) {
        image_reason(check, IMAGE_TABLE_OVERLAP, 340,
                     "The map is at byte %llu, the data at byte %llu: header, map and data lie on "
                     "top of each other.",
                     (unsigned long long)disk->map, (unsigned long long)disk->data);
        return false;
    }
    return true;
}

static void vdi_check_map(ImageCheck *check, const VdiDisk *disk)
{
    uint64_t in_file = (check->size - disk->data) / VDI_BLOCK;
    uint64_t sum = 0, squares = 0; /* what is too much, beside one use of each block */
    const uint8_t *entry;
    uint32_t used = 0;
    ImageTable table;

    image_grant(check, (check->max_size / VDI_BLOCK + 1) * 4);
    image_table_begin(&table, disk->map, disk->blocks, 4);
    while ((entry = image_table_next(check, &table))) {
        uint32_t block = image_le32(entry);

        if (block >= VDI_NO_BLOCK)
            continue;
        sum += (uint64_t)block - used;
        squares += (uint64_t)block * block - (uint64_t)used * used;
        used++;
        if (block >= disk->blocks || block >= disk->allocated) {
            image_reason(check, IMAGE_BAD_ENTRY, table.offset,
                         "Block %u is in use; there are %u, of which %u are said to be.", block,
                         disk->blocks, disk->allocated);
            return;
        }
        if (block >= in_file) {
            image_reason(check, IMAGE_TRUNCATED, table.offset,
                         "Block %u is in use; the file has only %llu.", block,
                         (unsigned long long)in_file);
            return;
        }
    }
    if (check->verdict.failed || table.left > 0)
        return;
    if (used != disk->allocated)
        image_reason(check, IMAGE_BAD_ENTRY, 388, "%u blocks are said to be in use; %u are.",
                     disk->allocated, used);
    /* Finds accidents. Who means it can have the same sums, and two places of one disk in one. */
    else if (sum || squares)
        image_reason(check, IMAGE_BAD_ENTRY, disk->map, "A block is in use twice.");
}

static void vdi_check(ImageCheck *check)
{
    const uint8_t *header = check->sample.head;
    VdiDisk disk;

    if (check->size < VDI_HEADER) {
        image_reason(check, IMAGE_TRUNCATED, IMAGE_NO_OFFSET, "The file ends inside its header.");
        return;
    }
    if (image_le32(header + 68) != VDI_VERSION) {
        image_reason(check, IMAGE_UNKNOWN_VERSION, 68, "VDI version 0x%x is not known.",
                     image_le32(header + 68));
        return;
    }
    disk = (VdiDisk){
        .map = image_le32(header + 340),
        .data = image_le32(header + 344),
        .size = image_le64(header + 368),
        .blocks = image_le32(header + 384),
        .allocated = image_le32(header + 388),
    };
    vdi_check_kind(check, header);
    if (!vdi_check_numbers(check, header, &disk))
        return;
    /* QEMU rounds up, as VirtualBox makes disks of any size. */
    image_set_size(check, 368, (disk.size + VDI_SECTOR - 1) / VDI_SECTOR * VDI_SECTOR);
    if (vdi_check_places(check, header, &disk))
        vdi_check_map(check, &disk);
}

const ImageFormat image_vdi = {
    .name = "vdi",
    .title = "VDI, VirtualBox's format",
    .also = IMAGE_ALSO_VDI,
    .recognise = vdi_recognise,
    .check = vdi_check,
};
