/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Slow storage: a file system with one flat directory in memory, of which every operation takes
 * as long as one is told, locks included, and any number of them go on at once. Stopped with
 * SIGSTOP it is hung storage.
 *
 *     slowfs MOUNTPOINT MILLISECONDS FILES
 *
 * FILES disks, disk-0.img and so on, are there from the beginning. It says "ready" when it is
 * mounted, and ends on SIGTERM. It speaks the kernel's FUSE protocol itself (linux/fuse.h; the
 * header has the structs, fuse(4) the conversation), so that nothing needs to be installed.
 * Everything below `fs_lock` is guarded by it; the delay is not.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FS_THREADS 256
#define FS_STACK_BYTES (64 * 1024)
#define FS_MAX_WRITE 4096
#define FS_BUFFER_BYTES                                                                            \
    (2 * FS_MAX_WRITE) /* a write with its headers; also the kernel's minimum                      \
                        */
#define FS_MAX_FILES 4096
#define FS_MAX_DATA (256 * 1024) /* records are small; what lies behind reads as zeros */
#define FS_MAX_LOCKS 16
#define FS_DISK_BYTES (1024 * 1024)
#define FS_VALID_SECONDS 1 /* libfuse's default */

typedef struct Lock {
    bool used;
    uint64_t fh;
    uint64_t owner;
    struct fuse_file_lock what;
} Lock;

/* Files are never freed: somebody may have them open. */
typedef struct File {
    char name[256]; /* "" once it is removed */
    uint64_t size;
    uint8_t *data;
    uint64_t data_len;
    Lock locks[FS_MAX_LOCKS];
} File;

typedef struct Request {
    struct fuse_in_header *header;
    const void *arg;
    union {
        struct fuse_entry_out entry;
        struct fuse_attr_out attr;
        struct fuse_open_out open;
        struct {
            struct fuse_entry_out entry;
            struct fuse_open_out open;
        } create;
        struct fuse_init_out init;
        struct fuse_write_out write;
        struct fuse_statfs_out statfs;
        struct fuse_lk_out lock;
        uint8_t data[FS_MAX_WRITE];
    } out;
    size_t out_len;
} Request;

static pthread_mutex_t fs_lock = PTHREAD_MUTEX_INITIALIZER;
static File fs_files[FS_MAX_FILES];
static unsigned fs_count;
static uint64_t fs_handles;

static int fs_fd;
static struct timespec fs_delay;

/* ---- files, by the kernel's node number: 1 is the directory ------------------------------ */

static File *fs_file(uint64_t node)
{
    return node >= 2 && node - 2 < fs_count ? &fs_files[node - 2] : NULL;
}

static uint64_t fs_node(const File *file)
{
    return (uint64_t)(file - fs_files) + 2;
}

static File *fs_find(const char *name)
{
    for (unsigned i = 0; i < fs_count; i++)
        if (strcmp(fs_files[i].name, name) == 0)
            return &fs_files[i];
    return NULL;
}

static File *fs_make(const char *name)
{
    File *file;

    if (fs_count == FS_MAX_FILES || strlen(name) >= sizeof(file->name))
        return NULL;
    file = &fs_files[fs_count++];
    memcpy(file->name, name, strlen(name) + 1);
    return file;
}

static struct fuse_attr fs_attr(const File *file)
{
    struct fuse_attr attr = {.ino = 1, .mode = S_IFDIR | 0755, .nlink = 2, .blksize = 4096};

    if (file) {
        attr.ino = fs_node(file);
        attr.mode = S_IFREG | 0600;
        attr.nlink = *file->name ? 1 : 0;
        attr.size = file->size;
    }
    return attr;
}

static struct fuse_entry_out fs_entry(const File *file)
{
    return (struct fuse_entry_out){
        .nodeid = fs_node(file),
        .entry_valid = FS_VALID_SECONDS,
        .attr_valid = FS_VALID_SECONDS,
        .attr = fs_attr(file),
    };
}

static int fs_lookup(Request *request)
{
    const File *file = fs_find(request->arg);

    if (!file)
        return -ENOENT;
    request->out.entry = fs_entry(file);
    request->out_len = sizeof(request->out.entry);
    return 0;
}

static int fs_getattr(Request *request)
{
    request->out.attr = (struct fuse_attr_out){.attr_valid = FS_VALID_SECONDS,
                                               .attr = fs_attr(fs_file(request->header->nodeid))};
    request->out_len = sizeof(request->out.attr);
    return 0;
}

static int fs_setattr(Request *request)
{
    const struct fuse_setattr_in *in = request->arg;
    File *file = fs_file(request->header->nodeid);

    if (file && (in->valid & FATTR_SIZE)) {
        file->size = in->size;
        if (file->data_len > in->size)
            file->data_len = in->size;
    }
    return fs_getattr(request);
}

static int fs_open(Request *request)
{
    request->out.open = (struct fuse_open_out){.fh = ++fs_handles};
    request->out_len = sizeof(request->out.open);
    return 0;
}

