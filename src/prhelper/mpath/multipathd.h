/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tells multipathd which key a map is registered with, so that it registers paths that are new or
 * come back before it uses them. Speaks the protocol of libmpathcmd (mpath_cmd.h): a socket in the
 * abstract namespace, each message a size_t with the length and then text that ends in NUL.
 * Plain C; waits at most MULTIPATHD_MSEC for each answer.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MULTIPATHD_MSEC 3000

/** Both return 0 or -1, with a sentence in `text` (of `size` bytes) that says what failed. */
int multipathd_set_key(const char *map, uint64_t key, bool aptpl, char *text, size_t size);
int multipathd_unset_key(const char *map, char *text, size_t size);

/** Sends one command; the answer, at most `size` bytes with its NUL. Returns 0 or -errno. */
int multipathd_command(const char *command, char *answer, size_t size);

/** Asks the socket of that abstract name instead, for tests. */
void multipathd_set_socket(const char *name);
