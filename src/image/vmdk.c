/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * VMDK: what a file is, and the header of a hosted sparse extent (monolithicSparse,
 * streamOptimized). Sources: VMware, "Virtual Disk Format 5.0"; QEMU's block/vmdk.c for what it
 * makes of each field, the footer before all, and VirtualBox for the values that it demands.
 *
 * A VMDK is opened by the text of its descriptor, which names files: CVE-2022-47951. Only an image
 * with everything in one file can be safe.
 */
#include "image/vmdk.h"
#include "image/formats.h"

#define VMDK_FLAG_NEWLINES 0x1u
#define VMDK_FLAG_REDUNDANT 0x2u
#define VMDK_FLAG_ZEROED 0x4u
#define VMDK_FLAG_COMPRESSED 0x10000u
#define VMDK_FLAG_MARKERS 0x20000u
#define VMDK_FLAGS                                                                                 \
    (VMDK_FLAG_NEWLINES | VMDK_FLAG_REDUNDANT | VMDK_FLAG_ZEROED | VMDK_FLAG_COMPRESSED |          \
     VMDK_FLAG_MARKERS)
#define VMDK_AT_END UINT64_MAX
/* Footer's marker, footer, end-of-stream marker. */
#define VMDK_FOOTER_SIZE (3 * VMDK_SECTOR)
#define VMDK_MARKER_FOOTER 3u

static const char vmdk_magic[] = "KDMV";
static const char vmdk_cowd_magic[] = "COWD";
static const char vmdk_sesparse_magic[] = "\xbe\xba\xfe\xca\0\0\0\0";

typedef struct VmdkHeader {
    uint64_t at; /* of its sector, in bytes */
    uint32_t version, flags;
    uint64_t capacity, grain, descriptor, descriptor_size;
    uint32_t table_entries;
    uint64_t redundant, directory, overhead;
    uint16_t compression;
    const uint8_t *newlines;
} VmdkHeader;

/* ---- recognition ---------------------------------------------------------------------------- */

