/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The settings: defaults, how files are merged, and that the table, the shipped holdfast.conf and
 * libvirt's own files agree. What each key takes is in test-settings-values.c.
 *
 * G_TEST_SRCDIR has to name the directory of this file for the tests that read shipped files.
 */
#include "settings-help.h"

#include <glib/gstdio.h>

#include "mutate.h"

/* ---- defaults and the table ------------------------------------------------------------ */

static void test_defaults(void)
{
    g_autoptr(Settings) s = settings_new();

    g_assert_null(s->native_socket);
    g_assert_null(s->socket_group);
    g_assert_null(s->virtlockd_socket);
    g_assert_null(s->lockd_conf);
    g_assert_cmpstr(s->default_driver, ==, "lockd");
    g_assert_null(s->driver_dir);
    g_assert_cmpuint(s->driver_config->len, ==, 0);
    g_assert_null(s->host_name);
    g_assert_cmpuint(s->request_timeout, ==, 30);
    g_assert_cmpuint(s->kill_timeout, ==, 10);
    g_assert_cmpuint(s->lane_threads, ==, 16);
    g_assert_cmpuint(s->log_level, ==, SETTINGS_LOG_WARNING);
    g_assert_cmpuint(s->log_filters->len, ==, 0);
    g_assert_cmpuint(s->log_outputs->len, ==, 0);
    g_assert_true(s->auto_disk_leases);
    g_assert_false(s->require_lease_for_disks);
    g_assert_null(s->file_lockspace_dir);
    g_assert_null(s->lvm_lockspace_dir);
    g_assert_null(s->scsi_lockspace_dir);
    for (guint i = 0; i < SETTINGS_KEY_COUNT; i++)
        g_assert_cmpint(settings_origin(s, &settings_keys()[i]), ==, SETTINGS_DEFAULT);
    settings_free(NULL);
}

static void test_table(void)
{
    const SettingsKey *keys = settings_keys();

    for (guint i = 0; i < SETTINGS_KEY_COUNT; i++) {
        g_assert_true(settings_find_key(keys[i].name) == &keys[i]);
        g_assert_cmpuint(keys[i].files, !=, 0);
        g_assert_cmpuint(strlen(keys[i].help), >, 0);
        g_assert_cmpuint(keys[i].min, <=, keys[i].max);
        g_assert_true(keys[i].kind != SETTINGS_NUMBER || keys[i].max > 0);
        for (guint j = 0; j < i; j++)
            g_assert_true(keys[i].offset != keys[j].offset || keys[i].kind == SETTINGS_UNUSED);
    }
    g_assert_null(settings_find_key("no_such_key"));
}

/* ---- merging --------------------------------------------------------------------------- */

/** holdfast.conf wins, whichever file comes first; the loser is noted if it comes second. */
static void test_precedence(void)
{
    static const char ours[] = "log_level = 1\nfile_lockspace_dir = ''\nauto_disk_leases = 1";
    static const char rules[] = "auto_disk_leases = 0\nfile_lockspace_dir = '/f'\n"
                                "scsi_lockspace_dir = '/s'";
    static const char theirs[] = "log_level = 4\nlog_filters = '1:a'";

    for (int first = 0; first < 2; first++) {
        g_autoptr(Settings) s = settings_new();
        g_autoptr(GPtrArray) problems = settings_problems_new();
        g_autofree char *described = NULL;

        if (first == 0)
            g_assert_true(parse(s, HOLDFAST, ours, problems));
        g_assert_true(parse(s, LOCKD, rules, problems));
        g_assert_true(parse(s, VIRTLOCKD, theirs, problems));
        if (first == 1)
            g_assert_true(parse(s, HOLDFAST, ours, problems));

        g_assert_cmpuint(s->log_level, ==, 1);
        assert_value(s, "log_filters", "\"1:a\"");
        g_assert_null(s->file_lockspace_dir);
        g_assert_cmpstr(s->scsi_lockspace_dir, ==, "/s");
        g_assert_true(s->auto_disk_leases);
        g_assert_false(s->require_lease_for_disks);
        g_assert_cmpint(settings_origin(s, settings_find_key("file_lockspace_dir")), ==, HOLDFAST);
        g_assert_cmpint(settings_origin(s, settings_find_key("scsi_lockspace_dir")), ==, LOCKD);
        g_assert_cmpint(settings_origin(s, settings_find_key("log_filters")), ==, VIRTLOCKD);
        described = describe(problems);
        g_assert_cmpstr(described, ==,
                        first == 1 ? ""
                                   : "1: note: auto_disk_leases is set in holdfast.conf too, and "
                                     "that counts\n"
                                     "2: note: file_lockspace_dir is set in holdfast.conf too, "
                                     "and that counts\n"
                                     "1: note: log_level is set in holdfast.conf too, and that "
                                     "counts\n");
    }
}

