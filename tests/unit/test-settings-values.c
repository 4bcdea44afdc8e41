/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What each key takes and refuses, one value at a time, and what is said about it.
 */
#include "settings-help.h"

/* ---- what keys take -------------------------------------------------------------------- */

typedef struct GoodCase {
    SettingsFile file;
    const char *text;
    const char *key;
    const char *value;
} GoodCase;

static const GoodCase good_cases[] = {
    {HOLDFAST, "native_socket = '/run/x'", "native_socket", "\"/run/x\""},
    {HOLDFAST, "native_socket = ''", "native_socket", NULL},
    {HOLDFAST, "socket_group = 'kvm'", "socket_group", "\"kvm\""},
    {HOLDFAST, "socket_group = ''", "socket_group", NULL},
    {HOLDFAST, "virtlockd_socket = '/run/v'", "virtlockd_socket", "\"/run/v\""},
    {HOLDFAST, "virtlockd_socket = ''", "virtlockd_socket", NULL},
    {HOLDFAST, "lockd_conf = '/etc/l'", "lockd_conf", "\"/etc/l\""},
    {HOLDFAST, "default_driver = 'nop'", "default_driver", "\"nop\""},
    {HOLDFAST, "driver_dir = '/opt/d r/'", "driver_dir", "\"/opt/d r/\""},
    {HOLDFAST, "driver_config = []", "driver_config", "[ ]"},
    {HOLDFAST, "driver_config = ['a.b=c', 'a.b_1-c=', \"x.y='=.\"]", "driver_config",
     "[ \"a.b=c\", \"a.b_1-c=\", \"x.y='=.\" ]"},
    {HOLDFAST, "driver_config = ['a.b=\"']", "driver_config", "[ 'a.b=\"' ]"},
    {HOLDFAST, "host_name = 'n3.example-x.org'", "host_name", "\"n3.example-x.org\""},
    {HOLDFAST, "host_name = ''", "host_name", NULL},
    {HOLDFAST, "request_timeout = 1", "request_timeout", "1"},
    {HOLDFAST, "request_timeout = 3600", "request_timeout", "3600"},
    {HOLDFAST, "kill_timeout = 600", "kill_timeout", "600"},
    {HOLDFAST, "lane_threads = +64", "lane_threads", "64"},
    {HOLDFAST, "log_level = 1", "log_level", "1"},
    {HOLDFAST, "log_filters = '  1:a  2:+b\t4:c:d '", "log_filters", "\"1:a 2:b 4:c:d\""},
    {HOLDFAST, "log_filters = \"\"\"1:a\n2:*b\"\"\"", "log_filters", "\"1:a 2:*b\""},
    {HOLDFAST, "log_filters = ''", "log_filters", "\"\""},
    {HOLDFAST, "log_outputs = '1:stderr 02:file:/a:b 3:syslog:i 4:journald'", "log_outputs",
     "\"1:stderr 2:file:/a:b 3:syslog:i 4:journald\""},
    {HOLDFAST, "log_outputs = '1:stderr 2:file:/a 2:stderr 3:file:/b 4:file:/a'", "log_outputs",
     "\"2:stderr 3:file:/b 4:file:/a\""},
    {HOLDFAST, "log_outputs = '1:syslog:'", "log_outputs", "\"1:syslog:\""},
    {HOLDFAST, "log_outputs = ' '", "log_outputs", "\"\""},
    {HOLDFAST, "auto_disk_leases = 0", "auto_disk_leases", "0"},
    {HOLDFAST, "auto_disk_leases = 0", "require_lease_for_disks", "1"},
    {HOLDFAST, "auto_disk_leases = 1", "require_lease_for_disks", "0"},
    {HOLDFAST, "auto_disk_leases = 0\nrequire_lease_for_disks=0", "require_lease_for_disks", "0"},
    {HOLDFAST, "require_lease_for_disks = 1", "require_lease_for_disks", "1"},
    {HOLDFAST, "file_lockspace_dir = '/l'", "file_lockspace_dir", "\"/l\""},
    {HOLDFAST, "file_lockspace_dir = ''", "file_lockspace_dir", NULL},
    {LOCKD, "file_lockspace_dir = '/l\xff'", "file_lockspace_dir", "\"/l\xff\""},
    {LOCKD, "lvm_lockspace_dir = '/l'", "lvm_lockspace_dir", "\"/l\""},
    {LOCKD, "scsi_lockspace_dir = '/say \"x\"'", "scsi_lockspace_dir", "'/say \"x\"'"},
    {LOCKD, "auto_disk_leases = 0", "require_lease_for_disks", "1"},
    {LOCKD, "require_lease_for_disks = 1", "require_lease_for_disks", "1"},
    {VIRTLOCKD, "log_level = 4", "log_level", "4"},
    {VIRTLOCKD, "log_filters=\"1:locking 4:object 4:json 4:event 1:util\"", "log_filters",
     "\"1:locking 4:object 4:json 4:event 1:util\""},
    {VIRTLOCKD, "log_outputs=\"3:syslog:virtlockd\"", "log_outputs", "\"3:syslog:virtlockd\""},
};

