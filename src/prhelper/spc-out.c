/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* PERSISTENT RESERVE OUT; see spc-out.h. */
#include "prhelper/spc-out.h"

#include <stdio.h>
#include <string.h>

/* Byte 20 of the basic list (SPC-4, table 223). */
#define FLAG_SPEC_I_PT 0x08
#define FLAG_ALL_TG_PT 0x04
#define FLAG_APTPL 0x01
/* Byte 17 of the list of REGISTER AND MOVE (SPC-4, table 226). */
#define MOVE_UNREG 0x02
#define MOVE_APTPL 0x01

#define PROTOCOL_FC 0
#define PROTOCOL_1394 3
#define PROTOCOL_SRP 4
#define PROTOCOL_ISCSI 5
#define PROTOCOL_SAS 6

/* ---- names --------------------------------------------------------------------------------- */

const char *spc_out_action_name(unsigned action)
{
    static const char *const names[SPC_OUT_ACTIONS] = {
        "REGISTER",
        "RESERVE",
        "RELEASE",
        "CLEAR",
        "PREEMPT",
        "PREEMPT AND ABORT",
        "REGISTER AND IGNORE EXISTING KEY",
        "REGISTER AND MOVE",
    };
    static _Thread_local char other[32];

    if (action < SPC_OUT_ACTIONS)
        return names[action];
    snprintf(other, sizeof(other), "service action 0x%02x", action);
    return other;
}

const char *spc_type_name(unsigned type)
{
    switch (type) {
    case SPC_WRITE_EXCLUSIVE:
        return "Write Exclusive";
    case SPC_EXCLUSIVE_ACCESS:
        return "Exclusive Access";
    case SPC_WRITE_EXCLUSIVE_REGISTRANTS:
        return "Write Exclusive, Registrants Only";
    case SPC_EXCLUSIVE_ACCESS_REGISTRANTS:
        return "Exclusive Access, Registrants Only";
    case SPC_WRITE_EXCLUSIVE_ALL:
        return "Write Exclusive, All Registrants";
    case SPC_EXCLUSIVE_ACCESS_ALL:
        return "Exclusive Access, All Registrants";
    default:
        return "unknown type";
    }
}

const char *spc_type_abbreviation(unsigned type)
{
    switch (type) {
    case SPC_WRITE_EXCLUSIVE:
        return "WE";
    case SPC_EXCLUSIVE_ACCESS:
        return "EA";
    case SPC_WRITE_EXCLUSIVE_REGISTRANTS:
        return "WERO";
    case SPC_EXCLUSIVE_ACCESS_REGISTRANTS:
        return "EARO";
    case SPC_WRITE_EXCLUSIVE_ALL:
        return "WEAR";
    case SPC_EXCLUSIVE_ACCESS_ALL:
        return "EAAR";
    default:
        return "-";
    }
}

bool spc_type_is_known(unsigned type)
{
    return *spc_type_abbreviation(type) != '-';
}

bool spc_type_all_registrants(unsigned type)
{
    return type == SPC_WRITE_EXCLUSIVE_ALL || type == SPC_EXCLUSIVE_ACCESS_ALL;
}

bool spc_out_has_type(SpcOutAction action)
{
    return action == SPC_OUT_RESERVE || action == SPC_OUT_RELEASE || action == SPC_OUT_PREEMPT ||
           action == SPC_OUT_PREEMPT_ABORT;
}

/* ---- TransportIDs -------------------------------------------------------------------------- */

size_t spc_transport_id_length(const uint8_t *bytes, size_t len)
{
    size_t size = SPC_TRANSPORT_ID_SIZE;

    if (len < SPC_TRANSPORT_ID_SIZE)
        return 0;
    /* Only iSCSI's has a length of its own: a multiple of 4, not below 20, without the head. */
    if ((bytes[0] & 0x0f) == PROTOCOL_ISCSI) {
        size = 4u + spc_get16(bytes + 2);
        if (size < SPC_TRANSPORT_ID_SIZE || size % 4 != 0)
            return 0;
    }
    return size <= len ? size : 0;
}

