/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * holdfast pr log: the records that holdfast-pr-helper wrote, from the file that holdfast.conf
 * names, or from the journal by way of journalctl(1). Needs neither the helper nor the daemon.
 */
#include <errno.h>
#include <fnmatch.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/settings.h"
#include "pr.h"
#include "prhelper/audit.h"

/* How long a file is left alone between two looks for more. */
#define LOG_PAUSE_USEC 250000

typedef struct Log {
    const Cli *cli;
    const PrArguments *arguments;
    gint64 since; /* microseconds; G_MININT64: all */
    CliJson *(*parse)(const char *line);
    guint unreadable;
    guint64 printed;
} Log;

/* ---- records ------------------------------------------------------------------------------- */

/* The LUN's identifier, or the disk's name with or without /dev. */
static gboolean log_is_device(CliJson *record, const char *pattern)
{
    const char *wwid = cli_json_string(record, "device");
    const char *disk = cli_json_string(record, "disk");

    if (g_str_has_prefix(pattern, "/dev/"))
        pattern += strlen("/dev/");
    return (wwid && fnmatch(pattern, wwid, 0) == 0) || (disk && fnmatch(pattern, disk, 0) == 0);
}

static gboolean log_wants(const Log *log, CliJson *record)
{
    const PrArguments *arguments = log->arguments;
    const char *vm = cli_json_string(record, "vm");

    if (log->since != G_MININT64 && pr_record_time(record) < log->since)
        return FALSE;
    if (arguments->device && !log_is_device(record, arguments->device))
        return FALSE;
    return !arguments->vm || (vm && fnmatch(arguments->vm, vm, 0) == 0);
}

/* FALSE: standard output is no longer there. */
static gboolean log_line(Log *log, const char *line)
{
    g_autoptr(CliJson) record = log->parse(line);

    if (!record) {
        log->unreadable += *g_strstrip((char *)(uintptr_t)line) != '\0';
        return TRUE;
    }
    if (!log_wants(log, record))
        return TRUE;
    log->printed++;
    if (log->cli->json) {
        cli_print_json(stdout, record);
    } else {
        g_autofree char *text = pr_record_describe(record);
        gboolean refused = g_strcmp0(cli_json_string(record, "verdict"), "allowed") != 0;

        printf("%s%s%s\n", refused ? cli_color(log->cli, stdout, CLI_YELLOW) : "", text,
               refused ? cli_color(log->cli, stdout, CLI_PLAIN) : "");
    }
    return !log->arguments->follow || fflush(stdout) == 0;
}

static int log_end(const Log *log, const char *name)
{
    if (log->printed == 0 && log->unreadable == 0 && !log->arguments->follow)
        cli_note(log->cli, "no such records in %s", name);
    if (log->unreadable > 0)
        cli_note(log->cli, "%u lines of %s are no records of persistent reservations",
                 log->unreadable, name);
    return ferror(stdout) ? CLI_FAILED : CLI_OK;
}

/* ---- a file -------------------------------------------------------------------------------- */

/* Another file has the name now: logrotate was here. */
static gboolean log_was_replaced(const char *path, FILE *file)
{
    struct stat now, mine;

    return stat(path, &now) == 0 && fstat(fileno(file), &mine) == 0 &&
           (now.st_ino != mine.st_ino || now.st_dev != mine.st_dev || now.st_size < ftello(file));
}

/* Whole lines only: what the helper has written half so far is read again later. */
static gboolean log_read_lines(Log *log, FILE *file)
{
    g_autofree char *line = NULL;
    size_t room = 0;
    off_t begin = ftello(file);
    ssize_t len;
    gboolean fine = TRUE;

    while (fine && (len = getline(&line, &room, file)) > 0) {
        if (log->arguments->follow && line[len - 1] != '\n')
            break;
        begin = ftello(file);
        fine = log_line(log, line);
    }
    clearerr(file);
    if (log->arguments->follow)
        fseeko(file, begin, SEEK_SET);
    return fine;
}

