/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * holdfast run: acquires for its own process, then becomes the command. The command inherits what
 * holdfast was started with, neither more nor less: descriptors, signals, environment.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <string.h>
#include <unistd.h>

#include "wanted.h"

enum { RUN_WAIT = WANTED_NEXT, RUN_WITH_CHILDREN, RUN_CHECK };

static const CliOption run_options[] = {
    WANTED_OPTIONS_DISKS,
    WANTED_OPTIONS_OWNER,
    {RUN_WAIT, "wait", "SECONDS", "wait so long while somebody else holds it"},
    {RUN_WITH_CHILDREN, "with-children", NULL, "until what COMMAND left running has ended too"},
    {RUN_CHECK, "check", "MODE", "images of the domain: off, warn (default), enforce"},
    {0},
};

typedef struct Run {
    Wanted *wanted;
    double wait;
    gboolean with_children;
    Preflight check;
    gboolean must_check; /* it was asked for */
    char **command;
} Run;

/* The value of QEMU's `option`, or NULL. */
static const char *run_qemu_option(char **command, const char *option)
{
    g_autofree char *program = g_path_get_basename(command[0]);

    if (!g_str_has_prefix(program, "qemu"))
        return NULL;
    for (char **word = command + 1; *word && word[1]; word++) {
        if (strcmp(*word, option) == 0)
            return word[1];
    }
    return NULL;
}

/* A refusal that names the holder is worth more: a VM that was given no name gets QEMU's, or the
 * program's. */
static void run_default_owner(const Run *run)
{
    const char *name = run_qemu_option(run->command, "-name");
    const char *uuid = run_qemu_option(run->command, "-uuid");

    if (!run->wanted->uuid && uuid)
        run->wanted->uuid = wanted_parse_uuid(uuid);
    if (run->wanted->name)
        return;
    if (name && g_str_has_prefix(name, "guest="))
        name += strlen("guest=");
    run->wanted->name = name && *name && *name != ',' ? g_strndup(name, strcspn(name, ","))
                                                      : g_path_get_basename(run->command[0]);
    if (!g_utf8_validate(run->wanted->name, -1, NULL))
        g_clear_pointer(&run->wanted->name, g_free);
}

static void run_take_check(Run *run, CliParser *parser, const char *mode)
{
    if (preflight_parse(mode, &run->check))
        run->must_check = run->check != PREFLIGHT_OFF;
    else
        parser->status =
            cli_usage_error(parser->cli, "'%s' is neither off, warn nor enforce", mode);
}

static gboolean run_parse(Run *run, CliParser *parser)
{
    const char *argument = NULL;
    int id;

    while ((id = cli_parser_next(parser, &argument)) > 0) {
        if (wanted_option(run->wanted, parser, id, argument))
            continue;
        if (id == RUN_WITH_CHILDREN)
            run->with_children = TRUE;
        else if (id == RUN_CHECK)
            run_take_check(run, parser, argument);
        else if (id == RUN_WAIT && !cli_parse_seconds(argument, &run->wait))
            parser->status = cli_usage_error(parser->cli, "'%s' is no number of seconds", argument);
    }
    run->command = parser->argv + optind;
    return parser->status < 0;
}

/* 0, or the exit code after a report. */
static int run_check(const Run *run, const Cli *cli)
{
    const Wanted *wanted = run->wanted;

    if (!run->command[0])
        return cli_usage_error(cli, "which command is to run?");
    if (wanted->disks->len == 0 && wanted->leases->len == 0 && !wanted->domain)
        return cli_usage_error(cli, "there is nothing to lock: name it with --disk, --lease or "
                                    "--domain");
    if (run->must_check && !wanted->domain)
        return cli_usage_error(cli,
                               "--check needs --domain, which tells the images' formats; for a "
                               "disk of --disk there is 'holdfast image check --format'");
    for (char **word = run->command + 1; *word && !run->with_children; word++) {
        if (strcmp(*word, "-daemonize") == 0 || strcmp(*word, "--daemonize") == 0)
            return cli_usage_error(cli,
                                   "%s puts the command into the background, where it would run "
                                   "without its locks: they end with the process that holdfast "
                                   "becomes. Leave it out, or add --with-children",
                                   *word);
    }
    return 0;
}

/* Becomes the command. Returns only when that fails. */
static int run_exec(const Run *run, const Cli *cli)
{
    int err;

    execvp(run->command[0], run->command);
    err = errno;
    cli_fail(cli, "CannotRun", "cannot run '%s': %s", run->command[0], g_strerror(err));
    return err == ENOENT ? CLI_NO_COMMAND : CLI_CANNOT_RUN;
}

static int run_with_locks(const Run *run, const Cli *cli)
{
    g_autoptr(hf_client) client = cli_connect(cli);
    g_autoptr(CliJson) value = NULL;
    int status;

    if (!client)
        return CLI_FAILED;
    status = cli_obtain(cli, client, run->wanted, run->wait, &value);
    if (status != CLI_OK)
        return status;
    status = preflight(cli, run->wanted, run->check);
    if (status != CLI_OK)
        return status;
    /* The leases last until the last process that has this descriptor has closed it. */
    if (run->with_children && fcntl(hf_fd(client), F_SETFD, 0) < 0)
        return cli_fail(cli, "Internal", "cannot hand down the connection: %s", g_strerror(errno));
    return run_exec(run, cli);
}

static int run_verb(Cli *cli, int argc, char **argv)
{
    g_auto(CliParser) parser = {0};
    g_autoptr(Wanted) wanted = wanted_new();
    Run run = {.wanted = wanted, .check = PREFLIGHT_WARN};
    int status;

    cli->json_errors = stderr; /* standard output is the command's */
    cli_parser_init(&parser, cli, run_options, TRUE, argc, argv);
    if (!run_parse(&run, &parser))
        return parser.status;
    status = run_check(&run, cli);
    if (status)
        return status;
    if (!wanted_finish(wanted, cli))
        return CLI_FAILED;
    run_default_owner(&run);
    wanted->pid = getpid();
    wanted->until_close = run.with_children;
    if (wanted->disks->len == 0 && wanted->leases->len == 0) {
        cli_note(cli, "warning: the domain has nothing that can be locked");
        return run_exec(&run, cli);
    }
    return run_with_locks(&run, cli);
}

const CliVerb cli_run_verb = {
    .name = "run",
    .synopsis = "[OPTION...] [--] COMMAND [ARGUMENT...]",
    .summary = "Lock disks, then become COMMAND; the locks last as long as it does",
    .details = "Exit codes: COMMAND's own; before it runs 1 failed, 2 wrong usage, 75 held by\n"
               "somebody else, 126 COMMAND cannot be run, 127 COMMAND is not found.\n\n"
               "Example:\n"
               "  holdfast run --disk /srv/web1.img --name web1 -- \\\n"
               "      qemu-system-x86_64 -drive file=/srv/web1.img,format=raw",
    .options = run_options,
    .command_follows = TRUE,
    .run = run_verb,
};
