/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The back end for NVMe: the kernel's reservation ioctls (mpath/kernel-ioctl.c). They need
 * CAP_SYS_ADMIN, which holdfast-pr-multipath has and this process has not.
 */
#include "prhelper/worker.h"

static int kernel_prepare(const PrConfig *config, char **ret_error)
{
    return pr_worker_start(ret_error);
}

static gboolean kernel_takes(const PrConfig *config, const PrDevice *device)
{
    return device->kind == PR_KIND_NVME;
}

static void kernel_execute(const PrConfig *config, const PrCommand *command, PrReply *reply)
{
    pr_worker_execute(MPATH_KERNEL, MPATH_USE_PATHS, command, reply);
}

const PrBackend pr_backend_kernel = {
    .name = "kernel",
    .prepare = kernel_prepare,
    .takes = kernel_takes,
    .execute = kernel_execute,
    .finish = pr_worker_stop,
};
