/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See lockd-file.h. */
#include "lockd-file.h"

#include <errno.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/driver.h"
#include "core/identity.h"
#include "protocol/record.h"

/* A record's slot is marked as living by a lock on a byte of its own, far from byte 0 (stock) and
 * from 100 to 299 (QEMU's image locks), and within what 31-bit lock offsets of old NFS reach. */
#define LOCKD_SLOT_BYTE 0x40000000
#define LOCKD_SLOTS 256

#ifndef CIFS_SUPER_MAGIC
#define CIFS_SUPER_MAGIC 0xFF534D42
#endif

static const char *lockd_advice(int err, gboolean lease)
{
    switch (err) {
    case ENOENT:
        return lease ? "check the path; the file of a lease is made once, with touch"
                     : "check the path, and that its file system is mounted";
    case EISDIR:
        return "name a regular file";
    case ENOTDIR:
        return "a part of the path is not a directory; check the path";
    case ENAMETOOLONG:
        return "choose a shorter name";
    case EACCES:
    case EPERM:
        return "the daemon's user may not do that; check owner, mode and mount options";
    case EROFS:
        return "mount the file system writable, or name the disk as readonly";
    case ENOSPC:
    case EDQUOT:
        return "make room on that file system";
    case ELOOP:
        return "a lock file must not be a symbolic link";
    case EXDEV:
        return "the name would leave the lockspace directory";
    case ENOLCK:
        return "this file system does not offer locks; for NFS check rpc.statd or use version 4";
    case EMFILE:
    case ENFILE:
        return "raise the daemon's limit of open files";
    default:
        return "check the storage and the kernel's log";
    }
}

int lockd_fail(struct hf_call *call, int err, const char *what, const char *space, const char *key)
{
    gboolean storage = err == EIO || err == ENOSPC || err == EDQUOT || err == EROFS ||
                       err == ESTALE || err == ETIMEDOUT || err == ENOLCK || err == EMFILE ||
                       err == ENFILE || err == ENOMEM;
    g_autofree char *path = NULL;

    path = *space && *key ? g_build_filename(space, key, NULL) : g_strdup(*space ? space : key);
    hf_call_error(call, storage ? HF_ERR_STORAGE : HF_ERR_BAD_RESOURCE, err, "%s '%s': %s; %s",
                  what, path, g_strerror(err), lockd_advice(err, *space && *key));
    return -1;
}

static int lockd_wrong_kind(struct hf_call *call, const char *space, const char *key, mode_t mode)
{
    g_autofree char *path = *space ? g_build_filename(space, key, NULL) : g_strdup(key);
    const char *kind = S_ISDIR(mode)    ? "a directory"
                       : S_ISFIFO(mode) ? "a FIFO"
                       : S_ISLNK(mode)  ? "a symbolic link"
                       : S_ISSOCK(mode) ? "a socket"
                       : S_ISBLK(mode)  ? "a block device"
                                        : "a character device";

    hf_call_error(call, HF_ERR_BAD_RESOURCE, S_ISDIR(mode) ? EISDIR : EINVAL,
                  "%s '%s' is %s; name %s", *space ? "lock file" : "disk", path, kind,
                  *space ? "a regular file" : "an image file or a block device");
    return -1;
}

/* O_NONBLOCK, which keeps us from waiting in a FIFO, has open() not wait for a lease of somebody
 * else's either: one taken by fcntl(2), or what this host's NFS server has delegated to a client.
 * The first try has told the holder to give it back; the kernel takes it after lease-break-time, 45
 * s by default (proc(5)), hence: open at 0 s, lease taken away at 45 s, opened by 46 s, given up at
 * 60 s. Whether to try again, in a moment of which some has passed; `until` is 0 at first. */
#define LOCKD_BREAK_USEC (60 * G_USEC_PER_SEC)
#define LOCKD_BREAK_PAUSE_USEC 20000

