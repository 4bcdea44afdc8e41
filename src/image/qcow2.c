/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2, versions 2 and 3: the header, its extensions, and where the tables lie. The tables
 * themselves are in qcow2-tables.c. Sources: QEMU's docs/interop/qcow2.txt; where that leaves room,
 * what QEMU 7.2 does when it opens an image (block/qcow2.c).
 */
#include "image/qcow2.h"

#include <inttypes.h>

#include "image/formats.h"
#include "image/luks.h"

static const uint8_t qcow2_magic[] = {'Q', 'F', 'I', 0xfb};

/* The same four bytes are the older qcow's, with version 1. QEMU takes every other version for its
 * own, to say that it does not know it. */
static bool qcow2_recognise(const ImageSample *sample)
{
    return image_sample_has(sample, 0, qcow2_magic, 4) &&
           !image_sample_has(sample, 4, "\0\0\0\1", 4);
}

/* ---- parts ---------------------------------------------------------------------------------- */

bool qcow2_part(Qcow2 *q, const char *what, uint64_t field, uint64_t offset, uint64_t length)
{
    ImageCheck *check = q->check;

    if (length == 0)
        return true;
    if (offset % q->cluster_size != 0) {
        image_reason(check, IMAGE_TABLE_MISALIGNED, field,
                     "The %s at byte %" PRIu64 " does not begin where a cluster does.", what,
                     offset);
        return false;
    }
    if (!image_inside(check, offset, length)) {
        image_reason(check, IMAGE_TABLE_OUTSIDE, field,
                     "The %s of %" PRIu64 " bytes at byte %" PRIu64 " is not inside the file.",
                     what, length, offset);
        return false;
    }
    for (size_t i = 0; i < q->n_parts; i++) {
        const Qcow2Part *part = &q->parts[i];

        if (offset < part->end && part->begin < offset + length) {
            image_reason(check, IMAGE_TABLE_OVERLAP, field,
                         "The %s at byte %" PRIu64 " lies on top of the %s.", what, offset,
                         part->what);
            return false;
        }
    }
    if (q->n_parts < QCOW2_MAX_PARTS)
        q->parts[q->n_parts++] = (Qcow2Part){.what = what, .begin = offset, .end = offset + length};
    return true;
}

/* ---- the header ----------------------------------------------------------------------------- */

static bool qcow2_version(Qcow2 *q)
{
    const uint8_t *h = q->header;

    q->version = image_be32(h + 4);
    if (q->version != 2 && q->version != 3) {
        image_reason(q->check, IMAGE_UNKNOWN_VERSION, 4,
                     "The version is %" PRIu32 "; versions 2 and 3 are known.", q->version);
        return false;
    }
    q->header_length = 72;
    q->refcount_order = 4;
    if (q->version == 2)
        return true;
    if (q->check->size < 104) {
        image_reason(q->check, IMAGE_TRUNCATED, 0,
                     "The file ends in the header, which has at least 104 bytes.");
        return false;
    }
    q->incompatible = image_be64(h + 72);
    q->autoclear = image_be64(h + 88);
    q->refcount_order = image_be32(h + 96);
    q->header_length = image_be32(h + 100);
    return true;
}

/* What the rest depends on: without it there is nothing to go on with. */
static bool qcow2_clusters(Qcow2 *q)
{
    ImageCheck *check = q->check;

    q->cluster_bits = image_be32(q->header + 20);
    if (q->cluster_bits < 9 || q->cluster_bits > 21) {
        image_reason(check, IMAGE_BAD_HEADER, 20,
                     "Clusters of 2^%" PRIu32 " bytes: 2^9 to 2^21 are possible.", q->cluster_bits);
        return false;
    }
    q->cluster_size = (uint64_t)1 << q->cluster_bits;
    if (q->header_length < 72 || (q->version == 3 && q->header_length < 104) ||
        q->header_length % 8 != 0 || q->header_length > q->cluster_size) {
        image_reason(check, IMAGE_BAD_HEADER, 100,
                     "The header's length is said to be %" PRIu32
                     ": at least 104, a multiple of 8 and no more than a cluster is possible.",
                     q->header_length);
        return false;
    }
    if (!image_inside(check, 0, q->header_length)) {
        image_reason(check, IMAGE_TRUNCATED, 100,
                     "The file ends in the header, which has %" PRIu32 " bytes.", q->header_length);
        return false;
    }
    if (q->refcount_order > 6) {
        image_reason(check, IMAGE_BAD_HEADER, 96,
                     "Reference counts of 2^%" PRIu32 " bits: 2^0 to 2^6 are possible.",
                     q->refcount_order);
        return false;
    }
    /* The head of the sample is enough for a header with all its fields and extensions; what is
     * beyond it is read where it is needed. */
    q->parts[q->n_parts++] = (Qcow2Part){.what = "header", .begin = 0, .end = q->cluster_size};
    return true;
}

