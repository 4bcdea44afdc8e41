/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is said to multipathd, and what becomes of its answers; multipathd is a thread here. */
#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "prhelper/mpath/multipathd.h"

/* A daemon that gives one answer to everything. */
typedef struct Fake {
    char name[64];
    int fd;
    pthread_t thread;
    const char *answer; /* NULL: closes without one */
    gsize said_length;  /* 0: the answer's own */
    GString *heard;     /* commands, each with a newline */
} Fake;

static void *fake_run(void *user_data)
{
    Fake *fake = user_data;
    int fd;

    while ((fd = accept(fake->fd, NULL, NULL)) >= 0) {
        gsize len = 0;
        char command[256] = "";

        g_assert_cmpint(recv(fd, &len, sizeof(len), MSG_WAITALL), ==, sizeof(len));
        g_assert_cmpuint(len, <=, sizeof(command));
        g_assert_cmpint(recv(fd, command, len, MSG_WAITALL), ==, (gssize)len);
        g_assert_true(command[len - 1] == '\0');
        g_string_append_printf(fake->heard, "%s\n", command);
        if (fake->answer) {
            len = fake->said_length ? fake->said_length : strlen(fake->answer) + 1;
            send(fd, &len, sizeof(len), MSG_NOSIGNAL);
            send(fd, fake->answer, strlen(fake->answer) + 1, MSG_NOSIGNAL);
        }
        close(fd);
    }
    return NULL;
}

static void fake_start(Fake *fake, const char *answer)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    gsize len;

    *fake = (Fake){.answer = answer, .heard = g_string_new(NULL)};
    g_snprintf(fake->name, sizeof(fake->name), "/holdfast/test/%d/%p", (int)getpid(), (void *)fake);
    len = strlen(fake->name);
    memcpy(address.sun_path + 1, fake->name, len);
    fake->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(bind(fake->fd, (struct sockaddr *)&address,
                         (socklen_t)(G_STRUCT_OFFSET(struct sockaddr_un, sun_path) + 1 + len)),
                    ==, 0);
    g_assert_cmpint(listen(fake->fd, 8), ==, 0);
    multipathd_set_socket(fake->name);
    g_assert_cmpint(pthread_create(&fake->thread, NULL, fake_run, fake), ==, 0);
}

static void fake_stop(Fake *fake)
{
    shutdown(fake->fd, SHUT_RDWR);
    pthread_join(fake->thread, NULL);
    close(fake->fd);
    g_string_free(fake->heard, TRUE);
}

static void test_keys(void)
{
    char text[256] = "";
    Fake fake;

    fake_start(&fake, "ok\n");
    g_assert_cmpint(multipathd_set_key("mpatha", 0xabc, FALSE, text, sizeof(text)), ==, 0);
    g_assert_cmpint(multipathd_set_key("mpatha", 0xabc, TRUE, text, sizeof(text)), ==, 0);
    g_assert_cmpint(multipathd_unset_key("mpatha", text, sizeof(text)), ==, 0);
    g_assert_cmpstr(text, ==, "");
    g_assert_cmpstr(fake.heard->str, ==,
                    "setprkey map mpatha key 0xabc\nsetprstatus map mpatha\n"
                    "setprkey map mpatha key 0xabc:aptpl\nsetprstatus map mpatha\n"
                    "unsetprstatus map mpatha\nunsetprkey map mpatha\n");
    fake_stop(&fake);
}

static void test_refusal(void)
{
    char text[256] = "";
    Fake fake;

    fake_start(&fake, "fail\n");
    g_assert_cmpint(multipathd_set_key("mpatha", 1, FALSE, text, sizeof(text)), ==, -1);
    g_assert_nonnull(strstr(text, "'fail'"));
    g_assert_nonnull(strstr(text, "reservation_key"));
    fake_stop(&fake);
}

static void test_odd_answers(void)
{
    static const gsize lengths[] = {0, 1, 3, G_MAXSIZE, 64u * 1024 * 1024};

    for (gsize i = 0; i < G_N_ELEMENTS(lengths); i++) {
        char answer[8];
        Fake fake;

        fake_start(&fake, i == 0 ? NULL : "ok\n");
        fake.said_length = lengths[i];
        multipathd_command("show daemon", answer, sizeof(answer));
        g_assert_cmpuint(strlen(answer), <, sizeof(answer));
        fake_stop(&fake);
    }
    {
        char answer[8];
        Fake fake;

        fake_start(&fake, "a long answer of several words");
        g_assert_cmpint(multipathd_command("show daemon", answer, sizeof(answer)), ==, 0);
        g_assert_cmpstr(answer, ==, "a long ");
        fake_stop(&fake);
    }
}

static void test_nobody(void)
{
    char answer[8], text[256] = "";

    multipathd_set_socket("/holdfast/test/nobody");
    g_assert_cmpint(multipathd_command("show daemon", answer, sizeof(answer)), ==, -ECONNREFUSED);
    g_assert_cmpint(multipathd_set_key("mpatha", 1, FALSE, text, sizeof(text)), ==, -1);
    g_assert_nonnull(strstr(text, "multipathd does not know the key"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/multipathd/keys", test_keys);
    g_test_add_func("/multipathd/refusal", test_refusal);
    g_test_add_func("/multipathd/odd-answers", test_odd_answers);
    g_test_add_func("/multipathd/nobody", test_nobody);
    return g_test_run();
}
