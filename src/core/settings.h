/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The daemons' settings: what they are, their defaults, and how holdfast.conf and libvirt's own
 * virtlockd.conf and qemu-lockd.conf fill them in.
 *
 * Loading never stops at the first mistake. Everything that is wrong or odd goes into an array of
 * problems, with file and line; the caller decides what to print and whether to go on. Nothing is
 * logged here, and apart from reading the named file nothing outside is looked at: whether a
 * directory, group or driver exists is for the code that uses it.
 *
 * A Settings belongs to one thread at a time. Once loaded, everybody may read it.
 *
 * A daemon's start goes about like this:
 *
 *     problems = settings_problems_new();
 *     settings = settings_new();
 *     settings_load_holdfast(settings, "/etc/holdfast/holdfast.conf", FALSE, problems);
 *     lockd_conf = settings_lockd_conf(settings, SETTINGS_LOCKD_CONF_PATH, &must_exist);
 *     if (lockd_conf)
 *         settings_load_lockd(settings, lockd_conf, must_exist, problems);
 *     settings_load_virtlockd(settings, "/etc/libvirt/virtlockd.conf", FALSE, problems);
 *     if (settings_problems_have_error(problems))
 *         print them and refuse to start
 *
 * The order of the loads does not matter for the result: a value of holdfast.conf wins over one of
 * libvirt's files, and both over the default.
 */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/** libvirt's rules file for a system's daemon. */
#ifndef SETTINGS_LOCKD_CONF_PATH
#define SETTINGS_LOCKD_CONF_PATH "/etc/libvirt/qemu-lockd.conf"
#endif

/* ---- problems -------------------------------------------------------------------------- */

typedef enum SettingsSeverity {
    SETTINGS_NOTE,    /**< accepted, and without effect */
    SETTINGS_WARNING, /**< accepted, but probably not what was meant */
    SETTINGS_ERROR,   /**< the daemon refuses to start */
} SettingsSeverity;

/** Something wrong or odd in a configuration file. The texts are valid UTF-8. */
typedef struct SettingsProblem {
    char *file;
    guint line; /**< from 1; 0: the whole file */
    SettingsSeverity severity;
    char *message; /**< one sentence without a newline: what is wrong, what to do */
} SettingsProblem;

/** An empty array of SettingsProblem, which frees them. The caller unrefs it. */
GPtrArray *settings_problems_new(void);

/** Whether one of them is an error. */
gboolean settings_problems_have_error(const GPtrArray *problems);

/** "FILE:LINE: error: MESSAGE", as compilers write it. The caller frees it. */
char *settings_problem_to_string(const SettingsProblem *problem);

/* ---- the settings ---------------------------------------------------------------------- */

/** Log levels, with libvirt's numbers. */
typedef enum SettingsLogLevel {
    SETTINGS_LOG_DEBUG = 1,
    SETTINGS_LOG_INFO = 2,
    SETTINGS_LOG_WARNING = 3,
    SETTINGS_LOG_ERROR = 4,
} SettingsLogLevel;

/** One "N:match" of log_filters. The first that matches a message's category decides. */
typedef struct SettingsLogFilter {
    SettingsLogLevel level;
    char *match; /**< shell pattern, meant as "*match*" */
} SettingsLogFilter;

typedef enum SettingsLogKind {
    SETTINGS_LOG_STDERR,
    SETTINGS_LOG_FILE,
    SETTINGS_LOG_SYSLOG,
    SETTINGS_LOG_JOURNALD,
} SettingsLogKind;

/** One "N:kind" or "N:kind:target" of log_outputs. */
typedef struct SettingsLogOutput {
    SettingsLogLevel level;
    SettingsLogKind kind;
    char *target; /**< FILE: absolute path; SYSLOG: ident, "" is the program's name; else NULL */
} SettingsLogOutput;

/** One "driver.key=value" of driver_config. */
typedef struct SettingsDriverOption {
    char *driver;
    char *key;
    char *value; /**< may be "" */
    guint line;  /**< in holdfast.conf, for the driver's own complaints */
} SettingsDriverOption;

/** Number of keys in all files together; the table of settings-schema.c has to agree. */
#define SETTINGS_KEY_COUNT 28

/**
 * All settings. Strings are NULL when not set, which is also what "" in a file means. The arrays
 * are never NULL. Paths are absolute, and of any bytes; other strings are UTF-8.
 */
typedef struct Settings {
    char *native_socket;      /**< NULL: the usual place, see hf_default_socket() */
    char *socket_group;       /**< NULL: none */
    char *virtlockd_socket;   /**< NULL: the virtlockd protocol is not served at a path */
    char *lockd_conf;         /**< see settings_lockd_conf() */
    char *default_driver;     /**< never NULL */
    char *driver_dir;         /**< NULL: the directory the program was built for */
    GPtrArray *driver_config; /**< of SettingsDriverOption, in the order of the file */
    char *host_name;          /**< NULL: gethostname() */
    guint request_timeout;    /**< seconds */
    guint kill_timeout;       /**< seconds between TERM and KILL */
    guint lane_threads;
    guint log_level;        /**< a SettingsLogLevel */
    GPtrArray *log_filters; /**< of SettingsLogFilter */
    GPtrArray *log_outputs; /**< of SettingsLogOutput; empty: the daemon's own choice */

    gboolean auto_disk_leases;
    gboolean require_lease_for_disks; /**< unless set, the opposite of auto_disk_leases */
    char *file_lockspace_dir;         /**< NULL: direct locks; the same for the next two */
    char *lvm_lockspace_dir;
    char *scsi_lockspace_dir;

    /* of holdfast-pr-helper, which reads the same file */
    char *pr_multipath; /**< "auto", "library" or "paths" */
    gboolean pr_allow_partitions;
    gboolean pr_allow_stacked;
    char *pr_second_vm;  /**< "allow", "warn" or "refuse" */
    GPtrArray *pr_rules; /**< of PrRule, in the order of the file; empty: no restrictions */
    char *pr_log;        /**< "journal", "none", or the absolute path of a file */
    char *pr_log_format; /**< of a file: "text" or "json" */

    guint8 origin[SETTINGS_KEY_COUNT]; /**< a SettingsFile for each key; use settings_origin() */
} Settings;