static void test_good(void)
{
    for (gsize i = 0; i < G_N_ELEMENTS(good_cases); i++) {
        const GoodCase *c = &good_cases[i];
        g_autoptr(Settings) s = settings_new();

        g_test_message("case %" G_GSIZE_FORMAT " of %s", i, c->key);
        parse_clean(s, c->file, c->text);
        assert_value(s, c->key, c->value);
    }
}

/** The parsed forms, member by member. */
static void test_parsed(void)
{
    g_autoptr(Settings) s = settings_new();
    const SettingsDriverOption *option;
    const SettingsLogFilter *filter;
    const SettingsLogOutput *output;

    parse_clean(s, HOLDFAST,
                "driver_config = [ 'nop.x=1',\n 'my-driver.key=a=b.c' ]\n"
                "log_filters = '4:lane* 1:la'\n"
                "log_outputs = '2:file:/var/log/x 1:stderr'\n");
    option = g_ptr_array_index(s->driver_config, 1);
    g_assert_cmpstr(option->driver, ==, "my-driver");
    g_assert_cmpstr(option->key, ==, "key");
    g_assert_cmpstr(option->value, ==, "a=b.c");
    g_assert_cmpuint(option->line, ==, 2);
    filter = g_ptr_array_index(s->log_filters, 0);
    g_assert_cmpint(filter->level, ==, SETTINGS_LOG_ERROR);
    g_assert_cmpstr(filter->match, ==, "lane*");
    output = g_ptr_array_index(s->log_outputs, 0);
    g_assert_cmpint(output->level, ==, SETTINGS_LOG_INFO);
    g_assert_cmpint(output->kind, ==, SETTINGS_LOG_FILE);
    g_assert_cmpstr(output->target, ==, "/var/log/x");
    output = g_ptr_array_index(s->log_outputs, 1);
    g_assert_cmpint(output->kind, ==, SETTINGS_LOG_STDERR);
    g_assert_null(output->target);
}

/* ---- what they refuse ------------------------------------------------------------------ */

typedef struct BadCase {
    SettingsFile file;
    const char *text;
    const char *problem; /* how the only one begins */
} BadCase;

