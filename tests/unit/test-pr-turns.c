/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whose turn it is in the persistent-reservation helper: gates of devices, and the reader. */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "prhelper/device.h"
#include "prhelper/gate.h"
#include "prhelper/prhelper.h"
#include "prhelper/reader.h"

/* ---- gates -------------------------------------------------------------------------------- */

#define GATE_THREADS 24
#define GATE_ROUNDS 500

static atomic_int readers_inside, writers_inside, most_readers;

static void *gate_user(void *data)
{
    const gboolean shared = GPOINTER_TO_INT(data) % 3 != 0;
    PrPeer peer = {.pid = 1};
    PrCommand command = {.peer = &peer};

    for (int i = 0; i < GATE_ROUNDS; i++) {
        PrTicket ticket = {.command = &command, .socket = -1, .shared = shared};
        atomic_int *inside = shared ? &readers_inside : &writers_inside;
        int now;

        g_assert_true(pr_gate_enter(&ticket, makedev(8, 0), FALSE));
        now = atomic_fetch_add(inside, 1) + 1;
        if (shared) {
            g_assert_cmpint(now, <=, PR_GATE_SHARED_MAX);
            g_assert_cmpint(atomic_load(&writers_inside), ==, 0);
            if (now > atomic_load(&most_readers))
                atomic_store(&most_readers, now);
        } else {
            g_assert_cmpint(now, ==, 1);
            g_assert_cmpint(atomic_load(&readers_inside), ==, 0);
        }
        g_thread_yield();
        atomic_fetch_sub(inside, 1);
        pr_gate_leave(&ticket);
    }
    return NULL;
}

static void test_gate(void)
{
    GThread *threads[GATE_THREADS];
    guint abandoned = 1;

    for (int i = 0; i < GATE_THREADS; i++)
        threads[i] = g_thread_new("gate", gate_user, GINT_TO_POINTER(i));
    for (int i = 0; i < GATE_THREADS; i++)
        g_thread_join(threads[i]);
    g_assert_cmpint(atomic_load(&most_readers), >, 1);
    g_assert_cmpuint(pr_gate_count(&abandoned), ==, 0);
    g_assert_cmpuint(abandoned, ==, 0);
}

static void *gate_other_device(void *data)
{
    PrTicket ticket = {.command = data, .socket = -1};

    g_assert_true(pr_gate_enter(&ticket, makedev(8, 16), FALSE));
    g_assert_cmpuint(pr_gate_count(NULL), ==, 2);
    pr_gate_leave(&ticket);
    /* a character device of the same number is another one */
    g_assert_true(pr_gate_enter(&ticket, makedev(8, 0), TRUE));
    pr_gate_leave(&ticket);
    return NULL;
}

static void *gate_same_device(void *data)
{
    PrTicket ticket = {.command = data, .socket = -1, .shared = TRUE};
    gint64 begin = g_get_monotonic_time();

    g_assert_false(pr_gate_enter(&ticket, makedev(8, 0), FALSE));
    g_assert_cmpint(g_get_monotonic_time() - begin, >=, (PR_GATE_PATIENCE_MSEC - 500) * 1000);
    begin = g_get_monotonic_time();
    g_assert_false(pr_gate_enter(&ticket, makedev(8, 0), FALSE)); /* and now at once */
    g_assert_cmpint(g_get_monotonic_time() - begin, <, PR_GATE_PATIENCE_MSEC * 1000);
    return NULL;
}

/* A command that does not return keeps out others of its device, for so long, and nobody else. */
static void test_gate_stuck(void)
{
    PrPeer peer = {.pid = 1};
    PrCommand command = {.opcode = SPC_OUT_OPCODE, .peer = &peer};
    PrTicket stuck = {.command = &command, .socket = -1};

    g_assert_true(pr_gate_enter(&stuck, makedev(8, 0), FALSE));
    g_thread_join(g_thread_new("other", gate_other_device, &command));
    g_thread_join(g_thread_new("same", gate_same_device, &command));
    g_test_expect_message("holdfast.pr", G_LOG_LEVEL_WARNING, "*has not returned*BUSY*");
    g_assert_true(pr_gate_watch());
    g_test_assert_expected_messages();
    g_assert_true(pr_gate_watch()); /* is told once */
    pr_gate_leave(&stuck);
    g_assert_false(pr_gate_watch());
    g_assert_true(pr_gate_enter(&stuck, makedev(8, 0), FALSE));
    pr_gate_leave(&stuck);
}

/* ---- the reader --------------------------------------------------------------------------- */

#define READER_PAIRS 6
/* Generous: the machine may have a lot to do. */
#define READER_PATIENCE_USEC (60 * G_USEC_PER_SEC)

static struct {
    int pairs[READER_PAIRS][2];
    pthread_mutex_t lock; /* not GLib's, which thread sanitizer cannot see */
    pthread_cond_t changed;
    gboolean hang;
    int hanging;
} readers = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

