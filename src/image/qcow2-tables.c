/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2's tables: sizes and places, and the entries of those that QEMU reads when it opens an
 * image. L2 tables and reference counts are not read: there can be as many of them as data, and
 * QEMU looks at each entry when it uses it.
 */
#include <inttypes.h>

#include "image/qcow2.h"

/* Bits of an entry of the L1 table, and of the refcount table. */
#define QCOW2_L1_OFFSET UINT64_C(0x00fffffffffffe00)
#define QCOW2_L1_COPIED ((uint64_t)1 << 63)
#define QCOW2_REFTABLE_RESERVED UINT64_C(0x1ff)

/* How many L1 entries a disk of so many bytes needs. */
static uint64_t qcow2_l1_needed(const Qcow2 *q, uint64_t bytes)
{
    uint64_t l2_entries = q->cluster_size / q->l2_entry_size;
    uint64_t each = l2_entries * q->cluster_size;

    return bytes / each + (bytes % each != 0);
}

/* ---- where they are ------------------------------------------------------------------------- */

static void qcow2_l1_table(Qcow2 *q)
{
    uint64_t entries = image_be32(q->header + 36), offset = image_be64(q->header + 40);
    uint64_t needed = qcow2_l1_needed(q, q->disk_size);

    if (entries * 8 > QCOW2_MAX_L1)
        image_reason(q->check, IMAGE_TABLE_SIZE, 36,
                     "The L1 table has %" PRIu64 " entries; %" PRIu64 " are possible.", entries,
                     QCOW2_MAX_L1 / 8);
    else if (entries < needed)
        image_reason(q->check, IMAGE_TABLE_SIZE, 36,
                     "The L1 table has %" PRIu64 " entries; the disk needs %" PRIu64 ".", entries,
                     needed);
    else if (qcow2_part(q, "L1 table", 40, offset, entries * 8)) {
        q->l1_offset = offset;
        q->l1_entries = needed;
    }
}

static void qcow2_refcount_table(Qcow2 *q)
{
    uint64_t offset = image_be64(q->header + 48), clusters = image_be32(q->header + 56);
    uint64_t bytes = clusters << q->cluster_bits;

    if (clusters == 0 || bytes > QCOW2_MAX_REFTABLE)
        image_reason(q->check, IMAGE_TABLE_SIZE, 56,
                     "The refcount table has %" PRIu64 " clusters; 1 to %" PRIu64 " are possible.",
                     clusters, QCOW2_MAX_REFTABLE >> q->cluster_bits);
    else if (qcow2_part(q, "refcount table", 48, offset, bytes)) {
        q->reftable_offset = offset;
        q->reftable_entries = bytes / 8;
    }
}

/* ---- snapshots ------------------------------------------------------------------------------ */

/* The L1 table of a snapshot is read when somebody returns to it. */
static bool qcow2_snapshot_l1(Qcow2 *q, uint64_t at, const uint8_t *bytes)
{
    uint64_t offset = image_be64(bytes), entries = image_be32(bytes + 8);

    if (entries * 8 > QCOW2_MAX_L1 || offset % q->cluster_size != 0 ||
        !image_inside(q->check, offset, entries * 8) || (entries > 0 && offset < q->cluster_size)) {
        image_reason(q->check, IMAGE_BAD_ENTRY, at,
                     "A snapshot has an L1 table of %" PRIu64 " entries at byte %" PRIu64
                     ", which is too large, not inside the file, or no place for one.",
                     entries, offset);
        return false;
    }
    return true;
}

