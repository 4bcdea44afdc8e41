/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the verbs of the holdfast command share: options, output, the way to the daemon. The
 * command talks to the daemon only through libholdfast and decides nothing about locks itself.
 *
 *   main.c       the list of verbs, global options, dispatch
 *   options.c    getopt_long() with suggestions, and help made from the same tables
 *   output.c     text for terminals, errors, tables
 *   progress.c   "still waiting" for whatever takes longer than 2 s
 *   daemon.c     connect, ask, report
 *   describe.c   a holder, a lease, a point in time, in words
 *   wanted.c     what is to be locked, and for whom
 *   wanted-options.c  --disk, --lease, --name, --uuid, --uri, --domain, --pid
 *   domain-xml.c what a libvirt domain names
 *   xml-late.c   libxml2, when a domain is read
 *   obtain.c     acquire, with --wait
 *   openmetrics.c  the daemon's counters in the format of monitoring systems
 *   preflight.c  are a domain's images safe?
 *   the others   one verb each
 */
#pragma once

#include <glib.h>
#include <json-c/json.h>
#include <stdio.h>

#include "holdfast/holdfast.h"

/* The exit codes; a contract with scripts, see holdfast(1). */
enum {
    CLI_OK = 0,
    CLI_FAILED = 1,
    CLI_USAGE = 2,
    CLI_BUSY = 75, /* EX_TEMPFAIL of sysexits.h: try again later */
    CLI_CANNOT_RUN = 126,
    CLI_NO_COMMAND = 127,
};

typedef struct CliOption {
    int id;               /* the short option's letter, or from CLI_LONG_ONLY on */
    const char *name;     /* without dashes; NULL ends the table */
    const char *argument; /* what help calls it; NULL: takes none */
    const char *help;
} CliOption;

#define CLI_LONG_ONLY 256

typedef struct Cli Cli;

typedef struct CliVerb {
    const char *name;
    const char *synopsis; /* what follows the verb */
    const char *summary;  /* one line, for the list of verbs */
    const char *details;  /* paragraphs below the options */
    const CliOption *options;
    gboolean command_follows; /* options end at the first word that is none */
    int (*run)(Cli *cli, int argc, char **argv);
} CliVerb;

struct Cli {
    const CliVerb *verb;
    char *socket_path; /* NULL: the library's choice */
    gboolean json;
    gboolean quiet;
    gboolean no_color;
    FILE *json_errors; /* where --json sends an error */
};

extern const CliVerb cli_acquire_verb, cli_check_config_verb, cli_drivers_verb, cli_help_verb,
    cli_image_verb, cli_locks_verb, cli_metrics_verb, cli_pr_verb, cli_release_verb, cli_run_verb,
    cli_status_verb, cli_version_verb, cli_watch_verb, cli_who_verb;

/* ---- main.c ------------------------------------------------------------------------------- */

/* All verbs, in the order of the help; NULL ends the list. */
const CliVerb *const *cli_verbs(void);
const CliVerb *cli_find_verb(const char *name);

/* ---- options.c ---------------------------------------------------------------------------- */

typedef struct CliParser {
    Cli *cli;
    int argc;
    char **argv; /* argv[0] is skipped */
    const CliOption *options;
    struct option *longs;
    char *shorts;
    int status; /* -1: go on; else main()'s exit code: --help, or an error that was reported */
} CliParser;

/* Parses `options`, which may be NULL, and the global ones. */
void cli_parser_init(CliParser *parser, Cli *cli, const CliOption *options, gboolean stop_early,
                     int argc, char **argv);
void cli_parser_clear(CliParser *parser);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(CliParser, cli_parser_clear)
/* The id of the next option with its argument, or -1 at the end; global options are dealt with.
 * The words that follow are then parser->argv[optind]. */
