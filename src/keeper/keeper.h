/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the daemon and its keeper have agreed upon; see keeper.c. */
#pragma once

/* The daemon's exit code that asks for a new start at once. */
#define KEEPER_RESTART 133
/* Longest name of a kept descriptor. */
#define KEEPER_NAME_MAX 31
/* In the list of kept descriptors: one that is to be closed. */
#define KEEPER_CLOSING "-"
