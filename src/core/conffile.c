/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The reader of libvirt-style configuration files; the syntax is described in conffile.h.
 *
 * A hand-written parser that walks over the bytes once. It stops at the first mistake, because
 * after one there is no telling what the next quote or bracket means. Nothing here knows a key's
 * meaning or logs. The messages are made in conffile-message.c, the file is read in
 * conffile-load.c.
 */
#include "core/conffile-private.h"

#include <string.h>

/** Where the parser is. `at` never goes beyond `end`. */
typedef struct Cursor {
    const char *name;
    const char *at;
    const char *end;
    guint line;
} Cursor;

/* ---- memory ---------------------------------------------------------------------------- */

static void conffile_item_free(gpointer data)
{
    ConfItem *item = data;

    g_free(item->text);
    g_free(item);
}

static void conffile_entry_free(gpointer data)
{
    ConfEntry *entry = data;

    if (!entry)
        return;
    g_free(entry->key);
    g_free(entry->string);
    g_clear_pointer(&entry->items, g_ptr_array_unref);
    g_free(entry);
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC(ConfEntry, conffile_entry_free)

static ConfFile *conffile_new(const char *name)
{
    ConfFile *file = g_new0(ConfFile, 1);

    file->name = g_strdup(name);
    file->entries = g_ptr_array_new_with_free_func(conffile_entry_free);
    file->by_key = g_hash_table_new(g_str_hash, g_str_equal);
    return file;
}

void conffile_free(ConfFile *file)
{
    if (!file)
        return;
    g_hash_table_unref(file->by_key);
    g_ptr_array_unref(file->entries);
    g_free(file->name);
    g_free(file);
}

/** Takes over `entry`, which has no effect when its key was there before. */
static void conffile_add(ConfFile *file, ConfEntry *entry)
{
    const ConfEntry *first = g_hash_table_lookup(file->by_key, entry->key);

    g_ptr_array_add(file->entries, entry);
    if (first)
        entry->first_line = first->line;
    else
        g_hash_table_insert(file->by_key, entry->key, entry);
}

const ConfEntry *conffile_lookup(const ConfFile *file, const char *key)
{
    return g_hash_table_lookup(file->by_key, key);
}

/* ---- walking over the bytes ------------------------------------------------------------ */

/** The byte at the cursor; NUL at the end (a NUL in the file was refused before). */
static char conffile_peek(const Cursor *c)
{
    return c->at < c->end ? *c->at : '\0';
}

static gboolean conffile_is_eol(char byte)
{
    return byte == '\n' || byte == '\r';
}

static gboolean conffile_has_prefix(const Cursor *c, const char *prefix)
{
    gsize len = strlen(prefix);

    return (gsize)(c->end - c->at) >= len && memcmp(c->at, prefix, len) == 0;
}

static void conffile_skip_blanks(Cursor *c)
{
    while (conffile_peek(c) == ' ' || conffile_peek(c) == '\t')
        c->at++;
}

/** Steps over one byte or one CR LF, and counts the line that ends there. */
static void conffile_advance(Cursor *c)
{
    if (conffile_is_eol(*c->at)) {
        if (conffile_has_prefix(c, "\r\n"))
            c->at++;
        c->line++;
    }
    c->at++;
}

static void conffile_skip_comment(Cursor *c)
{
    if (conffile_peek(c) != '#')
        return;
    while (c->at < c->end && !conffile_is_eol(*c->at))
        c->at++;
}

/** Blanks and line ends: what may stand between the parts of a list. */
static void conffile_skip_space(Cursor *c)
{
    conffile_skip_blanks(c);
    while (conffile_is_eol(conffile_peek(c))) {
        conffile_advance(c);
        conffile_skip_blanks(c);
    }
}

/** Everything that may stand in front of a setting: blanks, empty lines, comments. */
static void conffile_skip_to_key(Cursor *c)
{
    conffile_skip_space(c);
    while (conffile_peek(c) == '#') {
        conffile_skip_comment(c);
        conffile_skip_space(c);
    }
}

/** The rest of the line, quoted for a message. */
static char *conffile_quote_rest(const Cursor *c)
{
    const char *stop = c->at;

    while (stop < c->end && !conffile_is_eol(*stop))
        stop++;
    return stop == c->at ? g_strdup(c->at == c->end ? "the end of the file" : "the end of the line")
                         : conffile_quote(c->at, stop - c->at);
}

/* ---- the syntax ------------------------------------------------------------------------ */

static gboolean conffile_parse_key(Cursor *c, char **ret_key, GError **error)
{
    const char *start = c->at;

    if (!g_ascii_isalpha(conffile_peek(c))) {
        g_autofree char *found = conffile_quote_rest(c);

        return conffile_syntax(c, error,
                               "expected a key, found %s; write: key = value (a key is a letter, "
                               "then letters, digits and '_'; comments begin with #)",
                               found);
    }
    while (g_ascii_isalnum(conffile_peek(c)) || conffile_peek(c) == '_')
        c->at++;
    *ret_key = g_strndup(start, (gsize)(c->at - start));
    return TRUE;
}

/** A string in `quote`s, which has to end on its line, or in three of them, which need not. */
static gboolean conffile_parse_quoted(Cursor *c, const char *quote, char **ret_string,
                                      GError **error)
{
    gboolean many_lines = strlen(quote) > 1;
    Cursor scan = *c;
    const char *start;

    scan.at += strlen(quote);
    start = scan.at;
    while (scan.at < scan.end && !conffile_has_prefix(&scan, quote)) {
        if (!many_lines && conffile_is_eol(*scan.at))
            break;
        conffile_advance(&scan);
    }
    if (!conffile_has_prefix(&scan, quote)) {
        if (many_lines)
            return conffile_syntax(c, error,
                                   "the string that begins with \"\"\" here is never closed; "
                                   "write \"\"\" at its end");
        return conffile_syntax(c, error,
                               "the string is not closed on its line; write %s at its end, or put "
                               "a string of several lines into \"\"\"",
                               quote);
    }
    *ret_string = g_strndup(start, (gsize)(scan.at - start));
    *c = scan;
    c->at += strlen(quote);
    return TRUE;
}

static gboolean conffile_parse_string(Cursor *c, char **ret_string, GError **error)
{
    const char *quote = conffile_has_prefix(c, "\"\"\"") ? "\"\"\"" : *c->at == '"' ? "\"" : "'";

    return conffile_parse_quoted(c, quote, ret_string, error);
}

static gboolean conffile_parse_number(Cursor *c, gint64 *ret_number, GError **error)
{
    const char *start = c->at;
    gboolean negative = *c->at == '-';
    gint64 number = 0;

    if (*c->at == '-' || *c->at == '+')
        c->at++;
    if (!g_ascii_isdigit(conffile_peek(c)))
        return conffile_syntax(c, error, "'%c' without digits after it; write a number", *start);
    for (; g_ascii_isdigit(conffile_peek(c)); c->at++) {
        int digit = *c->at - '0';

        /* Negative numbers are collected as such: the range reaches one further below zero. */
        if (__builtin_mul_overflow(number, 10, &number) ||
            __builtin_add_overflow(number, negative ? -digit : digit, &number))
            return conffile_syntax(c, error,
                                   "the number is too large; numbers go from %" G_GINT64_FORMAT
                                   " to %" G_GINT64_FORMAT,
                                   G_MININT64, G_MAXINT64);
    }
    *ret_number = number;
    return TRUE;
}

static gboolean conffile_parse_item(Cursor *c, GPtrArray *items, GError **error)
{
    ConfItem *item;
    char *text = NULL;
    guint line = c->line;

    if (conffile_peek(c) == '#')
        return conffile_syntax(c, error,
                               "a comment can't stand inside a list; put it above the list");
    if (conffile_peek(c) != '"' && conffile_peek(c) != '\'') {
        g_autofree char *found = conffile_quote_rest(c);

        return conffile_syntax(c, error,
                               "expected a string in quotes in the list, found %s; write: "
                               "[ \"one\", \"two\" ]",
                               found);
    }
    if (!conffile_parse_string(c, &text, error))
        return FALSE;
    item = g_new0(ConfItem, 1);
    item->text = text;
    item->line = line;
    g_ptr_array_add(items, item);
    return TRUE;
}

/** A list. A comma after the last string is allowed, as libvirt has it. */
static gboolean conffile_parse_list(Cursor *c, GPtrArray **ret_items, GError **error)
{
    g_autoptr(GPtrArray) items = g_ptr_array_new_with_free_func(conffile_item_free);
    Cursor start = *c;

    c->at++;
    conffile_skip_space(c);
    while (c->at < c->end && *c->at != ']') {
        if (!conffile_parse_item(c, items, error))
            return FALSE;
        conffile_skip_space(c);
        if (conffile_peek(c) == ',') {
            c->at++;
            conffile_skip_space(c);
        } else if (c->at < c->end && *c->at != ']') {
            g_autofree char *found = conffile_quote_rest(c);

            return conffile_syntax(
                c, error, "expected ',' or ']' after a string of the list, found %s; %s", found,
                *c->at == '#' ? "put comments above the list" : "put a comma between the strings");
        }
    }
    if (c->at == c->end)
        return conffile_syntax(&start, error,
                               "the list that begins here is never closed; write ] at its end");
    c->at++;
    *ret_items = g_steal_pointer(&items);
    return TRUE;
}

static gboolean conffile_parse_value(Cursor *c, ConfEntry *entry, GError **error)
{
    char first = conffile_peek(c);
    g_autofree char *found = NULL;

    if (first == '"' || first == '\'') {
        entry->type = CONF_STRING;
        return conffile_parse_string(c, &entry->string, error);
    }
    if (first == '[') {
        entry->type = CONF_LIST;
        return conffile_parse_list(c, &entry->items, error);
    }
    if (g_ascii_isdigit(first) || first == '-' || first == '+') {
        entry->type = CONF_NUMBER;
        return conffile_parse_number(c, &entry->number, error);
    }
    found = conffile_quote_rest(c);
    return conffile_syntax(c, error,
                           "expected the value of '%.*s', found %s; write a number, a \"string\" "
                           "in quotes, or a [ list ]",
                           CONFFILE_QUOTE_MAX, entry->key, found);
}

/** What may follow a value: blanks, a comment, the end of the line, or ';' and another setting. */
static gboolean conffile_parse_end(Cursor *c, const ConfEntry *entry, GError **error)
{
    g_autofree char *found = NULL;

    conffile_skip_blanks(c);
    if (conffile_peek(c) == ';') {
        c->at++;
        return TRUE;
    }
    if (c->at == c->end || conffile_is_eol(*c->at) || *c->at == '#')
        return TRUE;
    found = conffile_quote_rest(c);
    return conffile_syntax(c, error, "unexpected %s after the value of '%.*s'; %s", found,
                           CONFFILE_QUOTE_MAX, entry->key,
                           entry->type == CONF_STRING
                               ? "write '...' around a string that has \" in it (there are no "
                                 "escapes), and a comment after #"
                               : "put each key on a line of its own, and a comment after #");
}

static gboolean conffile_parse_setting(Cursor *c, ConfFile *file, GError **error)
{
    g_autoptr(ConfEntry) entry = g_new0(ConfEntry, 1);

    entry->line = c->line;
    if (!conffile_parse_key(c, &entry->key, error))
        return FALSE;
    conffile_skip_blanks(c);
    if (conffile_peek(c) != '=') {
        g_autofree char *found = conffile_quote_rest(c);

        return conffile_syntax(c, error, "expected '=' after '%.*s', found %s; write: key = value",
                               CONFFILE_QUOTE_MAX, entry->key, found);
    }
    c->at++;
    conffile_skip_blanks(c);
    if (!conffile_parse_value(c, entry, error) || !conffile_parse_end(c, entry, error))
        return FALSE;
    conffile_add(file, g_steal_pointer(&entry));
    return TRUE;
}

/** Refuses files that are not text at all, before a parser makes something of them. */
static gboolean conffile_check_bytes(const Cursor *c, GError **error)
{
    Cursor scan = *c;

    if (c->end - c->at > CONFFILE_SIZE_MAX) {
        conffile_set_error(error, c->name, 0, CONFFILE_ERROR_TOO_LARGE,
                           "the file is larger than 1 MiB, the limit for a configuration file; "
                           "check that this is the right file");
        return FALSE;
    }
    if (conffile_has_prefix(c, "\xef\xbb\xbf"))
        return conffile_syntax(c, error,
                               "the file begins with a byte order mark; save it without one");
    while (scan.at < scan.end && *scan.at != '\0')
        conffile_advance(&scan);
    if (scan.at < scan.end)
        return conffile_syntax(&scan, error,
                               "there is a NUL byte; save the file as plain text (UTF-8, not "
                               "UTF-16), and check that it is not damaged");
    return TRUE;
}

ConfFile *conffile_parse(const char *name, const char *data, gsize len, GError **error)
{
    g_autoptr(ConfFile) file = conffile_new(name);
    Cursor c = {.name = name, .at = data, .end = data + len, .line = 1};

    if (!conffile_check_bytes(&c, error))
        return NULL;
    conffile_skip_to_key(&c);
    while (c.at < c.end) {
        if (!conffile_parse_setting(&c, file, error))
            return NULL;
        conffile_skip_to_key(&c);
    }
    return g_steal_pointer(&file);
}
