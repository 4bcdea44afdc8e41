/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What goes to people: escaping, colours, complaints, tables. Everything that somebody else chose
 * (a VM's name, a path, a sentence of the daemon's) passes cli_safe() before it reaches a terminal.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

const char *cli_color(const Cli *cli, FILE *stream, CliColor color)
{
    static const char *const codes[] = {"\033[0m", "\033[1m", "\033[31m", "\033[32m", "\033[33m"};
    const char *no_color = g_getenv("NO_COLOR");
    const char *term = g_getenv("TERM");

    if (cli->no_color || cli->json || (no_color && *no_color) || !isatty(fileno(stream)) || !term ||
        strcmp(term, "dumb") == 0)
        return "";
    return codes[color];
}

char *cli_safe(const char *text)
{
    g_autofree char *valid = NULL;
    GString *out;

    if (!text)
        return g_strdup("-");
    valid = g_utf8_make_valid(text, -1);
    out = g_string_sized_new(strlen(valid));
    for (const char *p = valid; *p; p = g_utf8_next_char(p)) {
        gunichar c = g_utf8_get_char(p);
        GUnicodeType type = g_unichar_type(c);

        /* Format characters turn text around or hide it; a name needs none. */
        if (g_unichar_iscntrl(c) || type == G_UNICODE_FORMAT || type == G_UNICODE_LINE_SEPARATOR ||
            type == G_UNICODE_PARAGRAPH_SEPARATOR)
            g_string_append_printf(out, "\\u%04x", c);
        else
            g_string_append_unichar(out, c);
    }
    return g_string_free(out, FALSE);
}

static void output_complain(const Cli *cli, const char *format, va_list args)
{
    g_autofree char *message = g_strdup_vprintf(format, args);
    g_autofree char *safe = cli_safe(message);

    fprintf(stderr, "%sholdfast:%s %s\n", cli_color(cli, stderr, CLI_BOLD),
            cli_color(cli, stderr, CLI_PLAIN), safe);
}

void cli_complain(const Cli *cli, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    output_complain(cli, format, args);
    va_end(args);
}

void cli_note(const Cli *cli, const char *format, ...)
{
    va_list args;

    if (cli->quiet || cli->json)
        return;
    va_start(args, format);
    output_complain(cli, format, args);
    va_end(args);
}

int cli_fail(const Cli *cli, const char *class_name, const char *format, ...)
{
    g_autofree char *message = NULL;
    va_list args;

    va_start(args, format);
    message = g_strdup_vprintf(format, args);
    va_end(args);
    if (cli->json) {
        g_autoptr(CliJson) root = json_object_new_object();
        g_autofree char *valid = g_utf8_make_valid(message, -1);
        CliJson *error = json_object_new_object();

        json_object_object_add(error, "class", json_object_new_string(class_name));
        json_object_object_add(error, "desc", json_object_new_string(valid));
        json_object_object_add(error, "data", json_object_new_object());
        json_object_object_add(root, "error", error);
        cli_print_json(cli->json_errors, root);
    } else {
        cli_complain(cli, "%s", message);
    }
    return CLI_FAILED;
}

void cli_print_json(FILE *stream, struct json_object *object)
{
    fputs(json_object_to_json_string_ext(object,
                                         JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE),
          stream);
    fputc('\n', stream);
}

/* ---- tables --------------------------------------------------------------------------------- */

typedef struct TableRow {
    CliColor color;
    char **cells;
} TableRow;

struct CliTable {
    const char *const *headings;
    guint columns;
    GArray *rows; /* of TableRow */
};

static void table_row_clear(gpointer row)
{
    g_strfreev(((TableRow *)row)->cells);
}

CliTable *cli_table_new(const char *const *headings)
{
    CliTable *table = g_new0(CliTable, 1);

    table->headings = headings;
    while (headings[table->columns])
        table->columns++;
    table->rows = g_array_new(FALSE, FALSE, sizeof(TableRow));
    g_array_set_clear_func(table->rows, table_row_clear);
    return table;
}

void cli_table_add(CliTable *table, CliColor color, const char *first, ...)
{
    TableRow row = {.color = color, .cells = g_new0(char *, table->columns + 1)};
    va_list args;

    va_start(args, first);
    for (guint i = 0; i < table->columns; i++)
        row.cells[i] = cli_safe(i == 0 ? first : va_arg(args, const char *));
    va_end(args);
    g_array_append_val(table->rows, row);
}

/* Columns that `text` takes on a terminal. */
static gsize table_width(const char *text)
{
    gsize width = 0;

    for (const char *p = text; *p; p = g_utf8_next_char(p)) {
        gunichar c = g_utf8_get_char(p);

        if (!g_unichar_iszerowidth(c))
            width += g_unichar_iswide(c) ? 2 : 1;
    }
    return width;
}

static void table_print_cell(const char *text, gsize width, gboolean right, gboolean last)
{
    gsize own = table_width(text);
    int padding = own < width ? (int)(width - own) : 0;

    if (right)
        printf("%*s%s", padding, "", text);
    else
        printf("%s%*s", text, last ? 0 : padding, "");
    fputs(last ? "\n" : "  ", stdout);
}

void cli_table_print(const CliTable *table, const Cli *cli)
{
    g_autofree gsize *widths = g_new0(gsize, table->columns);

    for (guint i = 0; i < table->columns; i++) {
        widths[i] = table_width(table->headings[i] + (table->headings[i][0] == '>'));
        for (guint r = 0; r < table->rows->len; r++)
            widths[i] =
                MAX(widths[i], table_width(g_array_index(table->rows, TableRow, r).cells[i]));
    }
    fputs(cli_color(cli, stdout, CLI_BOLD), stdout);
    for (guint i = 0; i < table->columns; i++) {
        gboolean right = table->headings[i][0] == '>';

        table_print_cell(table->headings[i] + right, widths[i], right, i + 1 == table->columns);
    }
    fputs(cli_color(cli, stdout, CLI_PLAIN), stdout);
    for (guint r = 0; r < table->rows->len; r++) {
        const TableRow *row = &g_array_index(table->rows, TableRow, r);

        if (row->color != CLI_PLAIN)
            fputs(cli_color(cli, stdout, row->color), stdout);
        for (guint i = 0; i < table->columns; i++)
            table_print_cell(row->cells[i], widths[i], table->headings[i][0] == '>',
                             i + 1 == table->columns);
        if (row->color != CLI_PLAIN)
            fputs(cli_color(cli, stdout, CLI_PLAIN), stdout);
    }
}

void cli_table_free(CliTable *table)
{
    if (!table)
        return;
    g_array_unref(table->rows);
    g_free(table);
}
