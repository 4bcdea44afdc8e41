/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See ledger.h. */
#include "ledger.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

/* ---- writing --------------------------------------------------------------------------- */

static gsize ledger_begin(GString *out, const char *kind)
{
    gsize start = out->len;

    g_string_append(out, "00000000 ");
    g_string_append(out, kind);
    return start;
}

/* Nothing in it has to be escaped, as mostly. */
static gboolean ledger_is_plain(const char *value)
{
    for (; *value; value++)
        if (*value < ' ' || *value > '~' || *value == '\\' || *value == '"')
            return FALSE;
    return TRUE;
}

static void ledger_text(GString *out, const char *key, const char *value)
{
    if (!value)
        return;
    g_string_append_c(out, '\t');
    g_string_append(out, key);
    g_string_append_c(out, '=');
    if (ledger_is_plain(value)) {
        g_string_append(out, value);
    } else {
        g_autofree char *escaped = g_strescape(value, NULL);

        g_string_append(out, escaped);
    }
}

static void ledger_number(GString *out, const char *key, gint64 value)
{
    g_string_append_printf(out, "\t%s=%" G_GINT64_FORMAT, key, value);
}

static void ledger_end(GString *out, gsize start)
{
    const char *line = out->str + start + 9;
    guint32 crc = (guint32)crc32(0, (const Bytef *)line, (uInt)(out->len - start - 9));
    char digits[9];

    g_snprintf(digits, sizeof(digits), "%08x", crc);
    memcpy(out->str + start, digits, 8);
    g_string_append_c(out, '\n');
}

void ledger_put_owner(GString *out, const LedgerOwner *owner)
{
    gsize start = ledger_begin(out, "owner");

    ledger_text(out, "id", owner->id);
    ledger_text(out, "name", owner->name);
    ledger_text(out, "uuid", owner->uuid);
    ledger_text(out, "uri", owner->uri);
    ledger_number(out, "pid", owner->pid);
    ledger_number(out, "ticks", (gint64)owner->start_ticks);
    ledger_number(out, "until-close", owner->until_close);
    ledger_text(out, "pidfd", owner->pidfd);
    ledger_text(out, "conns", owner->conns);
    ledger_end(out, start);
}

void ledger_put_lease(GString *out, const LedgerLease *lease)
{
    gsize start = ledger_begin(out, "lease");

    ledger_text(out, "id", lease->id);
    ledger_text(out, "owner", lease->owner);
    ledger_text(out, "disk", lease->disk);
    ledger_text(out, "mode", mode_to_string(lease->mode));
    ledger_number(out, "since", lease->since_usec);
    ledger_number(out, "count", lease->count);
    for (guint i = 0; i < lease->claims->len; i++)
        ledger_text(out, "claim", g_ptr_array_index(lease->claims, i));
    for (guint i = 0; i < lease->parts->len; i++) {
        const LedgerPart *part = g_ptr_array_index(lease->parts, i);

        ledger_text(out, "driver", part->driver); /* begins a part */
        ledger_text(out, "space", part->space);
        ledger_text(out, "key", part->key);
        ledger_text(out, "fds", part->fds);
        ledger_text(out, "bytes", part->bytes);
    }
    ledger_end(out, start);
}

static void ledger_put_id(GString *out, const char *kind, const char *id)
{
    gsize start = ledger_begin(out, kind);

    ledger_text(out, "id", id);
    ledger_end(out, start);
}

void ledger_put_free(GString *out, const char *lease_id)
{
    ledger_put_id(out, "free", lease_id);
}

void ledger_put_gone(GString *out, const char *owner_id)
{
    ledger_put_id(out, "gone", owner_id);
}

/* ---- reading --------------------------------------------------------------------------- */

static void ledger_owner_free(gpointer data)
{
    LedgerOwner *owner = data;

    g_free(owner->id);
    g_free(owner->name);
    g_free(owner->uuid);
    g_free(owner->uri);
    g_free(owner->pidfd);
    g_free(owner->conns);
    g_free(owner);
}

static void ledger_part_free(gpointer data)
{
    LedgerPart *part = data;

    g_free(part->driver);
    g_free(part->space);
    g_free(part->key);
    g_free(part->fds);
    g_free(part->bytes);
    g_free(part);
}

