/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * See device.h. The one mutex is around the list of known devices; /sys is read without it.
 *
 * The list has an entry for each device number that was ever used, which a host has few of; an
 * entry is replaced, never doubled.
 */
#include "device.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

/* Longer than any attribute that is read here. */
#define DEVICE_TEXT_MAX 512
/* To wake a thread costs some ten microseconds, some times that on an emulated machine. A device
 * that takes longer than that is better waited for by several threads. */
#define DEVICE_QUICK_USEC 400
/* One command in so many is timed. Of these, so many quick ones make up for a slow one; with four
 * slow ones that nothing has made up for the device is slow, for DEVICE_SLOW_MSEC. */
#define DEVICE_TIMED_EACH 8
#define DEVICE_QUICK_BACK 4
#define DEVICE_SLOW (4 * DEVICE_QUICK_BACK)
#define DEVICE_SLOW_MSEC 1000
/* Linux 5.15 */
#ifndef BLKGETDISKSEQ
#define BLKGETDISKSEQ _IOR(0x12, 128, __u64)
#endif

static pthread_mutex_t devices_lock = PTHREAD_MUTEX_INITIALIZER;
static GPtrArray *devices; /* of PrDevice, with a reference each */
static const char *device_root = "/sys";

const char *pr_kind_name(PrKind kind)
{
    static const char *const names[] = {
        [PR_KIND_OTHER] = "other",     [PR_KIND_SCSI] = "scsi",
        [PR_KIND_SG] = "sg",           [PR_KIND_MULTIPATH] = "multipath",
        [PR_KIND_NVME] = "nvme",       [PR_KIND_PARTITION] = "partition",
        [PR_KIND_STACKED] = "stacked",
    };

    return names[kind];
}

PrDevice *pr_device_ref(PrDevice *device)
{
    g_atomic_ref_count_inc(&device->refs);
    return device;
}

void pr_device_unref(PrDevice *device)
{
    if (!device || !g_atomic_ref_count_dec(&device->refs))
        return;
    g_free(device->name);
    g_free(device->wwid);
    g_free(device);
}

static PrDevice *device_new(dev_t dev, gboolean is_char, PrKind kind)
{
    PrDevice *device = g_new0(PrDevice, 1);

    g_atomic_ref_count_init(&device->refs);
    device->dev = dev;
    device->is_char = is_char;
    device->kind = kind;
    device->name = g_strdup("");
    device->wwid = g_strdup("");
    return device;
}

PrDevice *pr_device_none(void)
{
    static char nothing[] = "";
    static PrDevice none = {.refs = 1, .kind = PR_KIND_OTHER, .name = nothing, .wwid = nothing};

    return pr_device_ref(&none);
}

void pr_device_set_root(const char *root)
{
    device_root = root;
}

/* ---- how quick it is ------------------------------------------------------------------- */

gboolean pr_device_is_quick(PrDevice *device)
{
    if (atomic_load_explicit(&device->slowness, memory_order_relaxed) < DEVICE_SLOW)
        return TRUE;
    if (pr_now_msec() - atomic_load_explicit(&device->slow_since_msec, memory_order_relaxed) <
        DEVICE_SLOW_MSEC)
        return FALSE;
    /* another try, of some commands */
    atomic_store_explicit(&device->slowness, DEVICE_SLOW / 2, memory_order_relaxed);
    return TRUE;
}

gboolean pr_device_is_timed(PrDevice *device)
{
    return atomic_fetch_add_explicit(&device->commands, 1, memory_order_relaxed) %
               DEVICE_TIMED_EACH ==
           0;
}

void pr_device_note_time(PrDevice *device, gint64 usec)
{
    const int before = atomic_load_explicit(&device->slowness, memory_order_relaxed);
    const int after = usec < DEVICE_QUICK_USEC ? MAX(before - 1, 0) : before + DEVICE_QUICK_BACK;

    if (after >= DEVICE_SLOW)
        atomic_store_explicit(&device->slow_since_msec, pr_now_msec(), memory_order_relaxed);
    atomic_store_explicit(&device->slowness, after, memory_order_relaxed);
}

/* ---- /sys ------------------------------------------------------------------------------ */

/* The first line of DIR/NAME without space at its end; NULL when it cannot be read or is empty. */
static char *device_attribute(const char *dir, const char *name)
{
    char text[DEVICE_TEXT_MAX];
    g_autofree char *path = g_build_filename(dir, name, NULL);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return NULL;
    n = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (n <= 0)
        return NULL;
    text[n] = '\0';
    text[strcspn(text, "\n")] = '\0';
    g_strchomp(text);
    return *text ? g_utf8_make_valid(text, -1) : NULL;
}

static gboolean device_has(const char *dir, const char *name)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);

    return access(path, F_OK) == 0;
}

/* The first device that this one is made of, as a directory; NULL when there is none. */
static char *device_first_slave(const char *dir)
{
    g_autofree char *slaves = g_build_filename(dir, "slaves", NULL);
    g_autoptr(GDir) list = g_dir_open(slaves, 0, NULL);
    const char *name = list ? g_dir_read_name(list) : NULL;

    return name ? g_build_filename(slaves, name, NULL) : NULL;
}

