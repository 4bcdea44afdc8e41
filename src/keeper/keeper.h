/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the daemon and its keeper have agreed upon; see keeper.c. */
#pragma once

/* The daemon's exit code that asks for a new start at once. */
#define KEEPER_RESTART 133
/* Longest name of a kept descriptor. */
#define KEEPER_NAME_MAX 31
/* So many descriptors come with one message at most. The keeper says so behind the number of the
 * socket in $HOLDFAST_KEEPER, for it may be of an earlier version than the daemon that it starts.
 */
#define KEEPER_MAX_FDS 64
/* A message with as many, each "FDNAME=" and a line feed more than its name, fits. */
#define KEEPER_MESSAGE_BYTES 4096
/* In the list of kept descriptors: one that is to be closed. */
#define KEEPER_CLOSING "-"
