/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The table of all keys: the one place that says what can be set, how, and with which default.
 *
 * A new key goes here and into Settings (settings.h), conf/holdfast.conf and
 * conf/augeas/holdfast.aug; the unit tests hold these against each other. No code here looks at
 * values.
 */
#include "core/settings-private.h"

#include <string.h>

enum {
    HOLDFAST = 1 << SETTINGS_HOLDFAST_CONF,
    LOCKD = 1 << SETTINGS_LOCKD_CONF,
    VIRTLOCKD = 1 << SETTINGS_VIRTLOCKD_CONF,
};

#define MEMBER(name) #name, .offset = G_STRUCT_OFFSET(Settings, name)

static const SettingsKey keys[] = {
    {MEMBER(native_socket), .kind = SETTINGS_SOCKET, .files = HOLDFAST,
     .help = "Unix socket of the native protocol"},
    {MEMBER(socket_group), .kind = SETTINGS_GROUP, .files = HOLDFAST,
     .help = "group whose members may read over the native socket"},
    {MEMBER(virtlockd_socket), .kind = SETTINGS_SOCKET, .files = HOLDFAST,
     .help = "Unix socket to serve virtlockd's protocol on; empty: not at a socket of our own"},

    {MEMBER(default_driver), .kind = SETTINGS_DRIVER, .files = HOLDFAST, .initial = "\"lockd\"",
     .help = "driver that locks what no rule gives to another"},
    {MEMBER(driver_dir), .kind = SETTINGS_PATH, .files = HOLDFAST,
     .help = "directory that drivers are loaded from"},
    {MEMBER(driver_config), .kind = SETTINGS_DRIVER_OPTIONS, .files = HOLDFAST, .initial = "[ ]",
     .help = "settings of drivers, each \"driver.key=value\""},

    {MEMBER(host_name), .kind = SETTINGS_HOST, .files = HOLDFAST,
     .help = "name of this host in what holders are told; empty: the system's"},
    {MEMBER(request_timeout), .kind = SETTINGS_NUMBER, .files = HOLDFAST, .min = 1, .max = 3600,
     .initial = "30", .help = "seconds that a request may wait for storage"},
    {MEMBER(kill_timeout), .kind = SETTINGS_NUMBER, .files = HOLDFAST, .min = 1, .max = 600,
     .initial = "10", .help = "seconds between TERM and KILL for an owner that lost its locks"},
    {MEMBER(lane_threads), .kind = SETTINGS_NUMBER, .files = HOLDFAST, .min = 1, .max = 64,
     .initial = "16", .help = "threads that work for one lockspace at most"},

    {MEMBER(lockd_conf), .kind = SETTINGS_PATH, .files = HOLDFAST,
     .help = "file in the manner of qemu-lockd.conf whose rules apply; empty: none"},
    {MEMBER(auto_disk_leases), .kind = SETTINGS_BOOL, .files = HOLDFAST | LOCKD, .initial = "1",
     .help = "whether the disks of a domain are locked without a <lease> for them"},
    {MEMBER(require_lease_for_disks), .kind = SETTINGS_BOOL, .files = HOLDFAST | LOCKD,
     .help = "whether a domain with disks has to have a lease; by default if not automatic"},
    {MEMBER(file_lockspace_dir), .kind = SETTINGS_PATH, .files = HOLDFAST | LOCKD,
     .help = "directory of lock files for disks by the hash of their path; empty: direct locks"},
    {MEMBER(lvm_lockspace_dir), .kind = SETTINGS_PATH, .files = HOLDFAST | LOCKD,
     .help = "directory of lock files for LVM volumes by UUID; empty: as other disks"},
    {MEMBER(scsi_lockspace_dir), .kind = SETTINGS_PATH, .files = HOLDFAST | LOCKD,
     .help = "directory of lock files for SCSI disks by identifier; empty: as other disks"},

    {MEMBER(pr_multipath), .kind = SETTINGS_CHOICE, .files = HOLDFAST, .initial = "\"auto\"",
     .choices = "auto library paths",
     .help = "how persistent reservations reach the paths of a multipath device"},
    {MEMBER(pr_allow_partitions), .kind = SETTINGS_BOOL, .files = HOLDFAST, .initial = "0",
     .help = "whether a partition will do for persistent reservations of the whole LUN"},
    {MEMBER(pr_allow_stacked), .kind = SETTINGS_BOOL, .files = HOLDFAST, .initial = "0",
     .help = "whether a stacked device (dm-linear, LVM) will do for those of the LUN below"},
    {MEMBER(pr_second_vm), .kind = SETTINGS_CHOICE, .files = HOLDFAST, .initial = "\"warn\"",
     .choices = "allow warn refuse",
     .help = "a second VM of this host that registers on the same LUN: allow, warn or refuse"},
    {MEMBER(pr_rules), .kind = SETTINGS_PR_RULES, .files = HOLDFAST, .initial = "[ ]",
     .help = "who may use persistent reservations on which LUN; empty: everybody on all"},
    {MEMBER(pr_log), .kind = SETTINGS_PR_LOG, .files = HOLDFAST, .initial = "\"journal\"",
     .choices = "journal none",
     .help = "where persistent reservations are logged: journal, none, or the path of a file"},
    {MEMBER(pr_log_format), .kind = SETTINGS_CHOICE, .files = HOLDFAST, .initial = "\"text\"",
     .choices = "text json", .help = "how they are logged to a file: text or json"},

    {MEMBER(log_level), .kind = SETTINGS_NUMBER, .files = HOLDFAST | VIRTLOCKD,
     .min = SETTINGS_LOG_DEBUG, .max = SETTINGS_LOG_ERROR, .initial = "3",
     .help = "least level to log: 1 debug, 2 information, 3 warnings, 4 errors"},
    {MEMBER(log_filters), .kind = SETTINGS_LOG_FILTERS, .files = HOLDFAST | VIRTLOCKD,
     .initial = "\"\"", .help = "other levels for some categories: \"N:name N:name\""},
    {MEMBER(log_outputs), .kind = SETTINGS_LOG_OUTPUTS, .files = HOLDFAST | VIRTLOCKD,
     .initial = "\"\"", .help = "where to log, and from which level on"},

    {"max_clients", .kind = SETTINGS_UNUSED, .files = VIRTLOCKD, .max = G_MAXUINT,
     .help = "without effect: the number of clients is not limited"},
    {"admin_max_clients", .kind = SETTINGS_UNUSED, .files = VIRTLOCKD, .max = G_MAXUINT,
     .help = "without effect: there is no socket for administrators of its own"},
};