/* One snapshot; `at` moves behind it. */
static bool qcow2_snapshot(Qcow2 *q, uint64_t *at)
{
    ImageCheck *check = q->check;
    uint8_t bytes[40], extra[16] = {0};
    uint64_t begin = (*at + 7) & ~(uint64_t)7, end;
    uint32_t extra_size;

    if (!image_inside(check, begin, sizeof(bytes))) {
        image_reason(check, IMAGE_TABLE_OUTSIDE, begin, "The file ends in the snapshot table.");
        return false;
    }
    if (!image_read(check, begin, bytes, sizeof(bytes)))
        return false;
    extra_size = image_be32(bytes + 36);
    end = begin + sizeof(bytes) + extra_size + image_be16(bytes + 12) + image_be16(bytes + 14);
    if (extra_size > QCOW2_MAX_SNAPSHOT_EXTRA || !image_inside(check, begin, end - begin)) {
        image_reason(check, IMAGE_BAD_ENTRY, begin,
                     "A snapshot has %" PRIu32
                     " bytes of extra data: too many, or beyond the file's end.",
                     extra_size);
        return false;
    }
    if (extra_size >= sizeof(extra)) {
        if (!image_read(check, begin + sizeof(bytes), extra, sizeof(extra)))
            return false;
        /* Who returns to the snapshot has a disk of its size. */
        image_set_size(check, begin + sizeof(bytes) + 8, image_be64(extra + 8) & ~(uint64_t)511);
    }
    *at = end;
    return qcow2_snapshot_l1(q, begin, bytes);
}

static void qcow2_snapshots(Qcow2 *q)
{
    uint32_t count = image_be32(q->header + 60);
    uint64_t offset = image_be64(q->header + 64), at = offset;
    uint64_t size = q->check->verdict.size;

    if (count > QCOW2_MAX_SNAPSHOTS) {
        image_reason(q->check, IMAGE_TABLE_SIZE, 60,
                     "There are %" PRIu32 " snapshots; %d are possible.", count,
                     QCOW2_MAX_SNAPSHOTS);
        return;
    }
    /* As QEMU, even if there are none. */
    if (offset % q->cluster_size != 0) {
        qcow2_part(q, "snapshot table", 64, offset, 40);
        return;
    }
    if (count == 0)
        return;
    while (count > 0 && qcow2_snapshot(q, &at))
        count--;
    /* The limit is for all; what a VM sees now is the disk. */
    q->check->verdict.size = size;
    if (count == 0)
        qcow2_part(q, "snapshot table", 64, offset, at - offset);
}

void qcow2_tables(Qcow2 *q)
{
    qcow2_refcount_table(q);
    qcow2_l1_table(q);
    qcow2_snapshots(q);
}

/* ---- bitmaps -------------------------------------------------------------------------------- */

/* One entry of the directory; `at` moves behind it. As QEMU checks them. */
static bool qcow2_bitmap(Qcow2 *q, uint64_t *at, uint64_t end)
{
    uint8_t bytes[24];
    uint64_t table, length;
    uint32_t entries, flags, extra;
    uint16_t name;

    if (end - *at < sizeof(bytes)) {
        image_reason(q->check, IMAGE_BAD_ENTRY, *at, "The bitmap directory ends in an entry.");
        return false;
    }
    if (!image_read(q->check, *at, bytes, sizeof(bytes)))
        return false;
    table = image_be64(bytes);
    entries = image_be32(bytes + 8);
    flags = image_be32(bytes + 12);
    name = image_be16(bytes + 18);
    extra = image_be32(bytes + 20);
    length = (sizeof(bytes) + name + (uint64_t)extra + 7) & ~(uint64_t)7;
    /* in use, automatic, extra data compatible; a dirty tracking bitmap; granularity 2^9 to 2^31 */
    if ((flags & ~(uint32_t)7) || bytes[16] != 1 || bytes[17] < 9 || bytes[17] > 31 || name == 0 ||
        name > 1023 || extra != 0 || length > end - *at) {
        image_reason(q->check, IMAGE_BAD_ENTRY, *at,
                     "An entry of the bitmap directory has an impossible flag, type, granularity "
                     "or length.");
        return false;
    }
    if (entries == 0 || entries > 0x8000000 || table < q->cluster_size ||
        table % q->cluster_size != 0 || !image_inside(q->check, table, (uint64_t)entries * 8)) {
        image_reason(q->check, IMAGE_TABLE_OUTSIDE, *at,
                     "The table of a bitmap, %" PRIu32 " entries at byte %" PRIu64
                     ", is not inside the file, or no place for one.",
                     entries, table);
        return false;
    }
    *at += length;
    return true;
}

