/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * See confine.h: the system calls. The list is what the test suite uses, by hand; what is in it for
 * a reason that is not plain says why. No program can be executed, no process made, no network
 * socket opened, and of all ioctls only those of reservations reach the kernel.
 */
#include <errno.h>
#include <linux/fs.h>
#include <linux/pr.h>
#include <sched.h>
#include <scsi/sg.h>
#include <seccomp.h>
#include <string.h>
#include <sys/socket.h>

#include "confine.h"

#ifndef BLKGETDISKSEQ
#define BLKGETDISKSEQ _IOR(0x12, 128, __u64)
#endif

static const int calls_allowed[] = {
    /* the conversation */
    SCMP_SYS(accept4),
    SCMP_SYS(recvmsg),
    SCMP_SYS(recvfrom),
    SCMP_SYS(sendmsg),
    SCMP_SYS(sendto),
    SCMP_SYS(getsockopt),
    SCMP_SYS(setsockopt),
    SCMP_SYS(getsockname),
    SCMP_SYS(getpeername),
    SCMP_SYS(shutdown),
    SCMP_SYS(connect),
    SCMP_SYS(socketpair), /* for the answer of holdfast-pr-multipath */
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(epoll_wait),
    SCMP_SYS(epoll_pwait),
    SCMP_SYS(epoll_ctl),
    /* descriptors; what can be opened is Landlock's business */
    SCMP_SYS(read),
    SCMP_SYS(readv),
    SCMP_SYS(pread64),
    SCMP_SYS(write),
    SCMP_SYS(writev),
    SCMP_SYS(pwrite64),
    SCMP_SYS(close),
    SCMP_SYS(fcntl),
    SCMP_SYS(fstat),
    SCMP_SYS(newfstatat),
    SCMP_SYS(stat),
    SCMP_SYS(lstat),
    SCMP_SYS(statx),
    SCMP_SYS(fstatfs),
    SCMP_SYS(lseek),
    SCMP_SYS(fdatasync),
    SCMP_SYS(fsync),
    SCMP_SYS(dup),
    SCMP_SYS(dup2),
    SCMP_SYS(dup3),
    SCMP_SYS(chdir),
    SCMP_SYS(open),
    SCMP_SYS(openat),
    SCMP_SYS(getdents64),
    SCMP_SYS(readlink),
    SCMP_SYS(readlinkat),
    SCMP_SYS(access),
    SCMP_SYS(faccessat),
    SCMP_SYS(faccessat2),
    SCMP_SYS(getcwd),
    /* the end: the socket and the pid file go */
    SCMP_SYS(unlink),
    SCMP_SYS(unlinkat),
    SCMP_SYS(wait4),
    SCMP_SYS(waitid),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    /* memory and threads */
    SCMP_SYS(brk),
    SCMP_SYS(mmap),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(mprotect),
    SCMP_SYS(madvise),
    SCMP_SYS(futex),
    SCMP_SYS(futex_waitv),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq),
    SCMP_SYS(membarrier),
    SCMP_SYS(sched_yield),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(set_tid_address),
    SCMP_SYS(getrandom),
    /* time, signals, who am I */
    SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(nanosleep),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(time),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(tgkill),
    SCMP_SYS(getpid),
    SCMP_SYS(gettid),
    SCMP_SYS(getuid),
    SCMP_SYS(geteuid),
    SCMP_SYS(getgid),
    SCMP_SYS(getegid),
    SCMP_SYS(uname),
    SCMP_SYS(sysinfo),
    SCMP_SYS(prlimit64),
    /* of a peer: whether it still lives */
    SCMP_SYS(pidfd_open),
    SCMP_SYS(pidfd_send_signal),
};

static const unsigned long calls_ioctls[] = {
    SG_IO,          BLKGETDISKSEQ,  IOC_PR_REGISTER, IOC_PR_RESERVE,
    IOC_PR_RELEASE, IOC_PR_PREEMPT, IOC_PR_CLEAR,    IOC_PR_PREEMPT_ABORT,
};

static int calls_fill(scmp_filter_ctx filter)
{
    int r = 0;

    if (PR_CONFINE_LOOSELY) {
        r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(execve), 0);
        return r == 0 ? seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(execveat), 0) : r;
    }

    /* the call that the filter is asked about most; what has no conditions the kernel remembers */
    r = seccomp_syscall_priority(filter, SCMP_SYS(ioctl), UINT8_MAX);
    for (gsize i = 0; r == 0 && i < G_N_ELEMENTS(calls_allowed); i++)
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, calls_allowed[i], 0);
    for (gsize i = 0; r == 0 && i < G_N_ELEMENTS(calls_ioctls); i++)
        /* the kernel looks at 32 bits of a request, so the filter does too */
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
                             SCMP_A1(SCMP_CMP_MASKED_EQ, 0xffffffffU, calls_ioctls[i]));
    /* a log's socket; nothing that leaves the host */
    if (r == 0)
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
                             SCMP_A0(SCMP_CMP_EQ, AF_UNIX));
    /* Threads, but no processes. A filter cannot see clone3()'s flags; without it the C library
     * uses clone(). */
    if (r == 0)
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                             SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
    if (r == 0)
        r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    return r;
}

gboolean pr_confine_calls(char **ret_error)
{
    scmp_filter_ctx filter =
        seccomp_init(PR_CONFINE_LOOSELY ? SCMP_ACT_ALLOW : SCMP_ACT_ERRNO(EPERM));
    int r = filter ? calls_fill(filter) : -ENOMEM;

    if (r == 0)
        r = seccomp_load(filter);
    if (filter)
        seccomp_release(filter);
    if (r == 0)
        return TRUE;
    *ret_error = g_strdup_printf("cannot give up system calls: %s", g_strerror(-r));
    return FALSE;
}
