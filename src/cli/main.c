/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The holdfast command: finds the verb and runs it. The list below is all that there is.
 */
#include <errno.h>
#include <getopt.h>
#include <locale.h>
#include <string.h>

#include "cli.h"

static const CliVerb *const main_verbs[] = {
    &cli_run_verb,    &cli_acquire_verb,      &cli_release_verb, &cli_locks_verb,   &cli_who_verb,
    &cli_status_verb, &cli_metrics_verb,      &cli_watch_verb,   &cli_drivers_verb, &cli_pr_verb,
    &cli_image_verb,  &cli_check_config_verb, &cli_help_verb,    &cli_version_verb, NULL,
};

const CliVerb *const *cli_verbs(void)
{
    return main_verbs;
}

const CliVerb *cli_find_verb(const char *name)
{
    for (const CliVerb *const *verb = main_verbs; *verb; verb++) {
        if (strcmp((*verb)->name, name) == 0)
            return *verb;
    }
    return NULL;
}

static int main_unknown_verb(const Cli *cli, const char *name)
{
    const char *names[G_N_ELEMENTS(main_verbs)] = {NULL};
    g_autofree char *safe = cli_safe(name);
    const char *guess;

    for (gsize i = 0; main_verbs[i]; i++)
        names[i] = main_verbs[i]->name;
    guess = cli_suggest(name, names);
    if (guess)
        return cli_usage_error(cli, "there is no verb '%s'; did you mean '%s'?", safe, guess);
    return cli_usage_error(cli, "there is no verb '%s'", safe);
}

/* Global options, then the verb with all that follows. */
static int main_dispatch(Cli *cli, int argc, char **argv)
{
    g_auto(CliParser) parser = {0};
    const char *argument = NULL;
    int first;

    cli_parser_init(&parser, cli, NULL, TRUE, argc, argv);
    cli_parser_next(&parser, &argument);
    if (parser.status >= 0)
        return parser.status;
    first = optind;
    if (first >= argc) {
        cli_print_help(stderr, NULL);
        return CLI_USAGE;
    }
    cli->verb = cli_find_verb(argv[first]);
    if (!cli->verb)
        return main_unknown_verb(cli, argv[first]);
    return cli->verb->run(cli, argc - first, argv + first);
}

int main(int argc, char **argv)
{
    Cli cli = {.json_errors = stdout};
    int status;

    setlocale(LC_CTYPE, "");
    status = main_dispatch(&cli, argc, argv);
    g_free(cli.socket_path);
    /* A full disk must not look like success. */
    if (fflush(stdout) != 0 || ferror(stdout)) {
        cli_complain(&cli, "cannot write to standard output: %s", g_strerror(errno));
        return status == CLI_OK ? CLI_FAILED : status;
    }
    return status;
}
