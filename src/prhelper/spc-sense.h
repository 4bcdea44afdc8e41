/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SCSI status codes and sense data in the fixed format, as SPC-4 (4.5.3) has it. Pure functions
 * over the caller's buffer; plain C, for programs without GLib as well.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/** What stock's protocol carries for every answer, used or not. */
#define SPC_SENSE_SIZE 96
/** Bytes that a fixed-format block of ours has: 8 and 10 additional ones. */
#define SPC_SENSE_FIXED_SIZE 18

/** Status codes of SAM-5. */
typedef enum SpcStatus {
    SPC_STATUS_GOOD = 0x00,
    SPC_STATUS_CHECK_CONDITION = 0x02,
    SPC_STATUS_BUSY = 0x08, /**< nothing was done, try again later */
    SPC_STATUS_RESERVATION_CONFLICT = 0x18,
    SPC_STATUS_TASK_SET_FULL = 0x28,
    SPC_STATUS_TASK_ABORTED = 0x40,
} SpcStatus;

/** A sense key with its additional code and qualifier. */
typedef struct SpcSense {
    uint8_t key;
    uint8_t asc;
    uint8_t ascq;
} SpcSense;

#define SPC_SENSE_LUN_COMM_FAILURE ((SpcSense){0x0b, 0x08, 0x00})
#define SPC_SENSE_IO_TERMINATED ((SpcSense){0x0b, 0x00, 0x06})
#define SPC_SENSE_COMMAND_TIMEOUT ((SpcSense){0x0b, 0x2e, 0x02}) /* during processing */
#define SPC_SENSE_TARGET_FAILURE ((SpcSense){0x04, 0x44, 0x00})
#define SPC_SENSE_INVALID_OPCODE ((SpcSense){0x05, 0x20, 0x00})
#define SPC_SENSE_INVALID_FIELD_IN_CDB ((SpcSense){0x05, 0x24, 0x00})
#define SPC_SENSE_INVALID_FIELD_IN_PARAMETERS ((SpcSense){0x05, 0x26, 0x00})
#define SPC_SENSE_PARAMETER_LIST_LENGTH ((SpcSense){0x05, 0x1a, 0x00})
#define SPC_SENSE_INVALID_RELEASE ((SpcSense){0x05, 0x26, 0x04})
#define SPC_SENSE_INSUFFICIENT_REGISTRATION ((SpcSense){0x05, 0x55, 0x04})
#define SPC_SENSE_ACCESS_DENIED ((SpcSense){0x05, 0x20, 0x02}) /* "no access rights" */

/** Fills `buffer` with fixed-format sense data, and what is behind it with zeros. */
void spc_sense_build(uint8_t buffer[SPC_SENSE_SIZE], SpcSense sense);

/**
 * The same with a pointer to the byte that is wrong: of the CDB, or of the parameter list
 * (SPC_SENSE_INVALID_FIELD_IN_PARAMETERS). Sense-key-specific data of SPC-4, 4.5.2.4.2.
 */
void spc_sense_build_field(uint8_t buffer[SPC_SENSE_SIZE], SpcSense sense, uint16_t byte);

/**
 * Reads sense data of either format. Returns 0, or -1 when the bytes are none: then `ret_sense` is
 * all zeros.
 */
int spc_sense_read(const uint8_t *bytes, size_t len, SpcSense *ret_sense);

/** "illegal request (5/24/00)", into the caller's buffer of `size` bytes. Returns `text`. */
char *spc_sense_describe(SpcSense sense, char *text, size_t size);
