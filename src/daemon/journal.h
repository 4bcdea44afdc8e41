/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where standard error leads to. Part of holdfastd and of holdfast-pr-helper; logs nothing. */
#pragma once

#include <glib.h>

/* Whether standard error is the journal's (systemd.exec(5), JOURNAL_STREAM), which takes priorities
 * from who knows that it speaks to the journal. Before any thread: reads the environment. */
gboolean journal_has_stderr(void);
