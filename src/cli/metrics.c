/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* holdfast metrics: what the daemon counts, for a monitoring system. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "openmetrics.h"

static const CliOption metrics_options[] = {
    {'o', "output", "FILE", "write FILE at once or not at all"},
    {0},
};

static gboolean metrics_write_all(int fd, const char *text)
{
    gsize left = strlen(text);

    while (left > 0) {
        ssize_t n = write(fd, text, left);

        if (n < 0 && errno != EINTR)
            return FALSE;
        text += MAX(n, 0);
        left -= (gsize)MAX(n, 0);
    }
    return TRUE;
}

static int metrics_cannot_write(const Cli *cli, const char *path)
{
    return cli_fail(cli, "Output", "cannot write %s: %s", path, g_strerror(errno));
}

/* Whoever reads `path` sees the old text or the new one. The temporary name does not end in .prom,
 * so that node_exporter takes no notice of it. */
static int metrics_write(const Cli *cli, const char *path, const char *text)
{
    g_autofree char *dir = g_path_get_dirname(path);
    g_autofree char *base = g_path_get_basename(path);
    g_autofree char *fresh = g_strdup_printf("%s/.%s.XXXXXX", dir, base);
    struct stat st;
    gboolean done;
    int fd;

    /* /dev/stdout, say, would be replaced by a file */
    if (lstat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return cli_fail(cli, "Output", "%s is not a regular file; name one, or leave --output out",
                        path);
    fd = mkostemp(fresh, O_CLOEXEC);
    if (fd < 0)
        return metrics_cannot_write(cli, path);
    done = metrics_write_all(fd, text) && fchmod(fd, 0644) == 0;
    done = close(fd) == 0 && done && rename(fresh, path) == 0;
    if (!done) {
        int status = metrics_cannot_write(cli, path);

        unlink(fresh);
        return status;
    }
    return CLI_OK;
}

static int metrics_verb(Cli *cli, int argc, char **argv)
{
    g_auto(CliParser) parser = {0};
    g_autoptr(CliJson) report = NULL;
    g_autofree char *path = NULL, *text = NULL;
    const char *argument = NULL;
    int status, written = CLI_OK;

    cli_parser_init(&parser, cli, metrics_options, FALSE, argc, argv);
    while (cli_parser_next(&parser, &argument) > 0) {
        g_free(path);
        path = g_strdup(argument);
    }
    if (parser.status >= 0)
        return parser.status;
    if (argv[optind])
        return cli_usage_error(cli, "'%s' is too much; a file is named with --output",
                               argv[optind]);
    if (path && cli->json)
        return cli_usage_error(cli, "--output writes OpenMetrics text; leave --json out");
    status = cli_ask_once(cli, "query-metrics", NULL, &report);
    text = openmetrics_text(report);
    if (path)
        written = metrics_write(cli, path, text);
    else if (report && cli->json)
        cli_print_json(stdout, report);
    else if (report)
        fputs(text, stdout);
    return status != CLI_OK ? status : written;
}

const CliVerb cli_metrics_verb = {
    .name = "metrics",
    .synopsis = "[OPTION...]",
    .summary = "Print what the daemon counts, for a monitoring system",
    .details = "The format is OpenMetrics text, which Prometheus and node_exporter's textfile\n"
               "collector read. When the daemon does not answer, FILE says so: holdfast_up 0.",
    .options = metrics_options,
    .run = metrics_verb,
};
