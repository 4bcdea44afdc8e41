/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The image check from within: the sandbox, the library's functions, and the small parsers. */
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "holdfast/image.h"
#include "image/json.h"
#include "image/sandbox.h"
#include "image/sha256.h"

typedef struct Fixture {
    char *path;
    int fd;
} Fixture;

static void set_up(Fixture *fixture, const void *data G_GNUC_UNUSED)
{
    fixture->fd = g_file_open_tmp("holdfast-image-XXXXXX", &fixture->path, NULL);
    g_assert_cmpint(fixture->fd, >=, 0);
    g_assert_cmpint(ftruncate(fixture->fd, 1 << 20), ==, 0);
}

static void tear_down(Fixture *fixture, const void *data G_GNUC_UNUSED)
{
    close(fixture->fd);
    g_unlink(fixture->path);
    g_free(fixture->path);
}

/* ---- the sandbox ---------------------------------------------------------------------------- */

static SandboxResult run_deed(int fd, SandboxDeed deed, unsigned timeout_ms, int *ret_status)
{
    g_autofree ImageCheck *check = g_new0(ImageCheck, 1);
    SandboxResult result;

    check->format = image_format_find("raw");
    check->max_size = UINT64_MAX;
    check->fd = fd;
    check->size = 1 << 20;
    result = sandbox_run(check, deed, timeout_ms, ret_status);
    if (result == SANDBOX_DONE)
        g_assert_cmpuint(check->verdict.n_reasons, ==, 0);
    return result;
}

/* What the filter does not allow kills the child, each for itself. */
static void test_sandbox(Fixture *fixture, const void *data G_GNUC_UNUSED)
{
    int status = -1;

    g_assert_cmpint(run_deed(fixture->fd, SANDBOX_CHECK, 30000, &status), ==, SANDBOX_DONE);
    for (int deed = SANDBOX_CHECK + 1; deed < SANDBOX_SPIN; deed++) {
        g_assert_cmpint(run_deed(fixture->fd, (SandboxDeed)deed, 30000, &status), ==, SANDBOX_DIED);
        g_assert_true(WIFSIGNALED(status));
        g_assert_cmpint(WTERMSIG(status), ==, SIGSYS);
    }
}

/* One that does not end is ended. */
static void test_sandbox_time(Fixture *fixture, const void *data G_GNUC_UNUSED)
{
    int status = -1;

    g_assert_cmpint(run_deed(fixture->fd, SANDBOX_SPIN, 100, &status), ==, SANDBOX_TIME_OVER);
    g_assert_true(WIFSIGNALED(status));
    g_assert_cmpint(WTERMSIG(status), ==, SIGKILL);
}

static int signals_seen;

static void count_signal(int number G_GNUC_UNUSED)
{
    signals_seen++;
}

/* The caller's own children, handlers and mask are left alone. */
static void test_sandbox_unseen(Fixture *fixture, const void *data G_GNUC_UNUSED)
{
    const struct sigaction count = {.sa_handler = count_signal};
    struct sigaction before;
    sigset_t mask, mask_after;
    int status = -1;

    g_assert_cmpint(sigaction(SIGCHLD, &count, &before), ==, 0);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    g_assert_cmpint(run_deed(fixture->fd, SANDBOX_CHECK, 30000, &status), ==, SANDBOX_DONE);
    g_assert_cmpint(signals_seen, ==, 0);
    pthread_sigmask(SIG_SETMASK, NULL, &mask_after);
    for (int number = 1; number < NSIG; number++)
        g_assert_cmpint(sigismember(&mask, number), ==, sigismember(&mask_after, number));
    g_assert_cmpint(waitpid(-1, &status, WNOHANG), ==, -1);
    g_assert_cmpint(errno, ==, ECHILD);
    sigaction(SIGCHLD, &before, NULL);
}

/* ---- the library ---------------------------------------------------------------------------- */

static int check_fd(int fd, const char *format, uint64_t max_size, hf_image_result **ret_result,
                    hf_error **ret_error)
{
    const hf_image_options options = {
        .size = sizeof(options), .format = format, .max_size = max_size};

    return hf_image_check(fd, &options, ret_result, ret_error);
}

static void assert_refused(int code, hf_code expected, hf_error *error)
{
    g_assert_cmpint(code, ==, expected);
    g_assert_cmpint(hf_error_code(error), ==, expected);
    g_assert_cmpstr(hf_error_message(error), !=, "");
    hf_error_free(error);
}

