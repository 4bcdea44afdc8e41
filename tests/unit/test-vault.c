/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The vault with a supervisor that does not read, and without a descriptor to spare. */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/vault.h"

typedef struct Fixture {
    char *dir;
    char *ledger;
    sd_event *event;
    Vault *vault;
    int keeper; /* its end of the pair */
    int stored; /* what is to be stored */
} Fixture;

static void fixture_up(Fixture *fixture, gconstpointer data G_GNUC_UNUSED)
{
    g_autofree char *number = NULL;
    int pair[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), ==, 0);
    number = g_strdup_printf("%d", pair[1]);
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

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add("/vault/waits", Fixture, NULL, fixture_up, test_waits, fixture_down);
    g_test_add("/vault/no-descriptor", Fixture, NULL, fixture_up, test_no_descriptor, fixture_down);
    return g_test_run();
}
