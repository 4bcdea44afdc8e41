/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tells a person who waits that something is still going on, from 2 s on: a line that renews
 * itself on a terminal, a line now and then elsewhere. The library's calls block, so a thread does
 * the telling; it only ever prints.
 */
#include <pthread.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"

#define PROGRESS_FIRST (2 * G_USEC_PER_SEC)

struct CliProgress {
    const Cli *cli;
    char *what;
    double limit; /* seconds, or 0 */
    gint64 start;
    /* not GLib's: thread sanitizer cannot see into those */
    pthread_t thread;
    gboolean started;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    gboolean stop;  /* under lock */
    gboolean shown; /* the thread's until it has ended */
};

/* When to tell next: each second where the line is rewritten, else ever more seldom. */
static gint64 progress_pause(gboolean terminal, gint64 elapsed)
{
    gint64 seconds = elapsed / G_USEC_PER_SEC;

    if (terminal)
        return G_USEC_PER_SEC;
    if (seconds < 10)
        return (10 - seconds) * G_USEC_PER_SEC;
    return seconds < 60 ? 20 * G_USEC_PER_SEC : 60 * G_USEC_PER_SEC;
}

/* So much of `text` as fits into a line: one that wraps could not be rewritten. */
static char *progress_fit(const char *text)
{
    struct winsize size = {0};
    glong length = g_utf8_strlen(text, -1);

    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col < 20 || length < size.ws_col)
        return g_strdup(text);
    return g_utf8_substring(text, 0, size.ws_col - 1);
}

static void progress_tell(CliProgress *progress, gboolean terminal, gint64 elapsed)
{
    g_autofree char *of =
        progress->limit > 0 ? g_strdup_printf(" of %g s", progress->limit) : g_strdup("");
    g_autofree char *text = g_strdup_printf("holdfast: (%" G_GINT64_FORMAT " s%s) %s",
                                            elapsed / G_USEC_PER_SEC, of, progress->what);
    g_autofree char *fitting = terminal ? progress_fit(text) : g_strdup(text);

    fprintf(stderr, "%s%s%s", terminal ? "\r" : "", fitting, terminal ? "" : "\n");
    fflush(stderr);
    progress->shown = TRUE;
}

static void *progress_main(void *data)
{
    CliProgress *progress = data;
    gboolean terminal = isatty(STDERR_FILENO);
    gint64 next = progress->start + PROGRESS_FIRST;

    pthread_mutex_lock(&progress->lock);
    while (!progress->stop) {
        struct timespec until = {.tv_sec = (time_t)(next / G_USEC_PER_SEC),
                                 .tv_nsec = (long)(next % G_USEC_PER_SEC) * 1000};

        if (pthread_cond_timedwait(&progress->cond, &progress->lock, &until) != 0) {
            gint64 elapsed = g_get_monotonic_time() - progress->start;

            progress_tell(progress, terminal, elapsed);
            next += progress_pause(terminal, elapsed);
        }
    }
    pthread_mutex_unlock(&progress->lock);
    return NULL;
}

CliProgress *cli_progress_start(const Cli *cli, const char *what, double limit)
{
    pthread_condattr_t attr;
    CliProgress *progress;

    if (cli->quiet || cli->json)
        return NULL;
    progress = g_new0(CliProgress, 1);
    progress->cli = cli;
    progress->what = cli_safe(what);
    progress->limit = limit;
    progress->start = g_get_monotonic_time();
    pthread_mutex_init(&progress->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC); /* as g_get_monotonic_time() */
    pthread_cond_init(&progress->cond, &attr);
    pthread_condattr_destroy(&attr);
    progress->started = pthread_create(&progress->thread, NULL, progress_main, progress) == 0;
    return progress;
}

void cli_progress_stop(CliProgress *progress)
{
    if (!progress)
        return;
    pthread_mutex_lock(&progress->lock);
    progress->stop = TRUE;
    pthread_cond_signal(&progress->cond);
    pthread_mutex_unlock(&progress->lock);
    if (progress->started)
        pthread_join(progress->thread, NULL);
    if (progress->shown && isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
    pthread_mutex_destroy(&progress->lock);
    pthread_cond_destroy(&progress->cond);
    g_free(progress->what);
    g_free(progress);
}
