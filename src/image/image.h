/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Is a disk image safe to be given to a VM? What the files of src/image share.
 *
 *   reasons.h    the table of reasons: ids, what they mean
 *   formats.c    the list of formats
 *   check.c      one check from begin to end: sample, recognise, the format's own check, verdict
 *   reader.c     the file: bounded reads, tables
 *   raw.c, qcow2.c, ...   one format each
 *   partitions.c what is recognised only: MBR, GPT
 *   sandbox.c    the child in which a check runs
 *
 * A format's code sees the file only through image_read() and image_table_next(). It runs in a
 * child that is confined to pread() of this file and write() of the verdict: it allocates nothing,
 * opens nothing, calls nothing that needs the system. Whatever a header says, memory is this
 * ImageCheck, and bytes read are its budget. Threads: one ImageCheck belongs to one thread; there
 * is no other state.
 *
 * Sources: each format's file names the documents and the programs that it follows. Where a
 * document leaves room, the question is what QEMU makes of the bytes.
 */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "image/reasons.h"

/* What every recogniser gets to see: 36 KiB is where an ISO 9660 file system's first two
 * descriptors end, the last thing from the front that any prober looks at. */
#define IMAGE_HEAD ((size_t)36864)
/* VMDK's footer and its marker are the last 1,536 bytes; VHD's and DMG's are the last 512. */
#define IMAGE_TAIL ((size_t)1536)
/* Beyond the head a prober looks only for the second header of a LUKS 2 volume, whose first one is
 * damaged: at 64 KiB and each power of two up to 4 MiB. */
#define IMAGE_FAR ((size_t)7)
#define IMAGE_FAR_AT(i) ((uint64_t)65536 << (i))
#define IMAGE_FAR_SIZE ((size_t)8)
/* Tables pass through this much memory. */
#define IMAGE_CHUNK ((size_t)65536)
/* Of the file's clusters that hold tables: 2^23 bits, for 32 GiB in clusters of 4 KiB at a time. */
#define IMAGE_MAP ((size_t)1 << 20)
/* Bytes that a check may read, without the tables that the size limit allows (image_grant()). */
#define IMAGE_BUDGET ((uint64_t)1 << 20)
/* More reasons than this help nobody; they are counted. */
#define IMAGE_MAX_REASONS 24
#define IMAGE_MAX_SENTENCE 240
/* Small reads one behind the other are served from so much, read at once. */
#define IMAGE_WINDOW ((size_t)8192)

#define IMAGE_NO_OFFSET UINT64_MAX

typedef struct ImageCheck ImageCheck;

/* The begin and the end of the file. */
typedef struct ImageSample {
    uint64_t size; /* of the file, in bytes */
    const uint8_t *head;
    size_t head_len; /* min(size, IMAGE_HEAD); beyond it the first 4 KiB are zero */
    const uint8_t *tail;
    size_t tail_len;    /* min(size, IMAGE_TAIL); the last byte is the file's last */
    const uint8_t *far; /* IMAGE_FAR times IMAGE_FAR_SIZE bytes; zero where the file is shorter */
} ImageSample;

typedef struct ImageFormat {
    const char *name;  /* for --format, and for people */
    const char *alias; /* another name for --format, such as QEMU's; or NULL */
    const char *title; /* "QEMU copy-on-write, versions 2 and 3" */
    /* What is reported if this is recognised in a file of another format. */
    ImageReasonId also;
    /* Would any prober (QEMU's, libvirt's, blkid's, an image service's) take the file for this, by
     * its content alone? When in doubt: yes. NULL: it cannot be told, as for raw. */
    bool (*recognise)(const ImageSample *sample);
    /* Reports every reason that it finds, and image_set_size(). Returns nothing: who cannot go on
     * has reported why. Called only if `recognise` says yes or is NULL. NULL: cannot be asked for.
     */
    void (*check)(ImageCheck *check);
    /* Names of what may be recognised beside it, ending with NULL; NULL: nothing may. */
    const char *const *beside;
} ImageFormat;

/* ---- formats.c ------------------------------------------------------------------------------ */

/* All formats; NULL ends the list. */
extern const ImageFormat *const image_formats[];
/* NULL: there is none that can be asked for by that name. */
const ImageFormat *image_format_find(const char *name);

/* ---- the verdict ---------------------------------------------------------------------------- */

typedef struct ImageReason {
    uint32_t id;     /* ImageReasonId */
    uint64_t offset; /* where in the file, or IMAGE_NO_OFFSET */
    char sentence[IMAGE_MAX_SENTENCE];
} ImageReason;

/* As it goes through the pipe, so no pointers. */
typedef struct ImageVerdict {
    uint32_t n_reasons; /* kept below */
    uint32_t n_more;    /* found, but not kept */
    uint32_t failed;    /* 1: no verdict; the first reason's sentence says why */
    uint32_t has_size;
    uint64_t size; /* virtual, in bytes, if has_size */
    uint64_t bytes_read;
    ImageReason reasons[IMAGE_MAX_REASONS];
} ImageVerdict;

struct ImageCheck {
    /* What is asked; set by the caller of image_check(). */
    const ImageFormat *format;
    uint64_t max_size; /* the largest virtual size that is allowed, in bytes */
    int fd;            /* read with pread() alone */
    uint64_t size;     /* of the file, in bytes */
    /* Instead of `fd`, for tests: the file's first bytes; what follows up to `size` is zero. */
    const uint8_t *memory;
    size_t memory_len;

