/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See background.h. */
#include "background.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int background_pipe = -1; /* to the parent that waits; -1 in the foreground */

/* The parent: leaves as the child says. */
static void background_wait(int fd, pid_t child) G_GNUC_NORETURN;

static void background_wait(int fd, pid_t child)
{
    char ready;
    ssize_t n;
    int status;

    do
        n = read(fd, &ready, 1);
    while (n < 0 && errno == EINTR);
    if (n == 1)
        _exit(EXIT_SUCCESS);
    /* it has ended and has said why */
    if (waitpid(child, &status, 0) == child && WIFEXITED(status))
        _exit(WEXITSTATUS(status) ? WEXITSTATUS(status) : EXIT_FAILURE);
    _exit(EXIT_FAILURE);
}

int background_start(void)
{
    int fds[2];
    pid_t child;

    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    fflush(NULL);
    child = fork();
    if (child < 0) {
        int err = errno;

        close(fds[0]);
        close(fds[1]);
        return -err;
    }
    if (child > 0) {
        close(fds[1]);
        background_wait(fds[0], child);
    }
    close(fds[0]);
    background_pipe = fds[1];
    setsid();
    return 0;
}

void background_ready(void)
{
    int null;

    if (background_pipe < 0)
        return;
    null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null >= 0) {
        dup2(null, STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
        if (null > STDERR_FILENO)
            close(null);
    }
    if (chdir("/") < 0)
        g_warning("cannot change to /: %s", g_strerror(errno));
    if (write(background_pipe, "r", 1) < 0)
        g_debug("the starting process is gone already");
    close(background_pipe);
    background_pipe = -1;
}

int background_write_pid(const char *path, int *ret_fd)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    g_autofree char *dir = g_path_get_dirname(path);
    char text[32];
    int fd, r;

    if (g_mkdir_with_parents(dir, 0755) < 0)
        return -errno;
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        return -errno;
    r = fcntl(fd, F_SETLK, &lock) < 0 ? -errno : 0;
    if (r == 0) {
        int len = g_snprintf(text, sizeof(text), "%d\n", (int)getpid());

        if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)len, 0) != len)
            r = errno ? -errno : -EIO;
    }
    if (r < 0) {
        close(fd);
        return r == -EACCES ? -EAGAIN : r;
    }
    *ret_fd = fd;
    return 0;
}

void background_remove_pid(const char *path, int fd)
{
    struct stat ours, there;

    if (fd < 0)
        return;
    if (fstat(fd, &ours) == 0 && lstat(path, &there) == 0 && ours.st_dev == there.st_dev &&
        ours.st_ino == there.st_ino)
        unlink(path);
    close(fd);
}
