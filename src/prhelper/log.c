/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See log.h. libsystemd would cost a third of the memory that the helper may use. */
#include "log.h"

#include <stdio.h>
#include <syslog.h>

#include "daemon/journal.h"

static struct {
    const char *program;
    PrLogLevel level;
    gboolean background;
    gboolean to_syslog;
    gboolean to_journal;
} logging;

static int log_priority(GLogLevelFlags flags)
{
    if (flags & (G_LOG_LEVEL_ERROR | G_LOG_LEVEL_CRITICAL))
        return LOG_ERR;
    if (flags & G_LOG_LEVEL_WARNING)
        return LOG_WARNING;
    return flags & (G_LOG_LEVEL_MESSAGE | G_LOG_LEVEL_INFO) ? LOG_INFO : LOG_DEBUG;
}

static void log_handler(const char *domain, GLogLevelFlags flags, const char *message, void *data)
{
    static const int least[] = {
        [PR_LOG_QUIET] = LOG_ERR, [PR_LOG_NORMAL] = LOG_INFO, [PR_LOG_VERBOSE] = LOG_DEBUG};
    int priority = log_priority(flags);

    (void)domain;
    (void)data;
    if (priority > least[logging.level])
        return;
    /* one call each, so that lines of threads do not mix */
    if (logging.to_syslog)
        syslog(priority, "%s", message);
    else if (logging.to_journal)
        fprintf(stderr, "<%d>%s\n", priority, message); /* sd-daemon(3) */
    else
        fprintf(stderr, "%s: %s\n", logging.program, message);
}

void pr_log_open(const char *program, PrLogLevel level, gboolean background)
{
    logging.program = program;
    logging.level = level;
    logging.background = background;
    logging.to_journal = journal_has_stderr();
    if (background)
        openlog(program, LOG_PID | LOG_NDELAY, LOG_DAEMON);
    g_log_set_default_handler(log_handler, NULL);
}

gboolean pr_log_in_background(void)
{
    return logging.background;
}

void pr_log_leave_terminal(void)
{
    logging.to_syslog = logging.background;
}
