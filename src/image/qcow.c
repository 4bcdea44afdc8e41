/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow, version 1: the format before qcow2. Source: what QEMU 7.2 does when it opens one
 * (block/qcow.c). */
#include <inttypes.h>

#include "image/formats.h"

static bool qcow_recognise(const ImageSample *sample)
{
    return image_sample_has(sample, 0, "QFI\xfb\0\0\0\1", 8);
}

static void qcow_backing(ImageCheck *check, uint64_t offset, uint32_t length)
{
    char text[IMAGE_QUOTED] = "", name[IMAGE_QUOTED] = {0};
    size_t n = length < sizeof(name) ? length : sizeof(name);

    if (offset == 0)
        return;
    if (image_inside(check, offset, n) && !image_read(check, offset, name, n))
        return;
    image_reason(check, IMAGE_BACKING_FILE, 8, "The image has a backing file, '%s'.",
                 image_quote(text, name, n));
    if (length > 1023 || !image_inside(check, offset, length))
        image_reason(check, IMAGE_BAD_HEADER, 16,
                     "The backing file's name has %" PRIu32
                     " bytes: more than 1,023, or than the file.",
                     length);
}

static void qcow_encryption(ImageCheck *check, uint32_t method)
{
    if (method == 1)
        image_reason(check, IMAGE_LEGACY_ENCRYPTION, 36,
                     "The image has qcow's encryption, whose design is broken.");
    else if (method != 0)
        image_reason(check, IMAGE_UNKNOWN_FEATURE, 36, "The encryption %" PRIu32 " is not known.",
                     method);
}

/* ---- tables --------------------------------------------------------------------------------- */

/*
 * QEMU believes every entry of every table: an image in which a cluster of the disk lies on the
 * header, or on a table that says where clusters are, lets the guest write a header with a backing
 * file. So all tables are read, and a map tells which clusters of the file the guest must not get.
 * It is as long as a stretch of the file; a longer file takes several rounds.
 */
#define QCOW_MAX_ROUNDS 16
#define QCOW_COMPRESSED ((uint64_t)1 << 63)

typedef struct Qcow {
    ImageCheck *check;
    uint64_t cluster_size;
    uint64_t l1_offset;
    uint64_t l1_entries;
    uint64_t l2_entries;
    uint64_t begin; /* the stretch of the file that the map stands for */
    uint64_t end;
} Qcow;

/* Whether a part of [offset, offset + length) is marked. */
static bool qcow_is_marked(const Qcow *qcow, uint64_t offset, uint64_t length)
{
    uint64_t from = offset > qcow->begin ? offset : qcow->begin;
    uint64_t to = offset + length < qcow->end ? offset + length : qcow->end;

    for (; from < to; from += qcow->cluster_size - from % qcow->cluster_size) {
        uint64_t bit = (from - qcow->begin) / qcow->cluster_size;

        if (qcow->check->map[bit / 8] & 1u << bit % 8)
            return true;
    }
    return false;
}

static void qcow_mark(Qcow *qcow, uint64_t offset, uint64_t length)
{
    uint64_t from = offset > qcow->begin ? offset : qcow->begin;
    uint64_t to = offset + length < qcow->end ? offset + length : qcow->end;

    for (; from < to; from += qcow->cluster_size - from % qcow->cluster_size) {
        uint64_t bit = (from - qcow->begin) / qcow->cluster_size;

        qcow->check->map[bit / 8] |= (uint8_t)(1u << bit % 8);
    }
}

/* Where the L1 table has something, from `index` on: its offset, or 0 at the end. */
static uint64_t qcow_next_table(Qcow *qcow, uint64_t *index, uint64_t *ret_entry)
{
    uint8_t bytes[8];

    while (*index < qcow->l1_entries) {
        *ret_entry = qcow->l1_offset + *index * 8;
        if (!image_read(qcow->check, *ret_entry, bytes, sizeof(bytes)))
            return 0;
        ++*index;
        if (image_be64(bytes) != 0)
            return image_be64(bytes);
    }
    return 0;
}

/* Marks the header and all tables. False: one of them is no good. */
static bool qcow_mark_tables(Qcow *qcow)
{
    uint64_t index = 0, entry = 0, table, length = qcow->l2_entries * 8;

    qcow_mark(qcow, 0, qcow->l1_offset + qcow->l1_entries * 8);
    while ((table = qcow_next_table(qcow, &index, &entry)) != 0) {
        if (!image_inside(qcow->check, table, length)) {
            image_reason(qcow->check, IMAGE_TABLE_OUTSIDE, entry,
                         "The L1 table points to byte %" PRIu64 "; the file ends at byte %" PRIu64
                         ".",
                         table, qcow->check->size);
            return false;
        }
        if (table % qcow->cluster_size != 0) {
            image_reason(qcow->check, IMAGE_TABLE_MISALIGNED, entry,
                         "The L1 table points to byte %" PRIu64 ", where no cluster begins.",
                         table);
            return false;
        }
        if (qcow_is_marked(qcow, table, length)) {
            image_reason(qcow->check, IMAGE_TABLE_OVERLAP, entry,
                         "The L2 table at byte %" PRIu64
                         " lies on the header, the L1 table or another L2 table.",
                         table);
            return false;
        }
        qcow_mark(qcow, table, length);
    }
    return index == qcow->l1_entries;
}

