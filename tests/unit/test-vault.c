/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The vault with a supervisor that does not read, or has no room, and without a descriptor to
 * spare; and what the engine may write to the ledger meanwhile. */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/driver.h"
#include "daemon/engine.h"
#include "daemon/vault.h"
#include "drivers/drivers.h"
#include "keeper/keeper.h"
#include "protocol/ledger.h"

typedef struct Fixture {
    char *dir;
    char *ledger;
    sd_event *event;
    Vault *vault;
    int keeper; /* its end of the pair */
    int stored; /* what is to be stored */
} Fixture;

/* `data`: what the keeper says behind the number of the socket. */
static void fixture_up(Fixture *fixture, gconstpointer data)
{
    g_autofree char *number = NULL;
    int pair[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), ==, 0);
    number = g_strdup_printf("%d%s", pair[1], data ? (const char *)data : "");
    g_setenv("HOLDFAST_KEEPER", number, TRUE);
    fixture->dir = g_dir_make_tmp("hf-vault-XXXXXX", NULL);
    fixture->ledger = g_build_filename(fixture->dir, "ledger", NULL);
    fixture->keeper = pair[0];
    fixture->stored = open("/dev/null", O_RDONLY | O_CLOEXEC);
    g_assert_cmpint(fixture->stored, >=, 0);
    g_assert_cmpint(sd_event_new(&fixture->event), >=, 0);
    g_assert_cmpint(vault_new(fixture->event, fixture->ledger, &fixture->vault), >=, 0);
    g_assert_cmpint(vault_kind(fixture->vault), ==, VAULT_KEEPER);
}

static void fixture_down(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    vault_free(fixture->vault);
    sd_event_unref(fixture->event);
    close(fixture->keeper);
    close(fixture->stored);
    g_unlink(fixture->ledger);
    g_rmdir(fixture->dir);
    g_free(fixture->ledger);
    g_free(fixture->dir);
}

/* Reads one message; its text, and whether a descriptor came with it. */
static char *keeper_reads(Fixture *fixture, gboolean *ret_fd)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    char text[512];
    struct iovec iov = {.iov_base = text, .iov_len = sizeof(text)};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    const struct cmsghdr *cmsg;
    ssize_t n = recvmsg(fixture->keeper, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    int fd;

    if (n <= 0)
        return NULL;
    cmsg = CMSG_FIRSTHDR(&message);
    *ret_fd = cmsg != NULL;
    if (cmsg) {
        memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
        close(fd);
    }
    return g_strndup(text, (gsize)n);
}

/* Reads all, letting the vault send what waits; how many messages had the name, each with a
 * descriptor. */
static guint keeper_reads_all(Fixture *fixture, const char *name)
{
    g_autofree char *line = g_strdup_printf("FDNAME=%s\n", name);
    guint found = 0;

    do {
        gboolean has_fd;
        char *text;

        while ((text = keeper_reads(fixture, &has_fd))) {
            if (strstr(text, line)) {
                found++;
                g_assert_true(has_fd);
            }
            g_free(text);
        }
    } while (sd_event_run(fixture->event, 0) > 0);
    return found;
}

static void done(void *data)
{
    (*(guint *)data)++;
}

/* Fills the socket with what needs no descriptor; the commit that waits for it. */
static void fill(Fixture *fixture, guint *commits)
{
    guint before;

    do {
        before = *commits;
        vault_remove(fixture->vault, "none");
        vault_commit(fixture->vault, "", 0, done, commits);
    } while (*commits > before);
}

static void test_waits(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    guint commits = 0, sent;

    fill(fixture, &commits);
    sent = commits;
    g_assert_true(vault_store(fixture->vault, "a", fixture->stored));
    vault_commit(fixture->vault, "", 0, done, &commits);
    g_assert_cmpuint(commits, ==, sent);
    g_assert_cmpuint(keeper_reads_all(fixture, "a"), ==, 1);
    g_assert_cmpuint(commits, ==, sent + 2);
}

/* Without a descriptor for a copy nothing is stored, and it is said. */
static void test_no_descriptor(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    struct rlimit limit, none;
    guint commits = 0, count = vault_count(fixture->vault);
    gboolean stored;

    fill(fixture, &commits);
    g_assert_cmpint(getrlimit(RLIMIT_NOFILE, &limit), ==, 0);
    none = limit;
    none.rlim_cur = 3;
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &none), ==, 0);
    stored = vault_store(fixture->vault, "a", fixture->stored);
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &limit), ==, 0);
    g_assert_false(stored);
    g_assert_cmpuint(vault_count(fixture->vault), ==, count);
    g_assert_true(vault_store(fixture->vault, "b", fixture->stored));
    g_assert_cmpuint(keeper_reads_all(fixture, "b"), ==, 1);
    g_assert_true(vault_store(fixture->vault, "a", fixture->stored));
    g_assert_cmpuint(keeper_reads_all(fixture, "a"), ==, 1);
}

/* The keeper has no room for a descriptor, and says so. */
static void refused(const char *name, void *data)
{
    g_string_append(data, name);
}

