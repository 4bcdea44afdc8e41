/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a client may send to the persistent-reservation helper, over a real connection that is
 * served by a thread: the bytes of the input, in pieces, with descriptors where the input says so.
 * Whatever it is, the connection ends when the client has said its last word, and every answer is
 * whole. And what a process may call itself, for the log.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/settings.h"
#include "guard.h"
#include "prhelper/conn.h"
#include "prhelper/gate.h"
#include "prhelper/peer.h"
#include "prhelper/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int device = -1;

static void check(gboolean condition)
{
    if (!condition)
        abort();
}

static void set_up(void)
{
    g_autoptr(GPtrArray) problems = settings_problems_new();
    PrConfig *config = pr_config_load("/nonexistent", FALSE, problems);

    check(config != NULL);
    pr_conns_init(config, 64);
    check(pr_gate_init() == 0);
    device = open("/dev/null", O_RDWR | O_CLOEXEC);
    g_log_set_default_handler(g_log_default_handler, NULL);
}

/* A piece of the stream with so many descriptors. */
static void send_piece(int fd, const uint8_t *bytes, size_t len, unsigned n_fds)
{
    union {
        char space[CMSG_SPACE(3 * sizeof(int))];
        struct cmsghdr align;
    } control = {.space = {0}};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = len};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

    if (n_fds > 0) {
        struct cmsghdr *c = &control.align;
        const int fds[3] = {device, device, device};

        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
    }
    while (sendmsg(fd, &message, MSG_NOSIGNAL) < 0)
        if (errno != EINTR)
            return; /* it has been closed already */
}

/* All that the helper says until it closes: 4 bytes, then whole answers. */
static void read_answers(int fd)
{
    uint8_t bytes[PR_WIRE_REPLY_BYTES];
    gsize n = 0, said = 0;
    ssize_t got;

    /* libFuzzer's own timer interrupts */
    while ((got = recv(fd, bytes + n % sizeof(bytes), 1, 0)) > 0 || (got < 0 && errno == EINTR)) {
        if (got < 0)
            continue;
        n++;
        said++;
        if (said == PR_WIRE_FEATURES_BYTES)
            n = 0; /* answers begin here */
        else if (said > PR_WIRE_FEATURES_BYTES && n % sizeof(bytes) == 0) {
            check(bytes[0] == 0 && bytes[1] == 0 && bytes[2] == 0 && bytes[3] == 2);
            check(bytes[4] == 0 && bytes[5] == 0 && bytes[6] == 0 && bytes[7] == 0);
            check(bytes[8] == 0x70);
        }
    }
    check(said >= PR_WIRE_FEATURES_BYTES && n % sizeof(bytes) == 0);
}

static void try_connection(const uint8_t *data, size_t size)
{
    static const uint8_t greeting[PR_WIRE_FEATURES_BYTES];
    int ends[2];

    check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    check(pr_conns_add(ends[1]) == 0);
    send_piece(ends[0], greeting, sizeof(greeting), 0);
    /* a byte says how long the next piece is, and how many descriptors come with it */
    while (size > 1) {
        size_t len = MIN((size_t)(data[0] >> 2) + 1, size - 1);

        send_piece(ends[0], data + 1, len, data[0] & 3);
        data += len + 1;
        size -= len + 1;
    }
    shutdown(ends[0], SHUT_WR);
    read_answers(ends[0]);
    close(ends[0]);
}

static void try_names(const uint8_t *data, size_t size)
{
    char *text = guard_copy(data, size);
    g_autofree char *whole = g_strndup(text, size);
    g_autofree char *from_cgroup = pr_peer_vm_of_cgroup(whole);
    g_autofree char *from_cmdline = NULL;

    if (size > 0 && text[size - 1] == '\0') /* as the reader of /proc leaves it */
        from_cmdline = pr_peer_vm_of_cmdline(text, size);
    check(!from_cgroup || (*from_cgroup && g_utf8_validate(from_cgroup, -1, NULL)));
    check(!from_cmdline || (*from_cmdline && g_utf8_validate(from_cmdline, -1, NULL)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (device < 0)
        set_up();
    if (size == 0)
        return 0;
    if (data[0] == 'n')
        try_names(data + 1, size - 1);
    else
        try_connection(data + 1, size - 1);
    return 0;
}
