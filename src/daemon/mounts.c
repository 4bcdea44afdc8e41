/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See mounts.h. Reads /proc only. */
#include "mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <string.h>
#include <unistd.h>

struct Mounts {
    int fd; /* of /proc/self/mountinfo, watched for changes */
    sd_event_source *source;
    GHashTable *points; /* set of char * */
    gboolean stale;
};

static void mounts_read(Mounts *mounts)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;

    mounts->stale = FALSE;
    if (!g_file_get_contents("/proc/self/mountinfo", &text, NULL, NULL))
        return; /* the last table is better than none */
    g_hash_table_remove_all(mounts->points);
    lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line; line++) {
        /* field 5 is the mount point, with \040 and the like for blanks (proc(5)) */
        g_auto(GStrv) fields = g_strsplit(*line, " ", 6);

        if (g_strv_length(fields) >= 5)
            g_hash_table_add(mounts->points, g_strcompress(fields[4]));
    }
}

static int mounts_changed(sd_event_source *source, int fd, uint32_t events, void *data)
{
    Mounts *mounts = data;

    (void)source;
    (void)fd;
    (void)events;
    mounts->stale = TRUE;
    return 0;
}

int mounts_new(sd_event *event, Mounts **ret_mounts)
{
    Mounts *mounts = g_new0(Mounts, 1);
    int r;

    mounts->points = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    mounts->stale = TRUE;
    mounts->fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    r = mounts->fd < 0 ? -errno : 0;
    if (r == 0) /* the kernel signals a change as priority data, once each (proc(5)) */
        r = sd_event_add_io(event, &mounts->source, mounts->fd, EPOLLPRI | EPOLLET, mounts_changed,
                            mounts);
    if (r < 0) {
        mounts_free(mounts);
        return r;
    }
    sd_event_source_set_priority(mounts->source, SD_EVENT_PRIORITY_IMPORTANT);
    *ret_mounts = mounts;
    return 0;
}

void mounts_free(Mounts *mounts)
{
    sd_event_source_disable_unref(mounts->source);
    if (mounts->fd >= 0)
        close(mounts->fd);
    g_hash_table_unref(mounts->points);
    g_free(mounts);
}

const char *mounts_find(Mounts *mounts, const char *path)
{
    g_autofree char *prefix = g_strdup(path);

    if (mounts->stale)
        mounts_read(mounts);
    for (;;) {
        const char *point = g_hash_table_lookup(mounts->points, prefix);
        char *slash = strrchr(prefix, '/');

        if (point)
            return point;
        if (!slash || slash == prefix)
            return "/";
        *slash = '\0';
    }
}
