/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Two system calls that valgrind 3.19 does not know, for a daemon that runs under it; preloaded by
 * test_leaks.py. They answer ENOSYS there.
 *
 *   pidfd_open   the descriptor comes from a helper outside, over the socket $HF_PIDFD_HELPER
 *   openat2      openat(), which does for names without links
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

/* Asks for a pid, gets an errno and, if that is 0, a descriptor. */
static int shim_ask(int fd, pid_t pid)
{
    int err = 0, answer = -1;
    struct iovec data = {.iov_base = &err, .iov_len = sizeof(err)};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    struct cmsghdr *header;

    memset(&control, 0, sizeof(control));
    if (write(fd, &pid, sizeof(pid)) != sizeof(pid) ||
        recvmsg(fd, &message, MSG_CMSG_CLOEXEC) != sizeof(err))
        return -1;
    header = CMSG_FIRSTHDR(&message);
    if (header)
        memcpy(&answer, CMSG_DATA(header), sizeof(answer));
    errno = err;
    return answer;
}

int pidfd_open(pid_t pid, unsigned int flags)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("HF_PIDFD_HELPER");
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int pidfd = -1, err;

    (void)flags;
    strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        pidfd = shim_ask(fd, pid);
    err = errno;
    close(fd);
    errno = err;
    return pidfd;
}

long syscall(long number, ...)
{
    long (*real)(long, ...) = NULL;
    const struct open_how *how;
    long arg[6];
    va_list args;

    va_start(args, number);
    for (int i = 0; i < 6; i++)
        arg[i] = va_arg(args, long);
    va_end(args);
    if (number == SYS_openat2) {
        how = (const struct open_how *)arg[2];
        return openat((int)arg[0], (const char *)arg[1], (int)how->flags | O_NOFOLLOW,
                      (mode_t)how->mode);
    }
    *(void **)(&real) = dlsym(RTLD_NEXT, "syscall");
    return real(number, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
}
