/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sense data of devices, in the format that the helper promises its clients. Pure. */
#include <string.h>

#include "prhelper/prhelper.h"
#include "prhelper/spc-sense.h"

SpcSense pr_sense_read(const uint8_t *sense, gsize len)
{
    SpcSense read;

    spc_sense_read(sense, len, &read);
    return read;
}

void pr_sense_to_fixed(const uint8_t *sense, gsize len, uint8_t ret_sense[SPC_SENSE_SIZE])
{
    uint8_t copy[SPC_SENSE_SIZE] = {0};
    SpcSense read;
    gsize size = MIN(len, sizeof(copy));

    memcpy(copy, sense, size);
    /* Bit 0 of 72h and 73h is that of 70h and 71h: current, or of an earlier command. */
    if (size > 0 && (copy[0] & 0x7e) == 0x72 && spc_sense_read(copy, size, &read) == 0) {
        spc_sense_build(ret_sense, read);
        ret_sense[0] = (uint8_t)(0x70 | (copy[0] & 0x01));
        return;
    }
    memcpy(ret_sense, copy, sizeof(copy));
}
