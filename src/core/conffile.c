/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The reader of libvirt-style configuration files; the syntax is described in conffile.h.
 *
 * A hand-written parser that walks over the bytes once. It stops at the first mistake, because
 * after one there is no telling what the next quote or bracket means. Nothing here knows a key's
 * meaning, logs, or reads anything but the one file.
 */
#include "core/conffile.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/** How much of the file's text a message repeats, in bytes. */
#define QUOTE_MAX 60

/** Where the parser is. `at` never goes beyond `end`. */
typedef struct Cursor {
    const char *name;
    const char *at;
    const char *end;
    guint line;
} Cursor;

/* ---- messages -------------------------------------------------------------------------- */

GQuark conffile_error_quark(void)
{
    return g_quark_from_static_string("holdfast-conffile-error");
}

const char *conffile_type_name(ConfType type)
{
    static const char *const names[] = {
        [CONF_NUMBER] = "a number",
        [CONF_STRING] = "a string",
        [CONF_LIST] = "a list",
    };

    return names[type];
}

char *conffile_quote(const char *bytes, gssize len)
{
    gsize size = len < 0 ? strlen(bytes) : (gsize)len;
    GString *quoted = g_string_new("'");
    gsize i = 0;

    while (i < size && i < QUOTE_MAX) {
        const char *at = bytes + i;
        gunichar c = g_utf8_get_char_validated(at, (gssize)(size - i));

        if (c != (gunichar)-1 && c != (gunichar)-2 && !g_unichar_iscntrl(c)) {
            g_string_append_unichar(quoted, c);
            i += (gsize)(g_utf8_next_char(at) - at);
        } else {
            g_string_append_printf(quoted, "\\x%02x", (guint)(guchar)*at);
            i++;
        }
    }
    if (i < size)
        g_string_append(quoted, "...");
    g_string_append_c(quoted, '\'');
    return g_string_free(quoted, FALSE);
}

/** The "FILE:LINE: " in front of a message; line 0 stands for the whole file. */
static char *conffile_prefix(const char *name, guint line)
{
    g_autofree char *display = g_filename_display_name(name);

    return line > 0 ? g_strdup_printf("%s:%u: ", display, line) : g_strdup_printf("%s: ", display);
}

G_GNUC_PRINTF(5, 6)
static void conffile_set_error(GError **error, const char *name, guint line, int code,
                               const char *format, ...)
{
    g_autofree char *prefix = conffile_prefix(name, line);
    g_autofree char *text = NULL;
    va_list args;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    g_set_error(error, CONFFILE_ERROR, code, "%s%s", prefix, text);
}

/* For `return conffile_syntax(...)` in functions that return a gboolean; the current line. */
#define conffile_syntax(c, error, ...)                                                             \
    (conffile_set_error((error), (c)->name, (c)->line, CONFFILE_ERROR_SYNTAX, __VA_ARGS__), FALSE)

const char *conffile_error_text(const GError *error, const char *name, guint *ret_line)
{
    g_autofree char *prefix = conffile_prefix(name, 0);
    /* After "FILE:" comes a space, or a line number that has ": " behind it. */
    char *text = error->message + strlen(prefix) - 1;

    *ret_line = 0;
    if (g_ascii_isdigit(*text)) {
        *ret_line = (guint)g_ascii_strtoull(text, &text, 10);
        text++;
    }
    return text + 1;
}

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
                           QUOTE_MAX, entry->key, found);
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
    return conffile_syntax(
        c, error, "unexpected %s after the value of '%.*s'; %s", found, QUOTE_MAX, entry->key,
        entry->type == CONF_STRING ? "write '...' around a string that has \" in it (there are no "
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
                               QUOTE_MAX, entry->key, found);
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

/* ---- reading --------------------------------------------------------------------------- */

static void conffile_set_errno(GError **error, const char *path, const char *action, int errsv)
{
    conffile_set_error(error, path, 0,
                       errsv == ENOENT || errsv == ENOTDIR ? CONFFILE_ERROR_MISSING
                                                           : CONFFILE_ERROR_READ,
                       "can't %s the file: %s", action, g_strerror(errsv));
}

/** Reads all there is, but stops soon after the limit: the parser then refuses the size. */
static GString *conffile_read_fd(int fd, const char *path, GError **error)
{
    g_autoptr(GString) data = g_string_new(NULL);
    char buffer[16 * 1024];

    while (data->len <= CONFFILE_SIZE_MAX) {
        gssize n = read(fd, buffer, sizeof(buffer));

        if (n == 0)
            break;
        if (n > 0) {
            g_string_append_len(data, buffer, n);
        } else if (errno != EINTR) {
            conffile_set_errno(error, path, "read", errno);
            return NULL;
        }
    }
    return g_steal_pointer(&data);
}

ConfFile *conffile_load(const char *path, GError **error)
{
    g_autoptr(GString) data = NULL;
    struct stat st;
    int fd;

    /* Without O_NONBLOCK the open of a FIFO would wait for a writer, perhaps for ever. */
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) < 0) {
        conffile_set_errno(error, path, "open", errno);
    } else if (!S_ISREG(st.st_mode) && !S_ISCHR(st.st_mode)) {
        conffile_set_error(error, path, 0, CONFFILE_ERROR_READ,
                           "this is %s, not a file; name a regular file",
                           S_ISDIR(st.st_mode)    ? "a directory"
                           : S_ISFIFO(st.st_mode) ? "a FIFO"
                                                  : "a socket or a block device");
    } else {
        data = conffile_read_fd(fd, path, error);
    }
    if (fd >= 0)
        close(fd);
    return data ? conffile_parse(path, data->str, data->len, error) : NULL;
}
