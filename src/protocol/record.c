/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See record.h. */
#include "record.h"

#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#define RECORD_HEADER "HOLDFAST LOCK FILE 1\n"
#define RECORD_MAGIC "HOLDFAST RECORD 1 "
#define RECORD_DIGEST 16

void record_encode_header(char *block)
{
    memset(block, 0, RECORD_BLOCK);
    memcpy(block, RECORD_HEADER, strlen(RECORD_HEADER));
}

gboolean record_is_header(const char *block)
{
    return memcmp(block, RECORD_HEADER, strlen(RECORD_HEADER)) == 0;
}

static void record_digest(char *digest, const char *data, size_t len)
{
    g_autofree char *sum =
        g_compute_checksum_for_data(G_CHECKSUM_SHA256, (const guchar *)data, len);

    memcpy(digest, sum, RECORD_DIGEST);
    digest[RECORD_DIGEST] = '\0';
}

/* At most `limit` bytes of text, cut between characters. */
static void record_add_string(json_object *object, const char *key, const char *text, size_t limit)
{
    g_autofree char *valid = NULL;
    size_t len;

    if (!text)
        return;
    valid = g_utf8_make_valid(text, -1);
    len = strlen(valid);
    if (len > limit) {
        len = limit;
        while (len > 0 && ((unsigned char)valid[len] & 0xc0) == 0x80)
            len--;
    }
    json_object_object_add(object, key, json_object_new_string_len(valid, (int)len));
}

static char *record_json(const struct hf_holder *holder, size_t limit)
{
    json_object *object = json_object_new_object();
    char *text;

    json_object_object_add(object, "pid", json_object_new_int(holder->pid));
    json_object_object_add(object, "since", json_object_new_int64(holder->since_usec));
    json_object_object_add(object, "mode", json_object_new_string(mode_to_string(holder->mode)));
    record_add_string(object, "uuid", holder->uuid, MIN(limit, 64));
    record_add_string(object, "host", holder->host, MIN(limit, 255));
    record_add_string(object, "name", holder->name, limit);
    record_add_string(object, "disk", holder->disk, limit);
    record_add_string(object, "uri", holder->uri, MIN(limit, 128));
    text = g_strdup(json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN |
                                                               JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(object);
    return text;
}

void record_encode(char *block, const struct hf_holder *holder)
{
    char digest[RECORD_DIGEST + 1];
    g_autofree char *json = NULL;
    size_t limit = RECORD_BLOCK, len;

    /* halving terminates: with limit 0 the numbers alone fit by far */
    do {
        g_free(json);
        json = record_json(holder, limit);
        len = strlen(json);
        limit /= 2;
    } while (len > RECORD_BLOCK - 64 && limit > 0);
    memset(block, 0, RECORD_BLOCK);
    record_digest(digest, json, len);
    g_snprintf(block, RECORD_BLOCK, RECORD_MAGIC "%s %zu\n%s\n", digest, len, json);
}

static char *record_get_string(json_object *object, const char *key)
{
    json_object *value;

    if (!json_object_object_get_ex(object, key, &value) ||
        !json_object_is_type(value, json_type_string))
        return NULL;
    return g_strdup(json_object_get_string(value));
}

static gint64 record_get_int(json_object *object, const char *key)
{
    json_object *value;

    if (!json_object_object_get_ex(object, key, &value) ||
        !json_object_is_type(value, json_type_int))
        return 0;
    return json_object_get_int64(value);
}

static Holder *record_from_json(json_object *object)
{
    g_autofree char *mode = record_get_string(object, "mode");
    gint64 pid = record_get_int(object, "pid");
    Holder *holder = g_new0(Holder, 1);

    holder->disk = record_get_string(object, "disk");
    holder->name = record_get_string(object, "name");
    holder->uuid = record_get_string(object, "uuid");
    holder->uri = record_get_string(object, "uri");
    holder->host = record_get_string(object, "host");
    holder->pid = pid > 0 && pid <= G_MAXINT ? (pid_t)pid : 0;
    holder->since_usec = MAX(record_get_int(object, "since"), 0);
    if (mode)
        mode_from_string(mode, &holder->mode);
    holder->source = HOLDER_FROM_RECORD;
    return holder;
}

Holder *record_decode(const char *block)
{
    char digest[RECORD_DIGEST + 1];
    const char *end = memchr(block, '\n', RECORD_BLOCK);
    const char *json = end ? end + 1 : NULL;
    json_tokener *tokener;
    json_object *object;
    Holder *holder = NULL;
    guint64 len;
    char *stop;

    if (!end || (size_t)(end - block) <= strlen(RECORD_MAGIC) + RECORD_DIGEST + 1 ||
        memcmp(block, RECORD_MAGIC, strlen(RECORD_MAGIC)) != 0)
        return NULL;
    len = g_ascii_strtoull(block + strlen(RECORD_MAGIC) + RECORD_DIGEST + 1, &stop, 10);
    if (stop != end || len > (guint64)(RECORD_BLOCK - (json - block)))
        return NULL;
    record_digest(digest, json, (size_t)len);
    if (memcmp(digest, block + strlen(RECORD_MAGIC), RECORD_DIGEST) != 0)
        return NULL;
    tokener = json_tokener_new_ex(4);
    object = json_tokener_parse_ex(tokener, json, (int)len);
    if (json_object_is_type(object, json_type_object))
        holder = record_from_json(object);
    json_object_put(object);
    json_tokener_free(tokener);
    return holder;
}
