/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See log.h. The only module that writes to a log; its state is set up once, before any thread. */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#include "core/holder.h"
#include "journal.h"

typedef struct LogOutput {
    SettingsLogKind kind;
    guint level;
    int fd; /* of a file */
} LogOutput;

static GArray *log_outputs;          /* of LogOutput */
static const GPtrArray *log_filters; /* of SettingsLogFilter; of the settings */
static guint log_level;              /* where no filter matches */
static char *log_program;

static guint log_level_of(GLogLevelFlags flags)
{
    if (flags & (G_LOG_LEVEL_ERROR | G_LOG_LEVEL_CRITICAL))
        return SETTINGS_LOG_ERROR;
    if (flags & G_LOG_LEVEL_WARNING)
        return SETTINGS_LOG_WARNING;
    if (flags & (G_LOG_LEVEL_MESSAGE | G_LOG_LEVEL_INFO))
        return SETTINGS_LOG_INFO;
    return SETTINGS_LOG_DEBUG;
}

static int log_syslog_priority(guint level)
{
    static const int priorities[] = {LOG_DEBUG, LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERR};

    return priorities[level];
}

static void log_write_line(int fd, guint level, const char *text, gboolean with_time)
{
    static const char *const names[] = {"", "debug", "info", "warning", "error"};
    g_autofree char *time = with_time ? time_to_iso8601(g_get_real_time()) : NULL;
    g_autofree char *line = time ? g_strdup_printf("%s %s: %s\n", time, names[level], text)
                                 : g_strdup_printf("%s: %s: %s\n", log_program, names[level], text);
    ssize_t n = write(fd, line, strlen(line));

    (void)n; /* where could that be reported? */
}

static void log_write_to(const LogOutput *output, guint level, const char *text)
{
    switch (output->kind) {
    case SETTINGS_LOG_STDERR:
        log_write_line(STDERR_FILENO, level, text, FALSE);
        break;
    case SETTINGS_LOG_FILE:
        log_write_line(output->fd, level, text, TRUE);
        break;
    case SETTINGS_LOG_SYSLOG:
        syslog(log_syslog_priority(level), "%s", text);
        break;
    case SETTINGS_LOG_JOURNALD:
        sd_journal_send("MESSAGE=%s", text, "PRIORITY=%d", log_syslog_priority(level),
                        "SYSLOG_IDENTIFIER=%s", log_program, NULL);
        break;
    }
}

/* The first filter that matches the module decides, else log_level. */
static guint log_level_for(const char *domain)
{
    for (guint i = 0; i < log_filters->len; i++) {
        const SettingsLogFilter *filter = g_ptr_array_index(log_filters, i);
        g_autofree char *pattern = g_strdup_printf("*%s*", filter->match);

        if (g_pattern_match_simple(pattern, domain ? domain : ""))
            return filter->level;
    }
    return log_level;
}

static void log_handler(const char *domain, GLogLevelFlags flags, const char *message, void *data)
{
    guint level = log_level_of(flags);
    g_autofree char *text = NULL;

    (void)data;
    if (level < log_level_for(domain))
        return;
    text = text_for_people(message);
    for (guint i = 0; i < log_outputs->len; i++) {
        const LogOutput *output = &g_array_index(log_outputs, LogOutput, i);

        if (level >= output->level)
            log_write_to(output, level, text);
    }
}

static gboolean log_add(const SettingsLogOutput *wanted, char **ret_error)
{
    LogOutput output = {.kind = wanted->kind, .level = wanted->level, .fd = -1};

    if (wanted->kind == SETTINGS_LOG_FILE) {
        output.fd = open(wanted->target, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        if (output.fd < 0) {
            *ret_error = g_strdup_printf("cannot open log file %s: %s; correct log_outputs",
                                         wanted->target, g_strerror(errno));
            return FALSE;
        }
    }
    if (wanted->kind == SETTINGS_LOG_SYSLOG)
        openlog(wanted->target && *wanted->target ? wanted->target : log_program,
                LOG_PID | LOG_NDELAY, LOG_DAEMON);
    g_array_append_val(log_outputs, output);
    return TRUE;
}

void log_close(void)
{
    for (guint i = 0; log_outputs && i < log_outputs->len; i++) {
        const LogOutput *output = &g_array_index(log_outputs, LogOutput, i);

        if (output->fd >= 0)
            close(output->fd);
    }
    g_clear_pointer(&log_outputs, g_array_unref);
    g_clear_pointer(&log_program, g_free);
    g_log_set_default_handler(g_log_default_handler, NULL);
}

gboolean log_open(const Settings *settings, const char *program, gboolean background,
                  char **ret_error)
{
    const SettingsLogOutput usual = {.level = SETTINGS_LOG_DEBUG,
                                     .kind = background             ? SETTINGS_LOG_SYSLOG
                                             : journal_has_stderr() ? SETTINGS_LOG_JOURNALD
                                                                    : SETTINGS_LOG_STDERR};

    log_close();
    log_outputs = g_array_new(FALSE, FALSE, sizeof(LogOutput));
    log_program = g_strdup(program);
    log_filters = settings->log_filters;
    log_level = settings->log_level;
    for (guint i = 0; i < settings->log_outputs->len; i++)
        if (!log_add(g_ptr_array_index(settings->log_outputs, i), ret_error))
            return FALSE;
    if (log_outputs->len == 0)
        log_add(&usual, NULL);
    g_log_set_default_handler(log_handler, NULL);
    return TRUE;
}