LedgerLease *ledger_lease_new(void)
{
    LedgerLease *lease = g_new0(LedgerLease, 1);

    lease->claims = g_ptr_array_new_with_free_func(g_free);
    lease->parts = g_ptr_array_new_with_free_func(ledger_part_free);
    lease->count = 1;
    return lease;
}

void ledger_lease_free(LedgerLease *lease)
{
    if (!lease)
        return;
    g_free(lease->id);
    g_free(lease->owner);
    g_free(lease->disk);
    g_ptr_array_unref(lease->claims);
    g_ptr_array_unref(lease->parts);
    g_free(lease);
}

LedgerPart *ledger_lease_add_part(LedgerLease *lease)
{
    LedgerPart *part = g_new0(LedgerPart, 1);

    g_ptr_array_add(lease->parts, part);
    return part;
}

/* A backslash at the end escapes nothing, which only somebody else can have written. */
static char *ledger_unescape(const char *escaped)
{
    g_autofree char *copy = NULL;
    gsize len = strlen(escaped), n = 0;

    copy = g_strdup(escaped);
    if (!memchr(escaped, '\\', len))
        return g_steal_pointer(&copy);
    while (n < len && copy[len - 1 - n] == '\\')
        n++;
    if (n % 2 == 1)
        copy[len - 1] = '\0';
    return g_strcompress(copy);
}

static void ledger_replace(char **member, const char *escaped)
{
    g_free(*member);
    *member = ledger_unescape(escaped);
}

static void ledger_set_owner(LedgerOwner *owner, const char *key, const char *value)
{
    if (strcmp(key, "id") == 0)
        ledger_replace(&owner->id, value);
    else if (strcmp(key, "name") == 0)
        ledger_replace(&owner->name, value);
    else if (strcmp(key, "uuid") == 0)
        ledger_replace(&owner->uuid, value);
    else if (strcmp(key, "uri") == 0)
        ledger_replace(&owner->uri, value);
    else if (strcmp(key, "pidfd") == 0)
        ledger_replace(&owner->pidfd, value);
    else if (strcmp(key, "conns") == 0)
        ledger_replace(&owner->conns, value);
    else if (strcmp(key, "pid") == 0)
        owner->pid = (pid_t)g_ascii_strtoll(value, NULL, 10);
    else if (strcmp(key, "ticks") == 0)
        owner->start_ticks = (guint64)g_ascii_strtoll(value, NULL, 10);
    else if (strcmp(key, "until-close") == 0)
        owner->until_close = *value == '1';
}

static void ledger_set_part(LedgerPart *part, const char *key, const char *value)
{
    if (strcmp(key, "space") == 0)
        ledger_replace(&part->space, value);
    else if (strcmp(key, "key") == 0)
        ledger_replace(&part->key, value);
    else if (strcmp(key, "fds") == 0)
        ledger_replace(&part->fds, value);
    else if (strcmp(key, "bytes") == 0)
        ledger_replace(&part->bytes, value);
}

static void ledger_set_lease(LedgerLease *lease, const char *key, const char *value)
{
    if (strcmp(key, "id") == 0)
        ledger_replace(&lease->id, value);
    else if (strcmp(key, "owner") == 0)
        ledger_replace(&lease->owner, value);
    else if (strcmp(key, "disk") == 0)
        ledger_replace(&lease->disk, value);
    else if (strcmp(key, "mode") == 0)
        mode_from_string(value, &lease->mode);
    else if (strcmp(key, "since") == 0)
        lease->since_usec = g_ascii_strtoll(value, NULL, 10);
    else if (strcmp(key, "count") == 0)
        lease->count = (guint)MAX(g_ascii_strtoll(value, NULL, 10), 1);
    else if (strcmp(key, "claim") == 0)
        g_ptr_array_add(lease->claims, ledger_unescape(value));
    else if (strcmp(key, "driver") == 0)
        ledger_replace(&ledger_lease_add_part(lease)->driver, value);
    else if (lease->parts->len > 0)
        ledger_set_part(g_ptr_array_index(lease->parts, lease->parts->len - 1), key, value);
}

static gboolean ledger_lease_is_whole(const LedgerLease *lease)
{
    for (guint i = 0; i < lease->parts->len; i++) {
        const LedgerPart *part = g_ptr_array_index(lease->parts, i);

        if (!part->space || !part->key || !part->fds || !part->bytes)
            return FALSE;
    }
    return lease->id && lease->owner && lease->parts->len > 0;
}

