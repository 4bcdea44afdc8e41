/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * VHD, which QEMU calls vpc: fixed, dynamic and differencing disks. Sources: Microsoft, "Virtual
 * Hard Disk Image Format Specification" 1.0; QEMU's block/vpc.c for the disk's size and for what it
 * does with a fixed disk, whose data it neither offsets nor bounds.
 *
 * A fixed disk's data begins at byte 0 and belongs to the VM, so only the footer at the end can be
 * believed; a dynamic disk has the footer at both ends, and who opens it takes one or the other.
 */
#include "image/formats.h"

#define VHD_FOOTER ((size_t)512)
#define VHD_HEADER ((size_t)1024)
#define VHD_CHECKSUM 64u
#define VHD_HEADER_CHECKSUM 36u
#define VHD_UNUSED 0xffffffffu
#define VHD_FEATURES 3u
/* 65535 cylinders, 16 heads, 255 sectors: the geometry of a disk that is too large to have one. */
#define VHD_MAX_GEOMETRY (65535ull * 16 * 255)
/* QEMU: 2040 GiB, in sectors. */
#define VHD_MAX_SECTORS 0xff000000ull
/* QEMU takes any power of two up to 2 GiB, and puts a block's bitmap on a stack of 1 MiB, twice. */
#define VHD_BLOCK_MAX (256u << 20)

enum { VHD_FIXED = 2, VHD_DYNAMIC = 3, VHD_DIFFERENCING = 4 };

static const char vhd_cookie[] = "conectix";

/* QEMU rounds the file's size up to sectors before it looks for a fixed disk's footer. So it reads
 * the 511 bytes that Virtual PC wrote before 2004, and any shorter piece of a footer as well. */
static size_t vhd_odd_footer(const ImageSample *sample)
{
    size_t length = sample->size % VHD_FOOTER;

    return image_sample_ends(sample, length, vhd_cookie, 8) ? length : 0;
}

/* At the end for fixed disks; QEMU's prober sees only the other kinds. */
static bool vhd_recognise(const ImageSample *sample)
{
    return image_sample_has(sample, 0, vhd_cookie, 8) ||
           image_sample_ends(sample, VHD_FOOTER, vhd_cookie, 8) || vhd_odd_footer(sample);
}

/* The one's complement of the sum of all bytes, without the four at `at`. */
static bool vhd_sum_is_right(const uint8_t *bytes, size_t length, size_t at)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < length; i++)
        sum += bytes[i];
    for (size_t i = at; i < at + 4; i++)
        sum -= bytes[i];
    return ~sum == image_be32(bytes + at);
}

/* ---- the footer ----------------------------------------------------------------------------- */

static uint64_t vhd_geometry(const uint8_t *footer)
{
    return (uint64_t)image_be16(footer + 56) * footer[58] * footer[59];
}

/* Virtual PC shows a disk of its geometry's size, Hyper-V of the footer's; QEMU 7.2 goes by the
 * creator. Returns bytes. */
static uint64_t vhd_size_for_qemu(const uint8_t *footer)
{
    static const char apps[][5] = {"win ", "qem2", "d2v ", "CTXS"};
    uint64_t geometry = vhd_geometry(footer);
    bool by_size = memcmp(footer + 28, "tap", 3) == 0 || geometry == VHD_MAX_GEOMETRY;

    for (size_t i = 0; i < sizeof(apps) / sizeof(apps[0]); i++)
        by_size = by_size || memcmp(footer + 28, apps[i], 4) == 0;
    return by_size ? image_be64(footer + 48) / 512 * 512 : geometry * 512;
}

/* What others would see counts for the limit as well. */
static void vhd_check_size(ImageCheck *check, const uint8_t *footer, uint64_t at)
{
    uint64_t size = image_be64(footer + 48);
    uint64_t for_qemu = vhd_size_for_qemu(footer);

    if (size % 512 || for_qemu / 512 > VHD_MAX_SECTORS || size / 512 > VHD_MAX_SECTORS) {
        image_reason(check, IMAGE_BAD_HEADER, at + 48,
                     "A size of %llu bytes: it has to be whole sectors, 2040 GiB at most.",
                     (unsigned long long)size);
        return;
    }
    if (for_qemu == 0 || size == 0) {
        image_reason(check, IMAGE_SIZE_UNKNOWN, at + 48,
                     "The footer says %llu bytes, its geometry %llu; one of them is nothing.",
                     (unsigned long long)size, (unsigned long long)vhd_geometry(footer) * 512);
        return;
    }
    image_set_size(check, at + 48, for_qemu);
    if (size > for_qemu && size > check->max_size && for_qemu <= check->max_size)
        image_reason(check, IMAGE_SIZE_LIMIT, at + 48,
                     "Other hypervisors than QEMU show a disk of %llu bytes; %llu are allowed.",
                     (unsigned long long)size, (unsigned long long)check->max_size);
}

