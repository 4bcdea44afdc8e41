/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of the configuration files' reader share; for no other file. */
#pragma once

#include "core/conffile.h"

/** How much of the file's text a message repeats, in bytes. */
#define CONFFILE_QUOTE_MAX 60

/* Sets the error, with "FILE:LINE: " in front; line 0 stands for the whole file. */
void conffile_set_error(GError **error, const char *name, guint line, int code, const char *format,
                        ...) G_GNUC_PRINTF(5, 6);

/* For `return conffile_syntax(...)` in functions that return a gboolean; the current line. */
#define conffile_syntax(c, error, ...)                                                             \
    (conffile_set_error((error), (c)->name, (c)->line, CONFFILE_ERROR_SYNTAX, __VA_ARGS__), FALSE)
