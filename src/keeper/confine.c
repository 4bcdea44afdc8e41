/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the keeper may do, and what it may use: see confine.h. */
#include "confine.h"

#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

/* The daemon inherits this filter, so it forbids only what neither has any business with. */
static void confine_calls(void)
{
    static const int forbidden[] = {
#ifndef __SANITIZE_ADDRESS__ /* the leak checker traces its own process */
        SCMP_SYS(ptrace),
#endif
        SCMP_SYS(process_vm_writev),
        SCMP_SYS(mount),
        SCMP_SYS(umount2),
        SCMP_SYS(pivot_root),
        SCMP_SYS(chroot),
        SCMP_SYS(setns),
        SCMP_SYS(unshare),
        SCMP_SYS(init_module),
        SCMP_SYS(finit_module),
        SCMP_SYS(delete_module),
        SCMP_SYS(kexec_load),
        SCMP_SYS(kexec_file_load),
        SCMP_SYS(reboot),
        SCMP_SYS(swapon),
        SCMP_SYS(swapoff),
        SCMP_SYS(bpf),
        SCMP_SYS(perf_event_open),
        SCMP_SYS(userfaultfd),
        SCMP_SYS(keyctl),
        SCMP_SYS(add_key),
        SCMP_SYS(request_key),
        SCMP_SYS(open_by_handle_at),
        SCMP_SYS(iopl),
        SCMP_SYS(ioperm),
        SCMP_SYS(settimeofday),
        SCMP_SYS(clock_settime),
        SCMP_SYS(sethostname),
        SCMP_SYS(setdomainname),
        SCMP_SYS(acct),
        SCMP_SYS(quotactl),
        SCMP_SYS(syslog),
    };
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);

    if (!filter)
        return;
    for (size_t i = 0; i < sizeof(forbidden) / sizeof(*forbidden); i++)
        seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), forbidden[i], 0);
    if (seccomp_load(filter) < 0)
        fprintf(stderr, "holdfast-keeper: goes on without a seccomp filter\n");
    seccomp_release(filter);
}

/* The last to go when memory is short: with it go all locks. Only root may ask for that. */
static void confine_protect(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return;
    if (write(fd, "-900", 4) < 0)
        errno = 0; /* an ordinary user may not */
    close(fd);
}

static void confine_raise_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

void confine_self(void)
{
    confine_raise_limit();
    confine_protect();
    confine_calls();
}
