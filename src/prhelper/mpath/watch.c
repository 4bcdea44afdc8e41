/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Paths that appear; see watch.h. */
#include "prhelper/mpath/watch.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "prhelper/mpath/map.h"

/* multipathd's default for `prkeys_file`. */
#define WATCH_KEYS "/etc/multipath/prkeys"
#define WATCH_KEYS_MAX (256 * 1024)
/* The multicast group of the kernel itself; udev has another one. */
#define WATCH_GROUP_KERNEL 1

/* ---- events ---------------------------------------------------------------------------------- */

int watch_open(void)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = WATCH_GROUP_KERNEL};
    int room = 1024 * 1024;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);

    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        int error = errno;

        close(fd);
        return -error;
    }
    return fd;
}

bool watch_parse(const char *message, size_t len, WatchEvent *ret_event)
{
    const char *action = NULL, *subsystem = NULL, *name = NULL, *type = NULL;
    const char *at = message, *end = message + len;

    /* "ACTION@PATH", then NAME=VALUE, each with its NUL */
    for (; at < end; at += strnlen(at, (size_t)(end - at)) + 1) {
        if (memchr(at, '\0', (size_t)(end - at)) == NULL)
            return false;
        if (strncmp(at, "ACTION=", 7) == 0)
            action = at + 7;
        else if (strncmp(at, "SUBSYSTEM=", 10) == 0)
            subsystem = at + 10;
        else if (strncmp(at, "DEVNAME=", 8) == 0)
            name = at + 8;
        else if (strncmp(at, "DEVTYPE=", 8) == 0)
            type = at + 8;
    }
    if (!action || !name || !subsystem || strcmp(subsystem, "block") != 0 || !type ||
        strcmp(type, "disk") != 0)
        return false;
    if (!(strcmp(action, "add") == 0 && strncmp(name, "sd", 2) == 0) &&
        !(strcmp(action, "change") == 0 && strncmp(name, "dm-", 3) == 0))
        return false;
    snprintf(ret_event->disk, sizeof(ret_event->disk), "%s", name);
    ret_event->everything = false;
    return true;
}

bool watch_next(int fd, WatchEvent *ret_event)
{
    char message[8192];
    ssize_t len;

    for (;;) {
        struct sockaddr_nl from = {0};
        socklen_t from_len = sizeof(from);

        len = recvfrom(fd, message, sizeof(message), 0, (struct sockaddr *)&from, &from_len);
        if (len < 0 && errno == ENOBUFS) {
            *ret_event = (WatchEvent){.everything = true};
            return true;
        }
        if (len < 0 && errno != EINTR)
            return false;
        /* any process may send to the socket; the kernel has number 0 */
        if (len > 0 && from.nl_pid == 0 && watch_parse(message, (size_t)len, ret_event))
            return true;
    }
}

/* ---- keys ------------------------------------------------------------------------------------ */

static char *watch_read_keys(void)
{
    int fd = open(WATCH_KEYS, O_RDONLY | O_CLOEXEC);
    char *text = fd >= 0 ? calloc(1, WATCH_KEYS_MAX + 1) : NULL;
    ssize_t len = text ? read(fd, text, WATCH_KEYS_MAX) : -1;

    if (fd >= 0)
        close(fd);
    if (len >= 0)
        return text;
    free(text);
    return NULL;
}

uint64_t watch_find_key(const char *text, const char *wwid)
{
    size_t wwid_len = strlen(wwid);

    for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        char *after = NULL;
        uint64_t key;

        if (strncmp(line, "0x", 2) != 0)
            continue;
        key = strtoull(line, &after, 16);
        /* behind the key there may be flags: "0x123:aptpl WWID" */
        after += strcspn(after, " \t\n");
        after += strspn(after, " \t");
        if (strncmp(after, wwid, wwid_len) == 0 &&
            (after[wwid_len] == '\0' || isspace((unsigned char)after[wwid_len])))
            return key;
    }
    return 0;
}

bool watch_is_needed(void)
{
    char *text = watch_read_keys();
    bool needed = text && (strncmp(text, "0x", 2) == 0 || strstr(text, "\n0x"));

    free(text);
    return needed;
}

/* ---- repair ---------------------------------------------------------------------------------- */

static int watch_attribute(const char *disk, const char *name, char *text, size_t size)
{
    char path[256];
    ssize_t len;
    int fd;

    snprintf(path, sizeof(path), "/sys/block/%s/%s", disk, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    len = fd >= 0 ? read(fd, text, size - 1) : -1;
    if (fd >= 0)
        close(fd);
    text[len > 0 ? len : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    return *text ? 0 : -1;
}

static int watch_device(const char *disk, dev_t *ret_dev)
{
    unsigned major, minor;
    char text[32];

    if (watch_attribute(disk, "dev", text, sizeof(text)) < 0 ||
        sscanf(text, "%u:%u", &major, &minor) != 2)
        return -1;
    *ret_dev = makedev(major, minor);
    return 0;
}

/* A new disk that is a path to the map's LUN and not in the map yet. */
static void watch_add_path(Map *map, const char *disk)
{
    char new_wwid[256], wwid[256];
    MapPath *path = &map->paths[map->count];

    for (size_t i = 0; i < map->count; i++) {
        if (strcmp(map->paths[i].name, disk) == 0)
            return;
    }
    if (map->count == 0 || map->count == PATHS_MAX ||
        watch_attribute(disk, "device/wwid", new_wwid, sizeof(new_wwid)) < 0 ||
        watch_attribute(map->paths[0].name, "device/wwid", wwid, sizeof(wwid)) < 0 ||
        strcmp(wwid, new_wwid) != 0 || watch_device(disk, &path->dev) < 0)
        return;
    snprintf(path->name, sizeof(path->name), "%s", disk);
    path->usable = true;
    map->count++;
}

static void watch_repair_map(const char *name, const char *keys, const char *new_disk)
{
    char uuid[256];
    uint64_t key;
    PathOps ops;
    size_t known;
    dev_t dev;
    Map map;

    if (watch_attribute(name, "dm/uuid", uuid, sizeof(uuid)) < 0 || strncmp(uuid, "mpath-", 6) != 0)
        return;
    key = watch_find_key(keys, uuid + 6);
    if (key == 0 || watch_device(name, &dev) < 0 || map_read(dev, &map) < 0)
        return;
    known = map.count;
    if (new_disk)
        watch_add_path(&map, new_disk);
    if (new_disk && map.count == known)
        return; /* it leads elsewhere */
    map_ops(&map, &ops);
    if (paths_repair(&ops, key, new_disk != NULL) > 0)
        fprintf(stderr, "holdfast-pr-multipath: %s: a path without a registration was registered\n",
                map.name);
}

void watch_repair(const WatchEvent *event)
{
    char *keys = watch_read_keys();
    struct dirent *entry;
    DIR *blocks;

    if (!keys)
        return;
    if (!event->everything && strncmp(event->disk, "dm-", 3) == 0) {
        watch_repair_map(event->disk, keys, NULL);
        free(keys);
        return;
    }
    blocks = opendir("/sys/block");
    while (blocks && (entry = readdir(blocks))) {
        if (strncmp(entry->d_name, "dm-", 3) == 0)
            watch_repair_map(entry->d_name, keys, event->everything ? NULL : event->disk);
    }
    if (blocks)
        closedir(blocks);
    free(keys);
}