/** require_lease_for_disks follows auto_disk_leases across files until somebody sets it. */
static void test_derived(void)
{
    g_autoptr(Settings) s = settings_new();

    parse_clean(s, LOCKD, "auto_disk_leases = 0");
    g_assert_true(s->require_lease_for_disks);
    parse_clean(s, HOLDFAST, "auto_disk_leases = 1");
    g_assert_false(s->require_lease_for_disks);
    parse_clean(s, LOCKD, "require_lease_for_disks = 1");
    g_assert_true(s->require_lease_for_disks);
    parse_clean(s, HOLDFAST, "auto_disk_leases = 1");
    g_assert_true(s->require_lease_for_disks);
}

static void test_lockd_conf(void)
{
    static const struct {
        const char *text;
        const char *path;
        gboolean must_exist;
    } cases[] = {
        {"", "/standard", FALSE},
        {"lockd_conf = '/own'", "/own", TRUE},
        {"lockd_conf = ''", NULL, TRUE},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(Settings) s = settings_new();
        gboolean must_exist = !cases[i].must_exist;

        parse_clean(s, HOLDFAST, cases[i].text);
        g_assert_cmpstr(settings_lockd_conf(s, "/standard", &must_exist), ==, cases[i].path);
        g_assert_cmpint(must_exist, ==, cases[i].must_exist);
    }
}

/* ---- files ----------------------------------------------------------------------------- */

typedef gboolean (*LoadFunc)(Settings *settings, const char *path, gboolean must_exist,
                             GPtrArray *problems);

static const LoadFunc load_funcs[] = {
    settings_load_holdfast,
    settings_load_lockd,
    settings_load_virtlockd,
};

static void test_load_missing(void)
{
    for (gsize i = 0; i < G_N_ELEMENTS(load_funcs); i++) {
        g_autoptr(Settings) s = settings_new();
        g_autoptr(GPtrArray) problems = settings_problems_new();
        g_autofree char *text = NULL;

        g_assert_true(load_funcs[i](s, "/nonexistent/x.conf", FALSE, problems));
        g_assert_cmpuint(problems->len, ==, 0);
        g_assert_false(load_funcs[i](s, "/nonexistent/x.conf", TRUE, problems));
        g_assert_cmpuint(problems->len, ==, 1);
        text = settings_problem_to_string(g_ptr_array_index(problems, 0));
        g_assert_true(g_str_has_prefix(text, "/nonexistent/x.conf: error: can't open the file: "));
        /* What exists and can't be read is an error in any case. */
        g_assert_false(load_funcs[i](s, "/", FALSE, problems));
    }
}

