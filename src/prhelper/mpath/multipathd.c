/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The way to multipathd; see multipathd.h. */
#include "prhelper/mpath/multipathd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

/* DEFAULT_SOCKET of mpath_cmd.h. */
static const char *multipathd_socket = "/org/kernel/linux/storage/multipathd";

void multipathd_set_socket(const char *name)
{
    multipathd_socket = name;
}

static int multipathd_connect(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval limit = {.tv_sec = MULTIPATHD_MSEC / 1000};
    size_t len = strlen(multipathd_socket);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    memcpy(address.sun_path + 1, multipathd_socket, len);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    if (connect(fd, (struct sockaddr *)&address,
                (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + len)) < 0) {
        int error = errno;

        close(fd);
        return -error;
    }
    return fd;
}

static int multipathd_read(int fd, void *buffer, size_t size)
{
    size_t done = 0;

    while (done < size) {
        ssize_t got = recv(fd, (char *)buffer + done, size - done, 0);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? -errno : -ECONNRESET;
        done += (size_t)got;
    }
    return 0;
}

static int multipathd_exchange(int fd, const char *command, char *answer, size_t size)
{
    size_t len = strlen(command) + 1, said = 0;
    int result;

    if (send(fd, &len, sizeof(len), MSG_NOSIGNAL) != (ssize_t)sizeof(len) ||
        send(fd, command, len, MSG_NOSIGNAL) != (ssize_t)len)
        return errno ? -errno : -EIO;
    result = multipathd_read(fd, &said, sizeof(said));
    if (result < 0)
        return result;
    if (said == 0 || said > 32u * 1024 * 1024) /* MAX_REPLY_LEN of mpath_cmd.h */
        return -EPROTO;
    result = multipathd_read(fd, answer, said < size ? said : size);
    if (result < 0)
        return result;
    answer[(said < size ? said : size) - 1] = '\0';
    answer[strcspn(answer, "\n")] = '\0';
    return 0;
}

int multipathd_command(const char *command, char *answer, size_t size)
{
    int fd = multipathd_connect();
    int result;

    *answer = '\0';
    if (fd < 0)
        return fd;
    result = multipathd_exchange(fd, command, answer, size);
    close(fd);
    return result;
}

/* A command that is answered with "ok" where it has worked. */
static int multipathd_do(const char *command, char *text, size_t size)
{
    char answer[128];
    int result = multipathd_command(command, answer, sizeof(answer));

    if (result == 0 && strcmp(answer, "ok") == 0)
        return 0;
    /* Without `reservation_key file` it answers so, and writes the key into its file (watch.h). */
    if (result == 0)
        snprintf(text, size,
                 "multipathd answers '%.40s' to '%s'; set reservation_key to file in "
                 "multipath.conf",
                 answer, command);
    else
        snprintf(text, size,
                 "multipathd does not know the key, so that paths which come back will not be "
                 "registered: '%s': %s",
                 command, strerror(-result));
    return -1;
}

int multipathd_set_key(const char *map, uint64_t key, bool aptpl, char *text, size_t size)
{
    char command[512];

    snprintf(command, sizeof(command), "setprkey map %s key 0x%" PRIx64 "%s", map, key,
             aptpl ? ":aptpl" : "");
    if (multipathd_do(command, text, size) < 0)
        return -1;
    snprintf(command, sizeof(command), "setprstatus map %s", map);
    return multipathd_do(command, text, size);
}

int multipathd_unset_key(const char *map, char *text, size_t size)
{
    char command[512];
    int result;

    snprintf(command, sizeof(command), "unsetprstatus map %s", map);
    result = multipathd_do(command, text, size);
    snprintf(command, sizeof(command), "unsetprkey map %s", map);
    return multipathd_do(command, text, size) < 0 ? -1 : result;
}
