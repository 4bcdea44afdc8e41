/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What another host may have left in a lock file, taken as a whole block, and as the JSON of a
 * record whose frame is right, or but for the length: what is read can be told, and written again.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "guard.h"
#include "protocol/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(gboolean condition)
{
    if (!condition)
        abort();
}

static void check_text(const char *text)
{
    check(!text || strlen(text) < RECORD_BLOCK);
}

/* A record that was made of another one says the same. */
static void check_again(const Holder *holder)
{
    const struct hf_holder facts = {.disk = holder->disk,
                                    .name = holder->name,
                                    .uuid = holder->uuid,
                                    .uri = holder->uri,
                                    .host = holder->host,
                                    .pid = holder->pid,
                                    .since_usec = holder->since_usec,
                                    .mode = holder->mode};
    char block[RECORD_BLOCK];
    g_autoptr(Holder) again = NULL;

    record_encode(block, &facts);
    check(!record_is_header(block));
    again = record_decode(block);
    check(again && again->pid == holder->pid && again->since_usec == holder->since_usec &&
          again->mode == holder->mode);
    check(!holder->name == !again->name && !holder->disk == !again->disk);
}

static void try_block(const char *bytes)
{
    const char *block = guard_copy(bytes, RECORD_BLOCK);
    g_autoptr(Holder) holder = record_decode(block);
    g_autoptr(GPtrArray) holders = g_ptr_array_new();
    g_autofree char *text = NULL;

    check(!holder || !record_is_header(block));
    if (!holder)
        return;
    check_text(holder->disk);
    check_text(holder->name);
    check_text(holder->uuid);
    check_text(holder->uri);
    check_text(holder->host);
    check(holder->pid >= 0 && holder->since_usec >= 0 && holder->mode <= HF_MODE_READONLY &&
          holder->source == HOLDER_FROM_RECORD);
    g_ptr_array_add(holders, holder);
    text = holder_refusal("disk /srv/a.img", "/srv/a.img", holders);
    check(g_utf8_validate(text, -1, NULL));
    for (const char *p = text; *p; p = g_utf8_next_char(p))
        check(!g_unichar_iscntrl(g_utf8_get_char(p)));
    check_again(holder);
}

/* A block with this JSON, whose frame says that it has `said` bytes. */
static void try_json(const uint8_t *json, size_t len, size_t said)
{
    g_autofree char *sum = g_compute_checksum_for_data(G_CHECKSUM_SHA256, json, len);
    char block[RECORD_BLOCK] = {0};
    int start = g_snprintf(block, RECORD_BLOCK, "HOLDFAST RECORD 1 %.16s %zu\n", sum, said);

    memcpy(block + start, json, MIN(len, RECORD_BLOCK - (size_t)start));
    try_block(block);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t len = MIN(size, RECORD_BLOCK - 64);
    char block[RECORD_BLOCK] = {0};

    memcpy(block, data, MIN(size, RECORD_BLOCK));
    try_block(block);
    try_json(data, len, len);
    if (size >= 2)
        try_json(data + 2, len - 2, (size_t)data[0] << 8 | data[1]);
    return 0;
}