static gboolean lockd_lease_breaks(int fd, gint64 *until)
{
    if (fd >= 0 || errno != EWOULDBLOCK)
        return FALSE;
    if (!*until)
        *until = g_get_monotonic_time() + LOCKD_BREAK_USEC;
    if (g_get_monotonic_time() >= *until)
        return FALSE;
    g_usleep(LOCKD_BREAK_PAUSE_USEC);
    return TRUE;
}

/* A disk is looked at before it is opened: opening some devices and FIFOs does things. */
static int lockd_open_disk(struct hf_call *call, const char *path, gboolean writable, hf_mode mode,
                           int *ret_fd, struct stat *ret_st)
{
    int flags = O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    gint64 until = 0;
    struct stat st;
    int fd;

    if (*path != '/') {
        hf_call_error(call, HF_ERR_BAD_RESOURCE, EINVAL,
                      "disk '%s' is not an absolute path; name it from the root", path);
        return -1;
    }
    if (stat(path, &st) < 0)
        return lockd_fail(call, errno, "cannot find disk", "", path);
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return lockd_wrong_kind(call, "", path, st.st_mode);
    do {
        fd = open(path, flags | (writable && mode != HF_MODE_READONLY ? O_RDWR : O_RDONLY));
        /* a shared lock needs no right to write */
        if (fd < 0 && mode == HF_MODE_SHARED && (errno == EROFS || errno == EACCES))
            fd = open(path, flags | O_RDONLY);
    } while (lockd_lease_breaks(fd, &until));
    if (fd < 0)
        return lockd_fail(call, errno, "cannot open disk", "", path);
    if (fstat(fd, ret_st) < 0 || (!S_ISREG(ret_st->st_mode) && !S_ISBLK(ret_st->st_mode))) {
        close(fd);
        return lockd_wrong_kind(call, "", path, ret_st->st_mode);
    }
    *ret_fd = fd;
    return 0;
}

/* The path of a lock file, or with "" as its lockspace of a disk. FALSE with errno if it is too
 * long to be one. */
static gboolean lockd_path(const char *space, const char *key, char path[static PATH_MAX])
{
    if (g_snprintf(path, PATH_MAX, "%s%s%s", space, *space ? "/" : "", key) < PATH_MAX)
        return TRUE;
    errno = ENAMETOOLONG;
    return FALSE;
}

/* A name without a slash cannot leave its directory, if it is no link. */
static int lockd_open_plain(const char *space, const char *key, int flags, mode_t mode)
{
    char path[PATH_MAX];

    return lockd_path(space, key, path) ? open(path, flags | O_NOFOLLOW, mode) : -1;
}