    /* Everything below is image_check()'s. */
    ImageSample sample;
    uint64_t budget;
    ImageVerdict verdict;
    uint64_t last_end; /* of the last small read */
    uint64_t window_at;
    size_t window_len;
    uint8_t head[IMAGE_HEAD];
    uint8_t tail[IMAGE_TAIL];
    uint8_t far[IMAGE_FAR * IMAGE_FAR_SIZE];
    uint8_t chunk[IMAGE_CHUNK];
    uint8_t window[IMAGE_WINDOW];
    uint8_t
        map[IMAGE_MAP]; /* a format's own; comes as it is, and is touched only as far as needed */
};

/* ---- check.c -------------------------------------------------------------------------------- */

/* The whole check; check->verdict is its outcome. */
void image_check(ImageCheck *check);

/*
 * Adds a reason why the image is unsafe. `offset` is where in the file the trouble is seen, in
 * bytes, or IMAGE_NO_OFFSET. The sentence is whole, with a full stop and without a newline, and
 * tells numbers of the file; strings of the file go through image_quote(). Formats: %s %d %u %x
 * with l or ll or PRIu64, no others (it runs in a child where nothing can be allocated). In the
 * walk of a table: report the first bad entry and stop.
 */
void image_reason(ImageCheck *check, ImageReasonId id, uint64_t offset, const char *sentence, ...)
    __attribute__((format(printf, 4, 5)));
/* The check is over without a verdict (only for what is no property of the image). */
void image_fail(ImageCheck *check, const char *sentence, ...) __attribute__((format(printf, 2, 3)));
/* The size of the disk, in bytes, that a VM would see; too large a one is reported here. Called
 * again, the largest counts. */
void image_set_size(ImageCheck *check, uint64_t offset, uint64_t bytes);
/* At most 64 characters of the file's text, printable; ends at NUL or `length`. The result is
 * `buffer`. */
#define IMAGE_QUOTED 80
const char *image_quote(char buffer[IMAGE_QUOTED], const void *text, size_t length);

/* ---- reader.c ------------------------------------------------------------------------------- */

/* Whether [offset, offset + length) lies in the file; overflow is "no". */
static inline bool image_inside(const ImageCheck *check, uint64_t offset, uint64_t length)
{
    return offset <= check->size && length <= check->size - offset;
}

/* Reads exactly that. False: the check is over (it has been reported); the caller returns. What is
 * not inside the file has to be reported by the caller before; here it is a failure. */
bool image_read(ImageCheck *check, uint64_t offset, void *buffer, size_t length);
/* The same for check.c, without the budget and from the file itself: `offset` and `length` must be
 * inside it. */
bool image_read_file(ImageCheck *check, uint64_t offset, void *buffer, size_t length);
/* So many more bytes may be read, because the size limit allows a table of that size. The caller
 * derives it from check->max_size or from a limit that QEMU itself has, never from a field alone.
 */
void image_grant(ImageCheck *check, uint64_t bytes);

/* A walk along a table, entry by entry, in the check's one chunk: one walk at a time. */
typedef struct ImageTable {
    uint64_t offset; /* of the entry that was returned last */
    uint64_t next;
    uint64_t left; /* entries */
    size_t entry_size;
    size_t at;     /* in the chunk */
    size_t filled; /* bytes of the chunk */
} ImageTable;

/* `entry_size` is at most 4096. The table must be inside the file, as for image_read(). */
void image_table_begin(ImageTable *table, uint64_t offset, uint64_t entries, size_t entry_size);
/* The next entry, valid until the next call, or NULL at the end and when the check is over. */
const uint8_t *image_table_next(ImageCheck *check, ImageTable *table);
/* The next entry that is not zero; only for entries of 4 or 8 bytes. */
const uint8_t *image_table_next_set(ImageCheck *check, ImageTable *table);

/* ---- bytes ---------------------------------------------------------------------------------- */

static inline uint16_t image_be16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t image_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint64_t image_be64(const uint8_t *p)
{
    return (uint64_t)image_be32(p) << 32 | image_be32(p + 4);
}

static inline uint16_t image_le16(const uint8_t *p)
{
    return (uint16_t)(p[1] << 8 | p[0]);
}

static inline uint32_t image_le32(const uint8_t *p)
{
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

static inline uint64_t image_le64(const uint8_t *p)
{
    return (uint64_t)image_le32(p + 4) << 32 | image_le32(p);
}

/* Whether the sample has these bytes at `offset` from its begin. */
static inline bool image_sample_has(const ImageSample *sample, size_t offset, const void *bytes,
                                    size_t length)
{
    return offset <= sample->head_len && length <= sample->head_len - offset &&
           memcmp(sample->head + offset, bytes, length) == 0;
}

/* Whether the sample has these bytes `from_end` before its end. */
static inline bool image_sample_ends(const ImageSample *sample, size_t from_end, const void *bytes,
                                     size_t length)
{
    return from_end <= sample->tail_len && length <= from_end &&
           memcmp(sample->tail + sample->tail_len - from_end, bytes, length) == 0;
}
