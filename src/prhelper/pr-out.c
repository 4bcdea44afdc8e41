/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A command's service action, type and parameter list for the rest of the helper; what the bytes
 * mean is spc-out.c's business. Pure functions.
 */
#include "prhelper/prhelper.h"

void pr_out_parse(PrCommand *command)
{
    SpcOut out;
    SpcOutFault fault;

    command->has_parameters =
        spc_out_parse(command->cdb, command->data, command->length, &out, &fault) == 0;
    command->parameters = (PrOutParameters){
        .key = out.key,
        .service_key = out.service_key,
        .all_targets = out.all_target_ports,
        .specify_ports = out.others && out.action == SPC_OUT_REGISTER,
        .through_power = out.aptpl,
        .unregister = out.unregister,
        .relative_port = out.target_port,
        .ids = out.transport_ids,
        .ids_len = (uint32_t)out.transport_ids_len,
    };
}

const char *pr_action_name(uint8_t opcode, uint8_t action)
{
    return opcode == SPC_OUT_OPCODE ? spc_out_action_name(action) : spc_in_action_name(action);
}

const char *pr_type_name(uint8_t type)
{
    return spc_type_is_known(type) ? spc_type_name(type) : NULL;
}
