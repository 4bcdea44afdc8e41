/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The rules of several paths; see paths.h. */
#include "prhelper/mpath/paths.h"

#include <string.h>

/* A unit attention means that the command was not carried out; several may be queued (SAM-5, 5.14).
 */
#define ATTENTION_TRIES 5

typedef struct Paths {
    const PathOps *ops;
    PathsOutcome *outcome;
    PathResult results[PATHS_MAX]; /* of the last command */
} Paths;

/* ---- sending ------------------------------------------------------------------------------- */

static bool result_is(const PathResult *result, uint8_t status)
{
    return result->answered && result->status == status;
}

static bool result_good(const PathResult *result)
{
    return result_is(result, SPC_STATUS_GOOD);
}

static bool result_conflict(const PathResult *result)
{
    return result_is(result, SPC_STATUS_RESERVATION_CONFLICT);
}

static bool result_attention(const PathResult *result)
{
    SpcSense sense;

    return result_is(result, SPC_STATUS_CHECK_CONDITION) &&
           spc_sense_read(result->sense, sizeof(result->sense), &sense) == 0 && sense.key == 6;
}

static void result_fail(PathResult *result, SpcSense sense)
{
    result->answered = true;
    result->status = SPC_STATUS_CHECK_CONDITION;
    spc_sense_build(result->sense, sense);
}

/* Sends to the paths that are wanted and not dead. Their results are in paths->results; the others
 * have "no answer". */
static void paths_send(Paths *paths, const bool *wanted, const SpcOut *out)
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
            now[i] = result_attention(&paths->results[i]);
            again = again || now[i];
        }
    }
}

static void paths_send_all(Paths *paths, const SpcOut *out)
{
    bool wanted[PATHS_MAX];

    memset(wanted, true, sizeof(wanted));
    paths_send(paths, wanted, out);
}

static const PathResult *paths_send_one(Paths *paths, size_t path, const SpcOut *out)
{
    bool wanted[PATHS_MAX] = {false};

    wanted[path] = true;
    paths_send(paths, wanted, out);
    return &paths->results[path];
}

static const PathResult *paths_register(Paths *paths, size_t path, uint64_t from, uint64_t to)
{
    const SpcOut out = {
        .action = SPC_OUT_REGISTER, .key = from, .service_key = to, .aptpl = paths->outcome->aptpl};

    return paths_send_one(paths, path, &out);
}

static size_t paths_count(const Paths *paths, bool (*is)(const PathResult *result))
{
    size_t count = 0;

    for (size_t i = 0; i < paths->ops->count; i++)
        count += is(&paths->results[i]);
    return count;
}

/* The answer that stands for all when none is GOOD: a conflict, else the first one that is any. */
static void paths_take_failure(const Paths *paths, PathResult *result)
{
    for (size_t i = 0; i < paths->ops->count; i++) {
        if (paths->results[i].answered && !result_good(&paths->results[i]) &&
            (!result->answered ||
             (result_conflict(&paths->results[i]) && !result_conflict(result))))
            *result = paths->results[i];
    }
    if (!result->answered)
        result_fail(result, SPC_SENSE_LUN_COMM_FAILURE);
}

/* ---- reading back -------------------------------------------------------------------------- */

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
            if (!result_attention(&result))
                break;
        }
        if (result_good(&result))
            return true;
        if (!result.answered)
            paths->outcome->dead[i] = true;
    }
    return false;
}

/* How many registrations have that key; -1: can't be told. */
static int paths_count_key(const Paths *paths, uint64_t key)
{
    uint8_t data[SPC_LIST_MAX];
    size_t len = 0;
    SpcKeys keys;

    if (!paths_ask(paths, SPC_IN_KEYS, data, sizeof(data), &len) ||
        spc_in_parse_keys(data, len, &keys) < 0 || keys.truncated)
        return -1;
    return (int)spc_keys_count(&keys, key);
}

/* Whether `key` holds a reservation that has one holder, as a registrant of its own. */
static bool paths_holds(const Paths *paths, uint64_t key, uint8_t *ret_type)
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