static void qcow2_features(Qcow2 *q)
{
    ImageCheck *check = q->check;
    uint64_t unknown = q->incompatible & ~(uint64_t)QCOW2_INCOMPATIBLE_KNOWN;

    if (unknown)
        image_reason(check, IMAGE_UNKNOWN_FEATURE, 72,
                     "The image needs features that are not known: bits %#" PRIx64 ".", unknown);
    if (q->incompatible & QCOW2_CORRUPT)
        image_reason(check, IMAGE_MARKED_CORRUPT, 72,
                     "The image is marked as corrupt; QEMU would open it for reading alone.");
    if (q->incompatible & QCOW2_DATA_FILE)
        image_reason(check, IMAGE_EXTERNAL_DATA, 72, "The image's data is in another file.");
    else if (q->autoclear & QCOW2_AUTOCLEAR_RAW_DATA)
        image_reason(check, IMAGE_BAD_HEADER, 88,
                     "The data file is said to be raw, but there is none.");
    q->l2_entry_size = q->incompatible & QCOW2_EXTENDED_L2 ? 16 : 8;
    /* 32 subclusters of at least 512 bytes */
    if ((q->incompatible & QCOW2_EXTENDED_L2) && q->cluster_bits < 14)
        image_reason(check, IMAGE_BAD_HEADER, 20,
                     "Extended L2 entries need clusters of 2^14 bytes at least, not 2^%" PRIu32 ".",
                     q->cluster_bits);
}

static void qcow2_compression(Qcow2 *q)
{
    uint8_t type = q->header_length > 104 ? q->header[104] : 0;
    bool marked = (q->incompatible & QCOW2_COMPRESSION) != 0;

    if (type > 1)
        image_reason(q->check, IMAGE_UNKNOWN_FEATURE, 104,
                     "The compression %u is not known; 0 (deflate) and 1 (zstd) are.", type);
    else if (marked != (type != 0))
        image_reason(q->check, IMAGE_BAD_HEADER, 104,
                     "The compression is %u, and the feature bit says the opposite.", type);
}

static void qcow2_encryption(Qcow2 *q)
{
    q->crypt_method = image_be32(q->header + 32);
    if (q->crypt_method == QCOW2_CRYPT_AES)
        image_reason(q->check, IMAGE_LEGACY_ENCRYPTION, 32,
                     "The image has qcow2's first encryption, whose design is broken.");
    else if (q->crypt_method > QCOW2_CRYPT_LUKS)
        image_reason(q->check, IMAGE_UNKNOWN_FEATURE, 32,
                     "The encryption %" PRIu32 " is not known.", q->crypt_method);
}

/* The name is shown, so that a log tells what the uploader was after. */
static void qcow2_backing(Qcow2 *q)
{
    uint64_t offset = image_be64(q->header + 8);
    uint32_t length = image_be32(q->header + 16);
    char text[IMAGE_QUOTED] = "", name[IMAGE_QUOTED] = {0};

    if (offset == 0 && length == 0)
        return;
    if (image_inside(q->check, offset, length)) {
        size_t n = length < sizeof(name) ? length : sizeof(name);

        if (!image_read(q->check, offset, name, n))
            return;
        image_quote(text, name, n);
    }
    image_reason(q->check, IMAGE_BACKING_FILE, 8, "The image has a backing file, '%s'.", text);
    if (offset < q->header_length || offset > q->cluster_size || length > 1023 ||
        length > q->cluster_size - offset)
        image_reason(q->check, IMAGE_BAD_HEADER, 8,
                     "The backing file's name (%" PRIu32 " bytes at byte %" PRIu64
                     ") does not lie between the header and the end of its cluster.",
                     length, offset);
}

/* ---- extensions ----------------------------------------------------------------------------- */

static void qcow2_ext_data_file(Qcow2 *q, uint64_t at, uint32_t length)
{
    char text[IMAGE_QUOTED], name[IMAGE_QUOTED] = {0};
    size_t n = length < sizeof(name) ? length : sizeof(name);

    if (image_read(q->check, at, name, n))
        image_reason(q->check, IMAGE_EXTERNAL_DATA, at, "The image names a data file, '%s'.",
                     image_quote(text, name, n));
}