static PrKind device_kind_of_map(const char *dir)
{
    g_autofree char *uuid = device_attribute(dir, "dm/uuid");

    if (uuid && g_str_has_prefix(uuid, "mpath-"))
        return PR_KIND_MULTIPATH;
    if (uuid && g_str_has_prefix(uuid, "part")) /* kpartx(8): "part1-mpath-..." */
        return PR_KIND_PARTITION;
    return PR_KIND_STACKED;
}

static PrKind device_kind(const char *dir, const char *name)
{
    g_autofree char *slave = NULL;

    if (device_has(dir, "partition"))
        return PR_KIND_PARTITION;
    if (device_has(dir, "dm"))
        return device_kind_of_map(dir);
    slave = device_first_slave(dir);
    if (slave)
        return PR_KIND_STACKED;
    if (g_str_has_prefix(name, "nvme"))
        return PR_KIND_NVME;
    return device_has(dir, "device/scsi_level") ? PR_KIND_SCSI : PR_KIND_OTHER;
}

/* Of the LUN at the bottom. A disk of SCSI has its name in device/wwid, one of NVMe in wwid. */
static char *device_wwid(const char *dir)
{
    g_autofree char *below = g_strdup(dir);

    /* a stack of devices has an end; one deeper than this is nothing that anybody would do */
    for (int depth = 0; depth < 16; depth++) {
        char *wwid = device_attribute(below, "device/wwid");
        char *next;

        if (!wwid)
            wwid = device_attribute(below, "wwid");
        if (wwid)
            return wwid;
        next =
            device_has(below, "partition") ? g_path_get_dirname(below) : device_first_slave(below);
        if (next) {
            /* through the link, so that the directory above a partition is its disk */
            g_autofree char *real = realpath(next, NULL);

            g_free(next);
            next = g_strdup(real);
        }
        if (!next)
            break;
        g_free(below);
        below = next;
    }
    return g_strdup("");
}

static PrDevice *device_look_up(dev_t dev, gboolean is_char)
{
    g_autofree char *link = g_strdup_printf("%s/dev/%s/%u:%u", device_root,
                                            is_char ? "char" : "block", major(dev), minor(dev));
    char *dir = realpath(link, NULL); /* from malloc(), which is what g_free() frees */
    PrDevice *device;

    if (!dir)
        return NULL;
    device = device_new(dev, is_char, PR_KIND_SG);
    g_free(device->name);
    device->name = g_path_get_basename(dir);
    if (!is_char)
        device->kind = device_kind(dir, device->name);
    g_free(device->wwid);
    device->wwid = device_wwid(dir);
    free(dir);
    return device;
}

/* ---- what is known --------------------------------------------------------------------- */

/* With the lock held; the index, or -1. */
static int device_known(dev_t dev, gboolean is_char)
{
    for (guint i = 0; devices && i < devices->len; i++) {
        const PrDevice *device = g_ptr_array_index(devices, i);

        if (device->dev == dev && device->is_char == is_char)
            return (int)i;
    }
    return -1;
}

static PrDevice *device_find(dev_t dev, gboolean is_char, uint64_t sequence)
{
    PrDevice *device = NULL;
    int i;

    pthread_mutex_lock(&devices_lock);
    i = device_known(dev, is_char);
    if (i >= 0)
        device = g_ptr_array_index(devices, (guint)i);
    device = device && device->disk_sequence == sequence ? pr_device_ref(device) : NULL;
    pthread_mutex_unlock(&devices_lock);
    return device;
}

static void device_remember(PrDevice *device)
{
    PrDevice *old = NULL;
    int i;

    pthread_mutex_lock(&devices_lock);
    if (!devices)
        devices = g_ptr_array_new_with_free_func((GDestroyNotify)pr_device_unref);
    i = device_known(device->dev, device->is_char);
    if (i >= 0) {
        old = g_ptr_array_index(devices, (guint)i);
        g_ptr_array_index(devices, (guint)i) = pr_device_ref(device);
    } else {
        g_ptr_array_add(devices, pr_device_ref(device));
    }
    pthread_mutex_unlock(&devices_lock);
    pr_device_unref(old);
}

/* Without such a number (an sg device, a kernel before 5.15) nothing tells one disk from the next,
 * and /sys is read each time: 0. */
static uint64_t device_sequence(int fd, gboolean is_char)
{
    uint64_t sequence = 0;

    return !is_char && ioctl(fd, BLKGETDISKSEQ, &sequence) == 0 ? sequence : 0;
}

PrDevice *pr_device_recall(int fd, dev_t dev, gboolean is_char)
{
    uint64_t sequence = device_sequence(fd, is_char);

    return sequence != 0 ? device_find(dev, is_char, sequence) : NULL;
}

PrDevice *pr_device_get(int fd, dev_t dev, gboolean is_char)
{
    uint64_t sequence = device_sequence(fd, is_char);
    PrDevice *device = sequence != 0 ? device_find(dev, is_char, sequence) : NULL;

    if (device)
        return device;
    device = device_look_up(dev, is_char);
    if (device && sequence != 0) {
        device->disk_sequence = sequence;
        device_remember(device);
    }
    return device;
}

void pr_device_forget_all(void)
{
    g_clear_pointer(&devices, g_ptr_array_unref);
}
