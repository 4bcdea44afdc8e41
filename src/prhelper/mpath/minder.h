/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parent of the process that serves requests, for the time that the helper runs. The helper has
 * given up what it would need to start that process again; this one keeps it, and does nothing
 * else: it reads no request and opens nothing.
 */
#pragma once

#include <stdbool.h>

/**
 * Returns in a child, which serves requests from MPATH_SOCKET. When that ends otherwise than by
 * exit(0), another one is made, in which this function returns again: at once the first time, then
 * after a pause that doubles from 0.1 to 5 s as long as none lasts for a minute. The parent exits
 * when the child has done so with 0, or when the helper has closed the socket. Without processes to
 * be had it returns in the caller itself. True: it is not the first child, and may have missed
 * something. Before threads exist; SIGCHLD must not be ignored.
 */
bool minder_run(void);
