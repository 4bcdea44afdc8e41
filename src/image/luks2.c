/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * LUKS 2: two copies of a header, each with a checksum and JSON. Both have to be right and tell the
 * same: who opens a volume takes the second one where the first is damaged. Source: LUKS2 On-Disk
 * Format Specification 1.1.4. QEMU 7.2 does not open LUKS 2; cryptsetup, and what is built on it,
 * does.
 */
#include <inttypes.h>

#include "image/json.h"
#include "image/luks.h"
#include "image/sha256.h"

#define LUKS2_BINARY 4096
#define LUKS2_CHECKSUM 448
#define LUKS2_MAX_SLOTS 32
#define LUKS2_SECTOR 512
/* What cryptsetup makes at most of argon2: 4 GiB, here in KiB as in the header, and 4 threads. */
#define LUKS2_MAX_MEMORY ((uint64_t)4 << 20)
#define LUKS2_MAX_CPUS 4
/* Passes over the memory times the memory, in KiB: 256 GiB, a minute or two. cryptsetup chooses as
 * many passes as take two seconds, 5 to 20 GiB. */
#define LUKS2_MAX_WORK ((uint64_t)256 << 20)

/* One that is of no use: no number is it. */
#define LUKS2_UNSET UINT64_MAX

typedef struct Luks2Area {
    uint64_t offset;
    uint64_t size;
} Luks2Area;

/* What it costs to get a key from a passphrase; what a header does not tell is LUKS2_UNSET. */
typedef struct Luks2Cost {
    uint64_t iterations; /* of PBKDF2 */
    uint64_t memory;     /* of argon2, in KiB */
    uint64_t time;       /* passes over it */
    uint64_t cpus;
} Luks2Cost;

/* What one copy of the header says. */
typedef struct Luks2 {
    ImageCheck *check;
    uint64_t offset; /* of this copy */
    uint64_t header_size;
    uint64_t seqid;
    unsigned n_segments;
    Luks2Area segment;
    bool dynamic; /* the segment goes to the end of the file */
    bool has_type;
    uint64_t json_size;
    uint64_t keyslots_size;
    size_t n_slots;
    Luks2Area slots[LUKS2_MAX_SLOTS];
    Luks2Cost cost; /* of the slot or digest that is being read */
    bool reported;
} Luks2;

static bool luks2_bad(Luks2 *luks, ImageReasonId id, const char *sentence)
{
    if (!luks->reported)
        image_reason(luks->check, id, luks->offset + LUKS2_BINARY, "%s", sentence);
    luks->reported = true;
    return false;
}

/* ---- JSON ----------------------------------------------------------------------------------- */

/* 64-bit numbers are written as strings, all others as numbers: `expected` is what it has to be. */
static bool luks2_digits(Luks2 *luks, bool expected, JsonText text, uint64_t *member)
{
    uint64_t number = 0;

    if (!expected || text.length == 0 || text.length > 18 || *member != LUKS2_UNSET)
        return luks2_bad(luks, IMAGE_BAD_HEADER, "A number in the JSON is none, or is told twice.");
    for (size_t i = 0; i < text.length; i++) {
        if (text.text[i] < '0' || text.text[i] > '9')
            return luks2_bad(luks, IMAGE_BAD_HEADER, "A number in the JSON is none.");
        number = number * 10 + (uint64_t)(text.text[i] - '0');
    }
    *member = number;
    return true;
}

static bool luks2_number(Luks2 *luks, JsonKind kind, JsonText text, uint64_t *member)
{
    return luks2_digits(luks, kind == JSON_STRING, text, member);
}

/* One of the numbers that tell what unlocking costs. It counts whatever the type is that stands
 * beside it, before it or behind it. */
