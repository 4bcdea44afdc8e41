/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The driver that locks files as stock virtlockd does: byte 0, length 1, of the disk itself
 * (space "") or of a file in a lockspace directory. The locks are open-file-description locks:
 * they belong to the descriptor, so closing another descriptor of the same file does not drop
 * them, and they conflict with stock's classic locks on this host and on others.
 *
 * In a lockspace directory each holder also leaves a record (protocol/record.h) in a slot of the
 * lock file and locks the slot's own byte, so that a reader can tell a living record from what a
 * crash left behind. Nothing is ever written into a file that is neither empty nor begins with
 * our header: somebody may call a directory of disk images a lockspace.
 */
#include "lockd-file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Each round of the race below needs another host to remove the file just then. */
#define LOCKD_MAX_RACES 100

/* A held lock. */
typedef struct LockdHandle {
    int fd;
    int slot; /* of the record, or -1 */
    hf_mode mode;
    gboolean autocreate;
    const char *space; /* "" for a direct lock */
    char key[];        /* and behind it the space */
} LockdHandle;

/* In one piece, for there may be ten thousands. */
static LockdHandle *lockd_handle_new(const struct hf_resource *resource, int fd)
{
    size_t key = strlen(resource->key) + 1, space = strlen(resource->space) + 1;
    LockdHandle *handle = g_malloc0(sizeof(*handle) + key + space);

    handle->fd = fd;
    handle->slot = -1;
    handle->mode = resource->mode;
    memcpy(handle->key, resource->key, key);
    handle->space = handle->key + key;
    memcpy(handle->key + key, resource->space, space);
    return handle;
}