static int log_from_file(Log *log, const char *path)
{
    FILE *file = fopen(path, "re");

    if (!file)
        return cli_fail(log->cli, "Log", "cannot read %s: %s%s", path, g_strerror(errno),
                        errno == EACCES   ? "; be root for that"
                        : errno == ENOENT ? "; holdfast-pr-helper makes it when it starts"
                                          : "");
    while (log_read_lines(log, file) && log->arguments->follow) {
        if (log_was_replaced(path, file)) {
            FILE *next = fopen(path, "re");

            if (next) {
                log_read_lines(log, file);
                fclose(file);
                file = next;
                continue;
            }
        }
        g_usleep(LOG_PAUSE_USEC);
    }
    fclose(file);
    return log_end(log, path);
}

/* ---- the journal --------------------------------------------------------------------------- */

static GPtrArray *log_journal_command(const Log *log)
{
    GPtrArray *argv = g_ptr_array_new_with_free_func(g_free);

    g_ptr_array_add(argv, g_strdup("journalctl"));
    g_ptr_array_add(argv, g_strdup("--output=json"));
    g_ptr_array_add(argv, g_strdup("--all"));
    g_ptr_array_add(argv, g_strdup("--quiet"));
    if (log->arguments->follow) {
        g_ptr_array_add(argv, g_strdup("--follow"));
        g_ptr_array_add(argv, g_strdup("--lines=all"));
    }
    if (log->since != G_MININT64)
        g_ptr_array_add(argv, g_strdup_printf("--since=@%" G_GINT64_FORMAT,
                                              MAX(log->since / G_USEC_PER_SEC, 0)));
    g_ptr_array_add(argv, g_strdup("MESSAGE_ID=" PR_AUDIT_MESSAGE_ID));
    g_ptr_array_add(argv, NULL);
    return argv;
}

static int log_from_journal(Log *log)
{
    g_autoptr(GPtrArray) argv = log_journal_command(log);
    g_autoptr(GError) error = NULL;
    g_autofree char *line = NULL;
    gboolean fine = TRUE;
    int output = -1, status = 0;
    size_t room = 0;
    GPid pid;
    FILE *file;

    if (!g_spawn_async_with_pipes(NULL, (char **)argv->pdata, NULL,
                                  G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD, NULL, NULL, &pid,
                                  NULL, &output, NULL, &error))
        return cli_fail(log->cli, "Log", "cannot run journalctl: %s; name a file with --file",
                        error->message);
    file = fdopen(output, "r");
    while (fine && getline(&line, &room, file) > 0)
        fine = log_line(log, line);
    fclose(file);
    if (!fine)
        kill(pid, SIGTERM);
    if (waitpid(pid, &status, 0) == pid && fine && !g_spawn_check_wait_status(status, NULL))
        return cli_fail(log->cli, "Log", "journalctl has failed; is this host's journal readable?");
    return log_end(log, "the journal");
}

/* ---- which one ------------------------------------------------------------------------------ */

/* What holdfast.conf says; a file with mistakes is as good as one that says nothing. */
static char *log_configured(const Cli *cli)
{
    g_autoptr(Settings) settings = settings_new();
    g_autoptr(GPtrArray) problems = settings_problems_new();

    if (!settings_load_holdfast(settings, HOLDFAST_SYSCONFDIR "/holdfast/holdfast.conf", FALSE,
                                problems))
        cli_note(cli, "holdfast.conf has errors; 'holdfast check-config' shows them");
    return g_strdup(settings->pr_log);
}

int pr_log_run(Cli *cli, const PrArguments *arguments)
{
    Log log = {.cli = cli, .arguments = arguments, .since = G_MININT64};
    g_autofree char *configured = NULL;
    const char *from = arguments->file;

    if (arguments->since && !pr_record_parse_since(arguments->since, g_get_real_time(), &log.since))
        return cli_usage_error(cli,
                               "'%s' is no time; write 2026-01-31, \"2026-01-31 10:42\", 10:42, "
                               "yesterday, or an age such as 2h",
                               arguments->since);
    if (!from)
        from = configured = log_configured(cli);
    if (strcmp(from, "none") == 0)
        return cli_fail(cli, "Log", "pr_log in holdfast.conf is \"none\": there is no log");
    log.parse = strcmp(from, "journal") == 0 ? pr_record_parse_journal : pr_record_parse;
    return strcmp(from, "journal") == 0 ? log_from_journal(&log) : log_from_file(&log, from);
}