static bool luks2_cost(Luks2 *luks, JsonText name, JsonKind kind, JsonText text)
{
    Luks2Cost *cost = &luks->cost;
    const struct {
        const char *name;
        uint64_t *member;
        uint64_t limit;
    } fields[] = {
        {"iterations", &cost->iterations, LUKS_MAX_ITERATIONS},
        {"memory", &cost->memory, LUKS2_MAX_MEMORY},
        {"time", &cost->time, LUKS2_MAX_WORK},
        {"cpus", &cost->cpus, LUKS2_MAX_CPUS},
    };

    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        if (!json_is(name, fields[i].name))
            continue;
        if (!luks2_digits(luks, kind == JSON_OTHER, text, fields[i].member))
            return false;
        if (*fields[i].member > fields[i].limit)
            return luks2_bad(luks, IMAGE_UNLOCK_COST,
                             "To unlock the volume takes more than 100 million iterations, 4 GiB, "
                             "4 threads, or 268 million passes.");
    }
    if (cost->memory != LUKS2_UNSET && cost->time != LUKS2_UNSET &&
        cost->time * cost->memory > LUKS2_MAX_WORK)
        return luks2_bad(luks, IMAGE_UNLOCK_COST,
                         "To unlock the volume means to go over more than 256 GiB of memory.");
    return true;
}

static const Luks2Cost luks2_no_cost = {LUKS2_UNSET, LUKS2_UNSET, LUKS2_UNSET, LUKS2_UNSET};

static bool luks2_segment(Luks2 *luks, const JsonReader *r, JsonKind kind, JsonText text)
{
    const JsonText name = r->path[2];

    if (json_is(name, "offset"))
        return luks2_number(luks, kind, text, &luks->segment.offset);
    if (json_is(name, "size")) {
        if (kind == JSON_STRING && json_is(text, "dynamic") && luks->segment.size == LUKS2_UNSET) {
            luks->dynamic = true;
            luks->segment.size = 0;
            return true;
        }
        return luks2_number(luks, kind, text, &luks->segment.size);
    }
    if (json_is(name, "type")) {
        if (luks->has_type || kind != JSON_STRING || !json_is(text, "crypt"))
            return luks2_bad(luks, IMAGE_UNKNOWN_FEATURE,
                             "The data is not of type 'crypt', so it is not encrypted.");
        luks->has_type = true;
    }
    if (json_is(name, "encryption") && kind == JSON_STRING && text.length >= 11 &&
        memcmp(text.text, "cipher_null", 11) == 0)
        return luks2_bad(luks, IMAGE_LEGACY_ENCRYPTION,
                         "The cipher is the one that leaves all as it is.");
    if (json_is(name, "integrity"))
        return luks2_bad(luks, IMAGE_SIZE_UNKNOWN,
                         "The data has integrity tags, so the disk's size cannot be told.");
    if (json_is(name, "flags") && r->depth > 3)
        return luks2_bad(luks, IMAGE_UNKNOWN_FEATURE,
                         "The data has flags: it is being encrypted anew.");
    return true;
}

static bool luks2_slot(Luks2 *luks, const JsonReader *r, JsonKind kind, JsonText text)
{
    Luks2Area *slot = &luks->slots[luks->n_slots - 1];

    if (r->depth == 3 && json_is(r->path[2], "type") &&
        (kind != JSON_STRING || !json_is(text, "luks2")))
        return luks2_bad(luks, IMAGE_UNKNOWN_FEATURE,
                         "A key slot is not of type 'luks2', as while it is encrypted anew.");
    if (r->depth == 4 && json_is(r->path[2], "kdf"))
        return luks2_cost(luks, r->path[3], kind, text);
    if (r->depth != 4 || !json_is(r->path[2], "area"))
        return true;
    if (json_is(r->path[3], "offset"))
        return luks2_number(luks, kind, text, &slot->offset);
    if (json_is(r->path[3], "size"))
        return luks2_number(luks, kind, text, &slot->size);
    return true;
}

static bool luks2_config(Luks2 *luks, const JsonReader *r, JsonKind kind, JsonText text)
{
    if (r->depth == 2 && json_is(r->path[1], "json_size"))
        return luks2_number(luks, kind, text, &luks->json_size);
    if (r->depth == 2 && json_is(r->path[1], "keyslots_size"))
        return luks2_number(luks, kind, text, &luks->keyslots_size);
    if (r->depth == 4 && json_is(r->path[1], "requirements") && json_is(r->path[2], "mandatory"))
        return luks2_bad(luks, IMAGE_UNKNOWN_FEATURE,
                         "The volume has mandatory requirements of its reader.");
    return true;
}