static void test_load_files(void)
{
    static const char *const texts[] = {
        "kill_timeout = 99\n",
        "scsi_lockspace_dir = \"/s\"\n",
        "log_level = 4\n",
    };
    g_autofree char *dir = g_dir_make_tmp("holdfast-settings-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "x.conf", NULL);
    g_autoptr(Settings) s = settings_new();
    g_autoptr(GPtrArray) problems = settings_problems_new();

    for (gsize i = 0; i < G_N_ELEMENTS(load_funcs); i++) {
        g_assert_true(g_file_set_contents(path, texts[i], -1, NULL));
        g_assert_true(load_funcs[i](s, path, TRUE, problems));
    }
    g_assert_cmpuint(problems->len, ==, 0);
    g_assert_cmpuint(s->kill_timeout, ==, 99);
    g_assert_cmpstr(s->scsi_lockspace_dir, ==, "/s");
    g_assert_cmpuint(s->log_level, ==, 4);
    g_remove(path);
    g_rmdir(dir);
}

/** The text of a file, with every "#key = value" made "key = value". NULL: not there. */
static char *read_uncommented(const char *path)
{
    g_autoptr(GRegex) regex = g_regex_new("^#([a-z_]+ ?= ?[0-9\"\\[])", G_REGEX_MULTILINE, 0, NULL);
    g_autofree char *text = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL))
        return NULL;
    return g_regex_replace(regex, text, -1, 0, "\\1", 0, NULL);
}

/** libvirt's own files, as they are and with all their examples switched on. */
static void test_stock_files(gconstpointer data)
{
    SettingsFile which = (SettingsFile)GPOINTER_TO_INT(data);
    const char *path =
        which == LOCKD ? "/etc/libvirt/qemu-lockd.conf" : "/etc/libvirt/virtlockd.conf";
    LoadFunc load = which == LOCKD ? settings_load_lockd : settings_load_virtlockd;
    g_autofree char *text = read_uncommented(path);
    g_autoptr(Settings) s = settings_new();
    g_autoptr(GPtrArray) problems = settings_problems_new();

    if (!text) {
        g_test_skip("libvirt's own configuration file is not installed");
        return;
    }
    g_assert_true(load(s, path, TRUE, problems));
    g_assert_true(parse(s, which, text, problems));
    for (guint i = 0; i < problems->len; i++) {
        const SettingsProblem *problem = g_ptr_array_index(problems, i);

        g_assert_cmpint(problem->severity, ==, SETTINGS_NOTE);
    }
}

/* ---- the shipped holdfast.conf --------------------------------------------------------- */

/** The path of a file of the source tree; NULL and a skipped test when nobody told where. */
static char *source_file(const char *below)
{
    if (!g_getenv("G_TEST_SRCDIR")) {
        g_test_skip("G_TEST_SRCDIR is not set");
        return NULL;
    }
    return g_test_build_filename(G_TEST_DIST, "..", "..", below, NULL);
}

/** As shipped it changes nothing; with every key switched on it is right, and says the defaults. */
static void test_shipped(void)
{
    g_autofree char *path = source_file("conf/holdfast.conf");
    g_autofree char *text = path ? read_uncommented(path) : NULL;
    g_autoptr(Settings) as_shipped = settings_new();
    g_autoptr(Settings) all_on = settings_new();
    g_autoptr(GPtrArray) problems = settings_problems_new();
    const SettingsKey *keys = settings_keys();

    if (!path)
        return;
    g_assert_nonnull(text);
    g_assert_true(settings_load_holdfast(as_shipped, path, TRUE, problems));
    g_assert_cmpuint(problems->len, ==, 0);
    parse_clean(all_on, HOLDFAST, text);
    for (guint i = 0; i < SETTINGS_KEY_COUNT; i++) {
        gboolean ours = (keys[i].files & 1u << HOLDFAST) != 0;
        g_autofree char *value = settings_value_to_string(all_on, &keys[i]);

        g_test_message("%s", keys[i].name);
        g_assert_cmpint(settings_origin(as_shipped, &keys[i]), ==, SETTINGS_DEFAULT);
        g_assert_cmpint(settings_origin(all_on, &keys[i]), ==, ours ? HOLDFAST : SETTINGS_DEFAULT);
        if (ours && keys[i].initial)
            g_assert_cmpstr(value, ==, keys[i].initial);
    }
    g_assert_cmpint(all_on->require_lease_for_disks, ==, as_shipped->require_lease_for_disks);
}

