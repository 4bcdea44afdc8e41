/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A multipath map and its paths; see map.h. */
#include "prhelper/mpath/map.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <scsi/sg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "prhelper/mpath/kernel-ioctl.h"
#include "prhelper/mpath/protocol.h"

/* ---- /sys ---------------------------------------------------------------------------------- */

static int map_read_line(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t len;

    *text = '\0';
    if (fd < 0)
        return -1;
    len = read(fd, text, size - 1);
    close(fd);
    if (len < 0)
        return -1;
    text[len] = '\0';
    text[strcspn(text, "\n")] = '\0';
    return 0;
}

/* What the kernel says of a path: only what is sure not to answer is left out. */
static bool map_path_usable(const char *dir, const char *name)
{
    char path[512], state[32];

    snprintf(path, sizeof(path), "%s/%s/device/state", dir, name);
    if (map_read_line(path, state, sizeof(state)) < 0)
        return true; /* NVMe has "live" there, others nothing */
    return strcmp(state, "running") == 0 || strcmp(state, "live") == 0;
}

/* The initiator by which a path goes: its place in /sys names the iSCSI session or the adapter. */
static void map_read_initiator(const char *dir, const char *name, char *initiator, size_t size)
{
    char path[600], real[PATH_MAX], port[64];
    char *part, *rest = real;

    *initiator = '\0';
    snprintf(path, sizeof(path), "%s/%s/device", dir, name);
    if (!realpath(path, real))
        return;
    while (*initiator == '\0' && (part = strsep(&rest, "/"))) {
        if (strncmp(part, "session", 7) == 0) {
            snprintf(path, sizeof(path), "/sys/class/iscsi_session/%.200s/initiatorname", part);
            map_read_line(path, initiator, size);
        } else if (strncmp(part, "host", 4) == 0) {
            snprintf(path, sizeof(path), "/sys/class/fc_host/%.200s/port_name", part);
            if (map_read_line(path, port, sizeof(port)) == 0 && strncmp(port, "0x", 2) == 0)
                snprintf(initiator, size, "fc %s", port + 2);
        }
    }
}

static void map_add_path(Map *map, const char *dir, const char *name)
{
    MapPath *path = &map->paths[map->count];
    char file[512], text[32];
    unsigned major, minor;

    snprintf(file, sizeof(file), "%s/%s/dev", dir, name);
    if (map_read_line(file, text, sizeof(text)) < 0 || sscanf(text, "%u:%u", &major, &minor) != 2)
        return;
    snprintf(path->name, sizeof(path->name), "%.63s", name);
    path->dev = makedev(major, minor);
    path->usable = map_path_usable(dir, name);
    map_read_initiator(dir, name, path->initiator, sizeof(path->initiator));
    map->count++;
}

static int map_compare(const void *a, const void *b)
{
    return strcmp(((const MapPath *)a)->name, ((const MapPath *)b)->name);
}

int map_read(dev_t dev, Map *ret_map)
{
    char file[128], dir[64], uuid[160];
    struct dirent *entry;
    DIR *slaves;

    *ret_map = (Map){.count = 0};
    snprintf(file, sizeof(file), "/sys/dev/block/%u:%u/dm/uuid", major(dev), minor(dev));
    if (map_read_line(file, uuid, sizeof(uuid)) < 0 || strncmp(uuid, "mpath-", 6) != 0)
        return -1;
    snprintf(file, sizeof(file), "/sys/dev/block/%u:%u/dm/name", major(dev), minor(dev));
    if (map_read_line(file, ret_map->name, sizeof(ret_map->name)) < 0)
        return -1;
    snprintf(dir, sizeof(dir), "/sys/dev/block/%u:%u/slaves", major(dev), minor(dev));
    slaves = opendir(dir);
    if (!slaves)
        return -1;
    while ((entry = readdir(slaves)) && ret_map->count < PATHS_MAX) {
        if (entry->d_name[0] != '.')
            map_add_path(ret_map, dir, entry->d_name);
    }
    closedir(slaves);
    /* always in one order: the same path reserves and the same path is asked */
    qsort(ret_map->paths, ret_map->count, sizeof(*ret_map->paths), map_compare);
    return 0;
}

/* ---- one command to one path ----------------------------------------------------------------- */

