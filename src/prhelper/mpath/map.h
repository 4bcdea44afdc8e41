/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A dm-multipath map and its paths, as /sys has them, and commands to each path's own node. Opens
 * nothing but /sys and the paths; every call to a path runs in a thread of its own, so that a path
 * that hangs costs its time-out and no more.
 */
#pragma once

#include <stdatomic.h>
#include <sys/types.h>

#include "prhelper/mpath/paths.h"

#define MAP_NAME_SIZE 256

typedef struct MapPath {
    char name[64]; /* "sdb" */
    dev_t dev;
    bool usable;         /* as far as /sys knows */
    char initiator[256]; /* as spc_transport_id_describe() writes it, without a session; "" unknown
                          */
} MapPath;

typedef struct Map {
    char name[MAP_NAME_SIZE]; /* of device-mapper: "mpatha" */
    size_t count;
    MapPath paths[PATHS_MAX];
} Map;

/** Reads which map `dev` is. Returns 0; -1: it is no dm-multipath map, or cannot be read. */
int map_read(dev_t dev, Map *ret_map);

/** Fills `ret_ops`; paths that are not usable do not answer. The map must outlive it. */
void map_ops(const Map *map, PathOps *ret_ops);

/**
 * SG_IO with a time limit. A device that is no SCSI device gets PERSISTENT RESERVE OUT as the
 * kernel's reservation ioctls. `data` goes out (`in` = false) or comes in; `ret_len` bytes of it.
 */
void map_command(int fd, const uint8_t cdb[16], bool in, uint8_t *data, size_t size,
                 size_t *ret_len, PathResult *result);
