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

G_END_DECLS