static int fs_create(Request *request)
{
    const char *name = (const char *)request->arg + sizeof(struct fuse_create_in);
    File *file = fs_find(name);

    if (!file)
        file = fs_make(name);
    if (!file)
        return -ENOSPC;
    request->out.create.entry = fs_entry(file);
    request->out.create.open = (struct fuse_open_out){.fh = ++fs_handles};
    request->out_len = sizeof(request->out.create);
    return 0;
}

static int fs_unlink(Request *request)
{
    File *file = fs_find(request->arg);

    if (!file)
        return -ENOENT;
    file->name[0] = '\0';
    return 0;
}

static int fs_read(Request *request)
{
    const struct fuse_read_in *in = request->arg;
    const File *file = fs_file(request->header->nodeid);
    uint64_t len = in->size < FS_MAX_WRITE ? in->size : FS_MAX_WRITE;

    if (!file)
        return -EISDIR;
    if (in->offset >= file->size)
        return 0;
    if (len > file->size - in->offset)
        len = file->size - in->offset;
    memset(request->out.data, 0, len);
    if (in->offset < file->data_len) {
        uint64_t there = file->data_len - in->offset;

        memcpy(request->out.data, file->data + in->offset, there < len ? there : len);
    }
    request->out_len = len;
    return 0;
}

static int fs_write(Request *request)
{
    const struct fuse_write_in *in = request->arg;
    File *file = fs_file(request->header->nodeid);
    uint64_t end = in->offset + in->size;

    if (!file || end > FS_MAX_DATA)
        return -EFBIG;
    if (end > file->data_len) {
        uint8_t *data = realloc(file->data, end);

        if (!data)
            return -ENOSPC;
        memset(data + file->data_len, 0, end - file->data_len);
        file->data = data;
        file->data_len = end;
    }
    memcpy(file->data + in->offset, in + 1, in->size);
    if (end > file->size)
        file->size = end;
    request->out.write = (struct fuse_write_out){.size = in->size};
    request->out_len = sizeof(request->out.write);
    return 0;
}

static int fs_statfs(Request *request)
{
    request->out.statfs = (struct fuse_statfs_out){.st = {.bsize = 4096, .namelen = 255}};
    request->out_len = sizeof(request->out.statfs);
    return 0;
}

/* ---- locks: whole ranges only, as lock daemons take them --------------------------------- */

static bool fs_conflict(const Lock *held, const struct fuse_lk_in *in)
{
    return held->used && held->owner != in->owner && held->what.start <= in->lk.end &&
           in->lk.start <= held->what.end && (held->what.type == F_WRLCK || in->lk.type == F_WRLCK);
}

static Lock *fs_in_the_way(File *file, const struct fuse_lk_in *in)
{
    for (int i = 0; i < FS_MAX_LOCKS; i++)
        if (fs_conflict(&file->locks[i], in))
            return &file->locks[i];
    return NULL;
}

static int fs_getlk(Request *request)
{
    const struct fuse_lk_in *in = request->arg;
    File *file = fs_file(request->header->nodeid);
    const Lock *held = file ? fs_in_the_way(file, in) : NULL;

    request->out.lock = (struct fuse_lk_out){.lk = {.type = F_UNLCK}};
    if (held)
        request->out.lock.lk = held->what;
    request->out_len = sizeof(request->out.lock);
    return 0;
}

static int fs_setlk(Request *request)
{
    const struct fuse_lk_in *in = request->arg;
    File *file = fs_file(request->header->nodeid);
    Lock *place = NULL;

    if (!file)
        return -EISDIR;
    if (in->lk.type != F_UNLCK && fs_in_the_way(file, in))
        return -EAGAIN;
    for (int i = 0; i < FS_MAX_LOCKS; i++) {
        Lock *held = &file->locks[i];

        if (held->used && held->owner == in->owner && held->what.start == in->lk.start)
            held->used = false; /* replaced, or given back */
        if (!held->used)
            place = held;
    }
    if (in->lk.type == F_UNLCK)
        return 0;
    if (!place)
        return -ENOLCK;
    *place = (Lock){.used = true, .fh = in->fh, .owner = in->owner, .what = in->lk};
    return 0;
}

/* Frees the file's locks that were taken through a descriptor, or by an owner: one of them. */
static int fs_drop_locks(Request *request, const uint64_t *fh, const uint64_t *owner)
{
    File *file = fs_file(request->header->nodeid);

    for (int i = 0; file && i < FS_MAX_LOCKS; i++) {
        Lock *lock = &file->locks[i];

        if (fh ? lock->fh == *fh : lock->owner == *owner)
            lock->used = false;
    }
    return 0;
}

/* The kernel says nothing about locks when a descriptor is closed: they go with it. */
static int fs_release(Request *request)
{
    const struct fuse_release_in *in = request->arg;

    return fs_drop_locks(request, &in->fh, NULL);
}

/* A process's classic locks go when it closes any descriptor of the file. */
static int fs_flush(Request *request)
{
    const struct fuse_flush_in *in = request->arg;

    return fs_drop_locks(request, NULL, &in->lock_owner);
}

