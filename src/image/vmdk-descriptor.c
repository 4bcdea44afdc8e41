/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * VMDK: the descriptor, a text of lines that names the files of which a disk is made. Sources:
 * VMware, "Virtual Disk Format 5.0"; QEMU's block/vmdk.c, which searches the text for words
 * wherever they are, comments included; the keys of newer VMware products that name further files.
 *
 * Everybody reads this text a little differently. So it is taken for whatever anybody could make
 * of it: case does not matter, a NUL ends a line but not the text.
 */
#include "image/vmdk.h"

typedef struct VmdkLine {
    const char *text;
    size_t length;
    uint64_t offset; /* in the file */
} VmdkLine;

typedef struct VmdkText {
    ImageCheck *check;
    bool embedded;
    unsigned extents, create_types, cids, parent_cids;
    uint64_t sectors;    /* of all extents */
    VmdkLine parent_cid; /* one that is not "none" */
    bool parent, external, unknown, too_large;
} VmdkText;

/* ---- words ---------------------------------------------------------------------------------- */

static char vmdk_lower(char byte)
{
    return byte >= 'A' && byte <= 'Z' ? (char)(byte - 'A' + 'a') : byte;
}

static bool vmdk_is_space(char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\v' || byte == '\f';
}

static bool vmdk_same(VmdkLine line, const char *word)
{
    size_t length = strlen(word);

    if (line.length != length)
        return false;
    for (size_t i = 0; i < length; i++) {
        if (vmdk_lower(line.text[i]) != word[i])
            return false;
    }
    return true;
}

static bool vmdk_begins(VmdkLine line, const char *word)
{
    size_t length = strlen(word);

    if (line.length > length)
        line.length = length;
    return vmdk_same(line, word);
}

static VmdkLine vmdk_skip(VmdkLine line, size_t bytes)
{
    return (VmdkLine){line.text + bytes, line.length - bytes, line.offset + bytes};
}

static VmdkLine vmdk_trim(VmdkLine line)
{
    while (line.length > 0 && vmdk_is_space(line.text[0]))
        line = vmdk_skip(line, 1);
    while (line.length > 0 && vmdk_is_space(line.text[line.length - 1]))
        line.length--;
    return line;
}

/* Where in the line `word` is, in whatever case; the line's end if it is not. */
static VmdkLine vmdk_find(VmdkLine line, const char *word)
{
    while (line.length > 0 && !vmdk_begins(line, word))
        line = vmdk_skip(line, 1);
    return line;
}

/* Takes the first word off the line. */
static VmdkLine vmdk_word(VmdkLine *line)
{
    VmdkLine word = *line = vmdk_trim(*line);

    word.length = 0;
    while (word.length < line->length && !vmdk_is_space(line->text[word.length]))
        word.length++;
    *line = vmdk_skip(*line, word.length);
    return word;
}

/* What is behind "=", without quotes. */
static VmdkLine vmdk_value(VmdkLine line)
{
    while (line.length > 0 && line.text[0] != '=')
        line = vmdk_skip(line, 1);
    if (line.length > 0)
        line = vmdk_trim(vmdk_skip(line, 1));
    if (line.length > 0 && line.text[0] == '"')
        line = vmdk_skip(line, 1);
    if (line.length > 0 && line.text[line.length - 1] == '"')
        line.length--;
    return line;
}

/* False: no number, or more than 2^63. */
static bool vmdk_number(VmdkLine word, uint64_t *number)
{
    *number = 0;
    for (size_t i = 0; i < word.length; i++) {
        if (word.text[i] < '0' || word.text[i] > '9' || *number > INT64_MAX / 10 - 1)
            return false;
        *number = *number * 10 + (uint64_t)(word.text[i] - '0');
    }
    return word.length > 0;
}

/* ---- lines ---------------------------------------------------------------------------------- */

/* A file that is named, wherever in the line. */
static void vmdk_references(VmdkText *text, VmdkLine line)
{
    static const char *const others[] = {
        "changetrackpath", "nativeparenthint", "digestfilename", "sidecars", "iofilters", NULL,
    };
    char quoted[IMAGE_QUOTED];
    VmdkLine found = vmdk_find(line, "parentfilenamehint");

    if (found.length > 0 && !text->parent) {
        VmdkLine value = vmdk_value(found);

        text->parent = true;
        image_reason(text->check, IMAGE_BACKING_FILE, found.offset,
                     "The descriptor names a parent: \"%s\".",
                     image_quote(quoted, value.text, value.length));
    }
    for (const char *const *key = others; *key && !text->external; key++) {
        found = vmdk_find(line, *key);
        if (found.length == 0)
            continue;
        text->external = true;
        image_reason(text->check, IMAGE_EXTERNAL_DATA, found.offset,
                     "The descriptor names another file: \"%s\".",
                     image_quote(quoted, found.text, found.length));
    }
}