static int lockd_open_in(const char *space, const char *key, int flags, mode_t mode)
{
    const int all = flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    struct open_how how = {
        .flags = (unsigned)all,
        .mode = mode,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    int dir, fd, err;

    if (!strchr(key, '/'))
        return lockd_open_plain(space, key, all, mode);
    dir = open(space, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return -1;
    fd = (int)syscall(SYS_openat2, dir, key, &how, sizeof(how));
    err = errno;
    close(dir);
    errno = err;
    return fd;
}

/* openat2() keeps the name inside the directory; this gives the usual suspects a clearer error. */
gboolean lockd_name_stays(const char *key)
{
    for (const char *part = key;; part++) {
        size_t len = strcspn(part, "/");

        if (len == 0 || (len <= 2 && strspn(part, ".") >= len))
            return FALSE;
        part += len;
        if (!*part)
            return TRUE;
    }
}

static int lockd_open_lease(struct hf_call *call, const struct hf_resource *resource,
                            gboolean writable, int *ret_fd, struct stat *ret_st)
{
    const char *space = resource->space, *key = resource->key;
    int flags = writable ? O_RDWR : O_RDONLY;
    gint64 until = 0;
    int fd;

    if (!lockd_name_stays(key)) {
        hf_call_error(call, HF_ERR_BAD_RESOURCE, EXDEV,
                      "'%s' cannot be a name in lockspace '%s': it is empty or would leave that "
                      "directory",
                      key, space);
        return -1;
    }
    do {
        if (resource->flags & HF_RESOURCE_AUTOCREATE)
            fd = lockd_open_in(space, key, flags | O_CREAT, 0600);
        else
            fd = lockd_open_in(space, key, flags, 0);
    } while (lockd_lease_breaks(fd, &until));
    if (fd < 0)
        return lockd_fail(call, errno, "cannot open lock file", space, key);
    if (fstat(fd, ret_st) < 0 || !S_ISREG(ret_st->st_mode)) {
        /* a block device as a lease is possible with stock, and harmless: no record goes there */
        if (!S_ISBLK(ret_st->st_mode)) {
            close(fd);
            return lockd_wrong_kind(call, space, key, ret_st->st_mode);
        }
    }
    *ret_fd = fd;
    return 0;
}

int lockd_open(struct hf_call *call, const struct hf_resource *resource, gboolean writable,
               int *ret_fd, struct stat *ret_st)
{
    if (*resource->space)
        return lockd_open_lease(call, resource, writable, ret_fd, ret_st);
    return lockd_open_disk(call, resource->key, writable, resource->mode, ret_fd, ret_st);
}

static struct flock lockd_flock(short type, off_t byte)
{
    return (struct flock){
        .l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1, .l_pid = 0};
}

int lockd_lock(int fd, hf_mode mode, off_t byte)
{
    struct flock lock = lockd_flock(mode == HF_MODE_EXCLUSIVE ? F_WRLCK : F_RDLCK, byte);

    return fcntl(fd, F_OFD_SETLK, &lock);
}

int lockd_unlock(int fd)
{
    struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET};

    return fcntl(fd, F_OFD_SETLK, &lock);
}

int lockd_get_lock(int fd, struct flock *ret_lock)
{
    *ret_lock = lockd_flock(F_WRLCK, LOCKD_BYTE);
    return fcntl(fd, F_OFD_GETLK, ret_lock);
}

gboolean lockd_is_remote(int fd)
{
    struct statfs fs;

    if (fstatfs(fd, &fs) < 0)
        return FALSE;
    switch ((guint32)fs.f_type) {
    case NFS_SUPER_MAGIC:
    case SMB_SUPER_MAGIC:
    case CIFS_SUPER_MAGIC:
    case SMB2_SUPER_MAGIC:
    case CEPH_SUPER_MAGIC:
    case FUSE_SUPER_MAGIC:
    case OCFS2_SUPER_MAGIC:
    case V9FS_MAGIC:
    case 0x01161970: /* GFS2, which linux/magic.h lacks; source: fs/gfs2 in the kernel */
        return TRUE;
    default:
        return FALSE;
    }
}

void lockd_claim(struct hf_call *call, const struct stat *st)
{
    call_take_claim(call, identity_claim(st));
}

static gboolean lockd_stat(const char *space, const char *key, struct stat *ret_st)
{
    char path[PATH_MAX];

    return lockd_path(space, key, path) && lstat(path, ret_st) == 0;
}

gboolean lockd_exists(const char *space, const char *key)
{
    struct stat st;

    return lockd_stat(space, key, &st);
}

gboolean lockd_still_there(const char *space, const char *key, const struct stat *st,
                           struct stat *ret_now)
{
    return lockd_stat(space, key, ret_now) && ret_now->st_dev == st->st_dev &&
           ret_now->st_ino == st->st_ino;
}

gboolean lockd_was_replaced(const char *space, const char *key, const struct stat *st)
{
    struct stat now;

    /* a directory that is not there just now, such as a mount that is missing, proves nothing */
    if (!lockd_stat(space, key, &now))
        return st->st_nlink == 0;
    return now.st_dev != st->st_dev || now.st_ino != st->st_ino;
}

int lockd_unlink(const char *space, const char *key, const struct stat *st)
{
    char path[PATH_MAX];
    struct stat now;

    if (!lockd_path(space, key, path) || !lockd_still_there(space, key, st, &now))
        return 0; /* somebody else removed it; what is there now is not ours */
    return unlink(path) < 0 && errno != ENOENT ? -1 : 0;
}

static off_t lockd_slot_offset(int slot)
{
    return (off_t)(slot + 1) * RECORD_BLOCK;
}

/* Only an empty file, or one that begins with our header, may be written to. */
gboolean lockd_may_write(int fd, const struct stat *st)
{
    char header[RECORD_BLOCK];

    if (!S_ISREG(st->st_mode))
        return FALSE;
    return st->st_size == 0 ||
           (pread(fd, header, sizeof(header), 0) == sizeof(header) && record_is_header(header));
}

static int lockd_take_slot(int fd)
{
    for (int slot = 0; slot < LOCKD_SLOTS; slot++)
        if (lockd_lock(fd, HF_MODE_EXCLUSIVE, LOCKD_SLOT_BYTE + slot) == 0)
            return slot;
    return -1;
}

static int lockd_write_blocks(int fd, int slot, const char *blocks, gboolean with_header)
{
    const char *from = with_header ? blocks : blocks + RECORD_BLOCK;
    size_t len = with_header && slot == 0 ? 2 * RECORD_BLOCK : RECORD_BLOCK;

    if (with_header && slot > 0 && pwrite(fd, blocks, RECORD_BLOCK, 0) != RECORD_BLOCK)
        return -1;
    if (with_header && slot > 0)
        from = blocks + RECORD_BLOCK;
    errno = ENOSPC; /* a short write says nothing itself */
    if (pwrite(fd, from, len, with_header && slot == 0 ? 0 : lockd_slot_offset(slot)) !=
        (ssize_t)len)
        return -1;
    /* other hosts read what the server has */
    return lockd_is_remote(fd) ? fdatasync(fd) : 0;
}

int lockd_write_record(struct hf_call *call, int fd, const struct hf_resource *resource,
                       const struct hf_holder *owner, const struct stat *now, int *ret_slot)
{
    char blocks[2 * RECORD_BLOCK];
    int slot;

    *ret_slot = -1;
    if (!lockd_may_write(fd, now))
        return 0;
    slot = lockd_take_slot(fd);
    if (slot < 0) /* more sharers than slots: they hold the lock all the same */
        return 0;
    record_encode_header(blocks);
    record_encode(blocks + RECORD_BLOCK, owner);
    if (lockd_write_blocks(fd, slot, blocks, now->st_size == 0) < 0) {
        int err = errno;

        if (owner->mode == HF_MODE_EXCLUSIVE && ftruncate(fd, 0) < 0)
            err = errno;
        return lockd_fail(call, err, "cannot write the holder's record into lock file",
                          resource->space, resource->key);
    }
    *ret_slot = slot;
    return 0;
}

int lockd_clear_record(int fd, int slot, gboolean all)
{
    char empty[RECORD_BLOCK] = {0};

    if (all)
        return ftruncate(fd, 0);
    return pwrite(fd, empty, sizeof(empty), lockd_slot_offset(slot)) == sizeof(empty) ? 0 : -1;
}

static gboolean lockd_slot_lives(int fd, int slot)
{
    struct flock lock = lockd_flock(F_WRLCK, LOCKD_SLOT_BYTE + slot);

    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

int lockd_read_records(struct hf_call *call, int fd)
{
    char block[RECORD_BLOCK];
    int found = 0;

    if (pread(fd, block, sizeof(block), 0) != sizeof(block) || !record_is_header(block))
        return 0;
    for (int slot = 0; slot < LOCKD_SLOTS; slot++) {
        g_autoptr(Holder) holder = NULL;
        struct hf_holder facts;

        if (pread(fd, block, sizeof(block), lockd_slot_offset(slot)) != sizeof(block))
            break;
        holder = record_decode(block);
        if (!holder || !lockd_slot_lives(fd, slot))
            continue;
        facts = (struct hf_holder){
            .disk = holder->disk,
            .name = holder->name,
            .uuid = holder->uuid,
            .uri = holder->uri,
            .host = holder->host,
            .pid = holder->pid,
            .since_usec = holder->since_usec,
            .mode = holder->mode,
            .from_record = 1,
        };
        hf_call_holder(call, &facts);
        found++;
    }
    return found;
}
