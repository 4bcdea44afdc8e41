/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * VMDK: grain directories and grain tables. Sources: VMware, "Virtual Disk Format 5.0", "Grain
 * Directory" and "Grain Table"; QEMU's block/vmdk.c, which writes new grains' numbers into the
 * tables of both directories without a look at where these are.
 *
 * What has to hold: nothing that the VM or QEMU writes through these tables can hit the header, the
 * descriptor or a directory. A VM that could write into the descriptor would name its own files
 * there. Whether two tables, or two grains, are in one place is not checked: that harms nobody but
 * the VM.
 */
#include "image/vmdk.h"

/* Entries of a table, or of the redundant directory, that are in memory at a time. */
#define VMDK_PIECE 1024

typedef struct VmdkWalk {
    ImageCheck *check;
    const VmdkLayout *layout;
    uint64_t directory_sectors, table_sectors;
    uint64_t redundant_next; /* of the piece, in bytes */
    size_t redundant_at, redundant_filled;
    uint8_t redundant[VMDK_PIECE * 4];
} VmdkWalk;

static bool vmdk_overlap(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length)
{
    return a < b + b_length && b < a + a_length;
}

static bool vmdk_within(uint64_t at, uint64_t length, uint64_t begin, uint64_t end)
{
    return at >= begin && at <= end && length <= end - at;
}

static bool vmdk_directory(VmdkWalk *walk, uint64_t at, const char *name)
{
    const VmdkLayout *layout = walk->layout;
    uint64_t file_sectors = walk->check->size / VMDK_SECTOR;

    if (!vmdk_within(at, walk->directory_sectors, 0, file_sectors)) {
        image_reason(walk->check, IMAGE_TABLE_OUTSIDE, IMAGE_NO_OFFSET,
                     "The %s is at sector %llu, %llu sectors long; the file ends before.", name,
                     (unsigned long long)at, (unsigned long long)walk->directory_sectors);
        return false;
    }
    if (!vmdk_within(at, walk->directory_sectors, layout->tables_begin, layout->tables_end)) {
        image_reason(walk->check, IMAGE_TABLE_OVERLAP, at * VMDK_SECTOR,
                     "The %s is at sector %llu; tables are between sectors %llu and %llu.", name,
                     (unsigned long long)at, (unsigned long long)layout->tables_begin,
                     (unsigned long long)layout->tables_end);
        return false;
    }
    return true;
}

/* `offset` is where the table's number is found. */
static bool vmdk_table_place(VmdkWalk *walk, uint64_t at, uint64_t offset)
{
    const VmdkLayout *layout = walk->layout;

    if (!vmdk_within(at, walk->table_sectors, 0, walk->check->size / VMDK_SECTOR)) {
        image_reason(walk->check, IMAGE_TABLE_OUTSIDE, offset,
                     "A grain table is at sector %llu, outside the file.", (unsigned long long)at);
        return false;
    }
    if (!vmdk_within(at, walk->table_sectors, layout->tables_begin, layout->tables_end) ||
        vmdk_overlap(at, walk->table_sectors, layout->directory, walk->directory_sectors) ||
        (layout->redundant &&
         vmdk_overlap(at, walk->table_sectors, layout->redundant, walk->directory_sectors))) {
        image_reason(walk->check, IMAGE_TABLE_OVERLAP, offset,
                     "A grain table is at sector %llu, where no table may be.",
                     (unsigned long long)at);
        return false;
    }
    return true;
}

/* The entry of the redundant directory that belongs to the one that is looked at. */
static bool vmdk_redundant(VmdkWalk *walk, uint64_t left, uint32_t *entry, uint64_t *offset)
{
    if (walk->redundant_at == walk->redundant_filled) {
        size_t entries = left < VMDK_PIECE ? (size_t)left : VMDK_PIECE;

        if (!image_read(walk->check, walk->redundant_next, walk->redundant, entries * 4))
            return false;
        walk->redundant_at = 0;
        walk->redundant_filled = entries * 4;
        walk->redundant_next += entries * 4;
    }
    *entry = image_le32(walk->redundant + walk->redundant_at);
    *offset = walk->redundant_next - walk->redundant_filled + walk->redundant_at;
    walk->redundant_at += 4;
    return true;
}

