/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One command to several paths, and what is read by any of them: for the rules in paths.c, see
 * paths-private.h, and for guests, paths_read(). Sends only by the PathOps that are handed in, and
 * decides nothing: what an answer means, or whether a path gets a registration, is for the rules.
 */
#include <string.h>

#include "prhelper/mpath/paths-private.h"

/* A unit attention means that the command was not carried out; several may be queued (SAM-5, 5.14).
 */
#define ATTENTION_TRIES 5

/* ---- sending ------------------------------------------------------------------------------- */

bool path_result_is(const PathResult *result, uint8_t status)
{
    return result->answered && result->status == status;
}

bool path_result_good(const PathResult *result)
{
    return path_result_is(result, SPC_STATUS_GOOD);
}

bool path_result_conflict(const PathResult *result)
{
    return path_result_is(result, SPC_STATUS_RESERVATION_CONFLICT);
}

static bool path_result_attention(const PathResult *result)
{
    SpcSense sense;

    return path_result_is(result, SPC_STATUS_CHECK_CONDITION) &&
           spc_sense_read(result->sense, sizeof(result->sense), &sense) == 0 && sense.key == 6;
}

void path_result_fail(PathResult *result, SpcSense sense)
{
    result->answered = true;
    result->status = SPC_STATUS_CHECK_CONDITION;
    spc_sense_build(result->sense, sense);
}

void paths_send(Paths *paths, const bool *wanted, const SpcOut *out)
{
    bool now[PATHS_MAX] = {false};
    uint8_t cdb[16], list[SPC_OUT_LIST_SIZE];
    bool again = true;

    spc_out_build(out, cdb, list);
    for (size_t i = 0; i < paths->ops->count; i++) {
        paths->results[i].answered = false;
        now[i] = wanted[i] && !paths->outcome->dead[i];
    }
    for (int tries = 0; tries < ATTENTION_TRIES && again; tries++) {
        again = false;
        paths->ops->send(paths->ops->context, now, cdb, list, sizeof(list), paths->results);
        for (size_t i = 0; i < paths->ops->count; i++) {
            if (!now[i])
                continue;
            if (!paths->results[i].answered)
                paths->outcome->dead[i] = true;
            now[i] = path_result_attention(&paths->results[i]);
            again = again || now[i];
        }
    }
}

void paths_send_all(Paths *paths, const SpcOut *out)
{
    bool wanted[PATHS_MAX];

    memset(wanted, true, sizeof(wanted));
    paths_send(paths, wanted, out);
}

const PathResult *paths_send_one(Paths *paths, size_t path, const SpcOut *out)
{
    bool wanted[PATHS_MAX] = {false};

    wanted[path] = true;
    paths_send(paths, wanted, out);
    return &paths->results[path];
}

const PathResult *paths_register(Paths *paths, size_t path, uint64_t from, uint64_t to)
{
    const SpcOut out = {
        .action = SPC_OUT_REGISTER, .key = from, .service_key = to, .aptpl = paths->outcome->aptpl};

    return paths_send_one(paths, path, &out);
}

size_t paths_count(const Paths *paths, bool (*is)(const PathResult *result))
{
    size_t count = 0;

    for (size_t i = 0; i < paths->ops->count; i++)
        count += is(&paths->results[i]);
    return count;
}

void paths_take_failure(const Paths *paths, PathResult *result)
{
    for (size_t i = 0; i < paths->ops->count; i++) {
        if (paths->results[i].answered && !path_result_good(&paths->results[i]) &&
            (!result->answered ||
             (path_result_conflict(&paths->results[i]) && !path_result_conflict(result))))
            *result = paths->results[i];
    }
    if (!result->answered)
        path_result_fail(result, SPC_SENSE_LUN_COMM_FAILURE);
}

/* ---- reading ------------------------------------------------------------------------------- */

static bool paths_ask(const Paths *paths, SpcInAction action, uint8_t *data, size_t size,
                      size_t *ret_len)
{
    uint8_t cdb[16];
    PathResult result;

    spc_in_build(action, size, cdb);
    for (size_t i = 0; i < paths->ops->count; i++) {
        if (paths->outcome->dead[i])
            continue;
        for (int tries = 0; tries < ATTENTION_TRIES; tries++) {
            result = (PathResult){.answered = false};
            paths->ops->ask(paths->ops->context, i, cdb, data, size, ret_len, &result);
            if (!path_result_attention(&result))
                break;
        }
        if (path_result_good(&result))
            return true;
        if (!result.answered)
            paths->outcome->dead[i] = true;
    }
    return false;
}

int paths_count_key(const Paths *paths, uint64_t key)
{
    uint8_t data[SPC_LIST_MAX];
    size_t len = 0;
    SpcKeys keys;

    if (!paths_ask(paths, SPC_IN_KEYS, data, sizeof(data), &len) ||
        spc_in_parse_keys(data, len, &keys) < 0 || keys.truncated)
        return -1;
    return (int)spc_keys_count(&keys, key);
}

bool paths_holds(const Paths *paths, uint64_t key, uint8_t *ret_type)
{
    uint8_t data[64];
    size_t len = 0;
    SpcReservation reservation;

    if (!paths_ask(paths, SPC_IN_RESERVATION, data, sizeof(data), &len) ||
        spc_in_parse_reservation(data, len, &reservation) < 0 || !reservation.held)
        return false;
    *ret_type = reservation.type;
    return reservation.key == key && !spc_type_all_registrants(reservation.type);
}

/* Whether all registrations with the key are from this host, by their initiators: 1, 0, or -1 when
 * that can't be told. */
static int paths_key_has_our_name(const Paths *paths, uint64_t key)
{
    uint8_t data[SPC_LIST_MAX];
    size_t len = 0;
    SpcFullStatus status;
    SpcRegistration found;
    int result = 1, more;

    if (!paths->ops->is_ours || !paths_ask(paths, SPC_IN_FULL_STATUS, data, sizeof(data), &len) ||
        spc_in_parse_full_status(data, len, &status) < 0 || status.truncated)
        return -1;
    while ((more = spc_full_status_next(&status, &found)) > 0) {
        int ours;

        if (found.key != key)
            continue;
        ours = found.transport_id_len > 0
                   ? paths->ops->is_ours(paths->ops->context, found.transport_id,
                                         found.transport_id_len)
                   : -1;
        if (ours < 0)
            return -1;
        result = result && ours;
    }
    return more < 0 ? -1 : result;
}

bool paths_key_is_ours(const Paths *paths, uint64_t key, size_t at_most)
{
    int named = paths_key_has_our_name(paths, key);
    int count = named < 0 ? paths_count_key(paths, key) : 0;

    if (named >= 0)
        return named == 1;
    return count >= 0 && (size_t)count <= at_most;
}

void paths_read(const PathOps *ops, const uint8_t cdb[16], uint8_t *data, size_t size,
                size_t *ret_len, PathResult *ret_result)
{
    *ret_result = (PathResult){.answered = false};
    for (size_t i = 0; i < ops->count && !ret_result->answered; i++)
        ops->ask(ops->context, i, cdb, data, size, ret_len, ret_result);
    if (!ret_result->answered)
        path_result_fail(ret_result, SPC_SENSE_LUN_COMM_FAILURE);
}
