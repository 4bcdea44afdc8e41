/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One check from begin to end, and the verdict that it leaves. Allocates nothing and calls nothing
 * but pread().
 */
#include <stdio.h>

#include "image/image.h"

/* So much of the head is zero where the file is shorter, as QEMU sees it: no header is longer. */
#define CHECK_ZEROED ((size_t)4096)

/* ---- the verdict ---------------------------------------------------------------------------- */

__attribute__((format(printf, 4, 0))) static void check_add(ImageCheck *check, ImageReasonId id,
                                                            uint64_t offset, const char *sentence,
                                                            va_list args)
{
    ImageVerdict *verdict = &check->verdict;
    ImageReason *reason;

    if (verdict->n_reasons == IMAGE_MAX_REASONS) {
        verdict->n_more++;
        return;
    }
    reason = &verdict->reasons[verdict->n_reasons++];
    reason->id = (uint32_t)id;
    reason->offset = offset;
    vsnprintf(reason->sentence, sizeof(reason->sentence), sentence, args);
}

void image_reason(ImageCheck *check, ImageReasonId id, uint64_t offset, const char *sentence, ...)
{
    va_list args;

    if (check->verdict.failed)
        return;
    va_start(args, sentence);
    check_add(check, id, offset, sentence, args);
    va_end(args);
}

void image_fail(ImageCheck *check, const char *sentence, ...)
{
    va_list args;

    if (check->verdict.failed)
        return;
    check->verdict.failed = 1;
    check->verdict.n_reasons = 0;
    check->verdict.n_more = 0;
    va_start(args, sentence);
    check_add(check, IMAGE_N_REASONS, IMAGE_NO_OFFSET, sentence, args);
    va_end(args);
}

void image_set_size(ImageCheck *check, uint64_t offset, uint64_t bytes)
{
    ImageVerdict *verdict = &check->verdict;
    bool had_size = verdict->has_size;

    if (had_size && bytes <= verdict->size)
        return;
    if (bytes > check->max_size && !(had_size && verdict->size > check->max_size))
        image_reason(check, IMAGE_SIZE_LIMIT, offset,
                     "The disk would have %llu bytes; %llu are allowed.", (unsigned long long)bytes,
                     (unsigned long long)check->max_size);
    verdict->has_size = 1;
    verdict->size = bytes;
}

const char *image_quote(char buffer[IMAGE_QUOTED], const void *text, size_t length)
{
    const uint8_t *bytes = text;
    size_t n = 0;

    while (n < length && n < IMAGE_QUOTED - 4 && bytes[n] != 0) {
        bool printable = bytes[n] >= 0x20 && bytes[n] < 0x7f;

        buffer[n] = printable ? (char)bytes[n] : '?';
        n++;
    }
    if (n < length && bytes[n] != 0) {
        memcpy(buffer + n, "...", 3);
        n += 3;
    }
    buffer[n] = '\0';
    return buffer;
}

/* ---- the check ------------------------------------------------------------------------------ */

static size_t check_head_len(const ImageCheck *check)
{
    return check->size < IMAGE_HEAD ? (size_t)check->size : IMAGE_HEAD;
}

static size_t check_tail_len(const ImageCheck *check)
{
    return check->size < IMAGE_TAIL ? (size_t)check->size : IMAGE_TAIL;
}

/* What recognisers get to see, into these buffers. */
static bool check_read_sample(ImageCheck *check, uint8_t *head, uint8_t *tail, uint8_t *far)
{
    size_t tail_len = check_tail_len(check);

    memset(far, 0, IMAGE_FAR * IMAGE_FAR_SIZE);
    if (!image_read_file(check, 0, head, check_head_len(check)) ||
        !image_read_file(check, check->size - tail_len, tail, tail_len))
        return false;
    for (size_t i = 0; i < IMAGE_FAR && image_inside(check, IMAGE_FAR_AT(i), IMAGE_FAR_SIZE); i++) {
        if (!image_read_file(check, IMAGE_FAR_AT(i), far + i * IMAGE_FAR_SIZE, IMAGE_FAR_SIZE))
            return false;
    }
    return true;
}

static bool check_sample(ImageCheck *check)
{
    size_t head = check_head_len(check);

    check->sample = (ImageSample){.size = check->size};
    check->window_len = 0;
    check->last_end = UINT64_MAX;
    if (!check_read_sample(check, check->head, check->tail, check->far))
        return false;
    if (head < CHECK_ZEROED)
        memset(check->head + head, 0, CHECK_ZEROED - head);
    check->sample = (ImageSample){
        .size = check->size,
        .head = check->head,
        .head_len = head,
        .tail = check->tail,
        .tail_len = check_tail_len(check),
        .far = check->far,
    };
    return true;
}

static bool check_may_be_beside(const ImageFormat *format, const ImageFormat *other)
{
    for (const char *const *name = format->beside; name && *name; name++) {
        if (strcmp(*name, other->name) == 0)
            return true;
    }
    return false;
}

/* Everything else that the file could be taken for. */
static void check_others(ImageCheck *check)
{
    for (const ImageFormat *const *format = image_formats; *format; format++) {
        const ImageFormat *other = *format;

        if (other == check->format || !other->recognise || !other->recognise(&check->sample) ||
            check_may_be_beside(check->format, other))
            continue;
        image_reason(check, other->also, IMAGE_NO_OFFSET,
                     "The file could be taken for %s, while it is said to be %s.", other->title,
                     check->format->name);
    }
}

/* What was read first is read again: who changes a file under the check, to show one thing to it
 * and another to the VM, has to change the headers, which some formats have at the end. That the
 * file has kept its size is seen by who runs the check: fstat() is not to be had here. */
_Static_assert(IMAGE_HEAD + IMAGE_TAIL + IMAGE_FAR * IMAGE_FAR_SIZE <= IMAGE_CHUNK,
               "all is read again into the chunk");
static void check_unchanged(ImageCheck *check)
{
    uint8_t *head = check->chunk, *tail = head + IMAGE_HEAD, *far = tail + IMAGE_TAIL;

    if (check->verdict.failed || !check_read_sample(check, head, tail, far))
        return;
    if (memcmp(head, check->head, check_head_len(check)) != 0 ||
        memcmp(tail, check->tail, check_tail_len(check)) != 0 ||
        memcmp(far, check->far, sizeof(check->far)) != 0)
        image_fail(check, "The file has changed while it was read.");
}

void image_check(ImageCheck *check)
{
    const ImageFormat *format = check->format;

    memset(&check->verdict, 0, offsetof(ImageVerdict, reasons));
    check->budget = IMAGE_BUDGET;
    if (!check_sample(check))
        return;
    check_others(check);
    if (format->recognise && !format->recognise(&check->sample))
        image_reason(check, IMAGE_WRONG_FORMAT, 0, "The file does not begin or end as %s does.",
                     format->title);
    else
        format->check(check);
    if (!check->verdict.has_size && check->verdict.n_reasons == 0)
        image_reason(check, IMAGE_SIZE_UNKNOWN, IMAGE_NO_OFFSET,
                     "The size of the disk cannot be determined.");
    check_unchanged(check);
}
