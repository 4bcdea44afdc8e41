/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Options: getopt_long() driven by tables, with suggestions for what is misspelt, and the help
 * text made from the same tables so that the two cannot differ.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

enum { OPTION_SOCKET = CLI_LONG_ONLY + 1000, OPTION_JSON, OPTION_NO_COLOR, OPTION_VERSION };

static const CliOption options_global[] = {
    {OPTION_SOCKET, "socket", "PATH", "the daemon's socket"},
    {OPTION_JSON, "json", NULL, "print JSON, errors too"},
    {OPTION_NO_COLOR, "no-color", NULL, "no colours on a terminal"},
    {'q', "quiet", NULL, "no progress, hints or other remarks"},
    {'h', "help", NULL, "show help"},
    {OPTION_VERSION, "version", NULL, "show the version"},
    {0},
};

/* ---- getopt --------------------------------------------------------------------------------- */

static void options_append(GArray *longs, GString *shorts, const CliOption *options)
{
    for (const CliOption *option = options; option && option->name; option++) {
        struct option entry = {
            .name = option->name,
            .has_arg = option->argument ? required_argument : no_argument,
            .val = option->id,
        };

        g_array_append_val(longs, entry);
        if (option->id < CLI_LONG_ONLY) {
            g_string_append_c(shorts, (char)option->id);
            if (option->argument)
                g_string_append_c(shorts, ':');
        }
    }
}

void cli_parser_init(CliParser *parser, Cli *cli, const CliOption *options, gboolean stop_early,
                     int argc, char **argv)
{
    GArray *longs = g_array_new(TRUE, TRUE, sizeof(struct option));
    GString *shorts = g_string_new(stop_early ? "+:" : ":");

    options_append(longs, shorts, options);
    options_append(longs, shorts, options_global);
    *parser = (CliParser){
        .cli = cli,
        .argc = argc,
        .argv = argv,
        .options = options,
        .longs = (struct option *)(void *)g_array_free(longs, FALSE),
        .shorts = g_string_free(shorts, FALSE),
        .status = -1,
    };
    optind = 0; /* glibc's way to start afresh */
    opterr = 0;
}

void cli_parser_clear(CliParser *parser)
{
    g_free(parser->longs);
    g_free(parser->shorts);
}

static void options_unknown(CliParser *parser, const char *word)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    g_autofree char *safe = cli_safe(word);
    const char *guess;

    if (optopt) {
        g_autofree char *letter = g_strdup_printf("-%c", optopt);

        parser->status = cli_usage_error(parser->cli, "unknown option '%s'", letter);
        return;
    }
    for (const struct option *option = parser->longs; option->name; option++)
        g_ptr_array_add(names, (gpointer)option->name);
    g_ptr_array_add(names, NULL);
    guess = cli_suggest(word + 2, (const char *const *)names->pdata);
    if (guess)
        parser->status =
            cli_usage_error(parser->cli, "unknown option '%s'; did you mean '--%s'?", safe, guess);
    else
        parser->status = cli_usage_error(parser->cli, "unknown option '%s'", safe);
}

/* What getopt_long() returned '?' or ':' for. */
static void options_wrong(CliParser *parser, int id)
{
    const char *word = optind > 0 && optind <= parser->argc ? parser->argv[optind - 1] : "";
    g_autofree char *safe = cli_safe(word);

    /* An option that it knows, and yet complains about, is a long one with "=VALUE". */
    if (id == ':')
        parser->status = cli_usage_error(parser->cli, "option '%s' needs an argument", safe);
    else if (optopt >= CLI_LONG_ONLY || (optopt && strchr(parser->shorts, optopt)))
        parser->status = cli_usage_error(parser->cli, "option '%s' takes no argument", safe);
    else
        options_unknown(parser, word);
}

/* TRUE: it was one of them. */
static gboolean options_take_global(CliParser *parser, int id)
{
    Cli *cli = parser->cli;

    switch (id) {
    case OPTION_SOCKET:
        g_free(cli->socket_path);
        cli->socket_path = g_strdup(optarg);
        return TRUE;
    case OPTION_JSON:
        cli->json = TRUE;
        return TRUE;
    case OPTION_NO_COLOR:
        cli->no_color = TRUE;
        return TRUE;
    case 'q':
        cli->quiet = TRUE;
        return TRUE;
    case 'h':
        cli_print_help(stdout, cli->verb);
        parser->status = CLI_OK;
        return TRUE;
    case OPTION_VERSION:
        parser->status = cli_version_verb.run(cli, 0, NULL);
        return TRUE;
    default:
        return FALSE;
    }
}

int cli_parser_next(CliParser *parser, const char **ret_argument)
{
    while (parser->status < 0) {
        int id = getopt_long(parser->argc, parser->argv, parser->shorts, parser->longs, NULL);

        if (id == -1)
            return -1;
        if (id == '?' || id == ':') {
            options_wrong(parser, id);
        } else if (!options_take_global(parser, id)) {
            *ret_argument = optarg;
            return id;
        }
    }
    return -1;
}

