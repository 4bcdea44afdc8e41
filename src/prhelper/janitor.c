/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See janitor.h. */
#include "janitor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct JanitorFile {
    const char *path;
    dev_t device;
    ino_t inode;
} JanitorFile;

static void janitor_note(JanitorFile *file, const char *path)
{
    struct stat st;

    if (!path || lstat(path, &st) < 0)
        return;
    *file = (JanitorFile){.path = path, .device = st.st_dev, .inode = st.st_ino};
}

static void janitor_remove(const JanitorFile *file)
{
    struct stat st;

    if (file->path && lstat(file->path, &st) == 0 && st.st_dev == file->device &&
        st.st_ino == file->inode)
        unlink(file->path);
}

/* The right to write to any directory, for a socket in one of libvirt's; not even that of root is
 * left otherwise. Nothing depends on it that it works. */
static void janitor_confine(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    const uint32_t kept = 1U << CAP_DAC_OVERRIDE;
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {
        {.effective = kept, .permitted = kept}};

    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (syscall(SYS_capset, &header, data) < 0)
        return;
}

static void janitor_run(int fd, const JanitorFile files[2]) G_GNUC_NORETURN;

static void janitor_run(int fd, const JanitorFile files[2])
{
    sigset_t all;
    char byte;
    ssize_t n;

    /* who ends a whole group of processes means the helper; this one ends after it */
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    /* it keeps nobody's terminal or pipe open */
    close_range(0, (unsigned)fd - 1, 0);
    close_range((unsigned)fd + 1, ~0U, 0);
    janitor_confine();
    do
        n = read(fd, &byte, 1);
    while (n < 0 && errno == EINTR);
    janitor_remove(&files[0]);
    janitor_remove(&files[1]);
    _exit(EXIT_SUCCESS);
}

int pr_janitor_start(const char *socket, const char *pid_file, pid_t *ret_child)
{
    JanitorFile files[2] = {{0}};
    int fds[2];
    pid_t child;

    janitor_note(&files[0], socket);
    janitor_note(&files[1], pid_file);
    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    child = fork();
    if (child < 0) {
        int r = -errno;

        close(fds[0]);
        close(fds[1]);
        return r;
    }
    if (child == 0)
        janitor_run(fds[0], files);
    close(fds[0]);
    *ret_child = child;
    return fds[1];
}

void pr_janitor_finish(int fd, pid_t child)
{
    close(fd);
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
        ;
}
