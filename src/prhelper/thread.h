/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The helper's threads that nobody waits for. */
#pragma once

/**
 * Starts a thread with a stack of PR_STACK_BYTES, which ends when `run` returns; `data` is handed
 * to it and stays the caller's. Returns 0 or a negative errno, and then `run` is not called. Any
 * thread.
 */
int pr_thread_start(void *(*run)(void *data), void *data);