/* ---- requests ---------------------------------------------------------------------------- */

static int fs_init(Request *request)
{
    const struct fuse_init_in *in = request->arg;

    request->out.init = (struct fuse_init_out){
        .major = FUSE_KERNEL_VERSION,
        .minor = in->minor < FUSE_KERNEL_MINOR_VERSION ? in->minor : FUSE_KERNEL_MINOR_VERSION,
        .flags = FUSE_POSIX_LOCKS | FUSE_PARALLEL_DIROPS,
        .max_write = FS_MAX_WRITE,
        .time_gran = 1,
    };
    request->out_len = sizeof(request->out.init);
    return 0;
}

/* 0 with out_len, or a negative errno. */
static int fs_do(Request *request)
{
    switch (request->header->opcode) {
    case FUSE_INIT:
        return fs_init(request);
    case FUSE_LOOKUP:
        return fs_lookup(request);
    case FUSE_GETATTR:
        return fs_getattr(request);
    case FUSE_SETATTR:
        return fs_setattr(request);
    case FUSE_OPEN:
    case FUSE_OPENDIR:
        return fs_open(request);
    case FUSE_CREATE:
        return fs_create(request);
    case FUSE_UNLINK:
        return fs_unlink(request);
    case FUSE_READ:
        return fs_read(request);
    case FUSE_WRITE:
        return fs_write(request);
    case FUSE_STATFS:
        return fs_statfs(request);
    case FUSE_GETLK:
        return fs_getlk(request);
    case FUSE_SETLK:
        return fs_setlk(request);
    case FUSE_RELEASE:
        return fs_release(request);
    case FUSE_FLUSH:
        return fs_flush(request);
    case FUSE_RELEASEDIR:
    case FUSE_READDIR:
    case FUSE_FSYNC:
        return 0;
    default:
        return -ENOSYS;
    }
}

static void fs_handle(struct fuse_in_header *header)
{
    Request request = {.header = header, .arg = header + 1};
    struct fuse_out_header out = {.unique = header->unique};
    struct iovec parts[2] = {{&out, sizeof(out)}, {&request.out, 0}};

    if (header->opcode == FUSE_FORGET || header->opcode == FUSE_BATCH_FORGET ||
        header->opcode == FUSE_INTERRUPT)
        return; /* these have no answer */
    if (header->opcode != FUSE_INIT)
        nanosleep(&fs_delay, NULL);
    pthread_mutex_lock(&fs_lock);
    out.error = fs_do(&request);
    pthread_mutex_unlock(&fs_lock);
    parts[1].iov_len = out.error ? 0 : request.out_len;
    out.len = (uint32_t)(sizeof(out) + parts[1].iov_len);
    if (writev(fs_fd, parts, 2) < 0 && errno != ENOENT) /* who asked has gone */
        perror("slowfs: answer");
}

static void *fs_serve(void *unused)
{
    _Alignas(struct fuse_in_header) uint8_t buffer[FS_BUFFER_BYTES];

    (void)unused;
    for (;;) {
        ssize_t n = read(fs_fd, buffer, sizeof(buffer));

        if (n >= (ssize_t)sizeof(struct fuse_in_header))
            fs_handle((struct fuse_in_header *)buffer);
        else if (n < 0 && errno != EINTR && errno != EAGAIN && errno != ENOENT)
            return NULL; /* ENODEV: unmounted */
    }
}

static bool fs_start_threads(void)
{
    pthread_attr_t attr;
    pthread_t thread;
    bool started = true;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, FS_STACK_BYTES);
    for (int i = 0; started && i < FS_THREADS; i++)
        started = pthread_create(&thread, &attr, fs_serve, NULL) == 0;
    pthread_attr_destroy(&attr);
    return started;
}

static bool fs_mount(const char *where)
{
    char options[128];

    fs_fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fs_fd < 0)
        return false;
    snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other",
             fs_fd);
    return mount("slowfs", where, "fuse", MS_NOSUID | MS_NODEV, options) == 0;
}

int main(int argc, char **argv)
{
    sigset_t ends;
    long delay;
    int number, files;

    if (argc != 4) {
        fprintf(stderr, "usage: slowfs MOUNTPOINT MILLISECONDS FILES\n");
        return EXIT_FAILURE;
    }
    delay = strtol(argv[2], NULL, 10);
    files = atoi(argv[3]);
    fs_delay = (struct timespec){.tv_sec = delay / 1000, .tv_nsec = delay % 1000 * 1000000};
    for (int i = 0; i < files; i++) {
        char name[32];
        File *file;

        snprintf(name, sizeof(name), "disk-%d.img", i);
        file = fs_make(name);
        if (file)
            file->size = FS_DISK_BYTES;
    }
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    if (!fs_mount(argv[1]) || !fs_start_threads()) {
        perror("slowfs: cannot mount");
        return EXIT_FAILURE;
    }
    puts("ready");
    fflush(stdout);
    sigwait(&ends, &number);
    umount2(argv[1], MNT_DETACH);
    return EXIT_SUCCESS;
}
