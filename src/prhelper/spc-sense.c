/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SpcSense data; see spc-sense.h. */
#include "prhelper/spc-sense.h"

#include <stdio.h>
#include <string.h>

#define FIXED_CURRENT 0x70
#define FIXED_DEFERRED 0x71
#define DESCRIPTOR_CURRENT 0x72
#define DESCRIPTOR_DEFERRED 0x73

void spc_sense_build(uint8_t buffer[SPC_SENSE_SIZE], SpcSense sense)
{
    memset(buffer, 0, SPC_SENSE_SIZE);
    buffer[0] = FIXED_CURRENT;
    buffer[2] = sense.key;
    buffer[7] = SPC_SENSE_FIXED_SIZE - 8; /* what follows byte 7 */
    buffer[12] = sense.asc;
    buffer[13] = sense.ascq;
}

void spc_sense_build_field(uint8_t buffer[SPC_SENSE_SIZE], SpcSense sense, uint16_t byte)
{
    int in_cdb = sense.asc == SPC_SENSE_INVALID_FIELD_IN_CDB.asc;

    spc_sense_build(buffer, sense);
    buffer[15] = (uint8_t)(0x80 | (in_cdb ? 0x40 : 0)); /* SKSV, C/D */
    buffer[16] = (uint8_t)(byte >> 8);
    buffer[17] = (uint8_t)byte;
}

int spc_sense_read(const uint8_t *bytes, size_t len, SpcSense *ret_sense)
{
    uint8_t code = len > 0 ? bytes[0] & 0x7f : 0;

    *ret_sense = (SpcSense){0};
    switch (code) {
    case FIXED_CURRENT:
    case FIXED_DEFERRED:
        if (len < 8)
            return -1;
        ret_sense->key = bytes[2] & 0x0f;
        /* A device may send fewer bytes than have room for the codes. */
        ret_sense->asc = len > 12 && bytes[7] >= 5 ? bytes[12] : 0;
        ret_sense->ascq = len > 13 && bytes[7] >= 6 ? bytes[13] : 0;
        return 0;
    case DESCRIPTOR_CURRENT:
    case DESCRIPTOR_DEFERRED:
        if (len < 8)
            return -1;
        *ret_sense = (SpcSense){bytes[1] & 0x0f, bytes[2], bytes[3]};
        return 0;
    default:
        return -1;
    }
}

char *spc_sense_describe(SpcSense sense, char *text, size_t size)
{
    static const char *const keys[16] = {
        "no sense",       "recovered error", "not ready",      "medium error",
        "hardware error", "illegal request", "unit attention", "data protect",
        "blank check",    "vendor specific", "copy aborted",   "aborted command",
        "reserved",       "volume overflow", "miscompare",     "completed",
    };

    snprintf(text, size, "%s (%x/%02x/%02x)", keys[sense.key & 0x0f], sense.key & 0x0fu, sense.asc,
             sense.ascq);
    return text;
}