static void test_check(Fixture *fixture, const void *data G_GNUC_UNUSED)
{
    hf_image_result *result = NULL;
    uint64_t bytes = 0;

    g_assert_cmpint(lseek(fixture->fd, 123, SEEK_SET), ==, 123);
    g_assert_cmpint(check_fd(fixture->fd, "raw", 0, &result, NULL), ==, 0);
    g_assert_true(hf_image_is_safe(result));
    g_assert_true(hf_image_disk_size(result, &bytes));
    g_assert_cmpuint(bytes, ==, 1 << 20);
    g_assert_cmpuint(hf_image_reasons_count(result), ==, 0);
    g_assert_null(hf_image_reasons_get(result, 0));
    hf_image_result_free(result);
    g_assert_cmpint(lseek(fixture->fd, 0, SEEK_CUR), ==, 123);

    g_assert_cmpint(check_fd(fixture->fd, "raw", 4096, &result, NULL), ==, 0);
    g_assert_false(hf_image_is_safe(result));
    g_assert_cmpuint(hf_image_reasons_count(result), ==, 1);
    g_assert_cmpstr(hf_image_reasons_get(result, 0)->id, ==, "size-limit");
    g_assert_false(hf_image_reasons_get(result, 0)->allowed);
    hf_image_result_free(result);
    hf_image_result_free(NULL);
}

static void test_check_allowed(Fixture *fixture, const void *data G_GNUC_UNUSED)
{
    const char *const allow[] = {"also-qed", "size-limit", NULL};
    const hf_image_options options = {
        .size = sizeof(options), .format = "raw", .max_size = 1, .allow = allow};
    hf_image_result *result = NULL;

    g_assert_cmpint(hf_image_check(fixture->fd, &options, &result, NULL), ==, 0);
    g_assert_true(hf_image_is_safe(result));
    g_assert_cmpuint(hf_image_reasons_count(result), ==, 1);
    g_assert_true(hf_image_reasons_get(result, 0)->allowed);
    hf_image_result_free(result);
}

static void test_check_refused(Fixture *fixture, const void *data G_GNUC_UNUSED)
{
    const char *const allow[] = {"anything", NULL};
    const hf_image_options options = {.size = sizeof(options), .format = "raw", .allow = allow};
    const hf_image_options empty = {0};
    hf_error *error = NULL;
    int fd, fds[2], code;

    code = check_fd(fixture->fd, "bochs", 0, NULL, &error);
    assert_refused(code, HF_ERR_INVALID_ARGUMENT, error);
    code = check_fd(fixture->fd, NULL, 0, NULL, &error);
    assert_refused(code, HF_ERR_INVALID_ARGUMENT, error);
    code = hf_image_check(fixture->fd, &options, NULL, &error);
    assert_refused(code, HF_ERR_INVALID_ARGUMENT, error);
    code = hf_image_check(fixture->fd, &empty, NULL, &error);
    assert_refused(code, HF_ERR_INVALID_ARGUMENT, error);
    code = check_fd(-1, "raw", 0, NULL, &error);
    assert_refused(code, HF_ERR_BAD_RESOURCE, error);

    g_assert_cmpint(pipe(fds), ==, 0);
    code = check_fd(fds[0], "raw", 0, NULL, &error);
    assert_refused(code, HF_ERR_BAD_RESOURCE, error);
    close(fds[0]);
    close(fds[1]);
    for (int flags = 0; flags < 3; flags++) {
        static const int modes[] = {O_PATH, O_WRONLY, O_RDONLY | O_DIRECTORY};

        fd = open(flags == 2 ? "/" : fixture->path, modes[flags] | O_CLOEXEC);
        g_assert_cmpint(fd, >=, 0);
        code = check_fd(fd, "raw", 0, NULL, &error);
        assert_refused(code, HF_ERR_BAD_RESOURCE, error);
        close(fd);
    }
    fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    code = check_fd(fd, "raw", 0, NULL, &error);
    assert_refused(code, HF_ERR_BAD_RESOURCE, error);
    close(fd);
}

