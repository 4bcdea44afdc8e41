/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The rules of several paths, see paths.h: what becomes of each action, and of the answers that it
 * gets. Sends and reads through paths-send.c alone; keeps no state.
 */
#include <string.h>

#include "prhelper/mpath/paths-private.h"

/* ---- REGISTER ------------------------------------------------------------------------------ */

static void paths_undo_registration(Paths *paths, const PathResult *results, uint64_t key)
{
    for (size_t i = 0; i < paths->ops->count; i++) {
        if (path_result_good(&results[i]))
            paths_register(paths, i, key, 0);
    }
}

/* A first registration, which some paths took and others did not. */
static void paths_register_mixed(Paths *paths, const SpcOut *out)
{
    PathsOutcome *outcome = paths->outcome;
    PathResult results[PATHS_MAX];
    size_t same = 0, conflicts = paths_count(paths, path_result_conflict), good;

    memcpy(results, paths->results, sizeof(results));
    good = paths_count(paths, path_result_good);
    /* Were they registered already, with this very key? */
    for (size_t i = 0; i < paths->ops->count; i++) {
        if (path_result_conflict(&results[i]))
            same += path_result_good(paths_register(paths, i, out->service_key, out->service_key));
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
        wanted[i] = path_result_conflict(&paths->results[i]);
        dead += paths->outcome->dead[i];
        if (path_result_good(&paths->results[i]) && good++ == 0)
            by = i;
    }
    if (out->service_key != 0) {
        paths_send(paths, wanted, &force);
        paths->outcome->repaired += paths_count(paths, path_result_good);
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
    good = paths_count(paths, path_result_good);
    failed = 0;
    for (size_t i = 0; i < paths->ops->count; i++)
        failed += paths->results[i].answered && !path_result_good(&paths->results[i]);
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
        if (path_result_good(paths_send_one(paths, i, out))) {
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

    if (paths_by_any(paths, out) < paths->ops->count ||
        !path_result_conflict(&paths->outcome->result))
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
        if (!was_there || !path_result_conflict(&paths->outcome->result) ||
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
            if (path_result_good(paths_register(paths, i, out->key, out->key)))
                by = i;
            kept[i] = paths->results[i];
        } else if (other != 0) {
            changed[i] = path_result_good(paths_register(paths, i, out->key, other));
        }
    }
    if (by == paths->ops->count) {
        memcpy(paths->results, kept, sizeof(kept));
        paths_take_failure(paths, &paths->outcome->result);
        return by;
    }
    paths->outcome->result = *paths_send_one(paths, by, out);
    if (!paths->outcome->result.answered)
        path_result_fail(&paths->outcome->result, SPC_SENSE_LUN_COMM_FAILURE);
    for (size_t i = 0; i < paths->ops->count; i++) {
        if (changed[i])
            paths_register(paths, i, other, out->key);
    }
    return path_result_good(&paths->outcome->result) ? by : paths->ops->count;
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
        if (before <= 0 || !path_result_conflict(&paths->outcome->result) ||
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

static bool path_result_invalid_release(const PathResult *result)
{
    SpcSense sense;

    return path_result_is(result, SPC_STATUS_CHECK_CONDITION) &&
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
        path_result_fail(&paths->outcome->result, SPC_SENSE_LUN_COMM_FAILURE);
        paths->outcome->remark = "a path that does not answer holds the reservation, and its key "
                                 "cannot be preempted, for other hosts use it as well";
        return;
    }
    by = paths_preempt_own(paths, &preempt);
    if (by == paths->ops->count)
        return;
    paths->outcome->result = *paths_send_one(paths, by, out);
    if (!paths->outcome->result.answered)
        path_result_fail(&paths->outcome->result, SPC_SENSE_LUN_COMM_FAILURE);
    paths_restore(paths, out->key);
    paths->outcome->remark = "released for a path that does not answer";
}

static void paths_execute_release(Paths *paths, const SpcOut *out)
{
    uint8_t type = 0;

    paths_send_all(paths, out);
    if (paths_count(paths, path_result_good) == 0 ||
        paths_count(paths, path_result_invalid_release) > 0) {
        /* that of the holder counts, which may be any of them */
        for (size_t i = 0; i < paths->ops->count; i++) {
            if (path_result_invalid_release(&paths->results[i])) {
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
        path_result_fail(&paths->outcome->result, SPC_SENSE_INVALID_RELEASE);
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
    path_result_fail(&ret_outcome->result, SPC_SENSE_INVALID_FIELD_IN_CDB);
}

void paths_catch_up(const PathOps *ops, PathsOutcome *outcome)
{
    PathsOutcome ignored = {.aptpl = outcome->aptpl};
    Paths paths = {.ops = ops, .outcome = &ignored};

    for (size_t i = 0; i < ops->count; i++) {
        if (outcome->key_change == PATHS_KEY_SET)
            outcome->repaired += path_result_good(paths_register(&paths, i, 0, outcome->key));
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
    if (paths_count(&paths, path_result_good) == 0)
        return 0; /* fenced, or gone: whoever has the key is not this host */
    memcpy(results, paths.results, sizeof(results));
    for (size_t i = 0; i < ops->count; i++) {
        if (path_result_conflict(&results[i]))
            outcome.repaired += path_result_good(paths_register(&paths, i, 0, key));
    }
    return outcome.repaired;
}