static bool luks2_value(JsonReader *r, JsonKind kind, JsonText text)
{
    Luks2 *luks = r->data;

    if (r->depth < 2 || kind == JSON_END)
        return true;
    if (json_is(r->path[0], "segments")) {
        if (r->depth == 2 && kind == JSON_BEGIN && ++luks->n_segments > 1)
            return luks2_bad(luks, IMAGE_UNKNOWN_FEATURE,
                             "There is more than one segment of data: it is being encrypted anew.");
        return r->depth < 3 || luks2_segment(luks, r, kind, text);
    }
    if (json_is(r->path[0], "keyslots")) {
        if (r->depth == 2 && kind == JSON_BEGIN) {
            if (luks->n_slots == LUKS2_MAX_SLOTS)
                return luks2_bad(luks, IMAGE_BAD_HEADER, "There are more than 32 key slots.");
            luks->cost = luks2_no_cost;
            luks->slots[luks->n_slots++] = (Luks2Area){.offset = LUKS2_UNSET, .size = LUKS2_UNSET};
        }
        return r->depth < 3 || luks->n_slots == 0 || luks2_slot(luks, r, kind, text);
    }
    if (json_is(r->path[0], "digests")) {
        if (r->depth == 2)
            luks->cost = luks2_no_cost;
        return r->depth != 3 || luks2_cost(luks, r->path[2], kind, text);
    }
    return !json_is(r->path[0], "config") || luks2_config(luks, r, kind, text);
}

static bool luks2_json(Luks2 *luks, const char *text, size_t size)
{
    JsonReader reader = {.value = luks2_value, .data = luks};
    const char *end = memchr(text, 0, size);

    if (!end)
        return luks2_bad(luks, IMAGE_BAD_HEADER, "The JSON has no end.");
    if (!json_read(&reader, text, (size_t)(end - text)))
        return luks2_bad(luks, IMAGE_BAD_HEADER, "The JSON is none.");
    return !luks->reported;
}

/* ---- areas ---------------------------------------------------------------------------------- */

static bool luks2_slots(Luks2 *luks)
{
    uint64_t begin = 2 * luks->header_size, end;

    if (luks->json_size != luks->header_size - LUKS2_BINARY || luks->keyslots_size == LUKS2_UNSET)
        return luks2_bad(luks, IMAGE_SIZE_MISMATCH,
                         "The sizes of the JSON and of the key slots are missing, or not the "
                         "header's.");
    end = begin + luks->keyslots_size;
    if (luks->keyslots_size > luks->check->size || end > luks->segment.offset)
        return luks2_bad(luks, IMAGE_TABLE_OVERLAP, "The data lies on top of the key slots.");
    for (size_t i = 0; i < luks->n_slots; i++) {
        const Luks2Area *slot = &luks->slots[i];

        if (slot->offset == LUKS2_UNSET || slot->size == LUKS2_UNSET || slot->offset < begin ||
            slot->offset > end || slot->size > end - slot->offset)
            return luks2_bad(luks, IMAGE_TABLE_OUTSIDE,
                             "A key slot does not lie between the headers and the data.");
        for (size_t j = 0; j < i; j++) {
            if (slot->offset < luks->slots[j].offset + luks->slots[j].size &&
                luks->slots[j].offset < slot->offset + slot->size)
                return luks2_bad(luks, IMAGE_TABLE_OVERLAP,
                                 "Two key slots lie on top of each other.");
        }
    }
    return true;
}

static bool luks2_data(Luks2 *luks)
{
    uint64_t size = luks->check->size;

    if (luks->n_segments != 1 || !luks->has_type || luks->segment.offset == LUKS2_UNSET ||
        luks->segment.size == LUKS2_UNSET)
        return luks2_bad(luks, IMAGE_SIZE_UNKNOWN,
                         "There is no segment of data with a type, an offset and a size.");
    if (luks->segment.offset == 0 || luks->segment.offset == size)
        return luks2_bad(luks, IMAGE_DETACHED_HEADER,
                         "This is a header alone: its data is elsewhere.");
    if (!image_inside(luks->check, luks->segment.offset, luks->segment.size))
        return luks2_bad(luks, IMAGE_TRUNCATED, "The file ends before the data does.");
    if (luks->segment.offset % LUKS2_SECTOR || luks->segment.size % LUKS2_SECTOR)
        return luks2_bad(luks, IMAGE_BAD_HEADER, "The data does not begin and end with a sector.");
    return true;
}