static const BadCase bad_cases[] = {
    /* types */
    {HOLDFAST, "log_level = '3'",
     "1: error: log_level takes a number, not a string; write: "
     "log_level = 3"},
    {HOLDFAST, "request_timeout = []", "1: error: request_timeout takes a number, not a list"},
    {HOLDFAST, "auto_disk_leases = 'yes'",
     "1: error: auto_disk_leases takes a number, not a "
     "string; write: auto_disk_leases = 1"},
    {HOLDFAST, "native_socket = 1",
     "1: error: native_socket takes a string, not a number; "
     "write: native_socket = \"/some/path\""},
    {HOLDFAST, "log_outputs = ['3:stderr']", "1: error: log_outputs takes a string, not a list"},
    {HOLDFAST, "driver_config = 'a.b=c'",
     "1: error: driver_config takes a list, not a string; "
     "write: driver_config = [ \"driver.key=value\" ]"},
    {HOLDFAST, "default_driver = 1",
     "1: error: default_driver takes a string, not a number; "
     "write: default_driver = \"lockd\""},
    {VIRTLOCKD, "max_clients = '5'", "1: error: max_clients takes a number, not a string"},
    {VIRTLOCKD, "log_filters = []", "1: error: log_filters takes a string, not a list"},
    {LOCKD, "file_lockspace_dir = 1", "1: error: file_lockspace_dir takes a string"},
    /* numbers */
    {HOLDFAST, "request_timeout = 0",
     "1: error: request_timeout has to be from 1 to 3600, "
     "not 0"},
    {HOLDFAST, "request_timeout = 3601", "1: error: request_timeout has to be from 1 to 3600"},
    {HOLDFAST, "request_timeout = -1", "1: error: request_timeout has to be"},
    {HOLDFAST, "request_timeout = 4294967297", "1: error: request_timeout has to be"},
    {HOLDFAST, "kill_timeout = 601", "1: error: kill_timeout has to be from 1 to 600"},
    {HOLDFAST, "lane_threads = 65", "1: error: lane_threads has to be from 1 to 64"},
    {HOLDFAST, "log_level = 0", "1: error: log_level has to be from 1 to 4"},
    {HOLDFAST, "log_level = 5", "1: error: log_level has to be from 1 to 4"},
    {VIRTLOCKD, "log_level = 5", "1: error: log_level has to be from 1 to 4"},
    {VIRTLOCKD, "log_level = 0", "1: warning: log_level = 0 means that it is not set"},
    {HOLDFAST, "auto_disk_leases = 2", "1: error: auto_disk_leases is 0 (no) or 1 (yes), not 2"},
    {LOCKD, "require_lease_for_disks = -1", "1: error: require_lease_for_disks is 0 (no) or 1"},
    {VIRTLOCKD, "max_clients = -5", "1: error: max_clients has to be from 0 to 4294967295"},
    {VIRTLOCKD, "max_clients = 4294967296", "1: error: max_clients has to be from 0"},
    {VIRTLOCKD, "max_clients = 4294967295", "1: note: max_clients has no effect"},
    {VIRTLOCKD, "max_clients = 0", "1: note: max_clients has no effect"},
    {VIRTLOCKD, "admin_max_clients = 5", "1: note: admin_max_clients has no effect"},
    /* paths */
    {HOLDFAST, "native_socket = 'run/x'",
     "1: error: native_socket has to be an absolute path, "
     "not 'run/x'; begin it with /"},
    {HOLDFAST, "driver_dir = '~/x'", "1: error: driver_dir has to be an absolute path"},
    {HOLDFAST, "lockd_conf = 'l'", "1: error: lockd_conf has to be an absolute path"},
    {HOLDFAST, "file_lockspace_dir = 'x'", "1: error: file_lockspace_dir has to be an absolute"},
    {LOCKD, "lvm_lockspace_dir = './x'", "1: error: lvm_lockspace_dir has to be an absolute"},
    {LOCKD, "scsi_lockspace_dir = ''",
     "1: error: scsi_lockspace_dir has to be an absolute path, "
     "not empty"},
    {HOLDFAST, "driver_dir = \"\"\"/a\n\"\"\"", "1: error: driver_dir has a control character"},
    {HOLDFAST, "virtlockd_socket = '/run/'", "1: error: virtlockd_socket names the directory"},
    {HOLDFAST, "native_socket = '/a'\nvirtlockd_socket = '/a'",
     "2: error: virtlockd_socket and native_socket are the same path"},
    /* names */
    {HOLDFAST, "default_driver = ''", "1: error: default_driver can't be empty"},
    {HOLDFAST, "default_driver = '../x'",
     "1: error: default_driver can't be the name of a "
     "driver: '../x'"},
    {HOLDFAST, "default_driver = 'a b'", "1: error: default_driver can't be"},
    {HOLDFAST, "socket_group = 'a b'", "1: error: socket_group can't be the name of a group"},
    {HOLDFAST, "socket_group = 'a:b'", "1: error: socket_group can't be"},
    {HOLDFAST, "socket_group = '\xff'",
     "1: error: socket_group can't be the name of a group: "
     "'\\xff'"},
    {HOLDFAST, "host_name = 'a b'", "1: error: host_name can't be the name of a host"},
    {HOLDFAST, "host_name = '-a'", "1: error: host_name can't be"},
    {HOLDFAST, "host_name = '\xc3\xa4'", "1: error: host_name can't be"},
    /* lists of options */
    {HOLDFAST, "driver_config = [\n'a.b=c',\n'ab=c' ]",
     "3: error: driver_config: 'ab=c' is not "
     "of the form \"driver.key=value\""},
    {HOLDFAST, "driver_config = [ 'a.b' ]", "1: error: driver_config: 'a.b' is not"},
    {HOLDFAST, "driver_config = [ 'a=b.c' ]", "1: error: driver_config: 'a=b.c' is not"},
    {HOLDFAST, "driver_config = [ '.b=c' ]", "1: error: driver_config: '.b=c' is not"},
    {HOLDFAST, "driver_config = [ 'a.=c' ]", "1: error: driver_config: 'a.=c' is not"},
    {HOLDFAST, "driver_config = [ 'a.b.d=c' ]", "1: error: driver_config: 'a.b.d=c' is not"},
    {HOLDFAST, "driver_config = [ '' ]", "1: error: driver_config: '' is not"},
    /* logging */
    {HOLDFAST, "log_outputs = 'stderr'", "1: error: log_outputs: 'stderr' has no level in front"},
    {HOLDFAST, "log_outputs = '0:stderr'",
     "1: error: log_outputs: '0:stderr' does not begin "
     "with a level"},
    {HOLDFAST, "log_outputs = '5:stderr'", "1: error: log_outputs: '5:stderr' does not begin"},
    {HOLDFAST, "log_outputs = '-1:stderr'", "1: error: log_outputs: '-1:stderr' does not begin"},
    {HOLDFAST, "log_outputs = ':stderr'", "1: error: log_outputs: ':stderr' does not begin"},
    {HOLDFAST, "log_outputs = '1:'", "1: error: log_outputs: '1:' is no output that is known"},
    {HOLDFAST, "log_outputs = '1:STDERR'", "1: error: log_outputs: '1:STDERR' is no output"},
    {HOLDFAST, "log_outputs = '1:stderr:x'", "1: error: log_outputs: '1:stderr:x' has too much"},
    {HOLDFAST, "log_outputs = '1:journald:'", "1: error: log_outputs: '1:journald:' has too"},
    {HOLDFAST, "log_outputs = '1:file'", "1: error: log_outputs: '1:file' does not name a file"},
    {HOLDFAST, "log_outputs = '1:file:x'", "1: error: log_outputs: '1:file:x' does not name"},
    {HOLDFAST, "log_outputs = '1:syslog'",
     "1: error: log_outputs: '1:syslog' does not name an "
     "ident"},
    {HOLDFAST, "log_outputs = '1:syslog:a:b'", "1: error: log_outputs: '1:syslog:a:b' does not"},
    {VIRTLOCKD, "log_filters = 'x'", "1: error: log_filters: 'x' has no level in front"},
    {HOLDFAST, "log_filters = '9:x'", "1: error: log_filters: '9:x' does not begin"},
    {HOLDFAST, "log_filters = '1:'", "1: error: log_filters: '1:' has no name"},
    {HOLDFAST, "log_filters = '1:+'", "1: error: log_filters: '1:+' has no name"},
    {HOLDFAST, "log_filters = '1:\xff'", "1: error: log_filters: '1:\\xff' has no name"},
    /* keys */
    {HOLDFAST, "bogus = 1", "1: error: holdfast.conf has no key 'bogus'; remove the line"},
    {HOLDFAST, "loooooooooooooooooooooooooooooooooooooooooooooog_level = 1",
     "1: error: holdfast.conf has no key 'loooooooooooooooooooooooooooooooooooooooooooooog_level'; "
     "remove the line"},
    {HOLDFAST, "log_levle = 1",
     "1: error: holdfast.conf has no key 'log_levle'; did you mean "
     "'log_level'?"},
    {HOLDFAST, "Native_Socket = ''",
     "1: error: holdfast.conf has no key 'Native_Socket'; did "
     "you mean 'native_socket'?"},
    {HOLDFAST, "max_clients = 1",
     "1: error: holdfast.conf has no key 'max_clients'; Holdfast "
     "has no such limit, remove the line"},
    {LOCKD, "bogus = 1",
     "1: warning: qemu-lockd.conf has no key 'bogus', the line has no "
     "effect; remove the line"},
    {LOCKD, "file_lockspce_dir = '/x'",
     "1: warning: qemu-lockd.conf has no key "
     "'file_lockspce_dir', the line has no effect; did you "
     "mean 'file_lockspace_dir'?"},
    {LOCKD, "lane_threads = 1",
     "1: warning: qemu-lockd.conf has no key 'lane_threads', the line "
     "has no effect; it belongs into holdfast.conf"},
    {VIRTLOCKD, "log_buffer_size = 64",
     "1: warning: virtlockd.conf has no key "
     "'log_buffer_size'"},
    {VIRTLOCKD, "auto_disk_leases = 0", "1: warning: virtlockd.conf has no key"},
    /* twice */
    {HOLDFAST, "log_level = 1\n\nlog_level = 'x'",
     "3: warning: log_level was set in line 1, and "
     "that counts"},
    /* syntax */
    {HOLDFAST, "log_level = 1\nlog_level", "2: error: expected '=' after 'log_level'"},
    {VIRTLOCKD, "log_level = 99999999999999999999", "1: error: the number is too large"},
};

