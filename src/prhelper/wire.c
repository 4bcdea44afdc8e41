/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See wire.h. */
#include "wire.h"

#include <string.h>

static void wire_put_u32(uint8_t *bytes, uint32_t value)
{
    bytes[0] = (uint8_t)(value >> 24);
    bytes[1] = (uint8_t)(value >> 16);
    bytes[2] = (uint8_t)(value >> 8);
    bytes[3] = (uint8_t)value;
}

gboolean pr_wire_read_cdb(const uint8_t cdb[PR_CDB_BYTES], PrCommand *command)
{
    memset(command, 0, sizeof(*command));
    memcpy(command->cdb, cdb, PR_CDB_BYTES);
    command->fd = -1;
    command->opcode = cdb[0];
    command->action = cdb[1] & 0x1f;
    /* SPC-4 has a parameter list length of four bytes for OUT, but QEMU 7.2's helper looks at the
     * same two as for IN; a list that does not fit into these is too long anyhow. */
    command->length = (uint16_t)(cdb[7] << 8 | cdb[8]);
    if (command->opcode == SPC_OUT_OPCODE) {
        command->scope = cdb[2] >> 4;
        command->type = cdb[2] & 0x0f;
    } else if (command->opcode != SPC_IN_OPCODE) {
        return FALSE;
    }
    return command->length <= SPC_LIST_MAX;
}

gsize pr_wire_parameters(const PrCommand *command)
{
    return command->opcode == SPC_OUT_OPCODE ? command->length : 0;
}

void pr_wire_write_reply(const PrReply *reply, uint8_t ret_bytes[PR_WIRE_REPLY_BYTES])
{
    wire_put_u32(ret_bytes, (uint32_t)reply->status);
    wire_put_u32(ret_bytes + 4, reply->size);
    memcpy(ret_bytes + 8, reply->sense, SPC_SENSE_SIZE);
}