/* Whether registrations with the key can only be ours: by their names, else by their number. Paths
 * that are no more may have left some behind, under an iSCSI session's old identifier. */
static bool paths_key_is_ours(const Paths *paths, uint64_t key, size_t at_most)
{
    int named = paths_key_has_our_name(paths, key);
    int count = named < 0 ? paths_count_key(paths, key) : 0;

    if (named >= 0)
        return named == 1;

    return count >= 0 && (size_t)count <= at_most;
}

/* ---- REGISTER ------------------------------------------------------------------------------ */

static void paths_undo_registration(Paths *paths, const PathResult *results, uint64_t key)
{
    for (size_t i = 0; i < paths->ops->count; i++) {
        if (result_good(&results[i]))
            paths_register(paths, i, key, 0);
    }
}

/* A first registration, which some paths took and others did not. */
static void paths_register_mixed(Paths *paths, const SpcOut *out)
{
    PathsOutcome *outcome = paths->outcome;
    PathResult results[PATHS_MAX];
    size_t same = 0, conflicts = paths_count(paths, result_conflict), good;

    memcpy(results, paths->results, sizeof(results));
    good = paths_count(paths, result_good);
    /* Were they registered already, with this very key? */
    for (size_t i = 0; i < paths->ops->count; i++) {
        if (result_conflict(&results[i]))
            same += result_good(paths_register(paths, i, out->service_key, out->service_key));
    }
    memcpy(paths->results, results, sizeof(results));
    if (same < conflicts || conflicts == 0) {
        paths_take_failure(paths, &outcome->result);
        paths_undo_registration(paths, results, out->service_key);
        return;
    }
    outcome->key_change = PATHS_KEY_SET;
    if (out->all_target_ports) {
        /* one path's registration is that of every path from the same initiator port */
        outcome->result = (PathResult){.answered = true};
        return;
    }
    outcome->repaired += good;
    outcome->remark = "the map was registered on some of its paths only";
    paths_take_failure(paths, &outcome->result);
}

/* A path that kept the old key may hold the reservation under it. Take it over with the new one. */
static void paths_take_over_old_key(Paths *paths, const SpcOut *out, size_t by, size_t dead)
{
    SpcOut preempt = {.action = SPC_OUT_PREEMPT, .key = out->service_key, .service_key = out->key};

    if (dead == 0 || out->key == 0 || out->service_key == 0 || out->key == out->service_key ||
        !paths_holds(paths, out->key, &preempt.type))
        return;
    if (paths_key_is_ours(paths, out->key, dead))
        paths_send_one(paths, by, &preempt);
    else
        paths->outcome->remark = "a path that does not answer holds the reservation under the old "
                                 "key, which other hosts use as well";
}

/* Paths that refused a change of the key which others took: they had lost their registration. */
static void paths_register_rest(Paths *paths, const SpcOut *out)
{
    const SpcOut force = {
        .action = SPC_OUT_REGISTER_IGNORE, .service_key = out->service_key, .aptpl = out->aptpl};
    bool wanted[PATHS_MAX] = {false};
    size_t good = 0, by = 0, dead = 0;

    for (size_t i = 0; i < paths->ops->count; i++) {
        wanted[i] = result_conflict(&paths->results[i]);
        dead += paths->outcome->dead[i];
        if (result_good(&paths->results[i]) && good++ == 0)
            by = i;
    }
    if (out->service_key != 0) {
        paths_send(paths, wanted, &force);
        paths->outcome->repaired += paths_count(paths, result_good);
    }
    paths_take_over_old_key(paths, out, by, dead);
    if (out->service_key == 0 && dead > 0)
        paths->outcome->remark = "a path that does not answer keeps its registration";
}

