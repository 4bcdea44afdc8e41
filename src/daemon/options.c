/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See options.h. */
#include "options.h"

#include <errno.h>
#include <holdfast/holdfast.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct OptionsArgs {
    gboolean background;
    gboolean verbose;
    gboolean no_keeper;
    gboolean version;
    int timeout;
    char *config;
    char *pid_file;
    char *socket;
    char *virtlockd_socket;
} OptionsArgs;

static gboolean options_parse(int argc, char **argv, gboolean as_virtlockd, OptionsArgs *args)
{
    GOptionEntry common[] = {
        {"daemon", 'd', 0, G_OPTION_ARG_NONE, &args->background,
         "Run in the background; return when it serves", NULL},
        {"config", 'f', 0, G_OPTION_ARG_FILENAME, &args->config, "Configuration file", "FILE"},
        {"pid-file", 'p', 0, G_OPTION_ARG_FILENAME, &args->pid_file, "Where to write the pid",
         "FILE"},
        {"timeout", 't', 0, G_OPTION_ARG_INT, &args->timeout,
         "End after so many idle seconds, never while a lease is held (0: never)", "SECONDS"},
        {"verbose", 'v', 0, G_OPTION_ARG_NONE, &args->verbose, "Log more", NULL},
        {"version", 'V', 0, G_OPTION_ARG_NONE, &args->version, "Print the version", NULL},
        G_OPTION_ENTRY_NULL};
    GOptionEntry own[] = {{"socket", 's', 0, G_OPTION_ARG_FILENAME, &args->socket,
                           "Path of the native socket", "PATH"},
                          {"no-keeper", 0, 0, G_OPTION_ARG_NONE, &args->no_keeper,
                           "Let the leases end with this process", NULL},
                          {"virtlockd-socket", 0, 0, G_OPTION_ARG_FILENAME, &args->virtlockd_socket,
                           "Serve virtlockd's protocol at this path, too", "PATH"},
                          G_OPTION_ENTRY_NULL};
    g_autoptr(GOptionContext) context = g_option_context_new(NULL);
    g_autoptr(GError) error = NULL;

    g_option_context_set_summary(context,
                                 "Holdfast's daemon: one disk, one writer, on every host.");
    g_option_context_add_main_entries(context, common, NULL);
    if (!as_virtlockd)
        g_option_context_add_main_entries(context, own, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &error)) {
        fprintf(stderr, "%s: %s; see --help\n", as_virtlockd ? "virtlockd" : "holdfastd",
                error->message);
        return FALSE;
    }
    if (argc > 1 || args->timeout < 0) {
        fprintf(stderr, "%s: %s '%s'; see --help\n", as_virtlockd ? "virtlockd" : "holdfastd",
                argc > 1 ? "unexpected argument" : "impossible time-out",
                argc > 1 ? argv[1] : "negative");
        return FALSE;
    }
    return TRUE;
}

/* A system's file, or a user's own. */
static char *options_config_path(const char *dir, const char *file)
{
    if (geteuid() == 0)
        return g_build_filename(HOLDFAST_SYSCONFDIR, dir, file, NULL);
    return g_build_filename(g_get_user_config_dir(), dir, file, NULL);
}

static gboolean options_load(Options *options, const OptionsArgs *args)
{
    g_autoptr(GPtrArray) problems = settings_problems_new();
    g_autofree char *own = options_config_path("holdfast", "holdfast.conf");
    g_autofree char *virtlockd = options_config_path("libvirt", "virtlockd.conf");
    g_autofree char *lockd = options_config_path("libvirt", "qemu-lockd.conf");
    const char *rules;
    gboolean must_exist;

    if (options->as_virtlockd) {
        settings_load_holdfast(options->settings, own, FALSE, problems);
        settings_load_virtlockd(options->settings, args->config ? args->config : virtlockd,
                                args->config != NULL, problems);
    } else {
        settings_load_holdfast(options->settings, args->config ? args->config : own,
                               args->config != NULL, problems);
    }
    rules = settings_lockd_conf(options->settings, lockd, &must_exist);
    if (rules)
        settings_load_lockd(options->settings, rules, must_exist, problems);
    for (guint i = 0; i < problems->len; i++) {
        const SettingsProblem *problem = g_ptr_array_index(problems, i);
        g_autofree char *text = settings_problem_to_string(problem);

        if (problem->severity != SETTINGS_NOTE || args->verbose)
            fprintf(stderr, "%s: %s\n", options->program, text);
    }
    return !settings_problems_have_error(problems);
}

static char *options_virtlockd_socket(void)
{
    if (geteuid() == 0)
        return g_strdup(HOLDFAST_RUNSTATEDIR "/libvirt/virtlockd-sock");
    return g_build_filename(g_get_user_runtime_dir(), "libvirt", "virtlockd-sock", NULL);
}

static char *options_pid_file(const Options *options)
{
    if (!options->as_virtlockd)
        return g_strconcat(options->native_socket, ".pid", NULL);
    if (geteuid() == 0)
        return g_strdup(HOLDFAST_RUNSTATEDIR "/virtlockd.pid");
    return g_build_filename(g_get_user_runtime_dir(), "libvirt", "virtlockd.pid", NULL);
}

static char *options_native_socket(void)
{
    char *path = hf_default_socket();
    char *copy = g_strdup(path);

    free(path);
    return copy;
}

/* What the daemon is, from its settings, which the command line overrides. */
static void options_settle(Options *options, const OptionsArgs *args)
{
    const Settings *settings = options->settings;

    if (args->socket)
        options->native_socket = g_canonicalize_filename(args->socket, NULL);
    else if (settings->native_socket)
        options->native_socket = g_strdup(settings->native_socket);
    else
        options->native_socket = options_native_socket();
    if (options->as_virtlockd)
        options->virtlockd_socket = options_virtlockd_socket();
    else if (args->virtlockd_socket)
        options->virtlockd_socket = g_canonicalize_filename(args->virtlockd_socket, NULL);
    else
        options->virtlockd_socket = g_strdup(settings->virtlockd_socket);
    options->pid_file =
        args->pid_file ? g_canonicalize_filename(args->pid_file, NULL) : options_pid_file(options);
    options->host = g_strdup(settings->host_name ? settings->host_name : g_get_host_name());
    options->background = args->background;
    options->no_keeper = args->no_keeper;
    options->timeout_seconds = (guint)args->timeout;
    if (args->verbose)
        options->settings->log_level = MIN(options->settings->log_level, SETTINGS_LOG_INFO);
}

int options_read(int argc, char **argv, Options *options)
{
    g_autofree char *name = g_path_get_basename(argv[0]);
    OptionsArgs args = {0};
    int code = -1;

    memset(options, 0, sizeof(*options));
    options->as_virtlockd = strcmp(name, "virtlockd") == 0;
    options->program = options->as_virtlockd ? "virtlockd" : "holdfastd";
    options->settings = settings_new();
    if (!options_parse(argc, argv, options->as_virtlockd, &args)) {
        code = 2;
    } else if (args.version) {
        printf("%s (Holdfast) %s\n", options->program, HOLDFAST_VERSION);
        code = 0;
    } else if (!options_load(options, &args)) {
        code = 1;
    } else {
        options_settle(options, &args);
    }
    g_free(args.config);
    g_free(args.pid_file);
    g_free(args.socket);
    g_free(args.virtlockd_socket);
    return code;
}

void options_clear(Options *options)
{
    g_free(options->pid_file);
    g_free(options->native_socket);
    g_free(options->virtlockd_socket);
    g_free(options->host);
    settings_free(options->settings);
}
