/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reads a configuration file into memory, for the parser of conffile.c. */
#include "core/conffile-private.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static void conffile_set_errno(GError **error, const char *path, const char *action, int errsv)
{
    conffile_set_error(error, path, 0,
                       errsv == ENOENT || errsv == ENOTDIR ? CONFFILE_ERROR_MISSING
                                                           : CONFFILE_ERROR_READ,
                       "can't %s the file: %s", action, g_strerror(errsv));
}

/** Reads all there is, but stops soon after the limit: the parser then refuses the size. */
static GString *conffile_read_fd(int fd, const char *path, GError **error)
{
    g_autoptr(GString) data = g_string_new(NULL);
    char buffer[16 * 1024];

    while (data->len <= CONFFILE_SIZE_MAX) {
        gssize n = read(fd, buffer, sizeof(buffer));

        if (n == 0)
            break;
        if (n > 0) {
            g_string_append_len(data, buffer, n);
        } else if (errno != EINTR) {
            conffile_set_errno(error, path, "read", errno);
            return NULL;
        }
    }
    return g_steal_pointer(&data);
}

ConfFile *conffile_load(const char *path, GError **error)
{
    g_autoptr(GString) data = NULL;
    struct stat st;
    int fd;

    /* Without O_NONBLOCK the open of a FIFO would wait for a writer, perhaps for ever. */
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) < 0) {
        conffile_set_errno(error, path, "open", errno);
    } else if (!S_ISREG(st.st_mode) && !S_ISCHR(st.st_mode)) {
        conffile_set_error(error, path, 0, CONFFILE_ERROR_READ,
                           "this is %s, not a file; name a regular file",
                           S_ISDIR(st.st_mode)    ? "a directory"
                           : S_ISFIFO(st.st_mode) ? "a FIFO"
                                                  : "a socket or a block device");
    } else {
        data = conffile_read_fd(fd, path, error);
    }
    if (fd >= 0)
        close(fd);
    return data ? conffile_parse(path, data->str, data->len, error) : NULL;
}