/* Standard descriptors may be closed, or be the image. */
static void test_check_descriptors(Fixture *fixture, const void *data G_GNUC_UNUSED)
{
    if (g_test_subprocess()) {
        int fd = open("/dev/null", O_RDONLY);

        for (int low = 0; low < 3; low++) {
            g_assert_cmpint(dup2(fixture->fd, low), ==, low);
            if (check_fd(low, "raw", 0, NULL, NULL) != 0)
                _exit(10 + low);
            close(low);
        }
        close(fd);
        if (check_fd(fixture->fd, "raw", 0, NULL, NULL) != 0)
            _exit(20);
        g_unlink(fixture->path);
        _exit(0);
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_passed();
}

static void *check_often(void *data)
{
    const Fixture *fixture = data;

    for (int i = 0; i < 50; i++) {
        if (check_fd(fixture->fd, "raw", 0, NULL, NULL) != 0)
            return (void *)1;
    }
    return NULL;
}

static void test_check_threads(Fixture *fixture, const void *data G_GNUC_UNUSED)
{
    GThread *threads[4];

    for (size_t i = 0; i < G_N_ELEMENTS(threads); i++)
        threads[i] = g_thread_new("check", check_often, fixture);
    for (size_t i = 0; i < G_N_ELEMENTS(threads); i++)
        g_assert_null(g_thread_join(threads[i]));
}

static void test_names(void)
{
    const char *text = NULL;
    size_t n = 0;

    while (hf_image_format(n))
        n++;
    g_assert_cmpuint(n, ==, 11);
    for (n = 0; hf_image_reason_name(n, &text); n++) {
        g_assert_cmpuint(image_reason_find(hf_image_reason_name(n, NULL)), ==, n);
        g_assert_true(g_str_has_suffix(text, "."));
    }
    g_assert_cmpuint(n, ==, IMAGE_N_REASONS);
}

/* ---- bounds --------------------------------------------------------------------------------- */

/* More reasons than are kept do not get lost: the image is unsafe. */
static void test_many_reasons(void)
{
    g_autofree ImageCheck *check = g_new0(ImageCheck, 1);

    for (int i = 0; i < IMAGE_MAX_REASONS + 5; i++)
        image_reason(check, IMAGE_BAD_ENTRY, 0, "Reason %d.", i);
    g_assert_cmpuint(check->verdict.n_reasons, ==, IMAGE_MAX_REASONS);
    g_assert_cmpuint(check->verdict.n_more, ==, 5);
}

/* Who reads on and on is stopped by the budget, and who reads outside fails. */
static void test_budget(void)
{
    g_autofree ImageCheck *check = g_new0(ImageCheck, 1);
    static const uint8_t nothing[1];
    ImageTable table;
    uint64_t entries = 0;

    check->memory = nothing;
    check->memory_len = 1;
    check->size = (uint64_t)1 << 40;
    check->budget = IMAGE_BUDGET;
    image_table_begin(&table, 0, (uint64_t)1 << 30, 512);
    while (image_table_next(check, &table))
        entries++;
    g_assert_cmpuint(entries, ==, IMAGE_BUDGET / 512);
    g_assert_cmpuint(check->verdict.n_reasons, ==, 1);
    g_assert_cmpuint(check->verdict.reasons[0].id, ==, IMAGE_TOO_MUCH_METADATA);
    g_assert_cmpuint(check->verdict.failed, ==, 0);
    image_grant(check, UINT64_MAX);
    g_assert_false(image_read(check, check->size - 1, check->chunk, 2));
    g_assert_cmpuint(check->verdict.failed, ==, 1);
}

static off_t change_at;

/* Between the first look at the file and the last. */
static void change_file(ImageCheck *check)
{
    image_set_size(check, 0, check->size);
    g_assert_cmpint(pwrite(check->fd, "x", 1, change_at), ==, 1);
}

/* What formats are told by is looked at again: the head, the tail, and the places between. */
static void test_changes(Fixture *fixture, const void *data G_GNUC_UNUSED)
{
    static const ImageFormat format = {.name = "changing", .title = "x", .check = change_file};
    static const struct {
        off_t at;
        uint32_t failed;
    } rows[] = {{0, 1},
                {IMAGE_HEAD - 1, 1},
                {IMAGE_HEAD, 0},
                {0x10005, 1},
                {0x80000, 1},
                {0x90000, 0},
                {(1 << 20) - (off_t)IMAGE_TAIL - 1, 0},
                {(1 << 20) - (off_t)IMAGE_TAIL, 1},
                {(1 << 20) - 1, 1}};
    g_autofree ImageCheck *check = g_new0(ImageCheck, 1);

    check->format = &format;
    check->max_size = UINT64_MAX;
    check->fd = g_open(fixture->path, O_RDWR | O_CLOEXEC);
    check->size = 1 << 20;
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        change_at = rows[i].at;
        image_check(check);
        g_assert_cmpuint(check->verdict.failed, ==, rows[i].failed);
    }
    close(check->fd);
}