/* Answers a byte with the same one; before 'h' it hangs. */
static void reader_serve(gpointer data, guint64 batch, gpointer memory)
{
    const int *pair = data;
    guint64 *last = memory;
    char byte;

    g_assert_cmpuint(batch, >, 0);
    g_assert_cmpuint(batch, >=, *last);
    *last = batch;

    g_assert_cmpint(read(pair[1], &byte, 1), ==, 1);
    if (byte == 'h') {
        pthread_mutex_lock(&readers.lock);
        readers.hanging++;
        pthread_cond_broadcast(&readers.changed);
        while (readers.hang)
            pthread_cond_wait(&readers.changed, &readers.lock);
        readers.hanging--;
        pthread_mutex_unlock(&readers.lock);
    }
    g_assert_cmpint(write(pair[1], &byte, 1), ==, 1);
    g_assert_cmpint(pr_reader_arm(pair[1], data, FALSE), ==, 0);
}

static void reader_ask(int pair, char byte)
{
    g_assert_cmpint(write(readers.pairs[pair][0], &byte, 1), ==, 1);
}

/* The answer, while somebody looks at the reader as the main thread does. */
static char reader_answer(int pair)
{
    const gint64 end = g_get_monotonic_time() + READER_PATIENCE_USEC;
    char byte = 0;

    while (recv(readers.pairs[pair][0], &byte, 1, MSG_DONTWAIT) != 1) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        pr_reader_watch();
        g_usleep(PR_READER_LOOK_MSEC * 1000);
    }
    return byte;
}

static void reader_hang(int pair)
{
    int before;

    pthread_mutex_lock(&readers.lock);
    before = readers.hanging;
    reader_ask(pair, 'h');
    while (readers.hanging == before) {
        pthread_mutex_unlock(&readers.lock);
        pr_reader_watch();
        g_usleep(PR_READER_LOOK_MSEC * 1000);
        pthread_mutex_lock(&readers.lock);
    }
    pthread_mutex_unlock(&readers.lock);
}

/* Whoever hangs in the reader holds nobody else up, however many do, and is a reader no more. */
static void test_reader(void)
{
    gint64 end;

    g_assert_cmpint(pr_reader_start(), ==, 0);
    for (int i = 0; i < READER_PAIRS; i++) {
        g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, readers.pairs[i]), ==,
                        0);
        g_assert_cmpint(pr_reader_arm(readers.pairs[i][1], readers.pairs[i], TRUE), ==, 0);
    }
    for (int round = 0; round < 20; round++) {
        pthread_mutex_lock(&readers.lock);
        readers.hang = TRUE;
        pthread_mutex_unlock(&readers.lock);
        for (int stuck = 0; stuck < 3; stuck++) {
            reader_hang(stuck);
            for (int i = 3; i < READER_PAIRS; i++)
                reader_ask(i, (char)('0' + i));
            for (int i = 3; i < READER_PAIRS; i++)
                g_assert_cmpint(reader_answer(i), ==, '0' + i);
        }
        pthread_mutex_lock(&readers.lock);
        g_assert_cmpint(readers.hanging, ==, 3);
        readers.hang = FALSE;
        pthread_cond_broadcast(&readers.changed);
        pthread_mutex_unlock(&readers.lock);
        for (int stuck = 0; stuck < 3; stuck++)
            g_assert_cmpint(reader_answer(stuck), ==, 'h');
    }
    /* where nothing happens nobody has to look */
    end = g_get_monotonic_time() + READER_PATIENCE_USEC;
    while (pr_reader_watch())
        g_assert_cmpint(g_get_monotonic_time(), <, end);
}

/* A device at which many commands have taken long is not read from at once, for a while. */
static void test_quick_device(void)
{
    const gint64 end = g_get_monotonic_time() + READER_PATIENCE_USEC;
    PrDevice *device = pr_device_none();

    g_assert_true(pr_device_is_quick(device));
    pr_device_note_time(device, 20000);
    g_assert_true(pr_device_is_quick(device)); /* once is never */
    for (int i = 0; i < 1000; i++)
        pr_device_note_time(device, 50);
    for (int i = 0; i < 3; i++)
        pr_device_note_time(device, 20000);
    g_assert_true(pr_device_is_quick(device));
    pr_device_note_time(device, 20000);
    g_assert_false(pr_device_is_quick(device));
    while (!pr_device_is_quick(device))
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    for (int i = 0; i < 2; i++)
        pr_device_note_time(device, 20000);
    g_assert_false(pr_device_is_quick(device));
    pr_device_unref(device);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_assert_cmpint(pr_gate_init(), ==, 0);
    g_assert_cmpint(pr_reader_init(reader_serve, sizeof(guint64)), ==, 0);
    g_test_add_func("/prhelper/gate", test_gate);
    g_test_add_func("/prhelper/gate/stuck", test_gate_stuck);
    g_test_add_func("/prhelper/devices/quick", test_quick_device);
    g_test_add_func("/prhelper/reader", test_reader);
    return g_test_run();
}