static bool vhd_all_zero(const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (bytes[i])
            return false;
    }
    return true;
}

/* Returns whether the rest is worth a look. */
static bool vhd_check_footer(ImageCheck *check, const uint8_t *footer, uint64_t at)
{
    if (!vhd_sum_is_right(footer, VHD_FOOTER, VHD_CHECKSUM)) {
        image_reason(check, IMAGE_BAD_CHECKSUM, at + VHD_CHECKSUM,
                     "The footer's checksum is wrong.");
        return false;
    }
    if (image_be32(footer + 12) >> 16 != 1) {
        image_reason(check, IMAGE_UNKNOWN_VERSION, at + 12, "VHD version 0x%x is not known.",
                     image_be32(footer + 12));
        return false;
    }
    if (image_be32(footer + 8) & ~VHD_FEATURES)
        image_reason(check, IMAGE_UNKNOWN_FEATURE, at + 8, "Unknown features: 0x%x.",
                     image_be32(footer + 8) & ~VHD_FEATURES);
    /* Byte 85 is XenServer's "hidden". */
    if (!vhd_all_zero(footer + 86, VHD_FOOTER - 86))
        image_reason(check, IMAGE_BAD_HEADER, at + 86, "The footer's reserved bytes are not zero.");
    vhd_check_size(check, footer, at);
    return true;
}

/* ---- fixed ---------------------------------------------------------------------------------- */

static void vhd_check_fixed(ImageCheck *check, size_t length)
{
    const ImageSample *sample = &check->sample;
    uint64_t at = check->size - length;
    uint8_t footer[VHD_FOOTER] = {0};
    uint64_t next;

    memcpy(footer, sample->tail + sample->tail_len - length, length);
    if (!vhd_check_footer(check, footer, at))
        return;
    if (image_be32(footer + 60) != VHD_FIXED) {
        image_reason(check, IMAGE_BAD_HEADER, at + 60,
                     "The footer says type %u, but there is no copy of it at the begin, which all "
                     "but fixed disks have.",
                     image_be32(footer + 60));
        return;
    }
    next = image_be64(footer + 16);
    if (next != UINT64_MAX && next != VHD_UNUSED && next != 0)
        image_reason(check, IMAGE_BAD_HEADER, at + 16,
                     "A fixed disk has no further header, but one is said to be at byte %llu.",
                     (unsigned long long)next);
    if (image_be64(footer + 48) != at)
        image_reason(check, IMAGE_SIZE_MISMATCH, at + 48,
                     "The footer says %llu bytes of data, the file has %llu.",
                     (unsigned long long)image_be64(footer + 48), (unsigned long long)at);
    /* QEMU would let the VM write over the footer. */
    if (vhd_size_for_qemu(footer) > at)
        image_reason(check, IMAGE_SIZE_MISMATCH, at + 56,
                     "The geometry is of %llu bytes, more than the %llu that the file has.",
                     (unsigned long long)vhd_size_for_qemu(footer), (unsigned long long)at);
}

/* ---- dynamic and differencing --------------------------------------------------------------- */

typedef struct VhdDynamic {
    uint64_t size;           /* of the disk, the largest that anybody shows */
    uint64_t header;         /* the dynamic header's place */
    uint64_t table, entries; /* the block allocation table's */
    uint64_t block;          /* a block's data, in bytes */
    uint64_t bitmap;         /* and the bitmap before it */
} VhdDynamic;

static void vhd_check_parent(ImageCheck *check, const uint8_t *footer, const uint8_t *header,
                             uint64_t at)
{
    char quoted[IMAGE_QUOTED];
    char name[64];
    unsigned locators = 0;

    for (size_t i = 0; i < 8; i++)
        locators += image_be32(header + 576 + i * 24) != 0;
    /* The name is UTF-16 in big-endian order; what is not ASCII becomes "?". */
    for (size_t i = 0; i < sizeof(name); i++)
        name[i] = (char)(header[64 + 2 * i] ? 1 : header[64 + 2 * i + 1]);
    if (image_be32(footer + 60) == VHD_DIFFERENCING || name[0] || locators)
        image_reason(check, IMAGE_BACKING_FILE, at + 64,
                     "The disk has a parent, \"%s\", with %u locators.",
                     image_quote(quoted, name, sizeof(name)), locators);
}

