/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Paths that appear while a map is registered. multipathd registers them if it has the key, which
 * it takes only with `reservation_key file` in multipath.conf; with any other setting it refuses
 * "setprkey", but writes the key into its file all the same. So that a new path fails no write of
 * the holder, it is registered here as soon as the kernel tells of it, which is before multipathd
 * puts it into the map.
 *
 * A host that was fenced stays fenced: a path is registered only while another path of its map
 * is, with that very key. Plain C; no state but the kernel's and multipathd's file, so that it goes
 * on after a restart.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct WatchEvent {
    char disk[64];   /* "sdc" that is new, or "dm-0" that has changed */
    bool everything; /* events were lost: any map may have changed */
} WatchEvent;

/** A descriptor that is readable when there are events; -errno when there is none to be had. */
int watch_open(void);

/** The next event that may matter. False: there is none any more. Does not block. */
bool watch_next(int fd, WatchEvent *ret_event);

/** Whether any map has a key, so that it is worth a process to look at an event. */
bool watch_is_needed(void);

/** Registers what lacks a registration. Blocks as long as the paths do. */
void watch_repair(const WatchEvent *event);

/* ---- pure ------------------------------------------------------------------------------------ */

/** Reads a kernel's event of `len` bytes. False: it does not matter. */
bool watch_parse(const char *message, size_t len, WatchEvent *ret_event);
/** The key of a map in the text of multipathd's file ("0xKEY WWID" on a line); 0: none. */
uint64_t watch_find_key(const char *text, const char *wwid);