static void lockd_handle_free(LockdHandle *handle)
{
    if (handle->fd >= 0)
        close(handle->fd);
    g_free(handle);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(LockdHandle, lockd_handle_free)

static int lockd_open_space(struct hf_call *call, const char *space, unsigned flags,
                            void **ret_space)
{
    struct stat st;

    *ret_space = NULL;
    if (!*space)
        return 0;
    if (*space != '/') {
        hf_call_error(call, HF_ERR_BAD_RESOURCE, EINVAL,
                      "lockspace '%s' is not an absolute path: name a directory", space);
        return -1;
    }
    if (stat(space, &st) == 0) {
        if (!S_ISDIR(st.st_mode)) {
            hf_call_error(call, HF_ERR_BAD_RESOURCE, ENOTDIR,
                          "lockspace location %s exists, but is not a directory", space);
            return -1;
        }
        if (flags & HF_RESOURCE_EXCLUSIVE_CREATE) {
            hf_call_error(call, HF_ERR_INVALID_ARGUMENT, EEXIST,
                          "lockspace for path %s already exists", space);
            return -1;
        }
        return 0;
    }
    if (errno != ENOENT || !(flags & HF_RESOURCE_CREATE))
        return lockd_fail(call, errno, "cannot open lockspace directory", space, "");
    if (g_mkdir_with_parents(space, 0700) < 0)
        return lockd_fail(call, errno, "cannot make lockspace directory", space, "");
    return 0;
}

/* Who is in the way: living records, else what the kernel says. `fd` may be -1. */
static void lockd_tell_holders(struct hf_call *call, int fd, const struct flock *lock,
                               gboolean records)
{
    struct hf_holder seen = {.mode = lock->l_type == F_RDLCK ? HF_MODE_SHARED : HF_MODE_EXCLUSIVE};
    g_autofree char *comm = NULL;

    if (records && lockd_read_records(call, fd) > 0)
        return;
    /* on a network file system the number may be another host's */
    if (lock->l_pid > 0 && !lockd_is_remote(fd)) {
        g_autofree char *path = g_strdup_printf("/proc/%d/comm", (int)lock->l_pid);

        if (g_file_get_contents(path, &comm, NULL, NULL))
            seen.name = g_strchomp(comm);
        seen.pid = lock->l_pid;
        seen.host = hf_call_host(call);
    }
    hf_call_holder(call, &seen);
}

/* 1: locked, 0: lost a race and should be tried again, -1: failed. */
static int lockd_try(struct hf_call *call, LockdHandle *handle, const struct hf_resource *resource,
                     const struct hf_holder *owner)
{
    gboolean direct = !*handle->space;
    struct flock lock;
    struct stat st, now;

    if (lockd_open(call, resource, TRUE, &handle->fd, &st) < 0)
        return -1;
    if (lockd_lock(handle->fd, handle->mode, LOCKD_BYTE) < 0) {
        int err = errno;

        if (err != EAGAIN && err != EACCES)
            return lockd_fail(call, err, "cannot lock", handle->space, handle->key);
        lockd_claim(call, &st);
        if (lockd_get_lock(handle->fd, &lock) == 0 && lock.l_type != F_UNLCK)
            lockd_tell_holders(call, handle->fd, &lock, !direct);
        hf_call_error(call, HF_ERR_BUSY, err, NULL);
        return -1;
    }
    if (!direct && !lockd_still_there(handle->space, handle->key, &st, &now)) {
        close(handle->fd);
        handle->fd = -1;
        return 0;
    }
    lockd_claim(call, &st);
    if (!direct && lockd_write_record(call, handle->fd, resource, owner, &now, &handle->slot) < 0) {
        if (handle->autocreate && st.st_size == 0)
            lockd_unlink(handle->space, handle->key, &st);
        return -1;
    }
    return 1;
}

static int lockd_acquire(struct hf_call *call, void *space, const struct hf_resource *resource,
                         const struct hf_holder *owner, void **ret_handle)
{
    g_autoptr(LockdHandle) handle = lockd_handle_new(resource, -1);
    int got = 0;

    (void)space;
    handle->autocreate = (resource->flags & HF_RESOURCE_AUTOCREATE) != 0;
    for (int i = 0; got == 0 && i < LOCKD_MAX_RACES; i++)
        got = lockd_try(call, handle, resource, owner);
    if (got == 0)
        hf_call_error(call, HF_ERR_STORAGE, EAGAIN,
                      "lock file '%s' in '%s' was removed %d times while it was being locked; "
                      "look for a program that cleans this directory",
                      resource->key, resource->space, LOCKD_MAX_RACES);
    if (got <= 0)
        return -1;
    *ret_handle = g_steal_pointer(&handle);
    return 0;
}

/* What is to be done with the file before its lock goes. */
static int lockd_tidy(struct hf_call *call, const LockdHandle *handle)
{
    struct stat st;
    gboolean alone;

    if (!*handle->space)
        return 0;
    /* Sharers on other hosts may have the file locked as well: only the last one may remove it,
     * and who can lock it exclusively is the last. */
    alone = handle->mode == HF_MODE_EXCLUSIVE ||
            lockd_lock(handle->fd, HF_MODE_EXCLUSIVE, LOCKD_BYTE) == 0;
    if (fstat(handle->fd, &st) < 0)
        return lockd_fail(call, errno, "cannot look at", handle->space, handle->key);
    /* somebody may have named a disk as a lock file, and asked to have it removed */
    if (alone && handle->autocreate && lockd_may_write(handle->fd, &st)) {
        if (lockd_unlink(handle->space, handle->key, &st) < 0)
            return lockd_fail(call, errno, "released, but cannot remove", handle->space,
                              handle->key);
        return 0;
    }
    if (handle->slot >= 0 && lockd_clear_record(handle->fd, handle->slot, alone) < 0)
        return lockd_fail(call, errno, "released, but cannot clear the record in", handle->space,
                          handle->key);
    return 0;
}

static int lockd_release(struct hf_call *call, void *space, void *data)
{
    g_autoptr(LockdHandle) handle = data;
    int r = lockd_tidy(call, handle);

    (void)space;
    /* closing is not enough: a supervisor may have a copy of the descriptor */
    if (lockd_unlock(handle->fd) < 0 && r == 0)
        return lockd_fail(call, errno, "cannot unlock", handle->space, handle->key);
    return r;
}

/* The bytes are "AUTOCREATE SLOT" in decimal. */
static int lockd_save(struct hf_call *call, void *space, void *data, struct hf_saved *ret_saved)
{
    const LockdHandle *handle = data;

    (void)call;
    (void)space;
    ret_saved->fds[0] = handle->fd;
    ret_saved->n_fds = 1;
    ret_saved->n_bytes = (unsigned)g_snprintf(ret_saved->bytes, sizeof(ret_saved->bytes), "%d %d",
                                              handle->autocreate != 0, handle->slot);
    return 0;
}

static int lockd_adopt(struct hf_call *call, void *space, const struct hf_resource *resource,
                       const struct hf_saved *saved, void **ret_handle)
{
    g_autoptr(LockdHandle) handle =
        lockd_handle_new(resource, saved->n_fds == 1 ? saved->fds[0] : -1);
    g_autofree char *text = g_strndup(saved->bytes, saved->n_bytes);
    struct stat st;
    int autocreate;

    (void)space;
    if (handle->fd < 0 || sscanf(text, "%d %d", &autocreate, &handle->slot) != 2) {
        hf_call_error(call, HF_ERR_INTERNAL, EINVAL, "what was saved of '%s' cannot be read",
                      resource->key);
        return -1;
    }
    handle->autocreate = autocreate != 0;
    if (fstat(handle->fd, &st) < 0)
        return lockd_fail(call, errno, "cannot look at", handle->space, handle->key);
    lockd_claim(call, &st);
    if (*handle->space && lockd_was_replaced(handle->space, handle->key, &st)) {
        hf_call_error(call, HF_ERR_STORAGE, ESTALE,
                      "lock file '%s' in '%s' was removed or replaced meanwhile", handle->key,
                      handle->space);
        return -1;
    }
    /* what the descriptor has locked it may lock again; if it had lost it, this takes it back */
    if (lockd_lock(handle->fd, handle->mode, LOCKD_BYTE) < 0)
        return lockd_fail(call, errno, "somebody else has locked", handle->space, handle->key);
    *ret_handle = g_steal_pointer(&handle);
    return 0;
}

static int lockd_verify(struct hf_call *call, void *space, void *data)
{
    const LockdHandle *handle = data;
    struct stat st, now;

    (void)space;
    if (fstat(handle->fd, &st) < 0)
        return lockd_fail(call, errno, "cannot look at", handle->space, handle->key);
    if (*handle->space && !lockd_still_there(handle->space, handle->key, &st, &now)) {
        hf_call_error(call, HF_ERR_STORAGE, ESTALE,
                      "lock file '%s' in '%s' was removed or replaced while it was held",
                      handle->key, handle->space);
        return -1;
    }
    return 0;
}

static int lockd_holder(struct hf_call *call, void *space, const struct hf_resource *resource,
                        int *ret_free)
{
    struct hf_resource look = *resource;
    struct flock lock;
    struct stat st;
    int fd, r;

    (void)space;
    look.flags = 0;
    look.mode = HF_MODE_READONLY;
    if (*look.space && !lockd_exists(look.space, look.key)) {
        /* a file that would be made by the first acquire is free */
        *ret_free = (resource->flags & HF_RESOURCE_AUTOCREATE) != 0;
        if (*ret_free)
            return 0;
    }
    if (lockd_open(call, &look, FALSE, &fd, &st) < 0)
        return -1;
    lockd_claim(call, &st);
    r = lockd_get_lock(fd, &lock);
    if (r < 0)
        lockd_fail(call, errno, "cannot ask for the lock of", look.space, look.key);
    else if (lock.l_type != F_UNLCK)
        lockd_tell_holders(call, fd, &lock, *look.space != '\0');
    close(fd);
    if (r < 0)
        return -1;
    *ret_free = lock.l_type == F_UNLCK;
    return 0;
}

/* Who can lock a resource may make or remove it: takes the lock, and leaves the file or not. */
static int lockd_leave(struct hf_call *call, void *space, const struct hf_resource *resource,
                       gboolean leave)
{
    struct hf_resource wanted = *resource;
    struct hf_holder nobody = {.mode = HF_MODE_EXCLUSIVE};
    LockdHandle *handle;
    void *data;

    if (!*resource->space) {
        /* stock does as it is told, and there the resources are the disks */
        hf_call_error(call, HF_ERR_PERMISSION, EPERM,
                      "'%s' is a disk, not a lock file: a lock daemon neither makes nor removes "
                      "disks",
                      resource->key);
        return -1;
    }
    wanted.flags = leave ? HF_RESOURCE_AUTOCREATE : 0;
    wanted.mode = HF_MODE_EXCLUSIVE;
    if (lockd_acquire(call, space, &wanted, &nobody, &data) < 0)
        return -1;
    handle = data;
    handle->autocreate = !leave;
    return lockd_release(call, space, handle);
}

static int lockd_create(struct hf_call *call, void *space, const struct hf_resource *resource)
{
    return lockd_leave(call, space, resource, TRUE);
}

static int lockd_remove(struct hf_call *call, void *space, const struct hf_resource *resource)
{
    if (*resource->space && lockd_name_stays(resource->key) &&
        !lockd_exists(resource->space, resource->key))
        return 0; /* nothing to remove is fine, as with stock */
    return lockd_leave(call, space, resource, FALSE);
}

const struct hf_driver hf_driver_lockd = {
    .size = sizeof(struct hf_driver),
    .api_version = HF_DRIVER_API,
    .name = "lockd",
    .version = HOLDFAST_VERSION,
    .description = "file locks on the disk itself or in lockspace directories, as virtlockd's",
    .capabilities = HF_CAN_SHARE | HF_HAS_HOST | HF_SURVIVES,
    .open_space = lockd_open_space,
    .acquire = lockd_acquire,
    .release = lockd_release,
    .verify = lockd_verify,
    .holder = lockd_holder,
    .create = lockd_create,
    .remove = lockd_remove,
    .save = lockd_save,
    .adopt = lockd_adopt,
};
