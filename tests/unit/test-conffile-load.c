/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Configuration files as they are found on a disk: missing, forbidden, too large, or no files at
 * all. What is in them is the business of test-conffile.c.
 */
#include "core/conffile.h"

#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct Fixture {
    char *dir;
    char *path;
} Fixture;

static void fixture_up(Fixture *f, gconstpointer data G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;

    f->dir = g_dir_make_tmp("holdfast-conffile-XXXXXX", &error);
    g_assert_no_error(error);
    f->path = g_build_filename(f->dir, "t.conf", NULL);
}

static void fixture_down(Fixture *f, gconstpointer data G_GNUC_UNUSED)
{
    g_remove(f->path);
    g_assert_cmpint(g_rmdir(f->dir), ==, 0);
    g_free(f->path);
    g_free(f->dir);
}

static void fixture_write(Fixture *f, const char *text)
{
    g_assert_true(g_file_set_contents(f->path, text, -1, NULL));
}

/* Nothing but a comment, of so many bytes. */
static void fixture_write_comment(Fixture *f, gsize size)
{
    g_autofree char *text = g_strnfill(size, '#');

    fixture_write(f, text);
}

static void assert_load_fails(const char *path, ConfFileError code, const char *message)
{
    g_autofree char *prefix = g_strconcat(path, ": ", NULL);
    g_autoptr(GError) error = NULL;

    g_assert_null(conffile_load(path, &error));
    g_assert_error(error, CONFFILE_ERROR, (int)code);
    g_assert_true(g_str_has_prefix(error->message, prefix));
    g_assert_nonnull(strstr(error->message, message));
}

static void test_load(Fixture *f, gconstpointer data G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(ConfFile) file = NULL;
    g_autofree char *prefix = g_strconcat(f->path, ":2: ", NULL);

    fixture_write(f, "a = \"x\"\nb = 2");
    file = conffile_load(f->path, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(file->name, ==, f->path);
    g_assert_cmpint(conffile_lookup(file, "b")->number, ==, 2);

    fixture_write(f, "a = \"x\"\nb = \n");
    g_assert_null(conffile_load(f->path, &error));
    g_assert_error(error, CONFFILE_ERROR, CONFFILE_ERROR_SYNTAX);
    g_assert_true(g_str_has_prefix(error->message, prefix));
}

static void test_load_size(Fixture *f, gconstpointer data G_GNUC_UNUSED)
{
    g_autoptr(ConfFile) file = NULL;
    g_autoptr(GError) error = NULL;

    fixture_write_comment(f, 3 * CONFFILE_SIZE_MAX);
    assert_load_fails(f->path, CONFFILE_ERROR_TOO_LARGE, "larger than 1 MiB");
    fixture_write_comment(f, CONFFILE_SIZE_MAX + 1);
    assert_load_fails(f->path, CONFFILE_ERROR_TOO_LARGE, "larger than 1 MiB");
    fixture_write_comment(f, CONFFILE_SIZE_MAX);
    file = conffile_load(f->path, &error);
    g_assert_no_error(error);
    /* A device without an end stops at the limit too. */
    assert_load_fails("/dev/zero", CONFFILE_ERROR_TOO_LARGE, "larger than 1 MiB");
}

static void test_load_missing(Fixture *f, gconstpointer data G_GNUC_UNUSED)
{
    g_autofree char *below = NULL;

    assert_load_fails(f->path, CONFFILE_ERROR_MISSING, "can't open the file: ");
    assert_load_fails("", CONFFILE_ERROR_MISSING, "can't open the file: ");
    fixture_write(f, "a=1\n");
    below = g_build_filename(f->path, "x", NULL);
    assert_load_fails(below, CONFFILE_ERROR_MISSING, "can't open the file: ");
}

static void test_load_not_a_file(Fixture *f, gconstpointer data G_GNUC_UNUSED)
{
    assert_load_fails(f->dir, CONFFILE_ERROR_READ, "this is a directory, not a file");
    g_assert_cmpint(mkfifo(f->path, 0600), ==, 0);
    assert_load_fails(f->path, CONFFILE_ERROR_READ, "this is a FIFO, not a file");
    g_assert_cmpint(g_unlink(f->path), ==, 0);
    g_assert_cmpint(symlink(f->path, f->path), ==, 0);
    assert_load_fails(f->path, CONFFILE_ERROR_READ, "can't open the file: ");
}

static void test_load_null(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(ConfFile) file = conffile_load("/dev/null", &error);

    g_assert_no_error(error);
    g_assert_cmpuint(file->entries->len, ==, 0);
}

static void test_load_forbidden(Fixture *f, gconstpointer data G_GNUC_UNUSED)
{
    gboolean root = geteuid() == 0;

    fixture_write(f, "a=1\n");
    g_assert_cmpint(g_chmod(f->path, 0), ==, 0);
    if (root) /* who may read everything: be nobody for the moment */
        g_assert_cmpint(seteuid(65534), ==, 0);
    assert_load_fails(f->path, CONFFILE_ERROR_READ, "can't open the file: ");
    if (root)
        g_assert_cmpint(seteuid(0), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add("/conffile/load", Fixture, NULL, fixture_up, test_load, fixture_down);
    g_test_add("/conffile/load-size", Fixture, NULL, fixture_up, test_load_size, fixture_down);
    g_test_add("/conffile/load-missing", Fixture, NULL, fixture_up, test_load_missing,
               fixture_down);
    g_test_add("/conffile/load-not-a-file", Fixture, NULL, fixture_up, test_load_not_a_file,
               fixture_down);
    g_test_add_func("/conffile/load-null", test_load_null);
    g_test_add("/conffile/load-forbidden", Fixture, NULL, fixture_up, test_load_forbidden,
               fixture_down);
    return g_test_run();
}
