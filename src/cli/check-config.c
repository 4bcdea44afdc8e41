/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * holdfast check-config: reads configuration files as the daemon would and tells what is wrong
 * with them. Needs no daemon; the rules are the daemon's own code.
 */
#include <getopt.h>
#include <unistd.h>

#include "cli.h"
#include "core/settings.h"

typedef gboolean (*CheckLoad)(Settings *settings, const char *path, gboolean must_exist,
                              GPtrArray *problems);

typedef struct Check {
    const Cli *cli;
    Settings *settings;
    CliJson *files; /* for --json */
    gboolean failed;
} Check;

static const char *check_severity(SettingsSeverity severity)
{
    switch (severity) {
    case SETTINGS_NOTE:
        return "note";
    case SETTINGS_WARNING:
        return "warning";
    case SETTINGS_ERROR:
        return "error";
    }
    return "error";
}

static CliJson *check_problem_json(const SettingsProblem *problem)
{
    CliJson *object = json_object_new_object();

    json_object_object_add(object, "line", json_object_new_int64(problem->line));
    json_object_object_add(object, "severity",
                           json_object_new_string(check_severity(problem->severity)));
    json_object_object_add(object, "message", json_object_new_string(problem->message));
    return object;
}

static void check_report_json(Check *check, const char *path, const GPtrArray *problems,
                              gboolean ok)
{
    g_autofree char *valid = g_utf8_make_valid(path, -1);
    CliJson *file = json_object_new_object(), *array = json_object_new_array();

    for (guint i = 0; i < problems->len; i++)
        json_object_array_add(array, check_problem_json(g_ptr_array_index(problems, i)));
    json_object_object_add(file, "file", json_object_new_string(valid));
    json_object_object_add(file, "ok", json_object_new_boolean(ok));
    json_object_object_add(file, "problems", array);
    json_object_array_add(check->files, file);
}

static void check_report(const Check *check, const char *path, const GPtrArray *problems,
                         gboolean ok)
{
    g_autofree char *safe_path = cli_safe(path);

    for (guint i = 0; i < problems->len; i++) {
        const SettingsProblem *problem = g_ptr_array_index(problems, i);
        g_autofree char *text = settings_problem_to_string(problem);
        g_autofree char *safe = cli_safe(text);
        CliColor color = problem->severity == SETTINGS_ERROR     ? CLI_RED
                         : problem->severity == SETTINGS_WARNING ? CLI_YELLOW
                                                                 : CLI_PLAIN;

        if (problem->severity == SETTINGS_ERROR || !check->cli->quiet)
            printf("%s%s%s\n", cli_color(check->cli, stdout, color), safe,
                   cli_color(check->cli, stdout, CLI_PLAIN));
    }
    if (ok && !check->cli->quiet)
        printf("%s: ok\n", safe_path);
}

static void check_file(Check *check, const char *path, CheckLoad load, gboolean must_exist)
{
    g_autoptr(GPtrArray) problems = settings_problems_new();
    gboolean ok = load(check->settings, path, must_exist, problems);

    if (check->cli->json)
        check_report_json(check, path, problems, ok);
    else
        check_report(check, path, problems, ok);
    if (!ok)
        check->failed = TRUE;
}

/* Which file it is, its name tells. */
static void check_named(Check *check, const char *path)
{
    g_autofree char *name = g_path_get_basename(path);

    if (g_str_equal(name, "qemu-lockd.conf"))
        check_file(check, path, settings_load_lockd, TRUE);
    else if (g_str_equal(name, "virtlockd.conf"))
        check_file(check, path, settings_load_virtlockd, TRUE);
    else
        check_file(check, path, settings_load_holdfast, TRUE);
}

/* A system's file, or a user's own: where the daemon looks, too. */
static char *check_path(const char *dir, const char *file)
{
    if (geteuid() == 0)
        return g_build_filename(HOLDFAST_SYSCONFDIR, dir, file, NULL);
    return g_build_filename(g_get_user_config_dir(), dir, file, NULL);
}

/* What the daemon of this user reads, as far as it exists. */
static void check_standard(Check *check)
{
    g_autofree char *own = check_path("holdfast", "holdfast.conf");
    g_autofree char *lockd = check_path("libvirt", "qemu-lockd.conf");
    g_autofree char *virtlockd = check_path("libvirt", "virtlockd.conf");
    gboolean must_exist = FALSE;
    const char *named;

    if (access(own, F_OK) == 0)
        check_file(check, own, settings_load_holdfast, TRUE);
    else
        cli_note(check->cli, "%s does not exist: the defaults hold", own);
    named = settings_lockd_conf(check->settings, lockd, &must_exist);
    if (named && (must_exist || access(named, F_OK) == 0))
        check_file(check, named, settings_load_lockd, TRUE);
    if (access(virtlockd, F_OK) == 0)
        check_file(check, virtlockd, settings_load_virtlockd, TRUE);
}

static int check_config_verb(Cli *cli, int argc, char **argv)
{
    g_auto(CliParser) parser = {0};
    g_autoptr(Settings) settings = settings_new();
    g_autoptr(CliJson) root = json_object_new_object();
    Check check = {.cli = cli, .settings = settings, .files = json_object_new_array()};
    const char *argument = NULL;

    json_object_object_add(root, "files", check.files);
    cli_parser_init(&parser, cli, NULL, FALSE, argc, argv);
    cli_parser_next(&parser, &argument);
    if (parser.status >= 0)
        return parser.status;
    if (!argv[optind])
        check_standard(&check);
    for (char **file = argv + optind; *file; file++)
        check_named(&check, *file);
    if (cli->json)
        cli_print_json(stdout, root);
    return check.failed ? CLI_FAILED : CLI_OK;
}

const CliVerb cli_check_config_verb = {
    .name = "check-config",
    .synopsis = "[FILE...]",
    .summary = "Check configuration files as the daemon reads them",
    .details =
        "Without FILE the standard files are checked, as far as they exist. A file called\n"
        "qemu-lockd.conf or virtlockd.conf is read as libvirt's, any other as holdfast.conf.",
    .run = check_config_verb,
};