static bool vhd_overlap(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length)
{
    return a < b + b_length && b < a + a_length;
}

/* The dynamic header. False: its numbers are of no use. */
static bool vhd_check_header(ImageCheck *check, const uint8_t *footer, VhdDynamic *disk)
{
    uint8_t header[VHD_HEADER];
    uint64_t at = image_be64(footer + 16);

    if (at % 512 || at < VHD_FOOTER || !image_inside(check, at, VHD_HEADER)) {
        image_reason(check, IMAGE_TABLE_OUTSIDE, 16,
                     "The header of the dynamic disk is said to be at byte %llu.",
                     (unsigned long long)at);
        return false;
    }
    if (!image_read(check, at, header, sizeof(header)))
        return false;
    if (memcmp(header, "cxsparse", 8) != 0) {
        image_reason(check, IMAGE_BAD_HEADER, at, "There is no header of a dynamic disk.");
        return false;
    }
    if (!vhd_sum_is_right(header, VHD_HEADER, VHD_HEADER_CHECKSUM))
        image_reason(check, IMAGE_BAD_CHECKSUM, at + VHD_HEADER_CHECKSUM,
                     "The checksum of the dynamic disk's header is wrong.");
    if (image_be32(header + 24) >> 16 != 1)
        image_reason(check, IMAGE_UNKNOWN_VERSION, at + 24,
                     "The dynamic disk's header has version 0x%x.", image_be32(header + 24));
    vhd_check_parent(check, footer, header, at);
    disk->header = at;
    disk->table = image_be64(header + 16);
    disk->entries = image_be32(header + 28);
    disk->block = image_be32(header + 32);
    if (disk->block < 512 || disk->block > VHD_BLOCK_MAX || (disk->block & (disk->block - 1))) {
        image_reason(check, IMAGE_BAD_HEADER, at + 32,
                     "A block of %llu bytes: it has to be a power of two from 512 to 268435456.",
                     (unsigned long long)disk->block);
        return false;
    }
    disk->bitmap = (disk->block / 512 / 8 + 511) / 512 * 512;
    return true;
}

/* Where the block allocation table is, and how long. */
static bool vhd_check_table(ImageCheck *check, const VhdDynamic *disk)
{
    uint64_t length = disk->entries * 4;

    if (disk->entries * disk->block < disk->size) {
        image_reason(check, IMAGE_TABLE_SIZE, disk->header + 28,
                     "The block allocation table has %llu entries, too few for %llu bytes.",
                     (unsigned long long)disk->entries, (unsigned long long)disk->size);
        return false;
    }
    if (disk->entries > INT32_MAX / 4) {
        image_reason(check, IMAGE_TABLE_SIZE, disk->header + 28,
                     "The block allocation table has %llu entries; QEMU takes 536870911 at most.",
                     (unsigned long long)disk->entries);
        return false;
    }
    if (!image_inside(check, disk->table, length)) {
        image_reason(check, IMAGE_TABLE_OUTSIDE, disk->header + 16,
                     "The block allocation table is at byte %llu, %llu bytes long; the file ends "
                     "before.",
                     (unsigned long long)disk->table, (unsigned long long)length);
        return false;
    }
    if (disk->table % 512) {
        image_reason(check, IMAGE_TABLE_MISALIGNED, disk->header + 16,
                     "The block allocation table is at byte %llu, not at a sector's begin.",
                     (unsigned long long)disk->table);
        return false;
    }
    if (disk->table < VHD_FOOTER || disk->table + length > check->size - VHD_FOOTER ||
        vhd_overlap(disk->table, length, disk->header, VHD_HEADER)) {
        image_reason(check, IMAGE_TABLE_OVERLAP, disk->header + 16,
                     "The block allocation table lies on a footer or a header.");
        return false;
    }
    /* QEMU puts new blocks behind the table and all other blocks, whatever is there. */
    if (disk->table < disk->header) {
        image_reason(check, IMAGE_TABLE_OVERLAP, 16,
                     "The header of the dynamic disk is at byte %llu, behind its table, where new "
                     "blocks come to lie.",
                     (unsigned long long)disk->header);
        return false;
    }
    return true;
}

