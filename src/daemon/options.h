/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The command line and the configuration: what the daemon is to be, by the name it was called by,
 * its options and its files. Everything here happens before anything is opened or forked.
 */
#pragma once

#include "core/settings.h"

typedef struct Options {
    gboolean as_virtlockd; /* called virtlockd */
    const char *program;   /* "holdfastd" or "virtlockd" */
    gboolean background;
    gboolean no_keeper; /* what is held ends with this process */
    char *pid_file;
    guint timeout_seconds; /* 0: none */
    char *native_socket;
    char *virtlockd_socket; /* NULL: not served unless handed over */
    char *host;
    Settings *settings;
} Options;

/* Fills `options` from the arguments and files. Returns -1 to go on, or the exit code: 0 after
 * --help or --version, 2 for usage, 1 for a configuration that is wrong; it has been said why. */
int options_read(int argc, char **argv, Options *options);
void options_clear(Options *options);
