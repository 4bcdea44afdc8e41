/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The log of commands; see audit.h. No command fails because of the log, and none waits for it
 * longer than a second. An entry for the journal is one datagram, which is sent without blocking.
 * A file may be on a file system that hangs, so a thread writes it:
 *
 *      0   a command's thread queues its line and waits for the writer
 *   .. 1 s AUDIT_PATIENCE: mostly microseconds. Then the command goes on without
 *      -   while the writer is that late nobody waits for it
 *      -   1,024 lines (AUDIT_QUEUE_MAX) are queued: further ones are lost, and counted
 *
 * What is lost, and why, is in the helper's own messages, once a minute.
 */
#define G_LOG_DOMAIN "holdfast.pr"

#include "prhelper/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define AUDIT_PATIENCE_SEC 1
#define AUDIT_QUEUE_MAX 1024
#define AUDIT_COMPLAIN_USEC (60 * G_USEC_PER_SEC)

struct PrAudit {
    PrAuditKind kind;
    char *path;
    char *directory;
    char *name;       /* of the file in its directory */
    int directory_fd; /* opened before anything is given up */
    int fd;           /* of the file: the writer's, once that runs. Of the journal: everybody's */

    pthread_mutex_t mutex; /* around all that follows */
    pthread_cond_t work;
    pthread_cond_t done;
    GQueue *lines; /* of GString */
    guint64 queued;
    guint64 written; /* of those that were queued, or given up */
    gboolean has_writer;
    pthread_t writer;
    gboolean late; /* the writer is: nobody waits */
    gboolean reopen;
    gboolean ending;
    guint64 lost;
    int lost_errno;
    gint64 complained_usec;
};