static void vhd_check_blocks(ImageCheck *check, const VhdDynamic *disk)
{
    uint64_t end = check->size - VHD_FOOTER;
    uint64_t length = disk->bitmap + disk->block;
    uint64_t table_length = disk->entries * 4;
    uint64_t allowed = (check->max_size / disk->block + 1) * 4;
    const uint8_t *entry;
    ImageTable table;

    /* XenServer's tables have always room for 2040 GiB, in blocks of 2 MiB: 4 MiB. */
    allowed += 4u << 20;
    image_grant(check, allowed < table_length ? allowed : table_length);
    image_table_begin(&table, disk->table, disk->entries, 4);
    while ((entry = image_table_next(check, &table))) {
        uint64_t at = (uint64_t)image_be32(entry) * 512;

        if (image_be32(entry) == VHD_UNUSED)
            continue;
        if (at > end || length > end - at) {
            image_reason(check, IMAGE_TRUNCATED, table.offset,
                         "A block is at byte %llu, not before the footer at the file's end.",
                         (unsigned long long)at);
            return;
        }
        if (at < VHD_FOOTER || vhd_overlap(at, length, disk->header, VHD_HEADER) ||
            vhd_overlap(at, length, disk->table, table_length)) {
            image_reason(check, IMAGE_TABLE_OVERLAP, table.offset,
                         "A block is at byte %llu, on a header or the table.",
                         (unsigned long long)at);
            return;
        }
    }
}

/* Both footers, but for the bytes in which sound images may differ: time, saved state. */
static bool vhd_same_footers(const uint8_t *a, const uint8_t *b)
{
    return memcmp(a, b, 24) == 0 && memcmp(a + 28, b + 28, VHD_CHECKSUM - 28) == 0 &&
           memcmp(a + 68, b + 68, 16) == 0;
}

static void vhd_check_dynamic(ImageCheck *check)
{
    const uint8_t *footer = check->sample.head;
    const uint8_t *last;
    uint32_t type = image_be32(footer + 60);
    VhdDynamic disk = {.size = image_be64(footer + 48)};

    if (check->size < VHD_FOOTER + VHD_HEADER + VHD_FOOTER) {
        image_reason(check, IMAGE_TRUNCATED, IMAGE_NO_OFFSET, "The file ends inside its headers.");
        return;
    }
    if (!vhd_check_footer(check, footer, 0))
        return;
    if (type != VHD_DYNAMIC && type != VHD_DIFFERENCING) {
        image_reason(check, IMAGE_BAD_HEADER, 60,
                     "The file begins with a footer, so its type has to be 3 or 4; it is %u.",
                     type);
        return;
    }
    last = check->sample.tail + check->sample.tail_len - VHD_FOOTER;
    if (!vhd_same_footers(footer, last) || !vhd_sum_is_right(last, VHD_FOOTER, VHD_CHECKSUM))
        image_reason(check, IMAGE_BAD_HEADER, check->size - VHD_FOOTER,
                     "The last 512 bytes are not the footer that the file begins with; there are "
                     "hypervisors that go by them.");
    if (image_sample_has(&check->sample, 512, "EFI PART", 8))
        image_reason(check, IMAGE_ALSO_PARTITIONS, 512,
                     "There is a GPT where a dynamic disk has none.");
    if (vhd_size_for_qemu(footer) > disk.size)
        disk.size = vhd_size_for_qemu(footer);
    if (vhd_check_header(check, footer, &disk) && vhd_check_table(check, &disk))
        vhd_check_blocks(check, &disk);
}

static void vhd_check(ImageCheck *check)
{
    const ImageSample *sample = &check->sample;
    size_t odd = vhd_odd_footer(sample);

    if (image_sample_has(sample, 0, vhd_cookie, 8))
        vhd_check_dynamic(check);
    else if (odd ? odd != VHD_FOOTER - 1 : check->size % VHD_FOOTER != 0)
        image_reason(check, IMAGE_BAD_HEADER, IMAGE_NO_OFFSET,
                     "In a file of %llu bytes some find the footer at one place, some at another, "
                     "or not at all.",
                     (unsigned long long)check->size);
    else
        vhd_check_fixed(check, odd ? odd : VHD_FOOTER);
}

const ImageFormat image_vhd = {
    .name = "vhd",
    .alias = "vpc",
    .title = "VHD, Virtual PC's format",
    .also = IMAGE_ALSO_VHD,
    .recognise = vhd_recognise,
    .check = vhd_check,
    .beside = image_partitions,
};