/* Splits "key=value" fields off the line, which it changes; NULL at the end. */
static char *ledger_field(char **line, char **ret_value)
{
    char *key = *line, *end, *equals;

    if (!key)
        return NULL;
    end = strchr(key, '\t');
    *line = end ? end + 1 : NULL;
    if (end)
        *end = '\0';
    equals = strchr(key, '=');
    if (!equals)
        return ledger_field(line, ret_value);
    *equals = '\0';
    *ret_value = equals + 1;
    return key;
}

static gboolean ledger_read_owner(Ledger *ledger, char *fields)
{
    LedgerOwner *owner = g_new0(LedgerOwner, 1);
    char *key, *value;

    while ((key = ledger_field(&fields, &value)))
        ledger_set_owner(owner, key, value);
    if (!owner->id) {
        ledger_owner_free(owner);
        return FALSE;
    }
    g_hash_table_replace(ledger->owners, owner->id, owner);
    return TRUE;
}

static gboolean ledger_read_lease(Ledger *ledger, char *fields)
{
    g_autoptr(LedgerLease) lease = ledger_lease_new();
    char *key, *value;

    while ((key = ledger_field(&fields, &value)))
        ledger_set_lease(lease, key, value);
    if (!ledger_lease_is_whole(lease))
        return FALSE;
    g_hash_table_replace(ledger->leases, lease->id, lease);
    g_steal_pointer(&lease);
    return TRUE;
}

static gboolean ledger_read_line(Ledger *ledger, char *line, gsize len)
{
    char *fields, *value = NULL, *key;
    char digits[9];

    if (len < 10 || line[8] != ' ')
        return FALSE;
    g_snprintf(digits, sizeof(digits), "%08x",
               (guint32)crc32(0, (const Bytef *)line + 9, (uInt)(len - 9)));
    if (memcmp(digits, line, 8) != 0)
        return FALSE;
    line += 9;
    fields = strchr(line, '\t');
    if (!fields)
        return FALSE;
    *fields++ = '\0';
    if (strcmp(line, "owner") == 0)
        return ledger_read_owner(ledger, fields);
    if (strcmp(line, "lease") == 0)
        return ledger_read_lease(ledger, fields);
    key = ledger_field(&fields, &value);
    if (!key || strcmp(key, "id") != 0)
        return FALSE;
    if (strcmp(line, "free") == 0)
        g_hash_table_remove(ledger->leases, value);
    else if (strcmp(line, "gone") == 0)
        g_hash_table_remove(ledger->owners, value);
    return TRUE; /* another kind is from a later version, and can be done without */
}

/* With a NUL behind it, and whatever is in it: g_strndup() would stop at the first. */
static char *ledger_copy(const char *text, gsize len)
{
    char *copy = g_malloc(len + 1);

    if (len > 0)
        memcpy(copy, text, len);
    copy[len] = '\0';
    return copy;
}

Ledger *ledger_parse(const char *text, gsize len, Fault **ret_fault)
{
    g_autofree char *copy = ledger_copy(text, len);
    Ledger *ledger;
    char *line, *end;

    if (len > 0 && !g_str_has_prefix(copy, LEDGER_HEADER)) {
        *ret_fault = fault_new(HF_ERR_INTERNAL, 0,
                               "this is no ledger of version 1: another version's, or damaged");
        return NULL;
    }
    ledger = g_new0(Ledger, 1);
    ledger->owners = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, ledger_owner_free);
    ledger->leases =
        g_hash_table_new_full(g_str_hash, g_str_equal, NULL, (GDestroyNotify)ledger_lease_free);
    line = len > 0 ? copy + strlen(LEDGER_HEADER) : copy;
    for (; (end = memchr(line, '\n', (gsize)(copy + len - line))); line = end + 1) {
        *end = '\0';
        if (!ledger_read_line(ledger, line, (gsize)(end - line)))
            ledger->damaged++;
    }
    return ledger;
}

void ledger_free(Ledger *ledger)
{
    if (!ledger)
        return;
    g_hash_table_unref(ledger->owners);
    g_hash_table_unref(ledger->leases);
    g_free(ledger);
}