void qcow2_bitmaps(Qcow2 *q, uint64_t at, const uint8_t *bytes)
{
    uint32_t count = image_be32(bytes), reserved = image_be32(bytes + 4);
    uint64_t size = image_be64(bytes + 8), offset = image_be64(bytes + 16), entry = offset;

    if (count == 0 || count > QCOW2_MAX_BITMAPS || reserved != 0 || size == 0 ||
        size > (uint64_t)QCOW2_MAX_BITMAPS * 1024) {
        image_reason(q->check, IMAGE_BAD_HEADER, at,
                     "The bitmaps extension tells of %" PRIu32 " bitmaps in %" PRIu64
                     " bytes, which is impossible.",
                     count, size);
        return;
    }
    if (!qcow2_part(q, "bitmap directory", at, offset, size))
        return;
    for (uint32_t i = 0; i < count; i++) {
        if (!qcow2_bitmap(q, &entry, offset + size))
            return;
    }
    if (entry != offset + size)
        image_reason(q->check, IMAGE_BAD_ENTRY, entry,
                     "The bitmap directory has more bytes than entries.");
}

/* ---- entries -------------------------------------------------------------------------------- */

/* Whether a cluster at `offset` can be there: in the file, and on no table. */
static bool qcow2_cluster_ok(Qcow2 *q, const char *what, uint64_t entry, uint64_t offset)
{
    if (offset % q->cluster_size != 0) {
        image_reason(q->check, IMAGE_TABLE_MISALIGNED, entry,
                     "The %s points to byte %" PRIu64 ", where no cluster begins.", what, offset);
        return false;
    }
    if (!image_inside(q->check, offset, q->cluster_size)) {
        image_reason(q->check, IMAGE_TABLE_OUTSIDE, entry,
                     "The %s points to byte %" PRIu64 "; the file ends at byte %" PRIu64 ".", what,
                     offset, q->check->size);
        return false;
    }
    for (size_t i = 0; i < q->n_parts; i++) {
        if (offset < q->parts[i].end && q->parts[i].begin < offset + q->cluster_size) {
            image_reason(q->check, IMAGE_TABLE_OVERLAP, entry, "The %s points to the %s.", what,
                         q->parts[i].what);
            return false;
        }
    }
    return true;
}

static void qcow2_l1_entries(Qcow2 *q)
{
    ImageTable table;
    const uint8_t *entry;

    /* A disk within the limit has no more entries, whatever its clusters. */
    image_grant(q->check, q->l1_entries * 8);
    image_table_begin(&table, q->l1_offset, q->l1_entries, 8);
    while ((entry = image_table_next_set(q->check, &table))) {
        uint64_t value = image_be64(entry);

        if (value & ~(QCOW2_L1_OFFSET | QCOW2_L1_COPIED)) {
            image_reason(q->check, IMAGE_BAD_ENTRY, table.offset,
                         "An entry of the L1 table, %#" PRIx64 ", has reserved bits set.", value);
            return;
        }
        value &= QCOW2_L1_OFFSET;
        if (value && !qcow2_cluster_ok(q, "L1 table", table.offset, value))
            return;
    }
}

static void qcow2_reftable_entries(Qcow2 *q)
{
    /* One entry stands for so many bytes of the file. */
    uint64_t per_block = (q->cluster_size * 8) >> q->refcount_order;
    uint64_t each = per_block * q->cluster_size;
    uint64_t needed = q->check->size / each + 1;
    uint64_t entries = needed < q->reftable_entries ? needed : q->reftable_entries;
    ImageTable table;
    const uint8_t *entry;

    image_grant(q->check, entries * 8);
    image_table_begin(&table, q->reftable_offset, entries, 8);
    while ((entry = image_table_next_set(q->check, &table))) {
        uint64_t value = image_be64(entry);

        if (value & QCOW2_REFTABLE_RESERVED) {
            image_reason(q->check, IMAGE_BAD_ENTRY, table.offset,
                         "An entry of the refcount table, %#" PRIx64 ", has reserved bits set.",
                         value);
            return;
        }
        if (value && !qcow2_cluster_ok(q, "refcount table", table.offset, value))
            return;
    }
}

void qcow2_entries(Qcow2 *q)
{
    /* With another file for the data, entries and sizes mean something else; it is refused anyway.
     */
    if (q->disk_size > q->check->max_size)
        return;
    qcow2_l1_entries(q);
    qcow2_reftable_entries(q);
}