/* "RW 20480 SPARSE "disk.vmdk" 0". False: it is no such line. */
static bool vmdk_extent(VmdkText *text, VmdkLine line)
{
    VmdkLine rest = line, name, access = vmdk_word(&rest), size, type;
    char quoted[IMAGE_QUOTED];
    uint64_t sectors;
    bool outside = !text->embedded;

    if (!vmdk_same(access, "rw") && !vmdk_same(access, "rdonly") && !vmdk_same(access, "noaccess"))
        return false;
    size = vmdk_word(&rest);
    type = vmdk_word(&rest);
    if (!vmdk_number(size, &sectors) || sectors > INT64_MAX / VMDK_SECTOR - text->sectors)
        text->too_large = true;
    else
        text->sectors += sectors;
    text->extents++;
    name = vmdk_trim(rest);
    for (size_t i = 0; i < name.length; i++) {
        if (name.text[i] == '/' || name.text[i] == '\\' || name.text[i] == ':')
            outside = true;
    }
    if ((outside || text->extents > 1 || !vmdk_same(type, "sparse")) && !text->external) {
        text->external = true;
        image_reason(text->check, IMAGE_EXTERNAL_DATA, line.offset,
                     "The descriptor names a file with the disk's data: \"%s\".",
                     image_quote(quoted, line.text, line.length));
    }
    return true;
}

static void vmdk_create_type(VmdkText *text, VmdkLine value)
{
    char quoted[IMAGE_QUOTED];

    text->create_types++;
    if (!text->embedded || vmdk_same(value, "monolithicsparse") ||
        vmdk_same(value, "streamoptimized") || text->external)
        return;
    text->external = true;
    image_reason(text->check, IMAGE_EXTERNAL_DATA, value.offset,
                 "The descriptor says that the disk is \"%s\", a kind that has its data in other "
                 "files.",
                 image_quote(quoted, value.text, value.length));
}

static void vmdk_parent_cid(VmdkText *text, VmdkLine value)
{
    text->parent_cids++;
    if (!vmdk_same(value, "ffffffff"))
        text->parent_cid = value;
}

/* A parent without a name: some know where to find it. */
static void vmdk_unnamed_parent(VmdkText *text)
{
    char quoted[IMAGE_QUOTED];

    if (text->parent || !text->parent_cid.text)
        return;
    image_reason(text->check, IMAGE_BACKING_FILE, text->parent_cid.offset,
                 "The descriptor says that there is a parent, with the CID \"%s\".",
                 image_quote(quoted, text->parent_cid.text, text->parent_cid.length));
}

static void vmdk_line(VmdkText *text, VmdkLine line)
{
    VmdkLine key = line;

    if (line.length == 0)
        return;
    vmdk_references(text, line);
    if (line.text[0] == '#' || vmdk_extent(text, line))
        return;
    key.length = 0;
    while (key.length < line.length && line.text[key.length] != '=')
        key.length++;
    key = vmdk_trim(key);
    if (vmdk_same(key, "createtype"))
        vmdk_create_type(text, vmdk_value(line));
    else if (vmdk_same(key, "parentcid"))
        vmdk_parent_cid(text, vmdk_value(line));
    else if (vmdk_same(key, "cid"))
        text->cids++;
    else if (vmdk_begins(key, "encryption") && !text->unknown) {
        text->unknown = true;
        image_reason(text->check, IMAGE_UNKNOWN_FEATURE, line.offset, "The disk is encrypted.");
    }
}

static void vmdk_lines(VmdkText *text, uint64_t offset, const uint8_t *bytes, size_t length)
{
    size_t at = 0;

    while (at < length) {
        size_t end = at;

        while (end < length && bytes[end] != '\n' && bytes[end] != '\r' && bytes[end] != 0)
            end++;
        if (end > at)
            vmdk_line(text, vmdk_trim((VmdkLine){(const char *)bytes + at, end - at, offset + at}));
        at = end + 1;
    }
}

/* ---- the whole ------------------------------------------------------------------------------ */

static void vmdk_embedded(VmdkText *text, uint64_t offset, uint64_t capacity, uint64_t grain)
{
    if (text->create_types != 1 || text->cids != 1 || text->parent_cids != 1)
        image_reason(text->check, IMAGE_BAD_HEADER, offset,
                     "The descriptor has %u lines of createType, %u of CID, %u of parentCID; it "
                     "has to have one of each.",
                     text->create_types, text->cids, text->parent_cids);
    if (text->extents == 0)
        image_reason(text->check, IMAGE_BAD_HEADER, offset, "The descriptor describes no extent.");
    else if (text->too_large || text->sectors > capacity ||
             (text->sectors < capacity && capacity - text->sectors >= grain))
        image_reason(text->check, IMAGE_SIZE_MISMATCH, offset,
                     "The descriptor says %llu sectors, the header %llu.",
                     (unsigned long long)text->sectors, (unsigned long long)capacity);
}

void vmdk_descriptor(ImageCheck *check, uint64_t offset, size_t length, uint64_t capacity,
                     uint64_t grain)
{
    VmdkText text = {.check = check, .embedded = capacity != 0};

    vmdk_lines(&text, offset, check->chunk, length);
    vmdk_unnamed_parent(&text);
    if (text.embedded) {
        vmdk_embedded(&text, offset, capacity, grain);
        return;
    }
    if (text.too_large)
        image_reason(check, IMAGE_SIZE_UNKNOWN, offset,
                     "The sizes of the extents cannot be added up.");
    else
        image_set_size(check, offset, text.sectors * VMDK_SECTOR);
    if (!text.external)
        image_reason(check, IMAGE_EXTERNAL_DATA, offset,
                     "The file is a descriptor: the disk is in other files.");
}
