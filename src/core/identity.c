/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See identity.h. The look-ups block and belong into lanes; the rules themselves are pure. */
#include "identity.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define SCSI_ID "/lib/udev/scsi_id"

/* Stock asks only for paths that begin with these four letters, and so do we. */
static gboolean identity_in_dev(const char *path)
{
    return g_str_has_prefix(path, "/dev");
}

gboolean identity_needs_facts(const IdentityRules *rules, const char *path)
{
    if (rules->file_lockspace_dir)
        return TRUE;
    return identity_in_dev(path) && (rules->lvm_lockspace_dir || rules->scsi_lockspace_dir);
}

char *identity_claim(const struct stat *st)
{
    char text[64]; /* "file:", three numbers of at most 10, 10 and 20 digits */

    if (S_ISBLK(st->st_mode))
        g_snprintf(text, sizeof(text), "block:%u:%u", major(st->st_rdev), minor(st->st_rdev));
    else
        g_snprintf(text, sizeof(text), "file:%u:%u:%llu", major(st->st_dev), minor(st->st_dev),
                   (unsigned long long)st->st_ino);
    return g_strdup(text);
}

char *identity_lv_key(const char *dm_uuid)
{
    static const size_t groups[] = {6, 4, 4, 4, 4, 4, 6};
    const char *p = dm_uuid;
    GString *key;

    /* 4 + 32 + 32 characters; internal LVs (snapshots' origins, pools) have a suffix behind */
    if (strncmp(p, "LVM-", 4) != 0 || strcspn(p, "\n") != 4 + 64)
        return NULL;
    p += 4 + 32;
    key = g_string_new(NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(groups); i++) {
        if (i)
            g_string_append_c(key, '-');
        g_string_append_len(key, p, (gssize)groups[i]);
        p += groups[i];
    }
    return g_string_free(key, FALSE);
}

static char *identity_read_sys(dev_t device, const char *attribute)
{
    g_autofree char *path =
        g_strdup_printf("/sys/dev/block/%u:%u/%s", major(device), minor(device), attribute);
    char *text = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL))
        return NULL;
    return g_strstrip(text);
}

/* What stock runs, run the same way, so that the id is the same to the letter. Its failure says
 * that this is no SCSI disk. But if nobody knows what it says, to go on would be to lock another
 * resource than the other hosts do: that is a fault. */
static gboolean identity_run_scsi_id(const char *path, char **ret_id, Fault **ret_fault)
{
    const char *argv[] = {SCSI_ID, "--replace-whitespace", "--whitelisted", "--device", path, NULL};
    g_autofree char *out = NULL;
    g_autoptr(GError) error = NULL;
    int status = -1;

    if (!g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, &out, NULL,
                      &status, &error) ||
        !WIFEXITED(status)) {
        *ret_fault = fault_new(HF_ERR_BAD_RESOURCE, 0,
                               "cannot ask disk '%s' for its SCSI identifier by " SCSI_ID
                               ": %s; see that it works, or do without scsi_lockspace_dir",
                               path, error ? error->message : "it was interrupted");
        return FALSE;
    }
    out[strcspn(out, "\n")] = '\0';
    if (WEXITSTATUS(status) == 0 && *out)
        *ret_id = g_steal_pointer(&out);
    return TRUE;
}

static gboolean identity_look_up_device(const IdentityRules *rules, const char *path, dev_t device,
                                        IdentityFacts *facts, Fault **ret_fault)
{
    if (rules->lvm_lockspace_dir) {
        g_autofree char *uuid = identity_read_sys(device, "dm/uuid");

        if (uuid)
            facts->lv_uuid = identity_lv_key(uuid);
    }
    if (rules->scsi_lockspace_dir && !facts->lv_uuid) {
        if (!identity_run_scsi_id(path, &facts->scsi_id, ret_fault))
            return FALSE;
        if (!facts->scsi_id)
            facts->nvme_id = identity_read_sys(device, "wwid");
    }
    return TRUE;
}