/* ---- random damage --------------------------------------------------------------------- */

static void assert_in_range(const Settings *s)
{
    const SettingsKey *keys = settings_keys();

    for (guint i = 0; i < SETTINGS_KEY_COUNT; i++) {
        g_autofree char *value = settings_value_to_string(s, &keys[i]);

        switch (keys[i].kind) {
        case SETTINGS_BOOL:
            g_assert_true(g_str_equal(value, "0") || g_str_equal(value, "1"));
            break;
        case SETTINGS_NUMBER:
            g_assert_true(
                g_ascii_string_to_unsigned(value, 10, keys[i].min, keys[i].max, NULL, NULL));
            break;
        case SETTINGS_PATH:
        case SETTINGS_SOCKET:
            g_assert_true(!value || value[1] == '/');
            break;
        default:
            break;
        }
    }
    g_assert_nonnull(s->default_driver);
}

/** What the values are as text gives the same values when it is read. */
static void assert_stable(const Settings *s)
{
    g_autoptr(GString) text = g_string_new(NULL);
    g_autoptr(Settings) again = settings_new();
    const SettingsKey *keys = settings_keys();

    for (guint i = 0; i < SETTINGS_KEY_COUNT; i++) {
        g_autofree char *value = settings_value_to_string(s, &keys[i]);

        if (value)
            g_string_append_printf(text, "%s = %s\n", keys[i].name, value);
    }
    parse_clean(again, HOLDFAST, text->str);
    for (guint i = 0; i < SETTINGS_KEY_COUNT; i++) {
        g_autofree char *value = settings_value_to_string(s, &keys[i]);

        assert_value(again, keys[i].name, value);
    }
}

static void test_random(void)
{
    static const char seed[] =
        "native_socket = '/run/n'\nvirtlockd_socket = \"/run/v\"\nlog_outputs = '1:file:/a "
        "2:stderr'\n"
        "log_filters = '1:a 2:b'\nauto_disk_leases = 0\ndriver_config = [ 'a.b=c', \"d.e=f\" ]\n"
        "default_driver = 'nop'\nhost_name = 'n1'\nkill_timeout = 5\nmax_clients = 9\n"
        "scsi_lockspace_dir = '/s'\nlane_threads = 2\nlog_level = 2\n";
    int rounds = g_test_slow() ? 300000 : 5000;
    int good = 0;

    for (int i = 0; i < rounds; i++) {
        gsize len = 0;
        g_autofree char *text = mutate_text(seed, 4, &len);
        SettingsFile which = (SettingsFile)g_test_rand_int_range(VIRTLOCKD, HOLDFAST + 1);
        g_autoptr(Settings) s = settings_new();
        g_autoptr(GPtrArray) problems = settings_problems_new();
        gboolean fine = settings_parse(s, which, "t.conf", text, len, problems);
        g_autofree char *described = describe(problems);

        g_assert_true(fine != settings_problems_have_error(problems));
        g_assert_true(g_utf8_validate(described, -1, NULL));
        good += fine;
        assert_in_range(s);
        if (fine)
            assert_stable(s);
    }
    g_assert_cmpint(good, >, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/settings/defaults", test_defaults);
    g_test_add_func("/settings/table", test_table);
    g_test_add_func("/settings/precedence", test_precedence);
    g_test_add_func("/settings/derived", test_derived);
    g_test_add_func("/settings/lockd-conf", test_lockd_conf);
    g_test_add_func("/settings/load-missing", test_load_missing);
    g_test_add_func("/settings/load-files", test_load_files);
    g_test_add_data_func("/settings/stock/qemu-lockd.conf", GINT_TO_POINTER(LOCKD),
                         test_stock_files);
    g_test_add_data_func("/settings/stock/virtlockd.conf", GINT_TO_POINTER(VIRTLOCKD),
                         test_stock_files);
    g_test_add_func("/settings/shipped", test_shipped);
    g_test_add_func("/settings/random", test_random);
    return g_test_run();
}
