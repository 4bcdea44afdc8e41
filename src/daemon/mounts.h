/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which mount a path is on, found without touching the file system in question: the longest
 * mount point of /proc/self/mountinfo that is a prefix of the path. Links inside the path are not
 * followed; a link into another mount is sorted by where the link is.
 */
#pragma once

#include <systemd/sd-event.h>

typedef struct Mounts Mounts;

/* Reads the table again whenever the kernel says that it has changed. 0 or a negative errno. */
int mounts_new(sd_event *event, Mounts **ret_mounts);
void mounts_free(Mounts *mounts);
/* The mount point of an absolute path; valid until the next turn of the event loop. */
const char *mounts_find(Mounts *mounts, const char *path);