IdentityFacts *identity_look_up(const IdentityRules *rules, const char *path, Fault **ret_fault)
{
    g_autoptr(IdentityFacts) facts = g_new0(IdentityFacts, 1);
    struct stat st;
    char *canonical;

    if (stat(path, &st) < 0) {
        int err = errno;
        *ret_fault =
            fault_new(err == EIO ? HF_ERR_STORAGE : HF_ERR_BAD_RESOURCE, err,
                      "cannot look up disk '%s': %s; check the path", path, g_strerror(err));
        return NULL;
    }
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
        *ret_fault = fault_new(HF_ERR_BAD_RESOURCE, S_ISDIR(st.st_mode) ? EISDIR : EINVAL,
                               "disk '%s' is %s: name an image file or a block device", path,
                               S_ISDIR(st.st_mode) ? "a directory" : "no file or block device");
        return NULL;
    }
    facts->claim = identity_claim(&st);
    canonical = realpath(path, NULL);
    facts->canonical = g_strdup(canonical);
    free(canonical);
    if (S_ISBLK(st.st_mode) && identity_in_dev(path) &&
        !identity_look_up_device(rules, path, st.st_rdev, facts, ret_fault))
        return NULL;
    return g_steal_pointer(&facts);
}

void identity_facts_free(IdentityFacts *facts)
{
    if (!facts)
        return;
    g_free(facts->canonical);
    g_free(facts->claim);
    g_free(facts->lv_uuid);
    g_free(facts->scsi_id);
    g_free(facts->nvme_id);
    g_free(facts);
}

void identity_name_free(IdentityName *name)
{
    g_free(name->space);
    g_free(name->key);
    g_free(name);
}

static void identity_add(GPtrArray *names, const char *space, char *key, gboolean autocreate)
{
    IdentityName *name = g_new0(IdentityName, 1);

    name->space = g_strdup(space);
    name->key = key;
    name->autocreate = autocreate;
    g_ptr_array_add(names, name);
}

static char *identity_hash(const char *path)
{
    return g_compute_checksum_for_string(G_CHECKSUM_SHA256, path, -1);
}

GPtrArray *identity_names(const IdentityRules *rules, const char *path, const IdentityFacts *facts)
{
    GPtrArray *names = g_ptr_array_new_with_free_func((GDestroyNotify)identity_name_free);

    if (facts && facts->lv_uuid) {
        identity_add(names, rules->lvm_lockspace_dir, g_strdup(facts->lv_uuid), TRUE);
        return names;
    }
    if (facts && facts->scsi_id) {
        identity_add(names, rules->scsi_lockspace_dir, g_strdup(facts->scsi_id), TRUE);
        return names;
    }
    if (rules->file_lockspace_dir) {
        identity_add(names, rules->file_lockspace_dir, identity_hash(path), TRUE);
        if (facts && facts->canonical && strcmp(facts->canonical, path) != 0)
            identity_add(names, rules->file_lockspace_dir, identity_hash(facts->canonical), TRUE);
    } else {
        identity_add(names, "", g_strdup(path), FALSE);
    }
    if (facts && facts->nvme_id)
        identity_add(names, rules->scsi_lockspace_dir, g_strdup(facts->nvme_id), TRUE);
    return names;
}

static gboolean identity_is_hash(const char *key)
{
    return strlen(key) == 64 && strspn(key, "0123456789abcdef") == 64;
}

/* The hashes of what a process has open and names in its arguments, kept for a moment: a VM's disks
 * come one after the other, and to look through all descriptors for each would cost more than to
 * lock it. One for each thread. */
typedef struct IdentityCache {
    pid_t pid;
    gint64 filled_usec;
    GHashTable *paths; /* hash -> path */
} IdentityCache;

/* As long as this what was found is believed: a file may be closed and its path be another's. */
#define IDENTITY_FOUND_USEC (50 * G_TIME_SPAN_MILLISECOND)
/* As long as this what was not found is: libvirt locks a VM's disks before the VM opens them, so
 * that mostly there is nothing to be found however often it is looked for. */