/* ---- SHA-256 and JSON ----------------------------------------------------------------------- */

/* Both ways of it, wherever the bytes lie; on a processor without instructions there is one. */
static void test_sha256(void)
{
    guint8 memory[2000 + 1], *bytes = memory + 1;
    const size_t size_of_bytes = sizeof(memory) - 1;

    g_test_message("%s", sha256_x86() ? "with instructions" : "without instructions");
    for (size_t i = 0; i < size_of_bytes; i++)
        bytes[i] = (guint8)(i * i * 7 + i);
    for (size_t length = 0; length <= size_of_bytes; length++) {
        g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
        guint8 ours[SHA256_SIZE], portable[SHA256_SIZE], theirs[SHA256_SIZE];
        gsize size = sizeof(theirs);

        g_checksum_update(sum, bytes, (gssize)length);
        g_checksum_get_digest(sum, theirs, &size);
        sha256(bytes, length, ours);
        sha256_portable(bytes, length, portable);
        g_assert_cmpuint(size, ==, sizeof(ours));
        g_assert_true(memcmp(ours, theirs, sizeof(ours)) == 0);
        g_assert_true(memcmp(portable, theirs, sizeof(portable)) == 0);
    }
}

static bool count_value(JsonReader *reader, JsonKind kind, JsonText text)
{
    int *values = reader->data;

    if (kind == JSON_STRING || kind == JSON_OTHER)
        (*values)++;
    return !json_is(text, "stop");
}

static int count_json(const char *text)
{
    int values = 0;
    JsonReader reader = {.value = count_value, .data = &values};

    return json_read(&reader, text, strlen(text)) ? values : -1;
}

static void test_json(void)
{
    static const struct {
        const char *text;
        int values; /* -1: no JSON */
    } rows[] = {
        {"{}", 0},
        {" [ ] ", 0},
        {"{\"a\":1,\"b\":[true,false,null,-0.5e+3,\"x\\n\\u00e9\"]}", 6},
        {"\"text\"", 1},
        {"", -1},
        {"{", -1},
        {"{\"a\"}", -1},
        {"{\"a\":}", -1},
        {"{\"a\":1,}", -1},
        {"{\"\\u0061\":1}", -1},
        {"[1,]", -1},
        {"[1 2]", -1},
        {"01", -1},
        {"1.", -1},
        {"1e", -1},
        {"-", -1},
        {"+1", -1},
        {"nul", -1},
        {"\"\\x\"", -1},
        {"\"\\u12g4\"", -1},
        {"\"a\nb\"", -1},
        {"\"open", -1},
        {"\"\\", -1},
        {"1 1", -1},
        {"[\"stop\", 1]", -1},
        {"[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]", 1},
        {"[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]", -1},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_test_message("%s", rows[i].text);
        g_assert_cmpint(count_json(rows[i].text), ==, rows[i].values);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define TEST_FILE(name, function) g_test_add(name, Fixture, NULL, set_up, function, tear_down)
    TEST_FILE("/image/sandbox", test_sandbox);
    TEST_FILE("/image/sandbox/time", test_sandbox_time);
    TEST_FILE("/image/sandbox/unseen", test_sandbox_unseen);
    TEST_FILE("/image/check", test_check);
    TEST_FILE("/image/check/allowed", test_check_allowed);
    TEST_FILE("/image/check/refused", test_check_refused);
    TEST_FILE("/image/check/descriptors", test_check_descriptors);
    TEST_FILE("/image/check/threads", test_check_threads);
    TEST_FILE("/image/changes", test_changes);
    g_test_add_func("/image/names", test_names);
    g_test_add_func("/image/many-reasons", test_many_reasons);
    g_test_add_func("/image/budget", test_budget);
    g_test_add_func("/image/sha256", test_sha256);
    g_test_add_func("/image/json", test_json);
    return g_test_run();
}