static int map_open_path(const MapPath *path)
{
    char node[96];
    struct stat info;
    int fd;

    snprintf(node, sizeof(node), "/dev/%s", path->name);
    for (char *p = node + 5; *p; p++) {
        if (*p == '!')
            *p = '/'; /* as /sys writes a slash */
    }
    fd = open(node, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return -1;
    if (fstat(fd, &info) < 0 || !S_ISBLK(info.st_mode) || info.st_rdev != path->dev) {
        close(fd);
        errno = ENXIO;
        return -1;
    }
    return fd;
}

/* host_status and driver_status that mean "it may have arrived, but nobody knows". */
static bool map_sg_answered(const struct sg_io_hdr *io)
{
    /* DRIVER_SENSE (8) accompanies a check condition; older kernels set it, newer ones do not */
    return io->host_status == 0 && (io->driver_status & 0x0f) != 0x06 /* DRIVER_TIMEOUT */ &&
           (io->status != 0 || (io->driver_status & 0x0f) == 0);
}

void map_command(int fd, const uint8_t cdb[16], bool in, uint8_t *data, size_t size,
                 size_t *ret_len, PathResult *result)
{
    uint8_t command[16];
    struct sg_io_hdr io = {
        .interface_id = 'S',
        .cmd_len = SPC_CDB_SIZE,
        .cmdp = command,
        .dxfer_direction = size == 0 ? SG_DXFER_NONE
                           : in      ? SG_DXFER_FROM_DEV
                                     : SG_DXFER_TO_DEV,
        .dxferp = data,
        .dxfer_len = (unsigned)size,
        .sbp = result->sense,
        .mx_sb_len = SPC_SENSE_SIZE,
        .timeout = MPATH_PATH_MSEC,
    };

    memcpy(command, cdb, sizeof(command));
    *result = (PathResult){.answered = false};
    *ret_len = 0;
    if (ioctl(fd, SG_IO, &io) < 0) {
        if (errno == ENOTTY || errno == EINVAL || errno == EOPNOTSUPP)
            kernel_ioctl_command(fd, cdb, in, data, size, ret_len, result);
        return;
    }
    if (!map_sg_answered(&io))
        return;
    result->answered = true;
    result->status = io.status;
    if (in && io.status == SPC_STATUS_GOOD && io.resid >= 0 && (size_t)io.resid <= size)
        *ret_len = size - (size_t)io.resid;
}

/* ---- several paths at once ------------------------------------------------------------------- */

/*
 * What a thread works on. A thread whose path hangs outlives the call: whoever is the last one
 * to look at the job frees it.
 */
typedef struct MapJob {
    atomic_int users;
    MapPath path;
    uint8_t cdb[16];
    bool in;
    uint8_t data[SPC_LIST_MAX];
    size_t size, len;
    PathResult result;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool finished;
} MapJob;

static void map_job_unref(MapJob *job)
{
    if (atomic_fetch_sub(&job->users, 1) == 1) {
        pthread_mutex_destroy(&job->mutex);
        pthread_cond_destroy(&job->changed);
        free(job);
    }
}

static void *map_job_run(void *user_data)
{
    MapJob *job = user_data;
    PathResult result = {.answered = false};
    int fd = map_open_path(&job->path);

    if (fd >= 0) {
        map_command(fd, job->cdb, job->in, job->data, job->size, &job->len, &result);
        close(fd);
    }
    pthread_mutex_lock(&job->mutex);
    job->result = result;
    job->finished = true;
    pthread_cond_signal(&job->changed);
    pthread_mutex_unlock(&job->mutex);
    map_job_unref(job);
    return NULL;
}

static MapJob *map_job_start(const MapPath *path, const uint8_t cdb[16], bool in,
                             const uint8_t *list, size_t size)
{
    MapJob *job = calloc(1, sizeof(*job));
    pthread_condattr_t monotonic;
    pthread_t thread;

    if (!job)
        return NULL;
    job->users = 2;
    job->path = *path;
    job->in = in;
    job->size = size;
    memcpy(job->cdb, cdb, sizeof(job->cdb));
    if (!in)
        memcpy(job->data, list, size);
    pthread_mutex_init(&job->mutex, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&job->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (pthread_create(&thread, NULL, map_job_run, job) != 0) {
        job->finished = true; /* without an answer */
        map_job_unref(job);
    } else {
        pthread_detach(thread);
    }
    return job;
}

static struct timespec map_deadline(void)
{
    struct timespec deadline;

    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += MPATH_PATH_MSEC / 1000;
    return deadline;
}

static void map_job_wait(MapJob *job, const struct timespec *deadline, PathResult *ret_result,
                         uint8_t *data, size_t *ret_len)
{
    *ret_result = (PathResult){.answered = false};
    if (!job)
        return;
    pthread_mutex_lock(&job->mutex);
    while (!job->finished && pthread_cond_timedwait(&job->changed, &job->mutex, deadline) == 0)
        ;
    if (job->finished) {
        *ret_result = job->result;
        if (data) {
            *ret_len = job->len;
            memcpy(data, job->data, job->len);
        }
    }
    pthread_mutex_unlock(&job->mutex);
    map_job_unref(job);
}

static void map_send(void *context, const bool *wanted, const uint8_t cdb[16], const uint8_t *list,
                     size_t len, PathResult *results)
{
    const Map *map = context;
    MapJob *jobs[PATHS_MAX] = {NULL};
    struct timespec deadline;

    for (size_t i = 0; i < map->count; i++) {
        if (wanted[i] && map->paths[i].usable)
            jobs[i] = map_job_start(&map->paths[i], cdb, false, list, len);
    }
    deadline = map_deadline();
    for (size_t i = 0; i < map->count; i++) {
        if (wanted[i])
            map_job_wait(jobs[i], &deadline, &results[i], NULL, NULL);
    }
}

static void map_ask(void *context, size_t path, const uint8_t cdb[16], uint8_t *data, size_t size,
                    size_t *ret_len, PathResult *result)
{
    const Map *map = context;
    struct timespec deadline = map_deadline();

    *ret_len = 0;
    *result = (PathResult){.answered = false};
    if (map->paths[path].usable)
        map_job_wait(map_job_start(&map->paths[path], cdb, true, NULL, size), &deadline, result,
                     data, ret_len);
}

static int map_is_ours(void *context, const uint8_t *transport_id, size_t len)
{
    const Map *map = context;
    char text[300];
    int result = -1;

    spc_transport_id_describe(transport_id, len, text, sizeof(text));
    for (size_t i = 0; i < map->count; i++) {
        const char *initiator = map->paths[i].initiator;
        size_t own = strlen(initiator);

        if (own == 0)
            continue;
        if (strncasecmp(text, initiator, own) == 0 && (text[own] == '\0' || text[own] == ','))
            return 1;
        result = 0;
    }
    return result;
}

void map_ops(const Map *map, PathOps *ret_ops)
{
    *ret_ops = (PathOps){.is_ours = map_is_ours,

                         .count = map->count,
                         .context = (void *)(uintptr_t)map,
                         .send = map_send,
                         .ask = map_ask};
}