int cli_parser_next(CliParser *parser, const char **ret_argument);
/* Reports an error of usage. Returns CLI_USAGE. */
int cli_usage_error(const Cli *cli, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* Seconds, with a fraction, 0 to 1e9. */
gboolean cli_parse_seconds(const char *text, double *ret_seconds);
gboolean cli_parse_pid(const char *text, pid_t *ret_pid);
/* The one of `names` that `text` is probably meant to be, or NULL. */
const char *cli_suggest(const char *text, const char *const *names);
/* Prints the help of a verb, or, for NULL, the overview. */
void cli_print_help(FILE *stream, const CliVerb *verb);

/* ---- output.c ----------------------------------------------------------------------------- */

typedef enum CliColor { CLI_PLAIN, CLI_BOLD, CLI_RED, CLI_GREEN, CLI_YELLOW } CliColor;

/* Escape sequence for `color` on `stream`, "" when it must not be coloured. */
const char *cli_color(const Cli *cli, FILE *stream, CliColor color);
/* `text`, which others chose, as it may go to a terminal: valid UTF-8, control and invisible
 * formatting characters as \u escapes. NULL becomes "-". */
char *cli_safe(const char *text);
/* "holdfast: ..." on standard error. */
void cli_complain(const Cli *cli, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* The same, unless --quiet or --json. */
void cli_note(const Cli *cli, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* An error that is not the daemon's; with --json {"error": {"class": CLASS, "desc": ...}}. Returns
 * CLI_FAILED. */
int cli_fail(const Cli *cli, const char *class_name, const char *format, ...) G_GNUC_PRINTF(3, 4);
/* One line of JSON. */
void cli_print_json(FILE *stream, struct json_object *object);

/* A table whose columns are as wide as their cells. */
typedef struct CliTable CliTable;
/* `headings` ends with NULL; a heading that begins with '>' is right-aligned. */
CliTable *cli_table_new(const char *const *headings);
/* As many cells as headings; text is made safe here. */
void cli_table_add(CliTable *table, CliColor color, const char *first, ...) G_GNUC_NULL_TERMINATED;
void cli_table_print(const CliTable *table, const Cli *cli);
void cli_table_free(CliTable *table);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(CliTable, cli_table_free)

/* ---- progress.c --------------------------------------------------------------------------- */

/* Says on standard error, from 2 s on, that `what` goes on: "(3 s) WHAT". Silent with --quiet or
 * --json. Uses a thread, which cli_progress_stop() has ended when it returns. */
typedef struct CliProgress CliProgress;
CliProgress *cli_progress_start(const Cli *cli, const char *what, double limit);
void cli_progress_stop(CliProgress *progress);

/* ---- daemon.c ----------------------------------------------------------------------------- */

G_DEFINE_AUTOPTR_CLEANUP_FUNC(hf_client, hf_disconnect)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(hf_error, hf_error_free)
typedef struct json_object CliJson;
static inline void cli_json_free(CliJson *object)
{
    json_object_put(object);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(CliJson, cli_json_free)

/* NULL when it has reported why not. */
hf_client *cli_connect(const Cli *cli);
/* The value of "return", or NULL with the error for the caller to report. */
CliJson *cli_ask(const Cli *cli, hf_client *client, const char *command, CliJson *arguments,
                 hf_error **ret_error);
/* Reports the daemon's or the library's error. Returns the exit code. */
int cli_report(const Cli *cli, const hf_error *error);
/* cli_connect() and cli_ask() for the verbs that ask one thing: 0 and the value, or an exit code
 * after the report. `arguments` is taken over; it may be NULL. */
int cli_ask_once(const Cli *cli, const char *command, CliJson *arguments, CliJson **ret_value);
/* Members of objects that the daemon sent; NULL, 0 or FALSE when there is none of that type. */
const char *cli_json_string(CliJson *object, const char *key);
gint64 cli_json_int(CliJson *object, const char *key);
gboolean cli_json_bool(CliJson *object, const char *key);
CliJson *cli_json_object(CliJson *object, const char *key);
/* The array at `key`, or NULL; see cli_json_at(). */
CliJson *cli_json_array(CliJson *object, const char *key);
gsize cli_json_length(CliJson *array);
CliJson *cli_json_at(CliJson *array, gsize index);

/* ---- describe.c --------------------------------------------------------------------------- */

/* TIME of the protocol in local time, "2026-01-31 10:42:07"; "-" for NULL. */
char *cli_describe_time(const char *time);
/* "VM web1 (pid 4711)", from an OWNER or a HOLDER. */
char *cli_describe_owner(CliJson *owner);
/* "VM web1 (uuid ..., pid 4711) on host n3 since ... in exclusive mode", from a HOLDER. */
char *cli_describe_holder(CliJson *holder);
/* What a LEASE or the data of an error is about: the disk's path, or LOCKSPACE/KEY. */
char *cli_describe_thing(CliJson *lease);
