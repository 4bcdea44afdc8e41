/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the parts of `holdfast pr` share. */
#pragma once

#include "cli.h"

typedef struct PrArguments {
    const char *file;   /* --file */
    const char *since;  /* --since */
    const char *device; /* --device */
    const char *vm;     /* --vm */
    gboolean follow;    /* --follow */
    char **words;       /* what follows the sub-verb; ends with NULL */
} PrArguments;

/* Both return the exit code. */
int pr_log_run(Cli *cli, const PrArguments *arguments);
int pr_status_run(Cli *cli, const PrArguments *arguments);

/* ---- pr-record.c: pure --------------------------------------------------------------------- */

/* One line of the log, in either form, as an object; NULL when it is none. */
CliJson *pr_record_parse(const char *line);
/* The same from a line of `journalctl -o json`. */
CliJson *pr_record_parse_journal(const char *line);
/* In words, on one line without its newline. */
char *pr_record_describe(CliJson *record);
/* A point in time that a person wrote: "2026-01-31 10:42", "10:42", "yesterday", "2h". FALSE: it is
 * none. `now` and the result are microseconds since the epoch. */
gboolean pr_record_parse_since(const char *text, gint64 now, gint64 *ret_usec);
/* When the record was made; -1: it does not say. */
gint64 pr_record_time(CliJson *record);
