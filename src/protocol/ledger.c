/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * See ledger.h. Whoever has waited for a daemon that starts waits for this, so that what is read
 * stays where it is: the values are pieces of the file's text, what refers to them comes from a few
 * large blocks, and nothing is freed but these.
 */
#include "ledger.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

/* Before the rest of each line: the check sum and a blank. */
#define LEDGER_CRC_CHARS 9
/* Some 2,000 leases fit into one; what is so large goes back to the kernel when it is freed. */
#define LEDGER_BLOCK_BYTES (256 * 1024)

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
    char digits[24];

    g_snprintf(digits, sizeof(digits), "%" G_GINT64_FORMAT, value);
    ledger_text(out, key, digits);
}

static void ledger_hex(char digits[8], guint32 value)
{
    for (int i = 8; i-- > 0; value >>= 4)
        digits[i] = "0123456789abcdef"[value & 15];
}

static guint32 ledger_crc(const char *text, gsize len)
{
    return (guint32)crc32(0, (const Bytef *)text, (uInt)len);
}

static void ledger_end(GString *out, gsize start)
{
    const char *line = out->str + start + LEDGER_CRC_CHARS;

    ledger_hex(out->str + start, ledger_crc(line, out->len - start - LEDGER_CRC_CHARS));
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
    for (guint i = 0; i < lease->n_claims; i++)
        ledger_text(out, "claim", lease->claims[i]);
    for (guint i = 0; i < lease->n_parts; i++) {
        const LedgerPart *part = &lease->parts[i];

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

/* ---- blocks of memory ------------------------------------------------------------------ */

typedef struct LedgerBlock {
    struct LedgerBlock *next;
    gsize used, size;
    gpointer bytes[]; /* aligned for all that is put there */
} LedgerBlock;

/* A copy that lasts as long as the ledger. */
static gpointer ledger_keep(Ledger *ledger, gconstpointer data, gsize size)
{
    LedgerBlock *block = ledger->blocks;
    gsize room = (size + sizeof(gpointer) - 1) / sizeof(gpointer);
    gpointer there;

    if (size == 0)
        return NULL;
    if (!block || block->size - block->used < room) {
        gsize n = MAX(room, LEDGER_BLOCK_BYTES / sizeof(gpointer));

        block = g_malloc(sizeof(*block) + n * sizeof(gpointer));
        block->next = ledger->blocks;
        block->used = 0;
        block->size = n;
        ledger->blocks = block;
    }
    there = block->bytes + block->used;
    block->used += room;
    return memcpy(there, data, size);
}

/* ---- reading --------------------------------------------------------------------------- */

/* While a line about a lease is read: lists that grow. */
typedef struct LedgerReader {
    Ledger *ledger;
    GArray *claims; /* of const char * */
    GArray *parts;  /* of LedgerPart */
} LedgerReader;

/* One character of an escaped value, as g_strcompress() reads it; moves *from on. */
static char ledger_unescape_one(const char **from)
{
    static const char letters[] = "bfnrtv", meanings[] = "\b\f\n\r\t\v";
    const char *letter;
    int value = 0, n = 0;

    for (; n < 3 && **from >= '0' && **from <= '7'; n++)
        value = value * 8 + *(*from)++ - '0';
    if (n > 0)
        return (char)value;
    letter = strchr(letters, **from);
    (*from)++;
    return letter ? meanings[letter - letters] : (*from)[-1];
}

/* In place: what is meant is never longer. A backslash at the end escapes nothing, which only
 * somebody else can have written. */
static char *ledger_unescape(char *escaped)
{
    const char *from = strchr(escaped, '\\');
    char *to = escaped + (from ? from - escaped : 0);

    while (from && *from) {
        if (*from != '\\')
            *to++ = *from++;
        else if (*++from)
            *to++ = ledger_unescape_one(&from);
    }
    if (from)
        *to = '\0';
    return escaped;
}

/* Mostly the first letter tells. */
static gboolean ledger_is(const char *key, const char *word)
{
    return *key == *word && strcmp(key, word) == 0;
}

static void ledger_set_owner(LedgerOwner *owner, const char *key, char *value)
{
    if (ledger_is(key, "id"))
        owner->id = ledger_unescape(value);
    else if (ledger_is(key, "name"))
        owner->name = ledger_unescape(value);
    else if (ledger_is(key, "uuid"))
        owner->uuid = ledger_unescape(value);
    else if (ledger_is(key, "uri"))
        owner->uri = ledger_unescape(value);
    else if (ledger_is(key, "pidfd"))
        owner->pidfd = ledger_unescape(value);
    else if (ledger_is(key, "conns"))
        owner->conns = ledger_unescape(value);
    else if (ledger_is(key, "pid"))
        owner->pid = (pid_t)g_ascii_strtoll(value, NULL, 10);
    else if (ledger_is(key, "ticks"))
        owner->start_ticks = (guint64)g_ascii_strtoll(value, NULL, 10);
    else if (ledger_is(key, "until-close"))
        owner->until_close = *value == '1';
}

static void ledger_set_part(LedgerPart *part, const char *key, char *value)
{
    if (ledger_is(key, "space"))
        part->space = ledger_unescape(value);
    else if (ledger_is(key, "key"))
        part->key = ledger_unescape(value);
    else if (ledger_is(key, "fds"))
        part->fds = ledger_unescape(value);
    else if (ledger_is(key, "bytes"))
        part->bytes = ledger_unescape(value);
}

static void ledger_set_lease(LedgerReader *reader, LedgerLease *lease, const char *key, char *value)
{
    if (ledger_is(key, "id")) {
        lease->id = ledger_unescape(value);
    } else if (ledger_is(key, "owner")) {
        lease->owner = ledger_unescape(value);
    } else if (ledger_is(key, "disk")) {
        lease->disk = ledger_unescape(value);
    } else if (ledger_is(key, "mode")) {
        mode_from_string(value, &lease->mode);
    } else if (ledger_is(key, "since")) {
        lease->since_usec = g_ascii_strtoll(value, NULL, 10);
    } else if (ledger_is(key, "count")) {
        lease->count = (guint)MAX(g_ascii_strtoll(value, NULL, 10), 1);
    } else if (ledger_is(key, "claim")) {
        const char *claim = ledger_unescape(value);

        g_array_append_val(reader->claims, claim);
    } else if (ledger_is(key, "driver")) {
        const LedgerPart part = {.driver = ledger_unescape(value)};

        g_array_append_val(reader->parts, part);
    } else if (reader->parts->len > 0) {
        ledger_set_part(&g_array_index(reader->parts, LedgerPart, reader->parts->len - 1), key,
                        value);
    }
}

static gboolean ledger_lease_is_whole(const LedgerLease *lease, const GArray *parts)
{
    for (guint i = 0; i < parts->len; i++) {
        const LedgerPart *part = &g_array_index(parts, LedgerPart, i);

        if (!part->space || !part->key || !part->fds || !part->bytes)
            return FALSE;
    }
    return lease->id && lease->owner && parts->len > 0;
}

/* Splits "key=value" fields off the line, which it changes; NULL at the end. */
static char *ledger_field(char **line, char **ret_value)
{
    while (*line) {
        char *key = *line, *p = key, *equals;

        while (*p && *p != '\t' && *p != '=')
            p++;
        equals = *p == '=' ? p : NULL;
        if (equals)
            p = strchrnul(p, '\t');
        *line = *p ? p + 1 : NULL;
        *p = '\0';
        if (!equals)
            continue;
        *equals = '\0';
        *ret_value = equals + 1;
        return key;
    }
    return NULL;
}

static gboolean ledger_read_owner(Ledger *ledger, char *fields)
{
    LedgerOwner owner = {0}, *kept;
    char *key, *value;

    while ((key = ledger_field(&fields, &value)))
        ledger_set_owner(&owner, key, value);
    if (!owner.id)
        return FALSE;
    kept = ledger_keep(ledger, &owner, sizeof(owner));
    g_hash_table_replace(ledger->owners, (gpointer)kept->id, kept);
    return TRUE;
}

static gboolean ledger_read_lease(LedgerReader *reader, char *fields)
{
    Ledger *ledger = reader->ledger;
    LedgerLease lease = {.count = 1}, *kept;
    char *key, *value;

    g_array_set_size(reader->claims, 0);
    g_array_set_size(reader->parts, 0);
    while ((key = ledger_field(&fields, &value)))
        ledger_set_lease(reader, &lease, key, value);
    if (!ledger_lease_is_whole(&lease, reader->parts))
        return FALSE;
    lease.n_claims = reader->claims->len;
    lease.claims =
        ledger_keep(ledger, reader->claims->data, reader->claims->len * sizeof(const char *));
    lease.n_parts = reader->parts->len;
    lease.parts = ledger_keep(ledger, reader->parts->data, reader->parts->len * sizeof(LedgerPart));
    kept = ledger_keep(ledger, &lease, sizeof(lease));
    g_hash_table_replace(ledger->leases, (gpointer)kept->id, kept);
    return TRUE;
}

static gboolean ledger_read_line(LedgerReader *reader, char *line, gsize len)
{
    Ledger *ledger = reader->ledger;
    char *fields, *value = NULL, *key;
    char digits[8];

    if (len <= LEDGER_CRC_CHARS || line[LEDGER_CRC_CHARS - 1] != ' ')
        return FALSE;
    ledger_hex(digits, ledger_crc(line + LEDGER_CRC_CHARS, len - LEDGER_CRC_CHARS));
    if (memcmp(digits, line, sizeof(digits)) != 0)
        return FALSE;
    line += LEDGER_CRC_CHARS;
    fields = strchr(line, '\t');
    if (!fields)
        return FALSE;
    *fields++ = '\0';
    if (strcmp(line, "lease") == 0)
        return ledger_read_lease(reader, fields);
    if (strcmp(line, "owner") == 0)
        return ledger_read_owner(ledger, fields);
    key = ledger_field(&fields, &value);
    if (!key || strcmp(key, "id") != 0)
        return FALSE;
    if (strcmp(line, "free") == 0)
        g_hash_table_remove(ledger->leases, value);
    else if (strcmp(line, "gone") == 0)
        g_hash_table_remove(ledger->owners, value);
    return TRUE; /* another kind is from a later version, and can be done without */
}

static void ledger_read_lines(Ledger *ledger, gsize len)
{
    LedgerReader reader = {
        .ledger = ledger,
        .claims = g_array_new(FALSE, FALSE, sizeof(const char *)),
        .parts = g_array_new(FALSE, FALSE, sizeof(LedgerPart)),
    };
    char *line = ledger->text + strlen(LEDGER_HEADER), *past = ledger->text + len, *end;

    for (; (end = memchr(line, '\n', (gsize)(past - line))); line = end + 1) {
        *end = '\0';
        ledger->lines++;
        if (!ledger_read_line(&reader, line, (gsize)(end - line)))
            ledger->damaged++;
    }
    ledger->whole = (gsize)(line - ledger->text);
    g_array_unref(reader.claims);
    g_array_unref(reader.parts);
}

Ledger *ledger_parse(char *text, gsize len, Fault **ret_fault)
{
    Ledger *ledger;

    if (len > 0 && !g_str_has_prefix(text, LEDGER_HEADER)) {
        *ret_fault = fault_new(HF_ERR_INTERNAL, 0,
                               "this is no ledger of version 1: another version's, or damaged");
        g_free(text);
        return NULL;
    }
    ledger = g_new0(Ledger, 1);
    ledger->text = text;
    ledger->owners = g_hash_table_new(g_str_hash, g_str_equal);
    ledger->leases = g_hash_table_new(g_str_hash, g_str_equal);
    if (len > 0)
        ledger_read_lines(ledger, len);
    return ledger;
}

void ledger_free(Ledger *ledger)
{
    LedgerBlock *block, *next;

    if (!ledger)
        return;
    g_hash_table_unref(ledger->owners);
    g_hash_table_unref(ledger->leases);
    for (block = ledger->blocks; block; block = next) {
        next = block->next;
        g_free(block);
    }
    g_free(ledger->text);
    g_free(ledger);
}