PrAudit *pr_audit_new(PrAuditKind kind, const char *path)
{
    PrAudit *audit = g_new0(PrAudit, 1);
    pthread_condattr_t monotonic;

    audit->kind = kind;
    audit->path = g_strdup(path);
    audit->fd = audit->directory_fd = -1;
    if (kind == PR_AUDIT_TEXT || kind == PR_AUDIT_JSON) {
        audit->directory = g_path_get_dirname(path);
        audit->name = g_path_get_basename(path);
    }
    audit->lines = g_queue_new();
    pthread_mutex_init(&audit->mutex, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&audit->work, &monotonic);
    pthread_cond_init(&audit->done, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return audit;
}

const char *pr_audit_directory(const PrAudit *audit)
{
    return audit->directory;
}

/* ---- opening ------------------------------------------------------------------------------- */

/* A file that we make belongs to whom its directory belongs: to the user whom the helper becomes.
 */
static void audit_make_file(const PrAudit *audit)
{
    int fd = openat(audit->directory_fd, audit->name,
                    O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0640);
    struct stat st;

    if (fd < 0)
        return;
    if (fstat(audit->directory_fd, &st) == 0 && (st.st_uid != geteuid() || st.st_gid != getegid()))
        (void)!fchown(fd, st.st_uid, st.st_gid);
    close(fd);
}

/* Whoever has the directory, as the user whom the helper becomes, must not lead root elsewhere. */
static int audit_open_file(const PrAudit *audit)
{
    struct stat st;
    int flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    int fd;

    if (fstat(audit->directory_fd, &st) < 0)
        return -errno;
    if (st.st_uid != geteuid() && st.st_uid != 0)
        flags |= O_NOFOLLOW;
    fd = openat(audit->directory_fd, audit->name, flags, 0640);
    return fd < 0 ? -errno : fd;
}

static gboolean audit_open_journal(PrAudit *audit)
{
    audit->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (audit->fd < 0 || access(audit->path, F_OK) < 0)
        g_message("there is no journal: commands are not logged; see pr_log in holdfast.conf");
    return TRUE;
}

gboolean pr_audit_open(PrAudit *audit, char **ret_error)
{
    if (audit->kind == PR_AUDIT_JOURNAL)
        return audit_open_journal(audit);
    if (audit->kind == PR_AUDIT_NONE)
        return TRUE;
    audit->directory_fd = open(audit->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (audit->directory_fd < 0) {
        *ret_error = g_strdup_printf("cannot open the directory of pr_log, %s: %s; make it, or "
                                     "correct pr_log in holdfast.conf",
                                     audit->directory, g_strerror(errno));
        return FALSE;
    }
    audit_make_file(audit);
    audit->fd = audit_open_file(audit);
    if (audit->fd >= 0)
        return TRUE;
    *ret_error = g_strdup_printf("cannot write %s: %s; correct pr_log in holdfast.conf",
                                 audit->path, g_strerror(-audit->fd));
    return FALSE;
}

void pr_audit_reopen(PrAudit *audit)
{
    pthread_mutex_lock(&audit->mutex);
    audit->reopen = audit->directory_fd >= 0;
    pthread_mutex_unlock(&audit->mutex);
}

/* ---- losses -------------------------------------------------------------------------------- */

/* With the mutex held. */
static void audit_lose(PrAudit *audit, int error)
{
    gint64 now = g_get_monotonic_time();

    audit->lost++;
    audit->lost_errno = error;
    if (audit->complained_usec && now - audit->complained_usec < AUDIT_COMPLAIN_USEC)
        return;
    audit->complained_usec = now;
    g_warning("%" G_GUINT64_FORMAT " records of commands could not be written to %s so far: %s",
              audit->lost, audit->kind == PR_AUDIT_JOURNAL ? "the journal" : audit->path,
              g_strerror(error));
}

static void audit_lose_one(PrAudit *audit, int error)
{
    pthread_mutex_lock(&audit->mutex);
    audit_lose(audit, error);
    pthread_mutex_unlock(&audit->mutex);
}

/* ---- the file's writer ----------------------------------------------------------------------- */

/* 0 or an errno. A line that was cut off, by a full disk, gets its end before the next one. */
static int audit_write(PrAudit *audit, const GString *line)
{
    ssize_t len;

    if (audit->fd < 0)
        return EBADF;
    len = write(audit->fd, line->str, line->len);
    if (len == (ssize_t)line->len)
        return 0;
    if (len < 0)
        return errno;
    if (len > 0)
        (void)!write(audit->fd, "\n", 1);
    return ENOSPC;
}

/* Without the mutex. */
static int audit_write_line(PrAudit *audit, const GString *line, gboolean reopen)
{
    if (reopen || audit->fd < 0) {
        int fd = audit_open_file(audit);

        if (fd >= 0 && audit->fd >= 0)
            close(audit->fd);
        if (fd >= 0)
            audit->fd = fd;
        else if (audit->fd < 0)
            return -fd;
        else
            g_warning("cannot open %s again: %s; the log goes on in the old file", audit->path,
                      g_strerror(-fd));
    }
    return audit_write(audit, line);
}

static void *audit_writer(void *user_data)
{
    PrAudit *audit = user_data;

    pthread_mutex_lock(&audit->mutex);
    for (;;) {
        GString *line = g_queue_pop_head(audit->lines);
        gboolean reopen = audit->reopen;
        int error;

        if (!line) {
            audit->late = FALSE;
            if (audit->ending)
                break;
            pthread_cond_wait(&audit->work, &audit->mutex);
            continue;
        }
        audit->reopen = FALSE;
        pthread_mutex_unlock(&audit->mutex);
        error = audit_write_line(audit, line, reopen);
        g_string_free(line, TRUE);
        pthread_mutex_lock(&audit->mutex);
        if (error)
            audit_lose(audit, error);
        audit->written++;
        pthread_cond_broadcast(&audit->done);
    }
    pthread_mutex_unlock(&audit->mutex);
    return NULL;
}

/* With the mutex held. The writer begins with the first record, when threads are allowed. */
static gboolean audit_has_writer(PrAudit *audit)
{
    pthread_attr_t attr;
    int error;

    if (audit->has_writer)
        return TRUE;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, PR_STACK_BYTES);
    error = pthread_create(&audit->writer, &attr, audit_writer, audit);
    pthread_attr_destroy(&attr);
    audit->has_writer = error == 0;
    if (error)
        audit_lose(audit, error);
    return audit->has_writer;
}

/* Takes the line over. */
static void audit_queue(PrAudit *audit, GString *line)
{
    struct timespec deadline;
    guint64 number;

    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += AUDIT_PATIENCE_SEC;
    pthread_mutex_lock(&audit->mutex);
    if (!audit_has_writer(audit) || g_queue_get_length(audit->lines) >= AUDIT_QUEUE_MAX) {
        if (audit->has_writer)
            audit_lose(audit, ETIMEDOUT);
        pthread_mutex_unlock(&audit->mutex);
        g_string_free(line, TRUE);
        return;
    }
    g_queue_push_tail(audit->lines, line);
    number = ++audit->queued;
    pthread_cond_signal(&audit->work);
    while (!audit->late && audit->written < number) {
        if (pthread_cond_timedwait(&audit->done, &audit->mutex, &deadline) == ETIMEDOUT &&
            audit->written < number) {
            audit->late = TRUE;
            g_warning("%s takes longer than %d s; commands no longer wait for their records",
                      audit->path, AUDIT_PATIENCE_SEC);
        }
    }
    pthread_mutex_unlock(&audit->mutex);
}

/* ---- records ------------------------------------------------------------------------------- */

static void audit_send(PrAudit *audit, const GString *datagram)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    /* by its name each time: the journal may have been restarted */
    if (g_strlcpy(address.sun_path, audit->path, sizeof(address.sun_path)) >=
            sizeof(address.sun_path) ||
        sendto(audit->fd, datagram->str, datagram->len, MSG_NOSIGNAL | MSG_DONTWAIT,
               (struct sockaddr *)&address, sizeof(address)) < 0)
        audit_lose_one(audit, errno);
}

