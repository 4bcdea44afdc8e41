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

/* The first level: where the second is. */
static void qcow_l1(ImageCheck *check, uint64_t offset, uint64_t entries, uint64_t l2_bytes)
{
    ImageTable table;
    const uint8_t *entry;

    if (offset < 48 || !image_inside(check, offset, entries * 8)) {
        image_reason(check, IMAGE_TABLE_OUTSIDE, 40,
                     "The L1 table of %" PRIu64 " entries at byte %" PRIu64
                     " is not inside the file, or in its header.",
                     entries, offset);
        return;
    }
    image_grant(check, entries * 8);
    image_table_begin(&table, offset, entries, 8);
    while ((entry = image_table_next_set(check, &table))) {
        uint64_t value = image_be64(entry);

        if (value != 0 && (value < 48 || !image_inside(check, value, l2_bytes))) {
            image_reason(check, IMAGE_TABLE_OUTSIDE, table.offset,
                         "The L1 table points to byte %" PRIu64 "; the file ends at byte %" PRIu64
                         ".",
                         value, check->size);
            return;
        }
    }
}

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
    qcow_l1(check, image_be64(h + 40), (size >> shift) + ((size & ((1u << shift) - 1)) != 0),
            (uint64_t)8 << l2_bits);
}

const ImageFormat image_qcow = {
    .name = "qcow",
    .title = "a qcow image, version 1",
    .also = IMAGE_ALSO_QCOW,
    .recognise = qcow_recognise,
    .check = qcow_check,
};