static bool vmdk_blank(uint8_t byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

/* "version=1" behind comments and blank lines, which is what QEMU takes for a descriptor. It looks
 * at 512 bytes and knows three versions; others may look further. */
static bool vmdk_is_text(const ImageSample *sample)
{
    static const char key[] = "version=";
    const uint8_t *text = sample->head;
    size_t length = sample->head_len, at = 0;

    if (image_sample_has(sample, 0, "\xef\xbb\xbf", 3))
        at = 3;
    while (at < length && (text[at] == '#' || vmdk_blank(text[at]))) {
        if (text[at] == '#') {
            while (at < length && text[at] != '\n')
                at++;
        }
        at++;
    }
    return image_sample_has(sample, at, key, sizeof(key) - 1);
}

/* VirtualBox, file(1) and image services go by the first line. */
static bool vmdk_has_first_line(const ImageSample *sample)
{
    return image_sample_has(sample, 0, "# Disk Descriptor", 17) ||
           image_sample_has(sample, 0, "#Disk Descriptor", 16);
}

static bool vmdk_recognise(const ImageSample *sample)
{
    return image_sample_has(sample, 0, vmdk_magic, 4) ||
           image_sample_has(sample, 0, vmdk_cowd_magic, 4) ||
           image_sample_has(sample, 0, vmdk_sesparse_magic, 8) || vmdk_has_first_line(sample) ||
           vmdk_is_text(sample);
}

/* ---- the header of a sparse extent ---------------------------------------------------------- */

static VmdkHeader vmdk_header(const uint8_t *sector, uint64_t at)
{
    return (VmdkHeader){
        .at = at,
        .version = image_le32(sector + 4),
        .flags = image_le32(sector + 8),
        .capacity = image_le64(sector + 12),
        .grain = image_le64(sector + 20),
        .descriptor = image_le64(sector + 28),
        .descriptor_size = image_le64(sector + 36),
        .table_entries = image_le32(sector + 44),
        .redundant = image_le64(sector + 48),
        .directory = image_le64(sector + 56),
        .overhead = image_le64(sector + 64),
        .newlines = sector + 73,
        .compression = image_le16(sector + 77),
    };
}

/* The footer takes precedence over the header, in QEMU as in VMware's text: it is what the
 * directory is found by. It may differ from the header in that alone. */
static bool vmdk_footer(ImageCheck *check, VmdkHeader *header)
{
    const uint8_t *marker = check->sample.tail;
    const uint8_t *sector = marker + VMDK_SECTOR;
    const uint8_t *end = sector + VMDK_SECTOR;
    uint64_t at = check->size - 2 * VMDK_SECTOR;
    VmdkHeader footer;

    if (check->size % VMDK_SECTOR || check->size < VMDK_FOOTER_SIZE + VMDK_SECTOR) {
        image_reason(check, IMAGE_TRUNCATED, IMAGE_NO_OFFSET,
                     "The header says that the directory is found by a footer; a file of %llu "
                     "bytes has none.",
                     (unsigned long long)check->size);
        return false;
    }
    if (memcmp(sector, vmdk_magic, 4) != 0 || image_le32(marker + 8) != 0 ||
        image_le32(marker + 12) != VMDK_MARKER_FOOTER || image_le64(end) != 0 ||
        image_le32(end + 8) != 0 || image_le32(end + 12) != 0) {
        image_reason(check, IMAGE_TRUNCATED, at,
                     "The header says that the directory is found by a footer; there is none at "
                     "the end of the file.");
        return false;
    }
    footer = vmdk_header(sector, at);
    if (footer.capacity != header->capacity)
        image_reason(check, IMAGE_SIZE_MISMATCH, at,
                     "The footer says %llu sectors, the header %llu.",
                     (unsigned long long)footer.capacity, (unsigned long long)header->capacity);
    if (footer.version != header->version || footer.flags != header->flags ||
        footer.grain != header->grain || footer.descriptor != header->descriptor ||
        footer.descriptor_size != header->descriptor_size ||
        footer.table_entries != header->table_entries ||
        footer.compression != header->compression || footer.overhead != header->overhead)
        image_reason(check, IMAGE_BAD_HEADER, at,
                     "The footer differs from the header in more than the directory's place.");
    *header = footer;
    return true;
}

static void vmdk_check_flags(ImageCheck *check, const VmdkHeader *header)
{
    bool compressed = header->flags & VMDK_FLAG_COMPRESSED;

    if (header->version < 1 || header->version > 3)
        image_reason(check, IMAGE_UNKNOWN_VERSION, header->at + 4, "VMDK version %u is not known.",
                     header->version);
    if (header->flags & ~VMDK_FLAGS)
        image_reason(check, IMAGE_UNKNOWN_FEATURE, header->at + 8, "Unknown flags: 0x%x.",
                     header->flags & ~VMDK_FLAGS);
    if (header->compression > 1)
        image_reason(check, IMAGE_UNKNOWN_FEATURE, header->at + 77, "Compression %u is not known.",
                     header->compression);
    else if (compressed != (header->compression == 1) ||
             (compressed && !(header->flags & VMDK_FLAG_MARKERS)))
        image_reason(check, IMAGE_BAD_HEADER, header->at + 8,
                     "Flags 0x%x do not go with compression %u: some would take the grains for "
                     "compressed, others not.",
                     header->flags, header->compression);
    if ((header->flags & VMDK_FLAG_NEWLINES) && memcmp(header->newlines, "\n \r\n", 4) != 0)
        image_reason(check, IMAGE_BAD_HEADER, header->at + 73,
                     "The line ends that show damage by a transfer as text are damaged.");
}

/* False: the numbers are of no use for the tables. */
static bool vmdk_check_numbers(ImageCheck *check, const VmdkHeader *header)
{
    if (header->capacity > INT64_MAX / VMDK_SECTOR) {
        image_reason(check, IMAGE_SIZE_UNKNOWN, header->at + 12,
                     "A capacity of %llu sectors is more than any disk can have.",
                     (unsigned long long)header->capacity);
        return false;
    }
    if (header->grain < VMDK_GRAIN_MIN || header->grain > VMDK_GRAIN_MAX ||
        (header->grain & (header->grain - 1)) != 0) {
        image_reason(check, IMAGE_BAD_HEADER, header->at + 20,
                     "A grain of %llu sectors: it has to be a power of two from 8 to 2097152.",
                     (unsigned long long)header->grain);
        return false;
    }
    if (header->table_entries != 512) {
        image_reason(check, IMAGE_BAD_HEADER, header->at + 44,
                     "A grain table has %u entries; it has to be 512.", header->table_entries);
        return false;
    }
    return true;
}

static void vmdk_no_descriptor(ImageCheck *check)
{
    image_reason(
        check, IMAGE_DETACHED_HEADER, 28,
        "The file has no descriptor: it is an extent of a disk whose descriptor is another "
        "file.");
}

/* The text between the header and the tables. Returns the sector behind it, or 0. */
static uint64_t vmdk_check_embedded(ImageCheck *check, const VmdkHeader *header)
{
    uint64_t sectors = header->descriptor_size;
    uint64_t available = check->size / VMDK_SECTOR - VMDK_DESCRIPTOR_AT;

    if (header->descriptor == 0 || sectors == 0) {
        vmdk_no_descriptor(check);
        return 0;
    }
    if (header->descriptor != VMDK_DESCRIPTOR_AT) {
        image_reason(check, IMAGE_BAD_HEADER, 28,
                     "The descriptor is said to begin at sector %llu, and some look for it at "
                     "sector 1 nevertheless.",
                     (unsigned long long)header->descriptor);
        return 0;
    }
    if (sectors > IMAGE_CHUNK / VMDK_SECTOR) {
        image_reason(check, IMAGE_TABLE_SIZE, 36,
                     "A descriptor of %llu sectors; at most 128 are allowed.",
                     (unsigned long long)sectors);
        return 0;
    }
    if (sectors > available) {
        image_reason(check, IMAGE_TRUNCATED, 36, "The file ends before the descriptor does.");
        return 0;
    }
    if (sectors < VMDK_DESCRIPTOR_SECTORS)
        sectors = available < VMDK_DESCRIPTOR_SECTORS ? available : VMDK_DESCRIPTOR_SECTORS;
    if (!image_read(check, VMDK_SECTOR, check->chunk, (size_t)sectors * VMDK_SECTOR))
        return 0;
    if (check->chunk[0] == 0) {
        vmdk_no_descriptor(check);
        return 0;
    }
    vmdk_descriptor(check, VMDK_SECTOR, (size_t)sectors * VMDK_SECTOR, header->capacity,
                    header->grain);
    return VMDK_DESCRIPTOR_AT + header->descriptor_size;
}

/* `behind` is the first sector behind header and descriptor: from there on, tables and grains. */
static void vmdk_check_layout(ImageCheck *check, const VmdkHeader *header, uint64_t behind)
{
    bool compressed = header->compression == 1;
    uint64_t file_sectors = (check->size + VMDK_SECTOR - 1) / VMDK_SECTOR;
    uint64_t grains = header->capacity / header->grain + (header->capacity % header->grain != 0);
    VmdkLayout layout = {
        .directory = header->directory,
        .redundant = header->flags & VMDK_FLAG_REDUNDANT ? header->redundant : 0,
        .entries = (grains + header->table_entries - 1) / header->table_entries,
        .table_entries = header->table_entries,
        .grain = header->grain,
        .grains = grains,
        .tables_begin = behind,
        .tables_end = compressed ? file_sectors : header->overhead,
        .grains_begin = compressed ? behind : header->overhead,
        .grains_end = file_sectors,
        .compressed = compressed,
        .zeroed = header->flags & VMDK_FLAG_ZEROED,
    };

    if (header->overhead > file_sectors) {
        image_reason(check, IMAGE_TRUNCATED, header->at + 64,
                     "The grains begin at sector %llu, the file ends before.",
                     (unsigned long long)header->overhead);
        return;
    }
    if (header->overhead < behind) {
        image_reason(check, IMAGE_TABLE_OVERLAP, header->at + 64,
                     "The grains begin at sector %llu, inside the descriptor.",
                     (unsigned long long)header->overhead);
        return;
    }
    vmdk_tables(check, &layout);
}

static void vmdk_check_sparse(ImageCheck *check)
{
    VmdkHeader header = vmdk_header(check->head, 0);
    uint64_t behind;

    if (check->size < 2 * VMDK_SECTOR) {
        image_reason(check, IMAGE_TRUNCATED, IMAGE_NO_OFFSET, "The file ends inside its header.");
        return;
    }
    if (header.capacity == 0) {
        /* QEMU opens the descriptor as if it were alone, and with it the files that it names. */
        image_reason(check, IMAGE_EXTERNAL_DATA, 12,
                     "The header says that the disk has no sectors: its descriptor, and the files "
                     "that are named there, are opened instead.");
        vmdk_check_embedded(check, &header);
        return;
    }
    behind = vmdk_check_embedded(check, &header);
    if (header.directory == VMDK_AT_END && !vmdk_footer(check, &header))
        return;
    vmdk_check_flags(check, &header);
    if (!vmdk_check_numbers(check, &header))
        return;
    image_set_size(check, header.at + 12, header.capacity * VMDK_SECTOR);
    if (behind)
        vmdk_check_layout(check, &header, behind);
}

/* ---- which kind ----------------------------------------------------------------------------- */

static void vmdk_check_text(ImageCheck *check)
{
    size_t length = check->size < IMAGE_CHUNK ? (size_t)check->size : IMAGE_CHUNK;

    if (!image_read(check, 0, check->chunk, length))
        return;
    vmdk_descriptor(check, 0, length, 0, 0);
}

static void vmdk_check(ImageCheck *check)
{
    const ImageSample *sample = &check->sample;

    if (image_sample_has(sample, 0, vmdk_magic, 4))
        vmdk_check_sparse(check);
    else if (image_sample_has(sample, 0, vmdk_cowd_magic, 4))
        vmdk_check_cowd(check);
    else if (image_sample_has(sample, 0, vmdk_sesparse_magic, 8))
        vmdk_check_sesparse(check);
    else
        vmdk_check_text(check);
}

const ImageFormat image_vmdk = {
    .name = "vmdk",
    .title = "VMDK, VMware's format",
    .also = IMAGE_ALSO_VMDK,
    .recognise = vmdk_recognise,
    .check = vmdk_check,
};