static void test_refused(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    static const char *const said[] = {"FDSTOREFAILED=1\nFDNAME=a\n", "FDSTOREFAILED=1\n", "x",
                                       "FDSTOREFAILED=1\nFDNAME=none\n"};
    g_autoptr(GString) names = g_string_new(NULL);

    vault_on_refused(fixture->vault, refused, names);
    g_assert_true(vault_store(fixture->vault, "a", fixture->stored));
    g_assert_true(vault_has_all(fixture->vault));
    for (gsize i = 0; i < G_N_ELEMENTS(said); i++)
        g_assert_cmpint(send(fixture->keeper, said[i], strlen(said[i]), 0), >, 0);
    while (sd_event_run(fixture->event, 0) > 0)
        ;
    g_assert_cmpstr(names->str, ==, "a");
    g_assert_false(vault_has_all(fixture->vault));
    vault_remove(fixture->vault, "a");
    g_assert_true(vault_has_all(fixture->vault));
}

/* Names are short, differ, and those that were found are not given out again. */
static void test_names(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    static const char *const taken[] = {"5", "1a", "00", "s-native", "a b", "zzzzzzzz"};

    for (gsize i = 0; i < G_N_ELEMENTS(taken); i++) {
        g_assert_true(vault_store(fixture->vault, taken[i], fixture->stored));
        g_hash_table_add(seen, g_strdup(taken[i]));
    }
    for (int i = 0; i < 10000; i++) {
        char *name = vault_new_name(fixture->vault);

        g_assert_cmpuint(strlen(name), <=, 3);
        g_assert_true(g_hash_table_add(seen, name));
    }
    g_assert_cmpuint(vault_count(fixture->vault), ==, g_hash_table_size(seen));
    vault_remove(fixture->vault, "77");
    vault_remove(fixture->vault, "5");
    vault_remove(fixture->vault, "5");
    g_assert_cmpuint(vault_count(fixture->vault), ==, g_hash_table_size(seen) - 2);
    for (int i = 0; i < 2; i++) {
        g_autofree char *name = vault_new_name(fixture->vault);

        g_assert_true(strcmp(name, "5") == 0 || strcmp(name, "77") == 0);
    }
    g_assert_cmpuint(vault_count(fixture->vault), ==, g_hash_table_size(seen));
}

static gboolean ledger_names(Fixture *fixture, const char *what)
{
    g_autofree char *text = NULL;

    return g_file_get_contents(fixture->ledger, &text, NULL, NULL) && strstr(text, what);
}

/* How many leases the next daemon would find. */
static guint ledger_leases(Fixture *fixture)
{
    Ledger *ledger;
    gsize len;
    char *text;
    guint n;

    g_assert_true(g_file_get_contents(fixture->ledger, &text, &len, NULL));
    ledger = ledger_parse(text, len, NULL);
    g_assert_nonnull(ledger);
    g_assert_cmpuint(ledger->damaged, ==, 0);
    n = g_hash_table_size(ledger->leases);
    ledger_free(ledger);
    return n;
}

/* The ledger never names a lease whose descriptors wait, not even when it is written anew. */
static void test_rewrite_waits(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    g_autoptr(GHashTable) drivers = g_hash_table_new(g_str_hash, g_str_equal);
    g_autoptr(GPtrArray) leases = g_ptr_array_new();
    g_autoptr(Owner) owner = owner_new("web1", NULL, NULL, 0, 0);
    const EngineConfig config = {.host = "here", .lane_threads = 1};
    Driver *driver = driver_new(&hf_driver_lockd, "lockd", NULL);
    const Resource resource = {driver, (char *)"", (char *)"/srv/a.img"};
    guint commits = 0, kept = 0;
    LeasePart *part;
    Engine *engine;
    Lease *lease;

    g_hash_table_insert(drivers, (gpointer) "lockd", driver);
    g_assert_cmpint(engine_new(fixture->event, &config, drivers, "lockd", fixture->vault, &engine),
                    >=, 0);
    g_assert_cmpuint(handover_adopt(engine), ==, 0);
    lease = lease_new(owner, "/srv/a.img", HF_MODE_EXCLUSIVE, 1);
    part = lease_add_part(lease, &resource, NULL);
    part->survives = TRUE;
    part->saved = g_new0(struct hf_saved, 1);
    part->saved->fds[part->saved->n_fds++] = fixture->stored;
    table_insert(engine->table, lease);
    g_ptr_array_add(leases, lease);

    fill(fixture, &commits);
    handover_keep(engine, leases, done, &kept);
    lease->state = LEASE_HELD;
    handover_compact(engine, TRUE);
    handover_update(engine, lease);
    g_assert_cmpuint(kept, ==, 0);
    g_assert_false(ledger_names(fixture, "/srv/a.img"));

    keeper_reads_all(fixture, "0");
    g_assert_cmpuint(kept, ==, 1);
    g_assert_true(ledger_names(fixture, "/srv/a.img"));
    g_assert_cmpint(g_unlink(fixture->ledger), ==, 0);
    handover_compact(engine, TRUE);
    g_assert_true(ledger_names(fixture, "/srv/a.img"));

    /* nor one that is free, whatever of it still waited */
    fill(fixture, &commits);
    handover_update(engine, lease);
    table_remove(engine->table, lease);
    handover_forget_lease(engine, lease);
    g_assert_cmpuint(keeper_reads_all(fixture, "no such line"), ==, 0);
    g_assert_cmpuint(ledger_leases(fixture), ==, 0);
    lease_free(lease);
    g_assert_true(engine_free(engine));
    driver_free(driver);
}

