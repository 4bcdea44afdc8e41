/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See confine.h: user, group, capabilities, files. The system calls are in confine-calls.c. */
#define G_LOG_DOMAIN "holdfast.pr"

#include "confine.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static gboolean confine_fail(char **ret_error, const char *what)
{
    *ret_error = g_strdup_printf("cannot %s: %s", what, g_strerror(errno));
    return FALSE;
}

/* ---- user and group -------------------------------------------------------------------- */

static gboolean confine_number(const char *text, guint64 *ret_value)
{
    /* one less than the type holds: -1 means "leave it" to the system calls */
    return g_ascii_string_to_unsigned(text, 10, 0, G_MAXUINT32 - 1, ret_value, NULL);
}

gboolean pr_confine_identity(const char *user, const char *group, PrIdentity *ret_identity,
                             char **ret_error)
{
    PrIdentity identity = {.change_uid = user != NULL, .change_gid = user || group};
    guint64 number = 0;

    identity.uid = geteuid();
    identity.gid = getegid();
    if (user) {
        struct passwd *entry =
            confine_number(user, &number) ? getpwuid((uid_t)number) : getpwnam(user);

        if (!entry && !confine_number(user, &number)) {
            *ret_error =
                g_strdup_printf("there is no user '%s'; make one, or correct --user", user);
            return FALSE;
        }
        identity.uid = entry ? entry->pw_uid : (uid_t)number;
        identity.gid = entry ? entry->pw_gid : identity.gid;
        identity.change_gid = entry || group;
    }
    if (group) {
        struct group *entry = confine_number(group, &number) ? NULL : getgrnam(group);

        if (!entry && !confine_number(group, &number)) {
            *ret_error =
                g_strdup_printf("there is no group '%s'; make one, or correct --group", group);
            return FALSE;
        }
        identity.gid = entry ? entry->gr_gid : (gid_t)number;
    }
    *ret_identity = identity;
    return TRUE;
}

static gboolean confine_become(const PrIdentity *identity, char **ret_error)
{
    if (identity->change_gid && setresgid(identity->gid, identity->gid, identity->gid) < 0)
        return confine_fail(ret_error, "change the group");
    /* supplementary groups of whoever has started the helper are none of its own */
    if ((identity->change_gid || identity->change_uid) && setgroups(0, NULL) < 0)
        return confine_fail(ret_error, "drop the supplementary groups");
    if (identity->change_uid && setresuid(identity->uid, identity->uid, identity->uid) < 0)
        return confine_fail(ret_error, "change the user");
    return TRUE;
}

/* ---- capabilities ---------------------------------------------------------------------- */

static gboolean confine_get_capabilities(uint64_t *ret_permitted, char **ret_error)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

    if (syscall(SYS_capget, &header, data) < 0)
        return confine_fail(ret_error, "read the capabilities");
    *ret_permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
    return TRUE;
}

static gboolean confine_set_capabilities(uint64_t kept, char **ret_error)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {
        {.effective = (uint32_t)kept, .permitted = (uint32_t)kept},
        {.effective = (uint32_t)(kept >> 32), .permitted = (uint32_t)(kept >> 32)},
    };

    if (syscall(SYS_capset, &header, data) < 0)
        return confine_fail(ret_error, "drop the capabilities");
    return TRUE;
}

/* Nothing that is executed later could get them back. Needs CAP_SETPCAP; who has it not, has no
 * business with the set, and no_new_privs says the same. */
static void confine_drop_bounding(uint64_t permitted, uint64_t kept)
{
    if (!(permitted & UINT64_C(1) << CAP_SETPCAP))
        return;
    for (int i = 0; i <= CAP_LAST_CAP; i++)
        if (!(kept & UINT64_C(1) << i))
            prctl(PR_CAPBSET_DROP, i, 0, 0, 0);
}

gboolean pr_confine_privileges(const PrIdentity *identity, uint64_t capabilities, char **ret_error)
{
    uint64_t permitted = 0;

    if (!confine_get_capabilities(&permitted, ret_error))
        return FALSE;
    confine_drop_bounding(permitted, capabilities);
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
        return confine_fail(ret_error, "keep capabilities");
    if (!confine_become(identity, ret_error) ||
        !confine_set_capabilities(permitted & capabilities, ret_error))
        return FALSE;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        (!PR_CONFINE_LOOSELY && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0))
        return confine_fail(ret_error, "give up new privileges");
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if ((permitted & capabilities) != capabilities)
        g_warning("without CAP_SYS_RAWIO (and CAP_SYS_ADMIN for multipath and NVMe) the kernel "
                  "refuses most commands; start it as root");
    return TRUE;
}

/* ---- files ----------------------------------------------------------------------------- */

/* Everything that the first version of Landlock knows (Linux 5.13); glibc has no functions. */
#define CONFINE_RIGHTS                                                                             \
    (LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_READ_FILE |   \
     LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_REMOVE_DIR |                                 \
     LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR | \
     LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |   \
     LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM)

static gboolean confine_allow(int rules, const char *path, uint64_t rights)
{
    struct landlock_path_beneath_attr below = {.allowed_access = rights};
    long r;

    below.parent_fd = open(path, O_PATH | O_CLOEXEC);
    if (below.parent_fd < 0)
        return errno == ENOENT;
    r = syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &below, 0);
    close(below.parent_fd);
    return r == 0;
}

static gboolean confine_allow_needed(int rules, const char *const removed[], gsize n_removed,
                                     const char *log)
{
    const uint64_t read = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
    gboolean fine =
        (!PR_CONFINE_LOOSELY ||
         confine_allow(rules, "/", CONFINE_RIGHTS & ~(uint64_t)LANDLOCK_ACCESS_FS_EXECUTE)) &&
        confine_allow(rules, "/sys", read) && confine_allow(rules, "/proc", read) &&
        /* in the background, instead of the terminal */
        confine_allow(rules, "/dev/null",
                      LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE);

    for (gsize i = 0; fine && i < n_removed; i++) {
        g_autofree char *dir = removed[i] ? g_path_get_dirname(removed[i]) : NULL;

        fine = !dir || confine_allow(rules, dir, LANDLOCK_ACCESS_FS_REMOVE_FILE);
    }
    /* the log of commands is opened again, after logrotate has given it another name */
    return fine &&
           (!log ||
            confine_allow(rules, log, LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_WRITE_FILE));
}

gboolean pr_confine_files(const char *const removed[], gsize n_removed, const char *log,
                          gboolean *ret_active, char **ret_error)
{
    const struct landlock_ruleset_attr attr = {.handled_access_fs = CONFINE_RIGHTS};
    int rules = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
    gboolean fine;

    *ret_active = FALSE;
    if (rules < 0 && (errno == ENOSYS || errno == EOPNOTSUPP))
        return TRUE;
    if (rules < 0)
        return confine_fail(ret_error, "make rules for files");
    fine = confine_allow_needed(rules, removed, n_removed, log) &&
           syscall(SYS_landlock_restrict_self, rules, 0) == 0;
    if (!fine)
        confine_fail(ret_error, "give up access to files");
    close(rules);
    *ret_active = fine;
    return fine;
}
