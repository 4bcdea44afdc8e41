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

static gboolean background_kept; /* the parent process is a keeper */
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

/* Beside the program itself in a build tree, otherwise where it was installed. */
static char *background_find_keeper(const char *program)
{
    g_autofree char *dir = g_path_get_dirname(program);
    g_autofree char *beside = g_build_filename(dir, "holdfast-keeper", NULL);

    if (access(beside, X_OK) == 0)
        return g_steal_pointer(&beside);
    if (access(HOLDFAST_LIBEXECDIR "/holdfast-keeper", X_OK) == 0)
        return g_strdup(HOLDFAST_LIBEXECDIR "/holdfast-keeper");
    return NULL;
}

gboolean background_with_keeper(char **argv)
{
    g_autofree char *program = NULL;
    g_autofree char *keeper = NULL;
    g_autoptr(GPtrArray) args = NULL;

    background_kept = g_getenv("HOLDFAST_KEEPER") != NULL;
    if (background_kept || g_getenv("NOTIFY_SOCKET"))
        return TRUE;
    program = g_file_read_link("/proc/self/exe", NULL);
    keeper = program ? background_find_keeper(program) : NULL;
    if (!keeper)
        return FALSE;
    args = g_ptr_array_new();
    g_ptr_array_add(args, (gpointer) "holdfast-keeper");
    g_ptr_array_add(args, program); /* by its path: after an upgrade that is the new program */
    for (char **arg = argv; *arg; arg++)
        g_ptr_array_add(args, *arg);
    g_ptr_array_add(args, NULL);
    if (background_pipe >= 0) {
        g_autofree char *number = g_strdup_printf("%d", background_pipe);

        g_setenv("HOLDFAST_READY", number, TRUE);
        fcntl(background_pipe, F_SETFD, 0);
    }
    execv(keeper, (char **)args->pdata);
    return FALSE;
}

void background_ready(void)
{
    const char *ready = g_getenv("HOLDFAST_READY");
    int null;

    if (ready) {
        background_pipe = atoi(ready);
        g_unsetenv("HOLDFAST_READY");
    }
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
        pid_t pid = background_kept ? getppid() : getpid();
        int len = g_snprintf(text, sizeof(text), "%d\n", (int)pid);

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
