/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The keeper's descriptors by their names. */
#pragma once

#include <stddef.h>
#include <stdio.h>

/* Takes the descriptor over, and a name of 1 to KEEPER_NAME_MAX bytes. One that is kept already
 * gets the new descriptor. Returns 0 or a negative errno, and then the descriptor is closed. */
int store_keep(const char *name, int fd);
/* Closes what is kept under that name, if there is anything. */
void store_drop(const char *name);
size_t store_count(void);
/* Writes a line "NAME NUMBER" for each. */
void store_list(FILE *file);
