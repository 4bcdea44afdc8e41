/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The answers to PERSISTENT RESERVE IN, read strictly by SPC-4 (6.15). A device may say that it has
 * more than the buffer held: what is there is read, and `truncated` says so.
 *
 * Pure functions, plain C, no allocation: results point into the caller's bytes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "prhelper/spc-out.h"

#define SPC_IN_OPCODE 0x5e

typedef enum SpcInAction {
    SPC_IN_KEYS = 0,
    SPC_IN_RESERVATION = 1,
    SPC_IN_CAPABILITIES = 2,
    SPC_IN_FULL_STATUS = 3,
} SpcInAction;

/** READ KEYS. */
typedef struct SpcKeys {
    uint32_t generation;
    size_t count;
    const uint8_t *keys; /* 8 bytes each; see spc_keys_at() */
    bool truncated;
} SpcKeys;

/** READ RESERVATION. */
typedef struct SpcReservation {
    uint32_t generation;
    bool held;
    uint64_t key; /* 0 for the types that all registrants hold */
    uint8_t scope;
    uint8_t type;
} SpcReservation;

/** REPORT CAPABILITIES. */
typedef struct SpcCapabilities {
    bool compatible_handling; /* CRH */
    bool specify_initiators;  /* SIP_C */
    bool all_target_ports;    /* ATP_C */
    bool persist_capable;     /* PTPL_C */
    bool persist_active;      /* PTPL_A */
    bool types_valid;         /* TMV: `types` counts */
    uint16_t types;           /* bit 1 << SpcType */
} SpcCapabilities;

/** One descriptor of READ FULL STATUS. */
typedef struct SpcRegistration {
    uint64_t key;
    bool holder;
    bool all_target_ports;
    uint8_t scope; /* of a holder */
    uint8_t type;
    uint16_t target_port; /* relative identifier */
    const uint8_t *transport_id;
    size_t transport_id_len; /* 0: without one that can be read */
} SpcRegistration;

/** READ FULL STATUS, to be walked over with spc_full_status_next(). */
typedef struct SpcFullStatus {
    uint32_t generation;
    bool truncated;
    const uint8_t *at;
    const uint8_t *end;
} SpcFullStatus;

/* Each returns 0, or -1 when the bytes are no such answer. */
int spc_in_parse_keys(const uint8_t *data, size_t len, SpcKeys *ret_keys);
int spc_in_parse_reservation(const uint8_t *data, size_t len, SpcReservation *ret_reservation);
int spc_in_parse_capabilities(const uint8_t *data, size_t len, SpcCapabilities *ret_capabilities);
int spc_in_parse_full_status(const uint8_t *data, size_t len, SpcFullStatus *ret_status);

/** The next descriptor: 1; 0 at the end; -1 when what is there is none. */
int spc_full_status_next(SpcFullStatus *status, SpcRegistration *ret_registration);

uint64_t spc_keys_at(const SpcKeys *keys, size_t index);
/** How often the key is there. */
size_t spc_keys_count(const SpcKeys *keys, uint64_t key);

/** Fills a CDB of 16 bytes that asks for at most `len` bytes. */
void spc_in_build(SpcInAction action, size_t len, uint8_t cdb[16]);

/** "READ KEYS" and the like; static. */
const char *spc_in_action_name(unsigned action);
