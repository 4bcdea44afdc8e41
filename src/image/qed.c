/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* QED. Sources: QEMU's docs/interop/qed_spec.rst, and what QEMU 7.2 does when it opens one
 * (block/qed.c). */
#include <inttypes.h>

#include "image/formats.h"

/* Features; a backing file's format matters only with a backing file. */
#define QED_BACKING ((uint64_t)1 << 0)
#define QED_KNOWN ((uint64_t)7)

typedef struct Qed {
    uint64_t cluster_size;
    uint64_t table_size; /* in bytes */
    uint64_t header_size;
    uint64_t disk_size;
    uint64_t l1_offset;
} Qed;

static bool qed_recognise(const ImageSample *sample)
{
    return image_sample_has(sample, 0, "QED\0", 4);
}

static void qed_features(ImageCheck *check)
{
    const uint8_t *h = check->head;
    uint64_t features = image_le64(h + 16);
    uint64_t offset = image_le32(h + 56), length = image_le32(h + 60);
    char text[IMAGE_QUOTED] = "", name[IMAGE_QUOTED] = {0};
    size_t n = length < sizeof(name) ? (size_t)length : sizeof(name);

    if (features & ~QED_KNOWN)
        image_reason(check, IMAGE_UNKNOWN_FEATURE, 16,
                     "The image needs features that are not known: bits %#" PRIx64 ".",
                     features & ~QED_KNOWN);
    if (!(features & QED_BACKING) && length == 0)
        return;
    if (image_inside(check, offset, n) && !image_read(check, offset, name, n))
        return;
    image_reason(check, IMAGE_BACKING_FILE, 56, "The image has a backing file, '%s'.",
                 image_quote(text, name, n));
}

/* Numbers that must be right before anything is computed from them. */
static bool qed_geometry(ImageCheck *check, Qed *qed)
{
    const uint8_t *h = check->head;
    uint64_t cluster = image_le32(h + 4), table = image_le32(h + 8), header = image_le32(h + 12);

    if (cluster < 4096 || cluster > (uint64_t)64 << 20 || (cluster & (cluster - 1))) {
        image_reason(check, IMAGE_BAD_HEADER, 4,
                     "Clusters of %" PRIu64
                     " bytes: a power of two from 4 KiB to 64 MiB is possible.",
                     cluster);
        return false;
    }
    /* The specification has tables of 1 as well, and qemu-img makes them; QEMU cannot open them. */
    if (table < 2 || table > 16 || (table & (table - 1))) {
        image_reason(check, IMAGE_BAD_HEADER, 8,
                     "Tables of %" PRIu64 " clusters: 2, 4, 8 and 16 are possible.", table);
        return false;
    }
    *qed = (Qed){
        .cluster_size = cluster,
        .table_size = table * cluster,
        .header_size = header * cluster,
        .disk_size = image_le64(h + 48),
        .l1_offset = image_le64(h + 40),
    };
    /* A header in clusters that the file, and QEMU's 32 bits, do not have. */
    if (header < 1 || qed->header_size > UINT32_MAX || !image_inside(check, 0, qed->header_size)) {
        image_reason(check, IMAGE_BAD_HEADER, 12,
                     "The header has %" PRIu64 " clusters: none, or more than the file.", header);
        return false;
    }
    return true;
}

static bool qed_size(ImageCheck *check, const Qed *qed)
{
    uint64_t entries = qed->table_size / 8;
    /* at most 2^27 * 2^27 * 2^26 */
    unsigned __int128 most = (unsigned __int128)entries * entries * qed->cluster_size;

    if (qed->disk_size % 512 != 0 || qed->disk_size > most) {
        image_reason(check, IMAGE_BAD_HEADER, 48,
                     "A disk of %" PRIu64
                     " bytes: not in whole sectors, or more than its tables can hold.",
                     qed->disk_size);
        return false;
    }
    image_set_size(check, 48, qed->disk_size);
    return qed->disk_size <= check->max_size;
}

/* As QEMU: from the header's end to the end of the file's last whole cluster. */
static bool qed_table_ok(const ImageCheck *check, const Qed *qed, uint64_t offset)
{
    uint64_t whole = check->size - check->size % qed->cluster_size;

    return offset % qed->cluster_size == 0 && offset >= qed->header_size && offset <= whole &&
           qed->table_size <= whole - offset;
}

static void qed_l1(ImageCheck *check, const Qed *qed)
{
    uint64_t each = qed->table_size / 8 * qed->cluster_size;
    uint64_t entries = qed->disk_size / each + (qed->disk_size % each != 0);
    ImageTable table;
    const uint8_t *entry;

    if (!qed_table_ok(check, qed, qed->l1_offset)) {
        image_reason(check, IMAGE_TABLE_OUTSIDE, 40,
                     "The L1 table at byte %" PRIu64
                     " is not inside the file, in the header, or not where a cluster begins.",
                     qed->l1_offset);
        return;
    }
    image_grant(check, entries * 8);
    image_table_begin(&table, qed->l1_offset, entries, 8);
    while ((entry = image_table_next_set(check, &table))) {
        uint64_t value = image_le64(entry);

        if (value != 0 && (!qed_table_ok(check, qed, value) || value == qed->l1_offset)) {
            image_reason(check, IMAGE_TABLE_OUTSIDE, table.offset,
                         "The L1 table points to byte %" PRIu64 ", which is no place for a table.",
                         value);
            return;
        }
    }
}

static void qed_check(ImageCheck *check)
{
    Qed qed;

    if (check->size < 64) {
        image_reason(check, IMAGE_TRUNCATED, 0, "The file ends in the header, which has 64 bytes.");
        return;
    }
    qed_features(check);
    if (qed_geometry(check, &qed) && qed_size(check, &qed))
        qed_l1(check, &qed);
}

const ImageFormat image_qed = {
    .name = "qed",
    .title = "a QED image",
    .also = IMAGE_ALSO_QED,
    .recognise = qed_recognise,
    .check = qed_check,
};