void pr_audit_record(PrAudit *audit, const PrRecord *record)
{
    switch (audit->kind) {
    case PR_AUDIT_NONE:
        return;
    case PR_AUDIT_JOURNAL: {
        g_autoptr(GString) datagram = pr_audit_format_journal(record);

        audit_send(audit, datagram);
        return;
    }
    case PR_AUDIT_TEXT:
        audit_queue(audit, pr_audit_format_text(record));
        return;
    case PR_AUDIT_JSON:
        audit_queue(audit, pr_audit_format_json(record));
        return;
    }
}

/* Whether the writer has ended; one that hangs in a file system never will. */
static gboolean audit_end_writer(PrAudit *audit)
{
    struct timespec deadline;

    if (!audit->has_writer)
        return TRUE;
    pthread_mutex_lock(&audit->mutex);
    audit->ending = TRUE;
    pthread_cond_signal(&audit->work);
    pthread_mutex_unlock(&audit->mutex);
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += AUDIT_PATIENCE_SEC;
    return pthread_timedjoin_np(audit->writer, NULL, &deadline) == 0;
}

static void audit_line_free(gpointer line)
{
    g_string_free(line, TRUE);
}

void pr_audit_free(PrAudit *audit)
{
    if (!audit || !audit_end_writer(audit))
        return; /* the writer that hangs still has it; the process ends now */
    g_queue_free_full(audit->lines, audit_line_free);
    if (audit->fd >= 0)
        close(audit->fd);
    if (audit->directory_fd >= 0)
        close(audit->directory_fd);
    pthread_mutex_destroy(&audit->mutex);
    pthread_cond_destroy(&audit->work);
    pthread_cond_destroy(&audit->done);
    g_free(audit->path);
    g_free(audit->directory);
    g_free(audit->name);
    g_free(audit);
}