G_STATIC_ASSERT(G_N_ELEMENTS(keys) == SETTINGS_KEY_COUNT);

const SettingsKey *settings_keys(void)
{
    return keys;
}

const SettingsKey *settings_find_key(const char *name)
{
    for (gsize i = 0; i < G_N_ELEMENTS(keys); i++)
        if (g_str_equal(keys[i].name, name))
            return &keys[i];
    return NULL;
}

gboolean settings_key_belongs(const SettingsKey *key, SettingsFile which)
{
    return which == SETTINGS_DEFAULT || (key->files & 1u << which) != 0;
}

const char *settings_file_title(SettingsFile which)
{
    static const char *const titles[] = {
        [SETTINGS_DEFAULT] = "the defaults",
        [SETTINGS_VIRTLOCKD_CONF] = "virtlockd.conf",
        [SETTINGS_LOCKD_CONF] = "qemu-lockd.conf",
        [SETTINGS_HOLDFAST_CONF] = "holdfast.conf",
    };

    return titles[which];
}

/* ---- "did you mean" -------------------------------------------------------------------- */

/** Longer names than this are no key that somebody mistyped. */
#define NAME_MAX_LEN 48

/**
 * How many letters have to be put in, taken out, changed or swapped with their neighbour to get
 * from `a` to `b`; case does not count. Neither may be longer than NAME_MAX_LEN.
 */
static guint settings_distance(const char *a, const char *b)
{
    guint rows[3][NAME_MAX_LEN + 1]; /* the last three rows of the usual table, in turn */
    guint len = (guint)strlen(b);

    for (guint j = 0; j <= len; j++)
        rows[0][j] = j;
    for (guint i = 1; a[i - 1] != '\0'; i++) {
        guint *row = rows[i % 3];
        const guint *above = rows[(i - 1) % 3];
        char ca = g_ascii_tolower(a[i - 1]);

        row[0] = i;
        for (guint j = 1; j <= len; j++) {
            char cb = g_ascii_tolower(b[j - 1]);

            row[j] = MIN(MIN(above[j], row[j - 1]) + 1, above[j - 1] + (ca != cb));
            if (i > 1 && j > 1 && ca == g_ascii_tolower(b[j - 2]) &&
                cb == g_ascii_tolower(a[i - 2]))
                row[j] = MIN(row[j], rows[(i - 2) % 3][j - 2] + 1);
        }
    }
    return rows[strlen(a) % 3][len];
}

const SettingsKey *settings_nearest_key(const char *name, SettingsFile which)
{
    const SettingsKey *nearest = NULL;
    guint len = (guint)strlen(name);
    guint best = MIN(len / 3, 4) + 1; /* a third of the letters wrong is another word */

    if (len > NAME_MAX_LEN)
        return NULL;
    for (gsize i = 0; i < G_N_ELEMENTS(keys); i++) {
        guint distance;

        if (!settings_key_belongs(&keys[i], which) || keys[i].kind == SETTINGS_UNUSED)
            continue;
        distance = settings_distance(name, keys[i].name);
        if (distance < best) {
            best = distance;
            nearest = &keys[i];
        }
    }
    return nearest;
}
