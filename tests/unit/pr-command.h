/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest's command as it comes to policy, back ends and log, with all that belongs to it, for
 * tests of these. There is no such disk: nothing may be sent to it.
 */
#pragma once

#include <glib.h>
#include <unistd.h>

#include "prhelper/prhelper.h"

typedef struct Fixture {
    PrPeer peer;
    PrDevice device;
    PrCommand command;
    uint8_t list[SPC_OUT_LIST_SIZE];
    PrReply reply;
} Fixture;

/* A command of web1, which is this process, to sdb. `f` is not to be moved: it points into itself.
 */
static inline void set_up(Fixture *f, SpcOutAction action, guint64 key, guint64 service_key)
{
    SpcOut out = {.action = action,
                  .key = key,
                  .service_key = service_key,
                  .type = SPC_WRITE_EXCLUSIVE_REGISTRANTS};

    *f = (Fixture){
        .peer = {.pid = getpid(),
                 .uid = 64055,
                 .gid = 108,
                 .pidfd = -1,
                 .cgroup = (char *)"/machine.slice/web1.scope",
                 .vm = (char *)"web1"},
        .device = {.kind = PR_KIND_SCSI, .name = (char *)"sdb", .wwid = (char *)"naa.6001405aa"}};
    spc_out_build(&out, f->command.cdb, f->list);
    f->command.opcode = SPC_OUT_OPCODE;
    f->command.action = (uint8_t)action;
    f->command.type = SPC_WRITE_EXCLUSIVE_REGISTRANTS;
    f->command.length = SPC_OUT_LIST_SIZE;
    f->command.data = f->list;
    f->command.peer = &f->peer;
    f->command.device = &f->device;
    pr_out_parse(&f->command);
}
