/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * PERSISTENT RESERVE OUT, read strictly by SPC-4 (6.16): which action, which keys, which type. Who
 * decides about a command (policy), writes it down (the log) or repeats it on several paths
 * (multipath) needs to know what it says; who only passes it on does not.
 *
 * Pure functions, plain C, no allocation: a SpcOut points into the caller's parameter list.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "prhelper/spc-sense.h"

#define SPC_OUT_OPCODE 0x5f
#define SPC_CDB_SIZE 10 /* of both commands; stock's protocol sends 16 bytes */
/** The list of every action but REGISTER AND MOVE, without TransportIDs. */
#define SPC_OUT_LIST_SIZE 24
/** The longest list that stock's protocol carries. */
#define SPC_LIST_MAX 8192
/** The shortest TransportID, and all of them but iSCSI's. */
#define SPC_TRANSPORT_ID_SIZE 24

typedef enum SpcOutAction {
    SPC_OUT_REGISTER = 0,
    SPC_OUT_RESERVE = 1,
    SPC_OUT_RELEASE = 2,
    SPC_OUT_CLEAR = 3,
    SPC_OUT_PREEMPT = 4,
    SPC_OUT_PREEMPT_ABORT = 5,
    SPC_OUT_REGISTER_IGNORE = 6,
    SPC_OUT_REGISTER_MOVE = 7,
} SpcOutAction;

#define SPC_OUT_ACTIONS 8

/** Types of a reservation. */
typedef enum SpcType {
    SPC_WRITE_EXCLUSIVE = 1,
    SPC_EXCLUSIVE_ACCESS = 3,
    SPC_WRITE_EXCLUSIVE_REGISTRANTS = 5,
    SPC_EXCLUSIVE_ACCESS_REGISTRANTS = 6,
    SPC_WRITE_EXCLUSIVE_ALL = 7,
    SPC_EXCLUSIVE_ACCESS_ALL = 8,
} SpcType;

typedef struct SpcOut {
    SpcOutAction action;
    uint8_t scope;        /* 0, unless the action has none */
    uint8_t type;         /* a SpcType, or 0 for actions without one */
    uint64_t key;         /* RESERVATION KEY: who speaks */
    uint64_t service_key; /* SERVICE ACTION RESERVATION KEY: the new key, or the victim's */
    bool aptpl;
    bool all_target_ports;
    bool unregister;      /* REGISTER AND MOVE: and leave */
    uint16_t target_port; /* REGISTER AND MOVE: relative identifier */
    bool others;          /* SPEC_I_PT, or REGISTER AND MOVE: concerns TransportIDs, too */
    const uint8_t *transport_ids;
    size_t transport_ids_len;
} SpcOut;

/** What is wrong with a command, as sense data say it. */
typedef struct SpcOutFault {
    SpcSense sense;
    uint16_t byte;      /* the first wrong byte, of the CDB or of the list */
    const char *reason; /* one line; static */
} SpcOutFault;

/**
 * Reads a command of which the CDB has at least SPC_CDB_SIZE bytes; `list` has `len` bytes. Returns
 * 0, or -1 and why in `ret_fault`; `ret_out` has then what could be read, for the log.
 */
int spc_out_parse(const uint8_t *cdb, const uint8_t *list, size_t len, SpcOut *ret_out,
                  SpcOutFault *ret_fault);

/** The length of the parameter list, from the CDB: bytes 7 and 8, as stock's helper takes it. */
size_t spc_out_list_length(const uint8_t *cdb);

/**
 * Writes the command for a basic list (every action but REGISTER AND MOVE, no TransportIDs) into
 * a CDB of 16 bytes and a list of SPC_OUT_LIST_SIZE.
 */
void spc_out_build(const SpcOut *out, uint8_t cdb[16], uint8_t list[SPC_OUT_LIST_SIZE]);

/** Whether the action has a reservation's scope and type: RESERVE, RELEASE, both PREEMPTs. */
bool spc_out_has_type(SpcOutAction action);

/** "REGISTER AND IGNORE EXISTING KEY"; "service action 0x1f" for others. Not for other threads. */
const char *spc_out_action_name(unsigned action);
/** "Write Exclusive, Registrants Only"; "type 9" does not exist: "unknown type". Static. */
const char *spc_type_name(unsigned type);
/** "WERO" and the like, as people write them in tables; "-" for none. Static. */
const char *spc_type_abbreviation(unsigned type);
/** Whether the number is one of SpcType. */
bool spc_type_is_known(unsigned type);
/** Whether all registrants hold a reservation of that type. */
bool spc_type_all_registrants(unsigned type);

/**
 * The length of the TransportID that begins at `bytes`, at most `len`; 0 if it is none: too short,
 * of an unknown protocol, or with a wrong length of its own.
 */
size_t spc_transport_id_length(const uint8_t *bytes, size_t len);
/**
 * A TransportID in words: "iqn.2001-04.com.example:a,i,0x3d0200", "fc 2100001b32a1b2c3". The
 * caller's buffer, cut to `size`; bytes that are not printable as \xNN. Returns `text`.
 */
char *spc_transport_id_describe(const uint8_t *bytes, size_t len, char *text, size_t size);

/** Big-endian numbers, as SCSI has them. */
static inline uint16_t spc_get16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static inline uint32_t spc_get32(const uint8_t *at)
{
    return (uint32_t)spc_get16(at) << 16 | spc_get16(at + 2);
}

static inline uint64_t spc_get64(const uint8_t *at)
{
    return (uint64_t)spc_get32(at) << 32 | spc_get32(at + 4);
}

static inline void spc_put16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static inline void spc_put32(uint8_t *at, uint32_t value)
{
    spc_put16(at, (uint16_t)(value >> 16));
    spc_put16(at + 2, (uint16_t)value);
}

static inline void spc_put64(uint8_t *at, uint64_t value)
{
    spc_put32(at, (uint32_t)(value >> 32));
    spc_put32(at + 4, (uint32_t)value);
}
