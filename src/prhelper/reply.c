/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Answers that the helper makes itself. */
#include <string.h>

#include "prhelper.h"

void pr_reply_status(PrReply *reply, int32_t status)
{
    reply->status = status;
    reply->size = 0;
    memset(reply->sense, 0, sizeof(reply->sense));
}

void pr_reply_check_condition(PrReply *reply, SpcSense sense)
{
    pr_reply_status(reply, SPC_STATUS_CHECK_CONDITION);
    spc_sense_build(reply->sense, sense); /* what qemu-pr-helper sends, byte for byte */
}