/* Reads one message; its text, and how many descriptors came with it. */
static char *keeper_reads_batch(Fixture *fixture, guint *ret_fds)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int) * KEEPER_MAX_FDS)];
    } control;
    char text[KEEPER_MESSAGE_BYTES];
    struct iovec iov = {.iov_base = text, .iov_len = sizeof(text)};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    ssize_t n = recvmsg(fixture->keeper, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    const struct cmsghdr *cmsg;

    if (n <= 0)
        return NULL;
    g_assert_cmpint(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC), ==, 0);
    cmsg = CMSG_FIRSTHDR(&message);
    *ret_fds = cmsg ? (guint)((cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int)) : 0;
    for (guint i = 0; i < *ret_fds; i++) {
        int fd;

        memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(fd), sizeof(fd));
        g_assert_cmpint(close(fd), ==, 0);
    }
    return g_strndup(text, (gsize)n);
}

/* Reads one message, which has as many names as descriptors, from `first` on. */
static void assert_batch(Fixture *fixture, guint first, guint count)
{
    g_autoptr(GString) expected = g_string_new("FDSTORE=1\nFDPOLL=0\n");
    guint n = 0;
    g_autofree char *text = keeper_reads_batch(fixture, &n);

    for (guint i = first; i < first + count; i++)
        g_string_append_printf(expected, "FDNAME=%031u\n", i);
    g_assert_cmpstr(text, ==, expected->str);
    g_assert_cmpuint(n, ==, count);
}

static void store(Fixture *fixture, guint number)
{
    g_autofree char *name = g_strdup_printf("%031u", number); /* the longest there is */

    g_assert_true(vault_store(fixture->vault, name, fixture->stored));
}

static void test_batch(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    guint commits = 0, n;

    vault_hold(fixture->vault);
    for (guint i = 0; i < KEEPER_MAX_FDS + 3; i++)
        store(fixture, i);
    assert_batch(fixture, 0, KEEPER_MAX_FDS);
    g_assert_null(keeper_reads_batch(fixture, &n));
    vault_commit(fixture->vault, "", 0, done, &commits);
    g_assert_cmpuint(commits, ==, 1);
    assert_batch(fixture, KEEPER_MAX_FDS, 3);
    store(fixture, 100); /* it is over */
    assert_batch(fixture, 100, 1);
}

/* What is removed was stored before. */
static void test_batch_order(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    g_autofree char *text = NULL;
    guint n;

    vault_hold(fixture->vault);
    store(fixture, 1);
    store(fixture, 2);
    vault_remove(fixture->vault, "other");
    assert_batch(fixture, 1, 2);
    text = keeper_reads_batch(fixture, &n);
    g_assert_cmpstr(text, ==, "FDSTOREREMOVE=1\nFDNAME=other\n");
    g_assert_cmpuint(n, ==, 0);
}

/* An older keeper gets one with each message, and so does one whose socket is full. */
static void test_no_batch(Fixture *fixture, gconstpointer data)
{
    guint commits = 0;

    if (data)
        fill(fixture, &commits);
    vault_hold(fixture->vault);
    store(fixture, 1);
    store(fixture, 2);
    vault_commit(fixture->vault, "", 0, done, &commits);
    if (data) {
        g_assert_cmpuint(keeper_reads_all(fixture, "0000000000000000000000000000001"), ==, 1);
        return;
    }
    assert_batch(fixture, 1, 1);
    assert_batch(fixture, 2, 1);
}

int main(int argc, char **argv)
{
    const char *batches = " 64";

    g_test_init(&argc, &argv, NULL);
    g_test_add("/vault/waits", Fixture, NULL, fixture_up, test_waits, fixture_down);
    g_test_add("/vault/no-descriptor", Fixture, NULL, fixture_up, test_no_descriptor, fixture_down);
    g_test_add("/vault/refused", Fixture, NULL, fixture_up, test_refused, fixture_down);
    g_test_add("/vault/names", Fixture, NULL, fixture_up, test_names, fixture_down);
    g_test_add("/vault/rewrite-waits", Fixture, NULL, fixture_up, test_rewrite_waits, fixture_down);
    g_test_add("/vault/batch", Fixture, batches, fixture_up, test_batch, fixture_down);
    g_test_add("/vault/batch-order", Fixture, batches, fixture_up, test_batch_order, fixture_down);
    g_test_add("/vault/no-batch/old", Fixture, NULL, fixture_up, test_no_batch, fixture_down);
    g_test_add("/vault/no-batch/full", Fixture, batches, fixture_up, test_no_batch, fixture_down);
    return g_test_run();
}