static void paths_execute_register(Paths *paths, const SpcOut *out)
{
    PathsOutcome *outcome = paths->outcome;
    size_t good, failed;

    paths_send_all(paths, out);
    good = paths_count(paths, result_good);
    failed = 0;
    for (size_t i = 0; i < paths->ops->count; i++)
        failed += paths->results[i].answered && !result_good(&paths->results[i]);
    if (good == 0) {
        paths_take_failure(paths, &outcome->result);
        return;
    }
    if (failed > 0 && out->service_key != 0 &&
        ((out->action == SPC_OUT_REGISTER && out->key == 0))) {
        paths_register_mixed(paths, out);
        return;
    }
    outcome->result = (PathResult){.answered = true};
    outcome->key_change = out->service_key != 0 ? PATHS_KEY_SET : PATHS_KEY_UNSET;
    if (out->service_key == 0)
        outcome->key = out->action == SPC_OUT_REGISTER ? out->key : 0;
    paths_register_rest(paths, out);
}

/* ---- actions of one path ------------------------------------------------------------------- */

/* Sends by one path after the other until one takes it; that path, or the number of paths. */
static size_t paths_by_any(Paths *paths, const SpcOut *out)
{
    PathResult kept[PATHS_MAX] = {0};

    for (size_t i = 0; i < paths->ops->count; i++) {
        if (paths->outcome->dead[i])
            continue;
        if (result_good(paths_send_one(paths, i, out))) {
            paths->outcome->result = (PathResult){.answered = true};
            return i;
        }
        kept[i] = paths->results[i];
    }
    memcpy(paths->results, kept, sizeof(kept));
    paths_take_failure(paths, &paths->outcome->result);
    return paths->ops->count;
}

static void paths_accept(Paths *paths, const char *remark)
{
    paths->outcome->result = (PathResult){.answered = true};
    paths->outcome->remark = remark;
}

static void paths_execute_reserve(Paths *paths, const SpcOut *out)
{
    uint8_t type = 0;

    if (paths_by_any(paths, out) < paths->ops->count || !result_conflict(&paths->outcome->result))
        return;
    /* A reservation of ours by a path that is dead, or whose answer was lost. */
    if (paths_holds(paths, out->key, &type) && type == out->type &&
        paths_key_is_ours(paths, out->key, paths->ops->count))
        paths_accept(paths, "held already, by a path that does not answer");
}

static void paths_execute_clear(Paths *paths, const SpcOut *out)
{
    bool was_there = paths_count_key(paths, out->key) > 0;

    if (paths_by_any(paths, out) == paths->ops->count) {
        /* A path took it and its answer was lost: then nobody is registered any more. */
        if (!was_there || !result_conflict(&paths->outcome->result) ||
            paths_count_key(paths, out->key) != 0)
            return;
        paths_accept(paths, "the answer of one path was lost");
    }
    paths->outcome->key_change = PATHS_KEY_UNSET;
    paths->outcome->key = out->key;
}

/* A key that nobody has: ours, with one bit changed. */
static uint64_t paths_other_key(const Paths *paths, uint64_t key)
{
    for (int bit = 63; bit >= 0; bit--) {
        uint64_t other = key ^ (uint64_t)1 << bit;

        if (other != 0 && paths_count_key(paths, other) == 0)
            return other;
    }
    return 0;
}

/*
 * A PREEMPT of our own key by one path: it takes the registrations of all other paths with that
 * key, dead ones and living ones. The living ones have another key meanwhile, so that they remain
 * registrants all the time, and can write.
 */
static size_t paths_preempt_own(Paths *paths, const SpcOut *out)
{
    uint64_t other = paths_other_key(paths, out->key);
    bool changed[PATHS_MAX] = {false};
    PathResult kept[PATHS_MAX] = {0};
    size_t by = paths->ops->count;

    /* the first path that is registered acts, the rest hide */
    for (size_t i = 0; i < paths->ops->count; i++) {
        if (paths->outcome->dead[i])
            continue;
        if (by == paths->ops->count) {
            if (result_good(paths_register(paths, i, out->key, out->key)))
                by = i;
            kept[i] = paths->results[i];
        } else if (other != 0) {
            changed[i] = result_good(paths_register(paths, i, out->key, other));
        }
    }
    if (by == paths->ops->count) {
        memcpy(paths->results, kept, sizeof(kept));
        paths_take_failure(paths, &paths->outcome->result);
        return by;
    }
    paths->outcome->result = *paths_send_one(paths, by, out);
    if (!paths->outcome->result.answered)
        result_fail(&paths->outcome->result, SPC_SENSE_LUN_COMM_FAILURE);
    for (size_t i = 0; i < paths->ops->count; i++) {
        if (changed[i])
            paths_register(paths, i, other, out->key);
    }
    return result_good(&paths->outcome->result) ? by : paths->ops->count;
}