static void test_bad(void)
{
    for (gsize i = 0; i < G_N_ELEMENTS(bad_cases); i++) {
        const BadCase *c = &bad_cases[i];
        g_autoptr(Settings) s = settings_new();
        g_autoptr(GPtrArray) problems = settings_problems_new();
        gboolean good = parse(s, c->file, c->text, problems);
        g_autofree char *described = describe(problems);

        g_test_message("%s", described);
        g_assert_cmpuint(problems->len, ==, 1);
        if (!g_str_has_prefix(described, c->problem))
            g_assert_cmpstr(described, ==, c->problem);
        g_assert_true(good == (strstr(c->problem, " error: ") == NULL));
        g_assert_true(good != settings_problems_have_error(problems));
        g_assert_true(g_utf8_validate(described, -1, NULL));
    }
}

/** The longest paths that fit into a socket's address, and into a system call. */
static void test_path_lengths(void)
{
    static const struct {
        const char *key;
        gsize limit;
    } cases[] = {{"native_socket", 107}, {"virtlockd_socket", 107}, {"driver_dir", 4095}};

    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        for (gsize excess = 0; excess < 2; excess++) {
            g_autofree char *letters = g_strnfill(cases[i].limit - 1 + excess, 'x');
            g_autofree char *text = g_strdup_printf("%s = '/%s'", cases[i].key, letters);
            g_autoptr(Settings) s = settings_new();
            g_autoptr(GPtrArray) problems = settings_problems_new();
            g_autofree char *described = NULL;

            g_assert_true(parse(s, HOLDFAST, text, problems) == (excess == 0));
            described = describe(problems);
            g_assert_true(excess == 0 || strstr(described, " bytes long; use one of at most "));
        }
    }
}

