/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See options.h. getopt_long(3), as qemu-pr-helper: it takes the same spellings, "-k/path" and
 * "--sock=/path" among them. */
#include "options.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#define OPTIONS_SOCKET HOLDFAST_RUNSTATEDIR "/qemu-pr-helper.sock"
#define OPTIONS_PID_FILE HOLDFAST_RUNSTATEDIR "/qemu-pr-helper.pid"
#define OPTIONS_CONFIG HOLDFAST_SYSCONFDIR "/holdfast/holdfast.conf"

static void options_help(const char *program)
{
    printf("Usage: %s [OPTION ...]\n"
           "Carries out the persistent reservations of SCSI disks for QEMU, in place of\n"
           "qemu-pr-helper.\n"
           "\n"
           "  -h, --help           print this help\n"
           "  -V, --version        print the version\n"
           "  -d, --daemon         run in the background; return when it serves\n"
           "  -f, --pidfile=PATH   where to write the pid: with -d, or when it is given\n"
           "                       (default " OPTIONS_PID_FILE ")\n"
           "  -k, --socket=PATH    the socket to serve\n"
           "                       (default " OPTIONS_SOCKET ")\n"
           "  -u, --user=USER      run as this user (a name or a number)\n"
           "  -g, --group=GROUP    run with this group\n"
           "  -c, --config=FILE    settings\n"
           "                       (default " OPTIONS_CONFIG ")\n"
           "  -v, --verbose        log more\n"
           "  -q, --quiet          log errors only\n"
           "  -T, --trace=PATTERN  accepted and ignored, for callers of qemu-pr-helper\n"
           "\n"
           "holdfast-pr-helper(8) says more.\n",
           program);
}

static const char options_short[] = "hVdf:k:T:u:g:vqc:";
static const struct option options_long[] = {
    {"help", no_argument, NULL, 'h'},         {"version", no_argument, NULL, 'V'},
    {"daemon", no_argument, NULL, 'd'},       {"pidfile", required_argument, NULL, 'f'},
    {"socket", required_argument, NULL, 'k'}, {"trace", required_argument, NULL, 'T'},
    {"user", required_argument, NULL, 'u'},   {"group", required_argument, NULL, 'g'},
    {"verbose", no_argument, NULL, 'v'},      {"quiet", no_argument, NULL, 'q'},
    {"config", required_argument, NULL, 'c'}, {NULL, 0, NULL, 0},
};

/* -1: go on. */
static int options_take(PrOptions *options, int letter)
{
    switch (letter) {
    case 'h':
        options_help(options->program);
        return 0;
    case 'V':
        printf("%s (Holdfast) %s\n", options->program, HOLDFAST_VERSION);
        return 0;
    case 'd':
        options->background = TRUE;
        return -1;
    case 'f':
        options->pid_file = optarg;
        options->pid_file_given = TRUE;
        return -1;
    case 'k':
        options->socket = optarg;
        options->socket_given = TRUE;
        return -1;
    case 'u':
        options->user = optarg;
        return -1;
    case 'g':
        options->group = optarg;
        return -1;
    case 'c':
        options->config = optarg;
        options->config_given = TRUE;
        return -1;
    case 'v':
        options->log_level = PR_LOG_VERBOSE;
        return -1;
    case 'q':
        options->log_level = PR_LOG_QUIET;
        return -1;
    case 'T':
        fprintf(stderr, "%s: there is nothing to trace here: --trace is ignored\n",
                options->program);
        return -1;
    default:
        fprintf(stderr, "%s: see --help\n", options->program);
        return 2;
    }
}

int pr_options_read(int argc, char **argv, PrOptions *ret_options)
{
    const char *slash = argv[0] ? strrchr(argv[0], '/') : NULL;
    PrOptions options = {.program = slash ? slash + 1 : argv[0],
                         .socket = OPTIONS_SOCKET,
                         .pid_file = OPTIONS_PID_FILE,
                         .config = OPTIONS_CONFIG,
                         .log_level = PR_LOG_NORMAL};
    int letter, code = -1;

    while (code < 0 && (letter = getopt_long(argc, argv, options_short, options_long, NULL)) != -1)
        code = options_take(&options, letter);
    if (code < 0 && optind < argc) {
        fprintf(stderr, "%s: unexpected argument '%s'; see --help\n", options.program,
                argv[optind]);
        code = 2;
    }
    *ret_options = options;
    return code;
}
