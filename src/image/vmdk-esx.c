/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * VMDK: the extents of ESX, COWD (vmfsSparse) and seSparse. They are parts of disks: a descriptor
 * in another file names them. QEMU opens the former by itself if a descriptor follows at sector 1,
 * which ESX never writes. Sources: VMware, "Virtual Disk Format 5.0", "ESX Server Sparse Extents";
 * QEMU's block/vmdk.c for seSparse, which VMware does not document.
 */
#include "image/vmdk.h"

#define VMDK_COWD_TABLE 4096u
#define VMDK_SESPARSE_VERSION 0x0000000200000001ull
#define VMDK_SESPARSE_VOLATILE 0xcafecafeull

static void vmdk_detached(ImageCheck *check, const char *kind)
{
    image_reason(
        check, IMAGE_DETACHED_HEADER, 0,
        "The file is an extent of the kind %s; the descriptor of its disk is another file.", kind);
}

static bool vmdk_cowd_numbers(ImageCheck *check, const VmdkLayout *layout, uint64_t entries)
{
    if (layout->grain == 0 || layout->grain > VMDK_GRAIN_MAX ||
        (layout->grain & (layout->grain - 1)) != 0) {
        image_reason(check, IMAGE_BAD_HEADER, 16,
                     "A grain of %llu sectors: it has to be a power of two up to 2097152.",
                     (unsigned long long)layout->grain);
        return false;
    }
    if (entries < layout->entries) {
        image_reason(check, IMAGE_TABLE_SIZE, 24,
                     "A grain directory of %llu entries; the disk needs %llu.",
                     (unsigned long long)entries, (unsigned long long)layout->entries);
        return false;
    }
    return true;
}

void vmdk_check_cowd(ImageCheck *check)
{
    const uint8_t *header = check->head;
    uint64_t capacity, file_sectors = (check->size + VMDK_SECTOR - 1) / VMDK_SECTOR;
    uint64_t entries;
    VmdkLayout layout;

    vmdk_detached(check, "COWD");
    if (check->size < 4 * VMDK_SECTOR) {
        image_reason(check, IMAGE_TRUNCATED, IMAGE_NO_OFFSET, "The file ends inside its header.");
        return;
    }
    if (image_le32(header + 4) != 1)
        image_reason(check, IMAGE_UNKNOWN_VERSION, 4, "COWD version %u is not known.",
                     image_le32(header + 4));
    if (image_le32(header + 8) != 3)
        image_reason(check, IMAGE_UNKNOWN_FEATURE, 8, "The flags are 0x%x; only 3 is known.",
                     image_le32(header + 8));
    capacity = image_le32(header + 12);
    entries = image_le32(header + 24);
    image_set_size(check, 12, capacity * VMDK_SECTOR);
    layout = (VmdkLayout){
        .directory = image_le32(header + 20),
        .table_entries = VMDK_COWD_TABLE,
        .grain = image_le32(header + 16),
        .tables_begin = 4, /* the header is four sectors long */
        .tables_end = file_sectors,
        .grains_begin = 4,
        .grains_end = file_sectors,
    };
    if (layout.grain) {
        layout.grains = (capacity + layout.grain - 1) / layout.grain;
        layout.entries = (layout.grains + VMDK_COWD_TABLE - 1) / VMDK_COWD_TABLE;
    }
    if (vmdk_cowd_numbers(check, &layout, entries))
        vmdk_tables(check, &layout);
}

static void vmdk_sesparse_volatile(ImageCheck *check, uint64_t at)
{
    uint8_t header[VMDK_SECTOR];

    if (at > check->size / VMDK_SECTOR || !image_inside(check, at * VMDK_SECTOR, VMDK_SECTOR)) {
        image_reason(check, IMAGE_TABLE_OUTSIDE, 80,
                     "The volatile header is at sector %llu, outside the file.",
                     (unsigned long long)at);
        return;
    }
    if (!image_read(check, at * VMDK_SECTOR, header, sizeof(header)))
        return;
    if (image_le64(header) != VMDK_SESPARSE_VOLATILE)
        image_reason(check, IMAGE_BAD_HEADER, at * VMDK_SECTOR, "The volatile header is damaged.");
    else if (image_le64(header + 24) != 0)
        image_reason(check, IMAGE_NOT_CLOSED, at * VMDK_SECTOR + 24,
                     "There is a journal that has to be replayed.");
}

void vmdk_check_sesparse(ImageCheck *check)
{
    static const struct {
        unsigned at;
        const char *name;
    } areas[] = {{96, "journal header"}, {112, "journal"},     {128, "grain directory"},
                 {144, "grain tables"},  {160, "free bitmap"}, {176, "back map"},
                 {192, "grains"}};
    const uint8_t *header = check->head;
    uint64_t file_sectors = (check->size + VMDK_SECTOR - 1) / VMDK_SECTOR;

    vmdk_detached(check, "seSparse");
    if (check->size < 2 * VMDK_SECTOR) {
        image_reason(check, IMAGE_TRUNCATED, IMAGE_NO_OFFSET, "The file ends inside its header.");
        return;
    }
    if (image_le64(header + 8) != VMDK_SESPARSE_VERSION)
        image_reason(check, IMAGE_UNKNOWN_VERSION, 8,
                     "The version of this seSparse extent is not known.");
    if (image_le64(header + 24) != 8 || image_le64(header + 32) != 64 ||
        image_le64(header + 40) != 0)
        image_reason(check, IMAGE_UNKNOWN_FEATURE, 24,
                     "Grain size, table size or flags are not those that QEMU reads (8, 64, 0).");
    if (image_le64(header + 16) > INT64_MAX / VMDK_SECTOR)
        image_reason(check, IMAGE_SIZE_UNKNOWN, 16, "The capacity is more than any disk can have.");
    else
        image_set_size(check, 16, image_le64(header + 16) * VMDK_SECTOR);
    for (size_t i = 0; i < sizeof(areas) / sizeof(areas[0]); i++) {
        uint64_t begin = image_le64(header + areas[i].at);
        uint64_t length = image_le64(header + areas[i].at + 8);

        if (begin == 0 || begin > file_sectors || length > file_sectors - begin)
            image_reason(check, IMAGE_TABLE_OUTSIDE, areas[i].at,
                         "The %s is said to be at sector %llu, %llu sectors long, which is not "
                         "inside the file.",
                         areas[i].name, (unsigned long long)begin, (unsigned long long)length);
    }
    vmdk_sesparse_volatile(check, image_le64(header + 80));
}
