/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Locks that nobody was told of go before the daemon that finds them serves. */
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "engine.h"
#include "keeper/closer.h"

/* Clients are answered when what nobody holds is unlocked, which takes microseconds; but not later
 * than this, for storage may hang. */
#define ADOPT_STRAYS_SECONDS 1

/* The strays on one mount, which one thread unlocks. */
typedef struct Strays {
    GArray *fds;
    gboolean running;
    gint late; /* atomic: the thread has come to its end, nobody waits for that any more: the second
                * to say so has to clean up */
} Strays;

static void adopt_strays_free(gpointer data)
{
    Strays *strays = data;

    g_array_unref(strays->fds);
    g_free(strays);
}

/* Closing is not enough: it would leave the lock to the supervisor's copy, for a moment in which
 * somebody asks and is refused. What is not locked, or no file, does not mind. */
static void *adopt_unlock_strays(void *data)
{
    Strays *strays = data;

    for (guint i = 0; i < strays->fds->len; i++) {
        struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET};

        fcntl(g_array_index(strays->fds, int, i), F_OFD_SETLK, &lock);
    }
    if (g_atomic_int_add(&strays->late, 1) > 0) {
        for (guint i = 0; i < strays->fds->len; i++)
            close(g_array_index(strays->fds, int, i));
        adopt_strays_free(strays);
    }
    return NULL;
}

static void adopt_wait_for_strays(Strays *strays, gint64 until)
{
    while (strays->running && g_atomic_int_get(&strays->late) == 0 &&
           g_get_monotonic_time() < until)
        g_usleep(50);
    if (strays->running && g_atomic_int_add(&strays->late, 1) == 0)
        return; /* the thread does the rest */
    for (guint i = 0; i < strays->fds->len; i++)
        closer_close(g_array_index(strays->fds, int, i));
    adopt_strays_free(strays);
}

void adopt_drop_strays(const GArray *all)
{
    g_autoptr(GHashTable) mounts = g_hash_table_new(NULL, NULL); /* mount -> Strays */
    pthread_attr_t detached;
    pthread_t thread;
    gint64 until;
    GHashTableIter iter;
    gpointer value;

    for (guint i = 0; i < all->len; i++) {
        int fd = g_array_index(all, int, i);
        gpointer mount = GINT_TO_POINTER(closer_mount(fd));
        Strays *strays = g_hash_table_lookup(mounts, mount);

        if (!strays) {
            strays = g_new0(Strays, 1);
            strays->fds = g_array_new(FALSE, FALSE, sizeof(int));
            g_hash_table_insert(mounts, mount, strays);
        }
        g_array_append_val(strays->fds, fd);
    }
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    g_hash_table_iter_init(&iter, mounts);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        Strays *strays = value;

        strays->running = pthread_create(&thread, &detached, adopt_unlock_strays, strays) == 0;
    }
    pthread_attr_destroy(&detached);
    until = g_get_monotonic_time() + ADOPT_STRAYS_SECONDS * G_USEC_PER_SEC;
    g_hash_table_iter_init(&iter, mounts);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        adopt_wait_for_strays(value, until);
}