/* ---- one copy ------------------------------------------------------------------------------- */

/* The header, in check->chunk: it is what it says, and whole. */
static bool luks2_binary(Luks2 *luks)
{
    ImageCheck *check = luks->check;
    uint8_t *h = check->chunk, sum[SHA256_SIZE], digest[SHA256_SIZE];
    const char *magic = luks->offset ? "SKUL\xba\xbe\0\2" : "LUKS\xba\xbe\0\2";

    if (memcmp(h, magic, 8) != 0 || image_be64(h + 8) != luks->header_size ||
        image_be64(h + 256) != luks->offset) {
        image_reason(check, IMAGE_BAD_HEADER, luks->offset,
                     "The copy of the header at byte %" PRIu64
                     " is none, or tells another size or place.",
                     luks->offset);
        return false;
    }
    luks->seqid = image_be64(h + 16);
    if (memcmp(h + 72, "sha256\0", 7) != 0) {
        image_reason(check, IMAGE_UNKNOWN_FEATURE, luks->offset + 72,
                     "The checksum is not SHA-256, and so cannot be checked.");
        return false;
    }
    memcpy(sum, h + LUKS2_CHECKSUM, sizeof(sum));
    memset(h + LUKS2_CHECKSUM, 0, 64);
    sha256(h, (size_t)luks->header_size, digest);
    if (memcmp(sum, digest, sizeof(sum)) != 0) {
        image_reason(check, IMAGE_BAD_CHECKSUM, luks->offset + LUKS2_CHECKSUM,
                     "The checksum of the header at byte %" PRIu64 " is wrong.", luks->offset);
        return false;
    }
    return true;
}

static bool luks2_copy(ImageCheck *check, Luks2 *luks, uint64_t offset, uint64_t header_size)
{
    *luks = (Luks2){
        .check = check,
        .offset = offset,
        .header_size = header_size,
        .segment = {.offset = LUKS2_UNSET, .size = LUKS2_UNSET},
        .json_size = LUKS2_UNSET,
        .keyslots_size = LUKS2_UNSET,
    };
    if (!image_inside(check, offset, header_size)) {
        image_reason(check, IMAGE_TRUNCATED, offset, "The file ends in the header.");
        return false;
    }
    return image_read(check, offset, check->chunk, (size_t)header_size) && luks2_binary(luks) &&
           luks2_json(luks, (const char *)check->chunk + LUKS2_BINARY,
                      (size_t)header_size - LUKS2_BINARY) &&
           luks2_data(luks) && luks2_slots(luks);
}

void luks2_check(ImageCheck *check)
{
    uint64_t size = image_be64(check->head + 8);
    Luks2 first, second;

    /* 16 KiB is what cryptsetup makes; up to 4 MiB can be asked of it, and nobody does. */
    if (size > 65536 && size <= (uint64_t)4 << 20 && (size & (size - 1)) == 0) {
        image_reason(check, IMAGE_TOO_MUCH_METADATA, 8,
                     "The header has %" PRIu64 " bytes; up to 65536 are read.", size);
        return;
    }
    if (size < 16384 || size > 65536 || (size & (size - 1))) {
        image_reason(check, IMAGE_BAD_HEADER, 8, "A header of %" PRIu64 " bytes is impossible.",
                     size);
        return;
    }
    if (!luks2_copy(check, &first, 0, size) || !luks2_copy(check, &second, size, size))
        return;
    if (first.seqid != second.seqid || first.segment.offset != second.segment.offset ||
        first.segment.size != second.segment.size || first.dynamic != second.dynamic) {
        image_reason(check, IMAGE_SIZE_MISMATCH, size,
                     "The two copies of the header do not tell the same.");
        return;
    }
    image_set_size(check, LUKS2_BINARY,
                   first.dynamic ? (check->size - first.segment.offset) & ~(uint64_t)511
                                 : first.segment.size);
}
