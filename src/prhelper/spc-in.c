/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* PERSISTENT RESERVE IN; see spc-in.h. */
#include "prhelper/spc-in.h"

#include <string.h>

#define HEAD_SIZE 8 /* generation and additional length */
#define RESERVATION_SIZE 16
#define CAPABILITIES_SIZE 8
#define DESCRIPTOR_SIZE 24 /* without its TransportID */

const char *spc_in_action_name(unsigned action)
{
    static const char *const names[] = {"READ KEYS", "READ RESERVATION", "REPORT CAPABILITIES",
                                        "READ FULL STATUS"};

    return action < sizeof(names) / sizeof(*names) ? names[action] : "unknown service action";
}

void spc_in_build(SpcInAction action, size_t len, uint8_t cdb[16])
{
    memset(cdb, 0, 16);
    cdb[0] = SPC_IN_OPCODE;
    cdb[1] = (uint8_t)action;
    spc_put16(cdb + 7, (uint16_t)(len > UINT16_MAX ? UINT16_MAX : len));
}

/* The head of three of the answers: how many bytes follow that are there, and whether all are. */
static int in_parse_head(const uint8_t *data, size_t len, uint32_t *ret_generation,
                         size_t *ret_here, bool *ret_truncated)
{
    size_t said;

    if (len < HEAD_SIZE)
        return -1;
    *ret_generation = spc_get32(data);
    said = spc_get32(data + 4);
    *ret_truncated = said > len - HEAD_SIZE;
    *ret_here = *ret_truncated ? len - HEAD_SIZE : said;
    return 0;
}

int spc_in_parse_keys(const uint8_t *data, size_t len, SpcKeys *ret_keys)
{
    size_t here;

    *ret_keys = (SpcKeys){0};
    if (in_parse_head(data, len, &ret_keys->generation, &here, &ret_keys->truncated) < 0 ||
        spc_get32(data + 4) % 8 != 0)
        return -1;
    ret_keys->keys = data + HEAD_SIZE;
    ret_keys->count = here / 8;
    return 0;
}

uint64_t spc_keys_at(const SpcKeys *keys, size_t index)
{
    return spc_get64(keys->keys + 8 * index);
}

size_t spc_keys_count(const SpcKeys *keys, uint64_t key)
{
    size_t count = 0;

    for (size_t i = 0; i < keys->count; i++)
        count += spc_keys_at(keys, i) == key;
    return count;
}

int spc_in_parse_reservation(const uint8_t *data, size_t len, SpcReservation *ret_reservation)
{
    bool truncated;
    size_t here;

    *ret_reservation = (SpcReservation){0};
    if (in_parse_head(data, len, &ret_reservation->generation, &here, &truncated) < 0)
        return -1;
    if (here == 0 && !truncated)
        return 0;
    if (here < RESERVATION_SIZE)
        return -1;
    ret_reservation->held = true;
    ret_reservation->key = spc_get64(data + 8);
    ret_reservation->scope = data[21] >> 4;
    ret_reservation->type = data[21] & 0x0f;
    return 0;
}

int spc_in_parse_capabilities(const uint8_t *data, size_t len, SpcCapabilities *ret_capabilities)
{
    /* bits of bytes 4 and 5, taken as one number (SPC-4, table 213) */
    static const struct {
        uint16_t bit;
        uint8_t type;
    } types[] = {{0x8000, SPC_WRITE_EXCLUSIVE_ALL},
                 {0x4000, SPC_EXCLUSIVE_ACCESS_REGISTRANTS},
                 {0x2000, SPC_WRITE_EXCLUSIVE_REGISTRANTS},
                 {0x0800, SPC_EXCLUSIVE_ACCESS},
                 {0x0200, SPC_WRITE_EXCLUSIVE},
                 {0x0001, SPC_EXCLUSIVE_ACCESS_ALL}};
    uint16_t mask;

    *ret_capabilities = (SpcCapabilities){0};
    if (len < CAPABILITIES_SIZE || spc_get16(data) < CAPABILITIES_SIZE)
        return -1;
    ret_capabilities->compatible_handling = (data[2] & 0x10) != 0;
    ret_capabilities->specify_initiators = (data[2] & 0x08) != 0;
    ret_capabilities->all_target_ports = (data[2] & 0x04) != 0;
    ret_capabilities->persist_capable = (data[2] & 0x01) != 0;
    ret_capabilities->types_valid = (data[3] & 0x80) != 0;
    ret_capabilities->persist_active = (data[3] & 0x01) != 0;
    mask = spc_get16(data + 4);
    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
        if (mask & types[i].bit)
            ret_capabilities->types |= (uint16_t)(1u << types[i].type);
    }
    return 0;
}

int spc_in_parse_full_status(const uint8_t *data, size_t len, SpcFullStatus *ret_status)
{
    size_t here;

    *ret_status = (SpcFullStatus){0};
    if (in_parse_head(data, len, &ret_status->generation, &here, &ret_status->truncated) < 0)
        return -1;
    ret_status->at = data + HEAD_SIZE;
    ret_status->end = ret_status->at + here;
    return 0;
}

int spc_full_status_next(SpcFullStatus *status, SpcRegistration *ret_registration)
{
    size_t left = (size_t)(status->end - status->at), extra;
    const uint8_t *at = status->at;

    *ret_registration = (SpcRegistration){0};
    if (left == 0)
        return 0;
    if (left < DESCRIPTOR_SIZE)
        return status->truncated ? 0 : -1;
    extra = spc_get32(at + 20);
    if (extra > left - DESCRIPTOR_SIZE)
        return status->truncated ? 0 : -1;
    ret_registration->key = spc_get64(at);
    ret_registration->all_target_ports = (at[12] & 0x02) != 0;
    ret_registration->holder = (at[12] & 0x01) != 0;
    ret_registration->scope = at[13] >> 4;
    ret_registration->type = at[13] & 0x0f;
    ret_registration->target_port = spc_get16(at + 18);
    ret_registration->transport_id = at + DESCRIPTOR_SIZE;
    ret_registration->transport_id_len =
        spc_transport_id_length(ret_registration->transport_id, extra);
    status->at = at + DESCRIPTOR_SIZE + extra;
    return 1;
}