#define IDENTITY_MISSING_USEC (10 * G_TIME_SPAN_MILLISECOND)

static void identity_cache_free(gpointer data)
{
    IdentityCache *cache = data;

    g_hash_table_unref(cache->paths);
    g_free(cache);
}

static GPrivate identity_cache = G_PRIVATE_INIT(identity_cache_free);

static void identity_cache_descriptors(IdentityCache *cache)
{
    g_autofree char *dir_name = g_strdup_printf("/proc/%d/fd", (int)cache->pid);
    struct dirent *entry;
    DIR *dir = opendir(dir_name);

    while (dir && (entry = readdir(dir))) {
        char path[PATH_MAX];
        ssize_t len = readlinkat(dirfd(dir), entry->d_name, path, sizeof(path) - 1);

        if (len <= 0 || path[0] != '/')
            continue;
        path[len] = '\0';
        g_hash_table_replace(cache->paths, identity_hash(path), g_strdup(path));
    }
    if (dir)
        closedir(dir);
}

/* QEMU's arguments have the path as libvirt was given it: "filename":"/srv/a.img" or
 * file=/srv/a.img. */
static void identity_cache_arguments(IdentityCache *cache)
{
    g_autofree char *name = g_strdup_printf("/proc/%d/cmdline", (int)cache->pid);
    g_autofree char *text = NULL;
    gsize len;

    if (!g_file_get_contents(name, &text, &len, NULL))
        return;
    for (char *p = text; p < text + len; p++) {
        gsize n;

        if (*p != '/' || (p > text && !strchr("\"=:", p[-1]) && p[-1] != '\0'))
            continue;
        n = strcspn(p, "\",");
        if (n < PATH_MAX) {
            char *path = g_strndup(p, n);

            g_hash_table_replace(cache->paths, identity_hash(path), path);
        }
        p += n;
    }
}

static void identity_cache_fill(IdentityCache *cache, pid_t pid, gboolean arguments)
{
    g_hash_table_remove_all(cache->paths);
    cache->pid = pid;
    identity_cache_descriptors(cache);
    /* a process that is stuck in the kernel may not let its arguments be read */
    if (arguments)
        identity_cache_arguments(cache);
    cache->filled_usec = g_get_monotonic_time();
}

static char *identity_guess(pid_t pid, const char *key, gboolean arguments)
{
    IdentityCache *cache = g_private_get(&identity_cache);
    const char *found = NULL;
    gint64 age;

    if (!cache) {
        cache = g_new0(IdentityCache, 1);
        cache->paths = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
        g_private_set(&identity_cache, cache);
    }
    age = cache->pid == pid ? g_get_monotonic_time() - cache->filled_usec : G_MAXINT64;
    if (age <= IDENTITY_FOUND_USEC)
        found = g_hash_table_lookup(cache->paths, key);
    /* who asks without arguments does so once, for a person who reads the answer */
    if (!found && (!arguments || age > IDENTITY_MISSING_USEC)) {
        identity_cache_fill(cache, pid, arguments);
        found = g_hash_table_lookup(cache->paths, key);
    }
    return g_strdup(found);
}

static char *identity_claim_of(const char *path)
{
    struct statx sx;
    struct stat st = {0};

    if (statx(AT_FDCWD, path, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE | STATX_INO, &sx) <
        0)
        return NULL;
    st.st_mode = sx.stx_mode;
    st.st_dev = makedev(sx.stx_dev_major, sx.stx_dev_minor);
    st.st_rdev = makedev(sx.stx_rdev_major, sx.stx_rdev_minor);
    st.st_ino = sx.stx_ino;
    return identity_claim(&st);
}

char *identity_guess_disk(pid_t pid, const char *key, char **ret_claim)
{
    char *found;

    if (pid <= 0 || !identity_is_hash(key))
        return NULL;
    found = identity_guess(pid, key, ret_claim != NULL);
    if (found && ret_claim)
        *ret_claim = identity_claim_of(found);
    return found;
}