/* Appends printable text, everything else escaped; `len` bytes or up to a NUL. */
static void transport_append(char *text, size_t size, const uint8_t *bytes, size_t len)
{
    size_t used = strlen(text);

    for (size_t i = 0; i < len && bytes[i] != 0 && used + 5 < size; i++) {
        if (bytes[i] > ' ' && bytes[i] < 0x7f && bytes[i] != '\\')
            used += (size_t)snprintf(text + used, size - used, "%c", bytes[i]);
        else
            used += (size_t)snprintf(text + used, size - used, "\\x%02x", bytes[i]);
    }
}

static void transport_append_hex(char *text, size_t size, const uint8_t *bytes, size_t len)
{
    size_t used = strlen(text);

    for (size_t i = 0; i < len && used + 3 < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%02x", bytes[i]);
}

char *spc_transport_id_describe(const uint8_t *bytes, size_t len, char *text, size_t size)
{
    size_t own = spc_transport_id_length(bytes, len);

    if (own == 0) {
        snprintf(text, size, "none");
        return text;
    }
    *text = '\0';
    switch (bytes[0] & 0x0f) {
    case PROTOCOL_FC:
        snprintf(text, size, "fc ");
        transport_append_hex(text, size, bytes + 8, 8);
        break;
    case PROTOCOL_1394:
        snprintf(text, size, "sbp ");
        transport_append_hex(text, size, bytes + 8, 8);
        break;
    case PROTOCOL_SRP:
        snprintf(text, size, "srp ");
        transport_append_hex(text, size, bytes + 8, 16);
        break;
    case PROTOCOL_ISCSI:
        transport_append(text, size, bytes + 4, own - 4);
        break;
    case PROTOCOL_SAS:
        snprintf(text, size, "sas ");
        transport_append_hex(text, size, bytes + 4, 8);
        break;
    default:
        snprintf(text, size, "protocol %u ", bytes[0] & 0x0fu);
        transport_append_hex(text, size, bytes + 4, SPC_TRANSPORT_ID_SIZE - 4);
        break;
    }
    return text;
}

/* ---- parsing ------------------------------------------------------------------------------- */

static int out_fault(SpcOutFault *ret_fault, SpcSense sense, size_t byte, const char *reason)
{
    *ret_fault = (SpcOutFault){.sense = sense, .byte = (uint16_t)byte, .reason = reason};
    return -1;
}

size_t spc_out_list_length(const uint8_t *cdb)
{
    return spc_get16(cdb + 7);
}

/* The TransportIDs from `start` of the list on, which say their length in the four bytes before. */
static int out_parse_ids(const uint8_t *list, size_t len, size_t start, SpcOut *out,
                         SpcOutFault *ret_fault)
{
    size_t said = spc_get32(list + start - 4);
    size_t at = start;

    if (said != len - start)
        return out_fault(ret_fault, SPC_SENSE_PARAMETER_LIST_LENGTH, start - 4,
                         "the length of the TransportIDs is not that of the list");
    out->others = true;
    out->transport_ids = list + start;
    out->transport_ids_len = said;
    while (at < len) {
        size_t own = spc_transport_id_length(list + at, len - at);

        if (own == 0)
            return out_fault(ret_fault, SPC_SENSE_INVALID_FIELD_IN_PARAMETERS, at,
                             "a TransportID is malformed");
        at += own;
    }
    return 0;
}

static int out_parse_move(const uint8_t *list, size_t len, SpcOut *out, SpcOutFault *ret_fault)
{
    if (len < SPC_OUT_LIST_SIZE)
        return out_fault(ret_fault, SPC_SENSE_PARAMETER_LIST_LENGTH, 0,
                         "the list of REGISTER AND MOVE has at least 24 bytes");
    out->unregister = (list[17] & MOVE_UNREG) != 0;
    out->aptpl = (list[17] & MOVE_APTPL) != 0;
    out->target_port = spc_get16(list + 18);
    if (out->service_key == 0)
        return out_fault(ret_fault, SPC_SENSE_INVALID_FIELD_IN_PARAMETERS, 8,
                         "REGISTER AND MOVE needs a key for the new holder");
    if (out_parse_ids(list, len, SPC_OUT_LIST_SIZE, out, ret_fault) < 0)
        return -1;
    if (spc_transport_id_length(out->transport_ids, out->transport_ids_len) !=
            out->transport_ids_len ||
        out->transport_ids_len == 0)
        return out_fault(ret_fault, SPC_SENSE_INVALID_FIELD_IN_PARAMETERS, SPC_OUT_LIST_SIZE,
                         "REGISTER AND MOVE has exactly one TransportID");
    return 0;
}

static int out_parse_basic(const uint8_t *list, size_t len, SpcOut *out, SpcOutFault *ret_fault)
{
    bool registers = out->action == SPC_OUT_REGISTER || out->action == SPC_OUT_REGISTER_IGNORE;
    bool spec_i_pt;

    if (len < SPC_OUT_LIST_SIZE)
        return out_fault(ret_fault, SPC_SENSE_PARAMETER_LIST_LENGTH, 0,
                         "the parameter list has to have 24 bytes");
    spec_i_pt = (list[20] & FLAG_SPEC_I_PT) != 0;
    /* The flags mean something in registrations only, and are ignored elsewhere. */
    out->aptpl = registers && (list[20] & FLAG_APTPL) != 0;
    out->all_target_ports = registers && (list[20] & FLAG_ALL_TG_PT) != 0;
    if (spec_i_pt && out->action != SPC_OUT_REGISTER)
        return out_fault(ret_fault, SPC_SENSE_INVALID_FIELD_IN_PARAMETERS, 20,
                         "SPEC_I_PT belongs to REGISTER only");
    if (!spec_i_pt && len != SPC_OUT_LIST_SIZE)
        return out_fault(ret_fault, SPC_SENSE_PARAMETER_LIST_LENGTH, SPC_OUT_LIST_SIZE,
                         "the parameter list has to have 24 bytes");
    if (!spec_i_pt)
        return 0;
    if (len < SPC_OUT_LIST_SIZE + 4)
        return out_fault(ret_fault, SPC_SENSE_PARAMETER_LIST_LENGTH, SPC_OUT_LIST_SIZE,
                         "SPEC_I_PT without TransportIDs");
    return out_parse_ids(list, len, SPC_OUT_LIST_SIZE + 4, out, ret_fault);
}

int spc_out_parse(const uint8_t *cdb, const uint8_t *list, size_t len, SpcOut *ret_out,
                  SpcOutFault *ret_fault)
{
    SpcOut *out = ret_out;

    *ret_fault = (SpcOutFault){0};
    *out = (SpcOut){.action = (SpcOutAction)(cdb[1] & 0x1f)};
    if (len >= 16) {
        out->key = spc_get64(list);
        out->service_key = spc_get64(list + 8);
    }
    if (spc_out_has_type(out->action)) {
        out->scope = cdb[2] >> 4;
        out->type = cdb[2] & 0x0f;
    }
    if (cdb[0] != SPC_OUT_OPCODE)
        return out_fault(ret_fault, SPC_SENSE_INVALID_OPCODE, 0, "not PERSISTENT RESERVE OUT");
    if ((unsigned)out->action >= SPC_OUT_ACTIONS)
        return out_fault(ret_fault, SPC_SENSE_INVALID_FIELD_IN_CDB, 1, "unknown service action");
    if (spc_out_has_type(out->action)) {
        if (out->scope != 0)
            return out_fault(ret_fault, SPC_SENSE_INVALID_FIELD_IN_CDB, 2, "unknown scope");
        if (!spc_type_is_known(out->type))
            return out_fault(ret_fault, SPC_SENSE_INVALID_FIELD_IN_CDB, 2, "unknown type");
    }
    if (len != spc_out_list_length(cdb))
        return out_fault(ret_fault, SPC_SENSE_PARAMETER_LIST_LENGTH, 7,
                         "the list is not as long as the CDB says");
    return out->action == SPC_OUT_REGISTER_MOVE ? out_parse_move(list, len, out, ret_fault)
                                                : out_parse_basic(list, len, out, ret_fault);
}

void spc_out_build(const SpcOut *out, uint8_t cdb[16], uint8_t list[SPC_OUT_LIST_SIZE])
{
    memset(cdb, 0, 16);
    memset(list, 0, SPC_OUT_LIST_SIZE);
    cdb[0] = SPC_OUT_OPCODE;
    cdb[1] = (uint8_t)out->action;
    if (spc_out_has_type(out->action))
        cdb[2] = (uint8_t)(out->scope << 4 | out->type);
    spc_put16(cdb + 7, SPC_OUT_LIST_SIZE);
    spc_put64(list, out->key);
    spc_put64(list + 8, out->service_key);
    list[20] =
        (uint8_t)((out->aptpl ? FLAG_APTPL : 0) | (out->all_target_ports ? FLAG_ALL_TG_PT : 0));
}