/* Registers again what has lost its registration; a path that has one says so by a conflict. */
static void paths_restore(Paths *paths, uint64_t key)
{
    for (size_t i = 0; i < paths->ops->count; i++) {
        if (!paths->outcome->dead[i])
            paths_register(paths, i, 0, key);
    }
}

static void paths_execute_preempt(Paths *paths, const SpcOut *out)
{
    int before;

    if (out->service_key == out->key) {
        if (paths_preempt_own(paths, out) < paths->ops->count)
            paths_restore(paths, out->key);
        return;
    }
    before = paths_count_key(paths, out->service_key);
    if (paths_by_any(paths, out) == paths->ops->count) {
        if (before <= 0 || !result_conflict(&paths->outcome->result) ||
            paths_count_key(paths, out->service_key) != 0 || paths_count_key(paths, out->key) <= 0)
            return;
        paths_accept(paths, "the answer of one path was lost");
    }
    /* 0: everybody else's registration has gone, that of our other paths too (SPC-4, 5.12.11.4.3)
     */
    if (out->service_key == 0)
        paths_restore(paths, out->key);
}

/* ---- RELEASE ------------------------------------------------------------------------------- */

static bool result_invalid_release(const PathResult *result)
{
    SpcSense sense;

    return result_is(result, SPC_STATUS_CHECK_CONDITION) &&
           spc_sense_read(result->sense, sizeof(result->sense), &sense) == 0 && sense.asc == 0x26 &&
           sense.ascq == 0x04;
}

/* The reservation is still there: its path is dead. Another one takes it over and lets it go. */
static void paths_release_for_dead(Paths *paths, const SpcOut *out)
{
    SpcOut preempt = {
        .action = SPC_OUT_PREEMPT, .key = out->key, .service_key = out->key, .type = out->type};
    size_t by;

    if (!paths_key_is_ours(paths, out->key, paths->ops->count)) {
        result_fail(&paths->outcome->result, SPC_SENSE_LUN_COMM_FAILURE);
        paths->outcome->remark = "a path that does not answer holds the reservation, and its key "
                                 "cannot be preempted, for other hosts use it as well";
        return;
    }
    by = paths_preempt_own(paths, &preempt);
    if (by == paths->ops->count)
        return;
    paths->outcome->result = *paths_send_one(paths, by, out);
    if (!paths->outcome->result.answered)
        result_fail(&paths->outcome->result, SPC_SENSE_LUN_COMM_FAILURE);
    paths_restore(paths, out->key);
    paths->outcome->remark = "released for a path that does not answer";
}

static void paths_execute_release(Paths *paths, const SpcOut *out)
{
    uint8_t type = 0;

    paths_send_all(paths, out);
    if (paths_count(paths, result_good) == 0 || paths_count(paths, result_invalid_release) > 0) {
        /* that of the holder counts, which may be any of them */
        for (size_t i = 0; i < paths->ops->count; i++) {
            if (result_invalid_release(&paths->results[i])) {
                paths->outcome->result = paths->results[i];
                return;
            }
        }
        paths_take_failure(paths, &paths->outcome->result);
        return;
    }
    paths->outcome->result = (PathResult){.answered = true};
    if (!paths_holds(paths, out->key, &type))
        return;
    if (type == out->type)
        paths_release_for_dead(paths, out);
    else
        result_fail(&paths->outcome->result, SPC_SENSE_INVALID_RELEASE);
}

/* ---- all of them --------------------------------------------------------------------------- */

static int paths_fault(SpcOutFault *ret_fault, SpcSense sense, uint16_t byte, const char *reason)
{
    *ret_fault = (SpcOutFault){.sense = sense, .byte = byte, .reason = reason};
    return -1;
}

