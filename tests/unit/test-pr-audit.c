/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The log of reservations: what a record looks like, and that a log that fails or hangs holds up
 * nobody.
 */
#include "prhelper/audit.h"

#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "pr-command.h"

static PrRecord record_of(const Fixture *f)
{
    return (PrRecord){.command = &f->command,
                      .reply = &f->reply,
                      .backend = "sg-io",
                      .time_usec = 1769852527123456, /* 2026-01-31 09:42:07 UTC */
                      .latency_usec = 48211};
}

static void test_format(void)
{
    g_autoptr(GString) text = NULL, json = NULL;
    Fixture f;
    PrRecord record;

    set_up(&f, SPC_OUT_PREEMPT, 0xa, 0xb);
    f.peer.pid = 4711;
    f.peer.vm = (char *)"web \"1\"\n";
    record = record_of(&f);
    text = pr_audit_format_text(&record);
    g_assert_cmpstr(text->str, ==,
                    "2026-01-31T09:42:07.123456Z vm=\"web \\\"1\\\"\\u000a\" pid=4711 uid=64055 "
                    "gid=108 cgroup=/machine.slice/web1.scope device=naa.6001405aa disk=sdb "
                    "kind=scsi action=PREEMPT type=WERO key=0xa service_key=0xb result=GOOD "
                    "status=0 verdict=allowed backend=sg-io latency_usec=48211\n");
    record.backend = NULL;
    record.reason = "no";
    f.reply.status = SPC_STATUS_CHECK_CONDITION;
    memcpy(f.reply.sense, "\x70\0\x05\0\0\0\0\x0a\0\0\0\0\x20\x02", 14);
    f.peer.vm = NULL;
    json = pr_audit_format_json(&record);
    g_assert_cmpstr(json->str, ==,
                    "{\"time\":\"2026-01-31T09:42:07.123456Z\",\"pid\":4711,\"uid\":64055,"
                    "\"gid\":108,\"cgroup\":\"/machine.slice/web1.scope\","
                    "\"device\":\"naa.6001405aa\",\"disk\":\"sdb\",\"kind\":\"scsi\","
                    "\"action\":\"PREEMPT\",\"type\":\"WERO\",\"key\":\"0xa\","
                    "\"service_key\":\"0xb\",\"result\":\"CHECK CONDITION\",\"status\":2,"
                    "\"sense\":\"5/20/02\",\"verdict\":\"refused\",\"reason\":\"no\","
                    "\"latency_usec\":48211}\n");
}

static void assert_has(const char *datagram, gsize len, const char *field)
{
    if (!memmem(datagram, len, field, strlen(field)))
        g_error("the journal does not get '%s'", field);
}

static void test_journal(void)
{
    g_autofree char *dir = g_dir_make_tmp("hf-pr-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "socket", NULL);
    PrAudit *audit = pr_audit_new(PR_AUDIT_JOURNAL, path);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    char datagram[4096] = "";
    ssize_t len;
    char *error = NULL;
    Fixture f;
    PrRecord record;

    g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    g_assert_cmpint(bind(fd, (struct sockaddr *)&address, sizeof(address)), ==, 0);
    g_assert_true(pr_audit_open(audit, &error));
    set_up(&f, SPC_OUT_CLEAR, 0xa, 0);
    f.peer.vm = (char *)"a\nPRIORITY=0";
    record = record_of(&f);
    pr_audit_record(audit, &record);
    len = recv(fd, datagram, sizeof(datagram), 0);
    g_assert_cmpint(len, >, 0);
    assert_has(datagram, (gsize)len, "MESSAGE_ID=" PR_AUDIT_MESSAGE_ID "\n");
    assert_has(datagram, (gsize)len, "\nHOLDFAST_PR_ACTION=CLEAR\n");
    assert_has(datagram, (gsize)len, "\nPRIORITY=6\n");
    /* a value with a newline goes by its length, and is no field of its own */
    assert_has(datagram, (gsize)len, "\nHOLDFAST_PR_VM\n\x0c");
    /* nobody reads: it never blocks, and what is lost is counted */
    for (int i = 0; i < 5000; i++) {
        if (i == 0)
            g_test_expect_message("holdfast.pr", G_LOG_LEVEL_WARNING, "*1 records of commands*");
        pr_audit_record(audit, &record);
    }
    g_test_assert_expected_messages();
    close(fd);
    g_unlink(path);
    g_rmdir(dir);
    pr_audit_free(audit);
}

static guint count_lines(const char *path)
{
    g_autofree char *text = NULL;
    guint lines = 0;

    if (!g_file_get_contents(path, &text, NULL, NULL))
        return 0;
    for (const char *p = text; *p; p++)
        lines += *p == '\n';
    return lines;
}

static void test_file(void)
{
    g_autofree char *dir = g_dir_make_tmp("hf-pr-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "pr.log", NULL);
    g_autofree char *old = g_build_filename(dir, "pr.log.1", NULL);
    PrAudit *audit = pr_audit_new(PR_AUDIT_JSON, path);
    char *error = NULL;
    struct stat st;
    Fixture f;
    PrRecord record;

    g_assert_true(pr_audit_open(audit, &error));
    set_up(&f, SPC_OUT_CLEAR, 0xa, 0);
    record = record_of(&f);
    for (int i = 0; i < 100; i++)
        pr_audit_record(audit, &record);
    /* written when the call returns: what a guest was told is in the log */
    g_assert_cmpuint(count_lines(path), ==, 100);
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpuint(st.st_mode & 0777, ==, 0640);
    g_assert_cmpint(g_rename(path, old), ==, 0);
    pr_audit_record(audit, &record);
    g_assert_cmpuint(count_lines(old), ==, 101);
    pr_audit_reopen(audit);
    pr_audit_record(audit, &record);
    g_assert_cmpuint(count_lines(old), ==, 101);
    g_assert_cmpuint(count_lines(path), ==, 1);
    pr_audit_free(audit);
    g_unlink(path);
    g_unlink(old);
    g_rmdir(dir);
}

/* A disk that is full: the command goes on, and the helper says so once. */
static void test_file_full(void)
{
    PrAudit *audit = pr_audit_new(PR_AUDIT_TEXT, "/dev/full");
    char *error = NULL;
    Fixture f;
    PrRecord record;

    g_assert_true(pr_audit_open(audit, &error));
    set_up(&f, SPC_OUT_CLEAR, 0xa, 0);
    record = record_of(&f);
    g_test_expect_message("holdfast.pr", G_LOG_LEVEL_WARNING, "*No space left*");
    for (int i = 0; i < 10; i++)
        pr_audit_record(audit, &record);
    g_test_assert_expected_messages();
    pr_audit_free(audit);
}

static void test_file_missing(void)
{
    PrAudit *audit = pr_audit_new(PR_AUDIT_TEXT, "/nonexistent/dir/pr.log");
    g_autofree char *error = NULL;

    g_assert_false(pr_audit_open(audit, &error));
    g_assert_nonnull(strstr(error, "/nonexistent/dir"));
    pr_audit_free(audit);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/pr-audit/format", test_format);
    g_test_add_func("/pr-audit/journal", test_journal);
    g_test_add_func("/pr-audit/file", test_file);
    g_test_add_func("/pr-audit/file/full", test_file_full);
    g_test_add_func("/pr-audit/file/missing", test_file_missing);
    return g_test_run();
}
