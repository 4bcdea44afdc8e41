/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What happens to a request between its last byte and the first of its answer. */
#pragma once

#include "prhelper.h"

G_BEGIN_DECLS

/**
 * All back ends, with those for special devices first. Prepares them: what can't work is logged and
 * takes no device. Before threads exist and before privileges are dropped.
 */
void pr_backends_prepare(const PrConfig *config);

/** The inverse, at the end. */
void pr_backends_finish(void);

/** The capabilities that the back ends which work need, a mask of 1 << CAP_*. */
uint64_t pr_backends_capabilities(void);

/**
 * Carries a command out, or refuses it, and writes the record of it. `reply` is all zero but for
 * `data`. `socket` is the connection that asks. In the connection's thread; blocks as long as the
 * device does (and see gate.h for what others notice of that).
 */
void pr_dispatch(const PrConfig *config, int socket, PrCommand *command, PrReply *reply);

/** An answer that others may share; the caller's memory, all zero at first. */
typedef struct PrShared {
    guint64 batch; /**< of the command that was answered; 0: there is no answer here */
    uint8_t cdb[PR_CDB_BYTES];
    uint64_t disk_sequence;
    PrReply reply; /**< its data is in `data` */
    uint8_t data[SPC_LIST_MAX];
} PrShared;

/**
 * The same for a command that is mostly over at once: one that reads from a SCSI device which is
 * quick and where nobody else is, or one that is refused because there is no disk. FALSE, and
 * nothing was done, if it is another one. Not that it could not block: see reader.h.
 *
 * Several that ask a device for the same get the answer to the first of them, if it was good and
 * all of them had come when it was sent, which those of the same `batch` have. The answer's data is
 * in `shared`, until the next call.
 */
gboolean pr_dispatch_at_once(const PrConfig *config, int socket, PrCommand *command, guint64 batch,
                             PrShared *shared, PrReply *reply);

G_END_DECLS
