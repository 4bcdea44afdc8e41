/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libmpathpersist, loaded when it is there. It may end the process on an answer of device-mapper
 * that it did not expect, and may hang: each call runs in a process of its own, with a time limit.
 * Plain C.
 */
#pragma once

#include <stdbool.h>

#include "prhelper/spc-out.h"

#define LIBRARY_NAME "libmpathpersist.so.0"

/** 0; or -1 with the reason in `text`. In a process of its own as well, which loads it. */
int library_check(char *text, size_t size);

/**
 * Whether the library is the right one for that command. What it does badly with several paths is
 * left to paths.c: a change or an end of a registration (one path that refuses makes it take away
 * those of the others), and RELEASE (with the holder's path dead it clears all reservations).
 */
bool library_wants(const SpcOut *out);

/** Returns 0 when the library has carried the command out, else -1 and why in `text`. */
int library_execute(int fd, const SpcOut *out, char *text, size_t size);