/** Where a value came from. Among files, a higher number wins. */
typedef enum SettingsFile {
    SETTINGS_DEFAULT,
    SETTINGS_VIRTLOCKD_CONF,
    SETTINGS_LOCKD_CONF,
    SETTINGS_HOLDFAST_CONF,
} SettingsFile;

/** Settings with every default. The caller frees them with settings_free(). */
Settings *settings_new(void);

/** Frees settings with all they hold; NULL is allowed. */
void settings_free(Settings *settings);

/**
 * Merges a file into `settings` and appends what is wrong with it to `problems`, an array of
 * settings_problems_new(). A missing file is an error with `must_exist`, and otherwise as good as
 * an empty one. Returns FALSE when it added a problem of severity error; the settings then keep
 * their former value for each key in error, and for all keys after an error of syntax.
 *
 * Keys that the file does not know are errors in holdfast.conf, and warnings in libvirt's files,
 * where libvirt skips them without a word.
 */
gboolean settings_load_holdfast(Settings *settings, const char *path, gboolean must_exist,
                                GPtrArray *problems);
gboolean settings_load_lockd(Settings *settings, const char *path, gboolean must_exist,
                             GPtrArray *problems);
gboolean settings_load_virtlockd(Settings *settings, const char *path, gboolean must_exist,
                                 GPtrArray *problems);

/** The same for `len` bytes at `data` that are in the manner of `which`; `name` is for messages. */
gboolean settings_parse(Settings *settings, SettingsFile which, const char *name, const char *data,
                        gsize len, GPtrArray *problems);

/**
 * The file to give to settings_load_lockd(): the one that lockd_conf names, `standard` when that
 * is not set, or NULL for none (lockd_conf = ""). Sets `ret_must_exist`: a file that the
 * administrator named has to exist, the standard one need not. Owned by `settings` or `standard`.
 */
const char *settings_lockd_conf(const Settings *settings, const char *standard,
                                gboolean *ret_must_exist);

/* ---- the table of keys ----------------------------------------------------------------- */

/** What a value has to look like, and which member type of Settings holds it. */
typedef enum SettingsKind {
    SETTINGS_BOOL,           /**< 0 or 1; gboolean */
    SETTINGS_NUMBER,         /**< min to max; guint */
    SETTINGS_PATH,           /**< absolute path; char * */
    SETTINGS_SOCKET,         /**< absolute path that fits into a socket's address; char * */
    SETTINGS_GROUP,          /**< name of a group; char * */
    SETTINGS_HOST,           /**< name of a host; char * */
    SETTINGS_DRIVER,         /**< name of a driver; char * */
    SETTINGS_DRIVER_OPTIONS, /**< list of "driver.key=value"; GPtrArray * */
    SETTINGS_CHOICE,         /**< one of the words in `choices`; char * */
    SETTINGS_PR_LOG,         /**< one of the words in `choices`, or an absolute path; char * */
    SETTINGS_PR_RULES,       /**< list of rules, see pr-rule.h; GPtrArray * */
    SETTINGS_LOG_FILTERS,    /**< string; GPtrArray * */
    SETTINGS_LOG_OUTPUTS,    /**< string; GPtrArray * */
    SETTINGS_UNUSED,         /**< a number that is checked and not kept; no member */
} SettingsKind;

/** One key. */
typedef struct SettingsKey {
    const char *name;
    SettingsKind kind;
    guint files;         /**< bit 1 << SettingsFile for each file that may have the key */
    guint min;           /**< of a number */
    guint max;           /**< of a number */
    const char *initial; /**< the default, as a file would say it; NULL: not set */
    gsize offset;        /**< of the member in Settings */
    const char *choices; /**< words, separated by blanks */
    const char *help;    /**< one line for people */
} SettingsKey;

/** All SETTINGS_KEY_COUNT keys of all files, in the order of the shipped holdfast.conf. Static. */
const SettingsKey *settings_keys(void);

/** The key of that name; NULL when there is none. Static. */
const SettingsKey *settings_find_key(const char *name);

/**
 * The value that `settings` has for `key`, as holdfast.conf would say it: 30, "lockd", [ ].
 * NULL when it is not set, or is not kept. The caller frees it.
 */
char *settings_value_to_string(const Settings *settings, const SettingsKey *key);

/** Which file gave the value; SETTINGS_DEFAULT when none did. */
SettingsFile settings_origin(const Settings *settings, const SettingsKey *key);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Settings, settings_free)

G_END_DECLS
