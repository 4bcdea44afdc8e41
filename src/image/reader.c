/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The file under the check: every byte comes through here and is paid for from the budget. Reads
 * with pread() alone.
 */
#include <errno.h>
#include <unistd.h>

#include "image/image.h"

static bool reader_from_memory(const ImageCheck *check, uint64_t offset, uint8_t *buffer,
                               size_t length)
{
    size_t have = 0;

    if (offset < check->memory_len) {
        have = check->memory_len - (size_t)offset;
        have = have < length ? have : length;
        memcpy(buffer, check->memory + offset, have);
    }
    memset(buffer + have, 0, length - have);
    return true;
}

static bool reader_from_file(ImageCheck *check, uint64_t offset, uint8_t *buffer, size_t length)
{
    while (length > 0) {
        ssize_t n = pread(check->fd, buffer, length, (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            image_fail(check, "Reading at byte %llu failed with error %d.",
                       (unsigned long long)offset, errno);
            return false;
        }
        if (n == 0) {
            image_fail(check,
                       "The file has become shorter while it was read: it ends before byte "
                       "%llu.",
                       (unsigned long long)offset);
            return false;
        }
        buffer += n;
        offset += (uint64_t)n;
        length -= (size_t)n;
    }
    return true;
}

/* Not larger, and not further behind the last one, are the small reads of a list: entries of a few
 * dozen bytes, names, padding. */
#define READER_SMALL 512
#define READER_GAP 64

/* A system call for each entry of a list would cost more than the list. True: `offset` is in the
 * window now; what was read is paid for. */
static bool reader_window(ImageCheck *check, uint64_t offset, size_t length)
{
    bool goes_on = offset >= check->last_end && offset - check->last_end <= READER_GAP;
    uint64_t left = check->size - offset;
    size_t size = left < IMAGE_WINDOW ? (size_t)left : IMAGE_WINDOW;

    if (check->window_len && offset >= check->window_at &&
        offset - check->window_at <= check->window_len &&
        length <= check->window_len - (offset - check->window_at))
        return true;
    if (!goes_on || size > check->budget || !image_read_file(check, offset, check->window, size))
        return false;
    check->budget -= size;
    check->window_at = offset;
    check->window_len = size;
    return true;
}

bool image_read(ImageCheck *check, uint64_t offset, void *buffer, size_t length)
{
    if (check->verdict.failed)
        return false;
    if (!image_inside(check, offset, length)) {
        image_fail(check, "Internal fault: a read of %llu bytes at byte %llu, outside the file.",
                   (unsigned long long)length, (unsigned long long)offset);
        return false;
    }
    if (length <= READER_SMALL && offset + length > check->sample.head_len) {
        bool found = reader_window(check, offset, length);

        check->last_end = offset + length;
        if (found)
            memcpy(buffer, check->window + (offset - check->window_at), length);
        if (found || check->verdict.failed)
            return found;
    }
    if (length > check->budget) {
        image_reason(check, IMAGE_TOO_MUCH_METADATA, offset,
                     "Going on here would mean to read more than %llu bytes of metadata.",
                     (unsigned long long)check->verdict.bytes_read);
        return false;
    }
    check->budget -= length;
    /* What was read already is read once: it cannot say one thing here and another there. */
    if (offset + length <= check->sample.head_len) {
        memcpy(buffer, check->head + offset, length);
        return true;
    }
    return image_read_file(check, offset, buffer, length);
}

bool image_read_file(ImageCheck *check, uint64_t offset, void *buffer, size_t length)
{
    check->verdict.bytes_read += length;
    if (check->memory)
        return reader_from_memory(check, offset, buffer, length);
    return reader_from_file(check, offset, buffer, length);
}

void image_grant(ImageCheck *check, uint64_t bytes)
{
    check->budget = bytes < UINT64_MAX - check->budget ? check->budget + bytes : UINT64_MAX;
}

void image_table_begin(ImageTable *table, uint64_t offset, uint64_t entries, size_t entry_size)
{
    *table = (ImageTable){.next = offset, .left = entries, .entry_size = entry_size};
}

/* False: there is no next entry. */
static bool reader_fill(ImageCheck *check, ImageTable *table)
{
    uint64_t fit = IMAGE_CHUNK / table->entry_size;
    uint64_t entries = table->left < fit ? table->left : fit;

    if (table->left == 0)
        return false;
    if (table->at < table->filled)
        return true;
    table->at = 0;
    table->filled = (size_t)entries * table->entry_size;
    if (image_read(check, table->next, check->chunk, table->filled))
        return true;
    table->left = 0;
    return false;
}

const uint8_t *image_table_next_set(ImageCheck *check, ImageTable *table)
{
    const uint64_t zero = 0;

    while (reader_fill(check, table)) {
        size_t at = table->at;
        uint64_t value = 0;

        while (at + sizeof(value) <= table->filled && value == 0) {
            memcpy(&value, check->chunk + at, sizeof(value));
            at += sizeof(value);
        }
        at -= value ? sizeof(value) : 0;
        /* half of what was looked at, or what a half was left of */
        if (at < table->filled && memcmp(check->chunk + at, &zero, table->entry_size) == 0)
            at += table->entry_size;
        table->next += at - table->at;
        table->left -= (at - table->at) / table->entry_size;
        table->at = at;
        if (at < table->filled)
            return image_table_next(check, table);
    }
    return NULL;
}

const uint8_t *image_table_next(ImageCheck *check, ImageTable *table)
{
    const uint8_t *entry;

    if (!reader_fill(check, table))
        return NULL;
    entry = check->chunk + table->at;
    table->offset = table->next;
    table->next += table->entry_size;
    table->at += table->entry_size;
    table->left--;
    return entry;
}
