/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The command line: qemu-pr-helper's, and --config. */
#pragma once

#include <glib.h>

#include "log.h"

G_BEGIN_DECLS

typedef struct PrOptions {
    const char *program; /**< the name by which it was called: of its messages */
    gboolean background;
    gboolean socket_given;
    gboolean pid_file_given;
    gboolean config_given;
    const char *socket; /**< in argv, or static; the same for the following */
    const char *pid_file;
    const char *config;
    const char *user; /**< NULL: stays who it is */
    const char *group;
    PrLogLevel log_level;
} PrOptions;

/** Reads argv. -1: go on; otherwise the exit code, and what there was to say has been printed. */
int pr_options_read(int argc, char **argv, PrOptions *ret_options);

G_END_DECLS