static bool vmdk_grains(VmdkWalk *walk, uint64_t table, uint64_t entries)
{
    const VmdkLayout *layout = walk->layout;
    uint64_t need = layout->compressed ? 1 : layout->grain;
    uint64_t offset = table * VMDK_SECTOR;
    uint8_t piece[VMDK_PIECE * 4];

    while (entries > 0) {
        size_t n = entries < VMDK_PIECE ? (size_t)entries : VMDK_PIECE;

        if (!image_read(walk->check, offset, piece, n * 4))
            return false;
        for (size_t i = 0; i < n; i++) {
            uint32_t grain = image_le32(piece + i * 4);

            if (grain == 0 || (grain == 1 && layout->zeroed) ||
                vmdk_within(grain, need, layout->grains_begin, layout->grains_end))
                continue;
            image_reason(
                walk->check, grain < layout->grains_begin ? IMAGE_BAD_ENTRY : IMAGE_TRUNCATED,
                offset + i * 4,
                "A grain is at sector %u; grains are between sectors %llu and %llu.", grain,
                (unsigned long long)layout->grains_begin, (unsigned long long)layout->grains_end);
            return false;
        }
        offset += n * 4;
        entries -= n;
    }
    return true;
}

/* The table number `index`, by its entries in both directories. */
static bool vmdk_table(VmdkWalk *walk, uint64_t index, uint32_t table, uint64_t offset)
{
    const VmdkLayout *layout = walk->layout;
    uint64_t first = index * layout->table_entries;
    uint64_t entries = layout->grains - first;

    if (layout->redundant) {
        uint64_t redundant_offset;
        uint32_t redundant;

        if (!vmdk_redundant(walk, layout->entries - index, &redundant, &redundant_offset))
            return false;
        if ((redundant == 0) != (table == 0)) {
            image_reason(walk->check, IMAGE_BAD_ENTRY, redundant_offset,
                         "One of the two directories has grain table %llu, the other has not.",
                         (unsigned long long)index);
            return false;
        }
        if (redundant && !vmdk_table_place(walk, redundant, redundant_offset))
            return false;
    }
    if (table == 0)
        return true;
    if (entries > layout->table_entries)
        entries = layout->table_entries;
    return vmdk_table_place(walk, table, offset) && vmdk_grains(walk, table, entries);
}

/* Every table that a disk of the largest allowed size can have; there cannot be more of them than
 * there is file. */
static void vmdk_grant(ImageCheck *check, const VmdkLayout *layout)
{
    uint64_t grains = check->max_size / VMDK_SECTOR / layout->grain + 1;
    uint64_t bytes = grains * 4 + (grains / layout->table_entries + 1) * 8;

    image_grant(check, bytes < check->size ? bytes : check->size);
}

void vmdk_tables(ImageCheck *check, const VmdkLayout *layout)
{
    VmdkWalk walk = {.check = check, .layout = layout};
    const uint8_t *entry;
    ImageTable directory;

    if (layout->entries > VMDK_DIRECTORY_MAX) {
        image_reason(check, IMAGE_TABLE_SIZE, IMAGE_NO_OFFSET,
                     "The grain directory would have %llu entries; QEMU opens 33554432 at most.",
                     (unsigned long long)layout->entries);
        return;
    }
    walk.directory_sectors = (layout->entries * 4 + VMDK_SECTOR - 1) / VMDK_SECTOR;
    walk.table_sectors = (layout->table_entries * 4 + VMDK_SECTOR - 1) / VMDK_SECTOR;
    walk.redundant_next = layout->redundant * VMDK_SECTOR;
    if (!vmdk_directory(&walk, layout->directory, "grain directory") ||
        (layout->redundant &&
         !vmdk_directory(&walk, layout->redundant, "redundant grain directory")))
        return;
    vmdk_grant(check, layout);
    image_table_begin(&directory, layout->directory * VMDK_SECTOR, layout->entries, 4);
    for (uint64_t i = 0; (entry = image_table_next(check, &directory)); i++) {
        if (!vmdk_table(&walk, i, image_le32(entry), directory.offset))
            return;
    }
}
