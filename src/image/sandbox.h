/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Runs a check in a child that can do nothing else; see sandbox.c. */
#pragma once

#include "image/image.h"

/* What a child may be told to do instead of a check, to see it die; for tests. */
typedef enum SandboxDeed {
    SANDBOX_CHECK,
    SANDBOX_OPEN,
    SANDBOX_CONNECT,
    SANDBOX_EXEC,
    SANDBOX_FORK,
    SANDBOX_READ_OTHER,  /* pread() of another descriptor */
    SANDBOX_WRITE_OTHER, /* write() to another descriptor */
    SANDBOX_MAP,         /* get memory */
    SANDBOX_SPIN,        /* never end */
    SANDBOX_N_DEEDS
} SandboxDeed;

typedef enum SandboxResult {
    SANDBOX_DONE,
    SANDBOX_NO_SYSTEM, /* no child, no pipe: errno */
    SANDBOX_TIME_OVER,
    SANDBOX_DIED, /* the child ended without a verdict */
} SandboxResult;

/*
 * Runs image_check() with `check`, and sets check->verdict to what the child says; the rest of
 * `check` stays as it was. `ret_status` is set for SANDBOX_DIED: as of waitpid(). Blocks for
 * `timeout_ms` at most and five seconds. Any thread; installs no handlers, and a caller's wait for
 * any child does not see it.
 */
SandboxResult sandbox_run(ImageCheck *check, SandboxDeed deed, unsigned timeout_ms,
                          int *ret_status);
