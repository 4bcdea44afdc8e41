/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See vault-batch.h. */
#include "vault-batch.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

gboolean vault_batch_fits(int socket)
{
    struct pollfd room = {.fd = socket, .events = POLLOUT};

    /* a socket is writable as long as three quarters of it are free, see unix_writable() in the
     * kernel: more than a message takes */
    return poll(&room, 1, 0) == 1 && room.revents == POLLOUT;
}

void vault_batch_add(VaultBatch *batch, const char *name, int fd)
{
    g_assert(!vault_batch_is_full(batch));
    g_strlcpy(batch->names[batch->n], name, sizeof(batch->names[0]));
    batch->fds[batch->n++] = fd;
}

gboolean vault_batch_is_full(const VaultBatch *batch)
{
    return batch->n == KEEPER_MAX_FDS;
}

int vault_batch_send(const VaultBatch *batch, int socket)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(batch->fds))];
    } control = {0};
    char text[KEEPER_MESSAGE_BYTES], *p = g_stpcpy(text, "FDSTORE=1\nFDPOLL=0\n");
    const size_t bytes = batch->n * sizeof(batch->fds[0]);
    struct iovec iov = {.iov_base = text};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = CMSG_SPACE(bytes)};

    for (guint i = 0; i < batch->n; i++) {
        p = g_stpcpy(p, "FDNAME=");
        p = g_stpcpy(p, batch->names[i]);
        p = g_stpcpy(p, "\n");
    }
    iov.iov_len = (size_t)(p - text);
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(bytes);
    memcpy(CMSG_DATA(&control.header), batch->fds, bytes);
    return sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}