static void qcow2_ext_crypto(Qcow2 *q, uint64_t at, uint32_t length)
{
    uint8_t bytes[16];
    uint64_t offset, size;

    if (q->crypt_method != QCOW2_CRYPT_LUKS || length != sizeof(bytes)) {
        image_reason(q->check, IMAGE_BAD_HEADER, at,
                     "There is an encryption header of %" PRIu32
                     " bytes where there is none, or one of 16 bytes.",
                     length);
        return;
    }
    if (!image_read(q->check, at, bytes, sizeof(bytes)))
        return;
    offset = image_be64(bytes);
    size = image_be64(bytes + 8);
    q->has_crypto = true;
    if (size == 0)
        image_reason(q->check, IMAGE_BAD_HEADER, at, "The LUKS header has a length of 0.");
    else if (qcow2_part(q, "LUKS header", at, offset, size))
        luks1_check(q->check, offset, size, true);
}

static void qcow2_ext_bitmaps(Qcow2 *q, uint64_t at, uint32_t length)
{
    uint8_t bytes[24];

    if (length != sizeof(bytes)) {
        image_reason(q->check, IMAGE_BAD_HEADER, at,
                     "The bitmaps extension has %" PRIu32 " bytes; it should have 24.", length);
        return;
    }
    /* Without this bit whoever wrote last did not know of bitmaps, and QEMU ignores them. */
    if (!(q->autoclear & QCOW2_AUTOCLEAR_BITMAPS))
        return;
    if (image_read(q->check, at, bytes, sizeof(bytes)))
        qcow2_bitmaps(q, at, bytes);
}

static void qcow2_extension(Qcow2 *q, uint32_t type, uint64_t at, uint32_t length)
{
    switch (type) {
    case QCOW2_EXT_DATA_FILE:
        qcow2_ext_data_file(q, at, length);
        break;
    case QCOW2_EXT_CRYPTO:
        qcow2_ext_crypto(q, at, length);
        break;
    case QCOW2_EXT_BITMAPS:
        qcow2_ext_bitmaps(q, at, length);
        break;
    case QCOW2_EXT_BACKING_FORMAT:
        if (length > 15)
            image_reason(q->check, IMAGE_BAD_HEADER, at,
                         "The backing file's format has a name of %" PRIu32 " bytes.", length);
        break;
    default:
        break; /* to be ignored by who does not know it; feature names are only names */
    }
}

static void qcow2_extensions(Qcow2 *q)
{
    uint64_t backing = image_be64(q->header + 8);
    uint64_t at = q->header_length, end = q->cluster_size;

    if (backing != 0 && backing < end)
        end = backing;
    /* QEMU fills up what a short file does not have with zeros, which is the end of extensions. */
    if (end > q->check->size)
        end = q->check->size;
    while (at + 8 <= end) {
        uint8_t bytes[8];
        uint32_t type, length;

        if (!image_read(q->check, at, bytes, sizeof(bytes)))
            return;
        type = image_be32(bytes);
        length = image_be32(bytes + 4);
        at += 8;
        if (length > end - at) {
            image_reason(
                q->check, IMAGE_BAD_HEADER, at - 4,
                "A header extension of %" PRIu32
                " bytes goes beyond the header's cluster, or into the backing file's name.",
                length);
            return;
        }
        if (type == 0)
            return;
        qcow2_extension(q, type, at, length);
        at += ((uint64_t)length + 7) & ~(uint64_t)7;
    }
}

/* ---- the whole ------------------------------------------------------------------------------ */

static void qcow2_check(ImageCheck *check)
{
    Qcow2 q = {.check = check, .header = check->head};

    /* QEMU reads whole headers of version 3 always, filled up with zeros as `head` is. */
    if (check->size < 72) {
        image_reason(check, IMAGE_TRUNCATED, 0,
                     "The file ends in the header, which has at least 72 bytes.");
        return;
    }
    if (!qcow2_version(&q) || !qcow2_clusters(&q))
        return;
    q.disk_size = image_be64(q.header + 24);
    image_set_size(check, 24, q.disk_size & ~(uint64_t)511);
    qcow2_features(&q);
    qcow2_compression(&q);
    qcow2_encryption(&q);
    qcow2_backing(&q);
    qcow2_tables(&q);
    qcow2_extensions(&q);
    if (q.crypt_method == QCOW2_CRYPT_LUKS && !q.has_crypto)
        image_reason(check, IMAGE_DETACHED_HEADER, 32,
                     "The image is encrypted with LUKS, and has no LUKS header.");
    qcow2_entries(&q);
}

const ImageFormat image_qcow2 = {
    .name = "qcow2",
    .title = "a qcow2 image",
    .also = IMAGE_ALSO_QCOW2,
    .recognise = qcow2_recognise,
    .check = qcow2_check,
};
