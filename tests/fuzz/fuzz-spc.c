/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a guest may send as PERSISTENT RESERVE OUT (the first 16 bytes are the CDB), and what a
 * device may answer to PERSISTENT RESERVE IN: nothing is read beyond the end, what was accepted
 * can be written and says the same again.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "prhelper/spc-in.h"
#include "prhelper/spc-out.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool condition)
{
    if (!condition)
        abort();
}

/* The bytes in memory of exactly their length. */
static uint8_t *exact(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size > 0 ? size : 1);

    check(copy);
    if (size > 0)
        memcpy(copy, data, size);
    return copy;
}

static void try_ids(const uint8_t *ids, size_t len)
{
    for (size_t at = 0; at < len;) {
        size_t own = spc_transport_id_length(ids + at, len - at);
        char text[300], tiny[6];

        check(own >= SPC_TRANSPORT_ID_SIZE && own <= len - at);
        spc_transport_id_describe(ids + at, own, text, sizeof(text));
        spc_transport_id_describe(ids + at, own, tiny, sizeof(tiny));
        for (const char *p = text; *p; p++)
            check(*p >= ' ' && *p < 0x7f);
        at += own;
    }
}

static void try_out(const uint8_t *cdb, const uint8_t *list, size_t len)
{
    SpcOut out, again;
    SpcOutFault fault;
    uint8_t built[16], built_list[SPC_OUT_LIST_SIZE];

    if (spc_out_parse(cdb, list, len, &out, &fault) < 0) {
        check(fault.reason && fault.sense.key == 5);
        return;
    }
    check(spc_out_list_length(cdb) == len);
    check(!out.others ||
          (out.transport_ids >= list && out.transport_ids + out.transport_ids_len == list + len));
    try_ids(out.transport_ids, out.transport_ids_len);
    check(*spc_out_action_name(out.action));
    if (out.others)
        return;
    spc_out_build(&out, built, built_list);
    check(spc_out_parse(built, built_list, sizeof(built_list), &again, &fault) == 0);
    check(again.action == out.action && again.key == out.key && again.type == out.type &&
          again.service_key == out.service_key && again.aptpl == out.aptpl);
}

static void try_in(const uint8_t *data, size_t len)
{
    SpcKeys keys;
    SpcReservation reservation;
    SpcCapabilities capabilities;
    SpcFullStatus status;
    SpcRegistration registration;
    SpcSense sense;
    char text[64];
    int more = 0;

    if (spc_in_parse_keys(data, len, &keys) == 0) {
        for (size_t i = 0; i < keys.count; i++)
            check(spc_keys_count(&keys, spc_keys_at(&keys, i)) > 0);
    }
    spc_in_parse_reservation(data, len, &reservation);
    spc_in_parse_capabilities(data, len, &capabilities);
    if (spc_in_parse_full_status(data, len, &status) == 0) {
        while ((more = spc_full_status_next(&status, &registration)) > 0)
            try_ids(registration.transport_id, registration.transport_id_len);
        check(more == 0 || !status.truncated);
    }
    spc_sense_read(data, len, &sense);
    check(*spc_sense_describe(sense, text, sizeof(text)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy;

    if (size >= 16) {
        uint8_t cdb[16];

        memcpy(cdb, data, 16);
        copy = exact(data + 16, size - 16);
        try_out(cdb, copy, size - 16);
        /* mostly the length is wrong, which ends it too early */
        cdb[0] = SPC_OUT_OPCODE;
        cdb[1] &= 0x07;
        spc_put16(cdb + 7, (uint16_t)(size - 16));
        try_out(cdb, copy, size - 16);
        free(copy);
    }
    copy = exact(data, size);
    try_in(copy, size);
    free(copy);
    return 0;
}