/* Compressed clusters are read, and never written to. */
static bool qcow_l2(Qcow *qcow, uint64_t offset)
{
    ImageTable table;
    const uint8_t *entry;

    image_table_begin(&table, offset, qcow->l2_entries, 8);
    while ((entry = image_table_next_set(qcow->check, &table))) {
        uint64_t value = image_be64(entry);

        if (value & QCOW_COMPRESSED)
            continue;
        if (value % qcow->cluster_size != 0) {
            image_reason(qcow->check, IMAGE_TABLE_MISALIGNED, table.offset,
                         "An L2 table points to byte %" PRIu64 ", where no cluster begins.", value);
            return false;
        }
        if (value >= qcow->check->size) {
            image_reason(qcow->check, IMAGE_TABLE_OUTSIDE, table.offset,
                         "An L2 table points to byte %" PRIu64 "; the file ends at byte %" PRIu64
                         ".",
                         value, qcow->check->size);
            return false;
        }
        if (qcow_is_marked(qcow, value, qcow->cluster_size)) {
            image_reason(qcow->check, IMAGE_TABLE_OVERLAP, table.offset,
                         "An L2 table points to byte %" PRIu64
                         ", where the header or a table is: the guest could write there.",
                         value);
            return false;
        }
    }
    return true;
}

static bool qcow_round(Qcow *qcow)
{
    uint64_t clusters = (qcow->end - qcow->begin) / qcow->cluster_size + 1;
    uint64_t index = 0, entry = 0, table, l2 = qcow->l1_entries * qcow->l2_entries * 8;

    memset(qcow->check->map, 0, (size_t)(clusters / 8 + 1));
    /* Tables that do not share clusters are never more than the file. */
    image_grant(qcow->check, 2 * qcow->l1_entries * 8);
    image_grant(qcow->check, l2 < qcow->check->size ? l2 : qcow->check->size);
    if (!qcow_mark_tables(qcow))
        return false;
    while ((table = qcow_next_table(qcow, &index, &entry)) != 0) {
        if (!qcow_l2(qcow, table))
            return false;
    }
    return index == qcow->l1_entries;
}

static void qcow_tables(Qcow *qcow)
{
    ImageCheck *check = qcow->check;
    uint64_t stretch = (IMAGE_MAP - 1) * 8 * qcow->cluster_size;

    if (qcow->l1_offset < 48 || !image_inside(check, qcow->l1_offset, qcow->l1_entries * 8)) {
        image_reason(check, IMAGE_TABLE_OUTSIDE, 40,
                     "The L1 table of %" PRIu64 " entries at byte %" PRIu64
                     " is not inside the file, or in its header.",
                     qcow->l1_entries, qcow->l1_offset);
        return;
    }
    if (check->size / stretch >= QCOW_MAX_ROUNDS) {
        image_reason(check, IMAGE_TOO_MUCH_METADATA, IMAGE_NO_OFFSET,
                     "The file is too long for clusters of %" PRIu64 " bytes to be checked.",
                     qcow->cluster_size);
        return;
    }
    for (qcow->begin = 0; qcow->begin < check->size; qcow->begin = qcow->end) {
        qcow->end = check->size - qcow->begin < stretch ? check->size : qcow->begin + stretch;
        if (!qcow_round(qcow))
            return;
    }
}

/* ---- the whole ------------------------------------------------------------------------------ */

static void qcow_check(ImageCheck *check)
{
    const uint8_t *h = check->head;
    uint64_t size = image_be64(h + 24);
    uint8_t cluster_bits = h[32], l2_bits = h[33];
    unsigned shift = (unsigned)cluster_bits + l2_bits;

    if (check->size < 48) {
        image_reason(check, IMAGE_TRUNCATED, 0, "The file ends in the header, which has 48 bytes.");
        return;
    }
    qcow_backing(check, image_be64(h + 8), image_be32(h + 16));
    qcow_encryption(check, image_be32(h + 36));
    /* QEMU: clusters of 512 bytes to 64 KiB, tables of 512 bytes to 64 KiB, a disk of 2 bytes */
    if (cluster_bits < 9 || cluster_bits > 16 || l2_bits < 6 || l2_bits > 13 || size < 2) {
        image_reason(check, IMAGE_BAD_HEADER, 24,
                     "Clusters of 2^%u bytes, tables of 2^%u entries, a disk of %" PRIu64
                     " bytes: one of these is impossible.",
                     cluster_bits, l2_bits, size);
        return;
    }
    image_set_size(check, 24, size & ~(uint64_t)511);
    if (size > check->max_size)
        return;
    qcow_tables(&(Qcow){
        .check = check,
        .cluster_size = (uint64_t)1 << cluster_bits,
        .l1_offset = image_be64(h + 40),
        .l1_entries = (size >> shift) + ((size & ((1u << shift) - 1)) != 0),
        .l2_entries = (uint64_t)1 << l2_bits,
    });
}

const ImageFormat image_qcow = {
    .name = "qcow",
    .title = "a qcow image, version 1",
    .also = IMAGE_ALSO_QCOW,
    .recognise = qcow_recognise,
    .check = qcow_check,
};