/** All at once: nothing hides what follows, and what is in order is taken. */
static void test_all_problems(void)
{
    static const char text[] = "native_socket = 'x'\n"     /* 1 */
                               "bogus = 1\n"               /* 2 */
                               "request_timeout = 7\n"     /* 3: good */
                               "log_outputs = '1:x 9:y'\n" /* 4: two */
                               "kill_timeout = 'x'\n"      /* 5 */
                               "driver_config = [ 'a',\n"  /* 6 */
                               "  'b.c=d', 'e' ]\n"        /* 7 */
                               "request_timeout = 8\n"     /* 8 */
                               "lane_threads = 3\n";       /* 9: good */
    g_autoptr(Settings) s = settings_new();
    g_autoptr(GPtrArray) problems = settings_problems_new();
    g_autoptr(GString) lines = g_string_new(NULL);

    g_assert_false(parse(s, HOLDFAST, text, problems));
    for (guint i = 0; i < problems->len; i++) {
        const SettingsProblem *problem = g_ptr_array_index(problems, i);

        g_string_append_printf(lines, "%u%s ", problem->line,
                               problem->severity == SETTINGS_ERROR ? "" : "w");
    }
    g_assert_cmpstr(lines->str, ==, "1 2 4 4 5 6 7 8w ");
    g_assert_null(s->native_socket);
    g_assert_cmpuint(s->request_timeout, ==, 7);
    g_assert_cmpuint(s->kill_timeout, ==, 10);
    g_assert_cmpuint(s->lane_threads, ==, 3);
    g_assert_cmpuint(s->driver_config->len, ==, 0);
    g_assert_cmpuint(s->log_outputs->len, ==, 0);

    /* A good file does not wash away what an earlier one did wrong, but is good itself. */
    g_assert_true(parse(s, LOCKD, "", problems));
    g_assert_true(settings_problems_have_error(problems));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/settings-values/good", test_good);
    g_test_add_func("/settings-values/parsed", test_parsed);
    g_test_add_func("/settings-values/bad", test_bad);
    g_test_add_func("/settings-values/path-lengths", test_path_lengths);
    g_test_add_func("/settings-values/all-problems", test_all_problems);
    return g_test_run();
}
