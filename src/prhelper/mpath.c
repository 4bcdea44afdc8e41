/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The back end for dm-multipath. What changes something goes to holdfast-pr-multipath, which knows
 * the paths; reading is a plain SG_IO on the map, which the kernel sends down one of its paths, and
 * only when that path has just died it is read by another one.
 */
#define G_LOG_DOMAIN "holdfast.pr"

#include <linux/capability.h>

#include "prhelper/spc-out.h"
#include "prhelper/worker.h"

/* Byte 4 of REPORT CAPABILITIES: the types for one path only, which paths_check() refuses. */
#define CAPABILITY_WE 0x02
#define CAPABILITY_EA 0x08

/* Set before threads exist. */
static gboolean mpath_library;
static char *mpath_broken; /* why nothing can be done; NULL: all is well */

static int mpath_prepare(const PrConfig *config, char **ret_error)
{
    g_autofree char *reason = NULL;

    /* It takes every map even if it can't work: SG_IO on one would register some of its paths. */
    if (pr_worker_start(&mpath_broken) < 0) {
        g_warning("%s", mpath_broken);
        return 0;
    }
    if (config->multipath == PR_MULTIPATH_PATHS)
        return 0;
    mpath_library = pr_worker_has_library(&reason);
    if (mpath_library)
        return 0;
    if (config->multipath == PR_MULTIPATH_LIBRARY) {
        mpath_broken = g_strdup_printf("pr_multipath = \"library\", but %s", reason);
        g_warning("%s", mpath_broken);
    } else {
        g_info("%s; multipath devices are served path by path without it", reason);
    }
    return 0;
}

static gboolean mpath_takes(const PrConfig *config, const PrDevice *device)
{
    return device->kind == PR_KIND_MULTIPATH;
}

/* A path that failed under the command: whoever looks for another one may have an answer. */
static gboolean mpath_is_path_failure(const PrReply *reply)
{
    SpcSense sense;

    if (reply->status != SPC_STATUS_CHECK_CONDITION)
        return reply->status == SPC_STATUS_BUSY;
    sense = pr_sense_read(reply->sense, SPC_SENSE_SIZE);
    /* logical unit not supported (the path has gone), aborted command, a reset on its way */
    return (sense.key == 0x05 && sense.asc == 0x25) || sense.key == 0x0b || sense.key == 0x06;
}

static void mpath_read(const PrConfig *config, const PrCommand *command, PrReply *reply)
{
    pr_sg_execute(command->fd, command->cdb, NULL, command->length, TRUE, reply);
    if (mpath_is_path_failure(reply))
        pr_worker_execute(MPATH_MAP, MPATH_USE_PATHS, command, reply);
    if (command->action == SPC_IN_CAPABILITIES && reply->status == SPC_STATUS_GOOD &&
        reply->size >= 6 && (reply->data[3] & 0x80))
        reply->data[4] &= (uint8_t) ~(CAPABILITY_WE | CAPABILITY_EA);
}

static void mpath_execute(const PrConfig *config, const PrCommand *command, PrReply *reply)
{
    gboolean library = mpath_library && config->multipath != PR_MULTIPATH_PATHS;

    if (mpath_broken && command->opcode == SPC_OUT_OPCODE) {
        g_message("%s: %s", command->device->name, mpath_broken);
        pr_reply_check_condition(reply, SPC_SENSE_TARGET_FAILURE);
    } else if (command->opcode == SPC_IN_OPCODE)
        mpath_read(config, command, reply);
    else
        pr_worker_execute(MPATH_MAP, library ? MPATH_USE_LIBRARY : MPATH_USE_PATHS, command, reply);
}

static void mpath_finish(void)
{
    pr_worker_stop();
    g_clear_pointer(&mpath_broken, g_free);
}

const PrBackend pr_backend_mpath = {
    .name = "mpath",
    .prepare = mpath_prepare,
    .takes = mpath_takes,
    .execute = mpath_execute,
    .finish = mpath_finish,
    .capabilities = UINT64_C(1) << CAP_SYS_RAWIO,
};