int paths_check(const SpcOut *out, SpcOutFault *ret_fault)
{
    if (out->action == SPC_OUT_REGISTER_MOVE)
        return paths_fault(ret_fault, SPC_SENSE_INVALID_FIELD_IN_CDB, 1,
                           "REGISTER AND MOVE is not possible on a multipath device");
    if (out->others)
        return paths_fault(ret_fault, SPC_SENSE_INVALID_FIELD_IN_PARAMETERS, 20,
                           "registering others (SPEC_I_PT) is not possible on a multipath device");
    if (spc_out_has_type(out->action) && out->action != SPC_OUT_RELEASE &&
        (out->type == SPC_WRITE_EXCLUSIVE || out->type == SPC_EXCLUSIVE_ACCESS))
        return paths_fault(ret_fault, SPC_SENSE_INVALID_FIELD_IN_CDB, 2,
                           "a multipath device can have only reservations for registrants (types "
                           "5 to 8), since its other paths would be refused");
    return 0;
}

void paths_execute(const PathOps *ops, const SpcOut *out, PathsOutcome *ret_outcome)
{
    Paths paths = {.ops = ops, .outcome = ret_outcome};

    memset(ret_outcome, 0, sizeof(*ret_outcome));
    ret_outcome->key = out->service_key;
    ret_outcome->aptpl = out->aptpl;
    switch (out->action) {
    case SPC_OUT_REGISTER:
    case SPC_OUT_REGISTER_IGNORE:
        paths_execute_register(&paths, out);
        return;
    case SPC_OUT_RESERVE:
        paths_execute_reserve(&paths, out);
        return;
    case SPC_OUT_RELEASE:
        paths_execute_release(&paths, out);
        return;
    case SPC_OUT_CLEAR:
        paths_execute_clear(&paths, out);
        return;
    case SPC_OUT_PREEMPT:
    case SPC_OUT_PREEMPT_ABORT:
        paths_execute_preempt(&paths, out);
        return;
    case SPC_OUT_REGISTER_MOVE:
        break;
    }
    result_fail(&ret_outcome->result, SPC_SENSE_INVALID_FIELD_IN_CDB);
}

void paths_catch_up(const PathOps *ops, PathsOutcome *outcome)
{
    PathsOutcome ignored = {.aptpl = outcome->aptpl};
    Paths paths = {.ops = ops, .outcome = &ignored};

    for (size_t i = 0; i < ops->count; i++) {
        if (outcome->key_change == PATHS_KEY_SET)
            outcome->repaired += result_good(paths_register(&paths, i, 0, outcome->key));
        else if (outcome->key_change == PATHS_KEY_UNSET && outcome->key != 0)
            paths_register(&paths, i, outcome->key, 0);
    }
}

size_t paths_repair(const PathOps *ops, uint64_t key, bool thorough)
{
    PathsOutcome outcome = {.repaired = 0};
    Paths paths = {.ops = ops, .outcome = &outcome};
    const SpcOut probe = {.action = SPC_OUT_REGISTER, .key = key, .service_key = key};
    int count = paths_count_key(&paths, key);
    PathResult results[PATHS_MAX];

    /* mostly it is seen without a command that changes the generation; other hosts may have the
     * same key, and then there may be more */
    if (count <= 0 || (!thorough && (size_t)count == ops->count))
        return 0;
    paths_send_all(&paths, &probe);
    if (paths_count(&paths, result_good) == 0)
        return 0; /* fenced, or gone: whoever has the key is not this host */
    memcpy(results, paths.results, sizeof(results));
    for (size_t i = 0; i < ops->count; i++) {
        if (result_conflict(&results[i]))
            outcome.repaired += result_good(paths_register(&paths, i, 0, key));
    }
    return outcome.repaired;
}

void paths_read(const PathOps *ops, const uint8_t cdb[16], uint8_t *data, size_t size,
                size_t *ret_len, PathResult *ret_result)
{
    *ret_result = (PathResult){.answered = false};
    for (size_t i = 0; i < ops->count && !ret_result->answered; i++)
        ops->ask(ops->context, i, cdb, data, size, ret_len, ret_result);
    if (!ret_result->answered)
        result_fail(ret_result, SPC_SENSE_LUN_COMM_FAILURE);
}