int cli_usage_error(const Cli *cli, const char *format, ...)
{
    g_autofree char *message = NULL;
    va_list args;

    va_start(args, format);
    message = g_strdup_vprintf(format, args);
    va_end(args);
    cli_complain(cli, "%s", message);
    fprintf(stderr, "Try 'holdfast help%s%s'.\n", cli->verb ? " " : "",
            cli->verb ? cli->verb->name : "");
    return CLI_USAGE;
}

/* ---- values --------------------------------------------------------------------------------- */

gboolean cli_parse_seconds(const char *text, double *ret_seconds)
{
    char *end = NULL;
    double seconds = g_ascii_strtod(text, &end);

    if (!g_ascii_isdigit(text[0]) || *end || !isfinite(seconds) || seconds > 1e9)
        return FALSE;
    *ret_seconds = seconds;
    return TRUE;
}

gboolean cli_parse_pid(const char *text, pid_t *ret_pid)
{
    guint64 number;

    if (!g_ascii_string_to_unsigned(text, 10, 1, INT_MAX, &number, NULL))
        return FALSE;
    *ret_pid = (pid_t)number;
    return TRUE;
}

/* ---- suggestions ---------------------------------------------------------------------------- */

#define SUGGEST_MAX 40 /* longer words are not compared */

/* Edits (insert, delete, replace, swap two neighbours) from one to the other. */
static guint options_distance(const char *a, const char *b)
{
    guint d[SUGGEST_MAX + 1][SUGGEST_MAX + 1];
    gsize m = strlen(a), n = strlen(b);

    if (m > SUGGEST_MAX || n > SUGGEST_MAX)
        return G_MAXUINT;
    for (gsize i = 0; i <= m; i++)
        d[i][0] = (guint)i;
    for (gsize j = 0; j <= n; j++)
        d[0][j] = (guint)j;
    for (gsize i = 1; i <= m; i++) {
        for (gsize j = 1; j <= n; j++) {
            guint change = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);

            d[i][j] = MIN(MIN(d[i - 1][j], d[i][j - 1]) + 1, change);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                d[i][j] = MIN(d[i][j], d[i - 2][j - 2] + 1);
        }
    }
    return d[m][n];
}

const char *cli_suggest(const char *text, const char *const *names)
{
    const char *best = NULL;
    guint best_distance = G_MAXUINT;
    g_autofree char *word = g_strndup(text, strcspn(text, "="));

    for (; *names; names++) {
        guint distance = options_distance(word, *names);

        if (distance < best_distance) {
            best_distance = distance;
            best = *names;
        }
    }
    /* One edit for every three letters: more is another word. */
    return best && best_distance <= 1 + strlen(best) / 3 && best_distance < strlen(best) ? best
                                                                                         : NULL;
}

/* ---- help ----------------------------------------------------------------------------------- */

static char *options_left_column(const CliOption *option)
{
    g_autofree char *letter =
        option->id < CLI_LONG_ONLY ? g_strdup_printf("-%c, ", option->id) : g_strdup("    ");

    return g_strdup_printf("  %s--%s%s%s", letter, option->name, option->argument ? " " : "",
                           option->argument ? option->argument : "");
}

static void options_print(FILE *stream, const CliOption *options)
{
    for (; options && options->name; options++) {
        g_autofree char *left = options_left_column(options);

        fprintf(stream, "%-32s %s\n", left, options->help);
    }
}

static void options_print_overview(FILE *stream)
{
    fputs("Usage: holdfast [OPTION...] VERB [ARGUMENT...]\n\n"
          "Keeps virtual-machine disks from being written by two machines at once.\n\nVerbs:\n",
          stream);
    for (const CliVerb *const *verb = cli_verbs(); *verb; verb++)
        fprintf(stream, "  %-14s %s\n", (*verb)->name, (*verb)->summary);
    fputs("\nOptions, before or after the verb:\n", stream);
    options_print(stream, options_global);
    fputs("\nExit codes: 0 done, 1 failed, 2 wrong usage, 75 held by somebody else.\n"
          "'holdfast help VERB' explains one verb; so does the manual page holdfast-VERB(1).\n",
          stream);
}

void cli_print_help(FILE *stream, const CliVerb *verb)
{
    if (!verb) {
        options_print_overview(stream);
        return;
    }
    fprintf(stream, "Usage: holdfast %s%s%s\n\n%s.\n", verb->name, *verb->synopsis ? " " : "",
            verb->synopsis, verb->summary);
    if (verb->options) {
        fputs("\nOptions:\n", stream);
        options_print(stream, verb->options);
    }
    fputs("\nGlobal options:\n", stream);
    options_print(stream, options_global);
    if (verb->details)
        fprintf(stream, "\n%s\n", verb->details);
}
