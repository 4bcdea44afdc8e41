/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See journal.h. */
#include "journal.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

gboolean journal_has_stderr(void)
{
    const char *stream = g_getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat st;

    return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
           fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}
