/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The helper's end of holdfast-pr-multipath (mpath/main.c): starts it while privileges are there,
 * and sends it commands that need them. Any thread may send at any time.
 */
#pragma once

#include "prhelper/mpath/protocol.h"
#include "prhelper/prhelper.h"

G_BEGIN_DECLS

/**
 * Starts the process unless it runs. Before threads exist. Returns 0 or -errno with a sentence in
 * `ret_error`.
 */
int pr_worker_start(char **ret_error);

/** Whether libmpathpersist can be used; if not, why is in `ret_error`. Before threads exist. */
gboolean pr_worker_has_library(char **ret_error);

/** Ends it. */
void pr_worker_stop(void);

/**
 * Has the command carried out: `kind` and `use` as in protocol.h. Blocks until there is an answer,
 * at most MPATH_ANSWER_MSEC. What the answer remarks is logged.
 */
void pr_worker_execute(uint32_t kind, uint32_t use, const PrCommand *command, PrReply *reply);

G_END_DECLS
