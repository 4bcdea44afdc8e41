/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See pr-lun.h. */
#include "pr-lun.h"

#include <string.h>

/* ---- the LUN --------------------------------------------------------------------------------- */

static void answer(PathResult *result, guint8 status)
{
    result->answered = true;
    result->status = status;
}

static void answer_sense(PathResult *result, SpcSense sense)
{
    answer(result, SPC_STATUS_CHECK_CONDITION);
    spc_sense_build(result->sense, sense);
}

static gboolean lun_is_all(const Lun *lun)
{
    return lun->holder >= 0 && spc_type_all_registrants(lun->type);
}

static gboolean lun_holds(const Lun *lun, int i)
{
    return lun->holder == i || (lun_is_all(lun) && lun->nexuses[i].key != 0);
}

static gboolean lun_may_write(const Lun *lun, int i)
{
    if (lun->holder < 0 || lun_holds(lun, i))
        return TRUE;
    return lun->type >= SPC_WRITE_EXCLUSIVE_REGISTRANTS && lun->nexuses[i].key != 0;
}

static void lun_unregister(Lun *lun, int i)
{
    lun->nexuses[i].key = 0;
    if (lun->holder != i)
        return;
    lun->holder = -1;
    for (int j = 0; spc_type_all_registrants(lun->type) && j < NEXUSES; j++) {
        if (lun->nexuses[j].key != 0)
            lun->holder = j;
    }
}

static void lun_register(Lun *lun, int i, const SpcOut *out, PathResult *result)
{
    if (out->action == SPC_OUT_REGISTER && out->key != lun->nexuses[i].key) {
        answer(result, SPC_STATUS_RESERVATION_CONFLICT);
        return;
    }
    if (lun->nexuses[i].full && lun->nexuses[i].key == 0 && out->service_key != 0) {
        answer_sense(result, SPC_SENSE_INSUFFICIENT_REGISTRATION);
        return;
    }
    if (out->service_key == 0)
        lun_unregister(lun, i);
    else
        lun->nexuses[i].key = out->service_key;
    answer(result, SPC_STATUS_GOOD);
}

static void lun_reserve(Lun *lun, int i, const SpcOut *out, PathResult *result)
{
    if (lun->holder >= 0 && !(lun_holds(lun, i) && lun->type == out->type)) {
        answer(result, SPC_STATUS_RESERVATION_CONFLICT);
        return;
    }
    if (lun->holder < 0)
        lun->holder = i;
    lun->type = out->type;
    answer(result, SPC_STATUS_GOOD);
}

static void lun_release(Lun *lun, int i, const SpcOut *out, PathResult *result)
{
    if (lun->holder >= 0 && lun_holds(lun, i)) {
        if (lun->type != out->type) {
            answer_sense(result, SPC_SENSE_INVALID_RELEASE);
            return;
        }
        lun->holder = -1;
    }
    answer(result, SPC_STATUS_GOOD);
}

/* SPC-4, 5.12.11.4 */
static void lun_preempt(Lun *lun, int i, const SpcOut *out, PathResult *result)
{
    gboolean all = lun_is_all(lun) && out->service_key == 0;
    gboolean takes = all || (lun->holder >= 0 && !lun_is_all(lun) &&
                             lun->nexuses[lun->holder].key == out->service_key);
    guint found = 0;

    if (out->service_key == 0 && !all) {
        answer_sense(result, SPC_SENSE_INVALID_FIELD_IN_PARAMETERS);
        return;
    }
    for (int j = 0; j < NEXUSES; j++) {
        if (lun->nexuses[j].key == 0 || (!all && lun->nexuses[j].key != out->service_key))
            continue;
        found++;
        if (j != i)
            lun->nexuses[j].key = 0;
    }
    if (found == 0) {
        answer(result, SPC_STATUS_RESERVATION_CONFLICT);
        return;
    }
    if (takes) {
        lun->holder = i;
        lun->type = out->type;
    }
    answer(result, SPC_STATUS_GOOD);
}

static void lun_clear(Lun *lun, PathResult *result)
{
    for (int j = 0; j < NEXUSES; j++)
        lun->nexuses[j].key = 0;
    lun->holder = -1;
    answer(result, SPC_STATUS_GOOD);
}

void lun_out(Lun *lun, int i, const SpcOut *out, PathResult *result)
{
    gboolean registers = out->action == SPC_OUT_REGISTER || out->action == SPC_OUT_REGISTER_IGNORE;

    g_string_append_printf(lun->seen, "%d:%s ", i, spc_out_action_name(out->action));
    if (lun->nexuses[i].attentions > 0) {
        lun->nexuses[i].attentions--;
        answer_sense(result, (SpcSense){6, 0x2a, 0x05});
    } else if (registers) {
        lun_register(lun, i, out, result);
    } else if (lun->nexuses[i].key == 0 || lun->nexuses[i].key != out->key) {
        answer(result, SPC_STATUS_RESERVATION_CONFLICT);
    } else if (out->action == SPC_OUT_RESERVE) {
        lun_reserve(lun, i, out, result);
    } else if (out->action == SPC_OUT_RELEASE) {
        lun_release(lun, i, out, result);
    } else if (out->action == SPC_OUT_CLEAR) {
        lun_clear(lun, result);
    } else {
        lun_preempt(lun, i, out, result);
    }
}

/* ---- the paths ------------------------------------------------------------------------------- */

static void sim_send(void *context, const bool *wanted, const uint8_t cdb[16], const uint8_t *list,
                     size_t len, PathResult *results)
{
    Lun *lun = context;
    SpcOutFault fault;
    SpcOut out;

    g_assert_cmpint(spc_out_parse(cdb, list, len, &out, &fault), ==, 0);
    for (int i = 0; i < OURS; i++) {
        if (!wanted[i])
            continue;
        results[i] = (PathResult){.answered = false};
        if (lun->nexuses[i].dead)
            continue;
        lun_out(lun, i, &out, &results[i]);
        if (lun->nexuses[i].mute)
            results[i].answered = false;
    }
    for (int i = 0; lun->must_write && i < OURS; i++) {
        if (!lun->nexuses[i].dead && !lun_may_write(lun, i))
            g_error("path %d of the holder cannot write after: %s", i, lun->seen->str);
    }
}

static void sim_ask(void *context, size_t path, const uint8_t cdb[16], uint8_t *data, size_t size,
                    size_t *ret_len, PathResult *result)
{
    const Lun *lun = context;
    size_t len = 8;

    *result = (PathResult){.answered = false};
    if (lun->nexuses[path].dead)
        return;
    memset(data, 0, size);
    if (cdb[1] == SPC_IN_FULL_STATUS) {
        for (int i = 0; i < NEXUSES; i++) {
            if (lun->nexuses[i].key == 0)
                continue;
            spc_put64(data + len, lun->nexuses[i].key);
            data[len + 23] = 24;
            data[len + 24 + 15] = (uint8_t)i; /* an FC port's name */
            len += 48;
        }
    } else if (cdb[1] == SPC_IN_KEYS) {
        for (int i = 0; i < NEXUSES; i++) {
            if (lun->nexuses[i].key == 0)
                continue;
            spc_put64(data + len, lun->nexuses[i].key);
            len += 8;
        }
    } else if (lun->holder >= 0) {
        spc_put64(data + 8, lun_is_all(lun) ? 0 : lun->nexuses[lun->holder].key);
        data[21] = (uint8_t)lun->type;
        len += 16;
    }
    spc_put32(data + 4, (uint32_t)len - 8);
    *ret_len = len;
    answer(result, SPC_STATUS_GOOD);
}

/* All but FOREIGN: nexus 4 was a path of ours once. */
static int sim_is_ours(void *context, const uint8_t *transport_id, size_t len)
{
    const Lun *lun = context;

    g_assert_cmpuint(len, ==, 24);
    return lun->nameless ? -1 : transport_id[15] != FOREIGN;
}

Lun lun_new(void)
{
    return (Lun){.holder = -1, .seen = g_string_new(NULL)};
}

void lun_free_contents(Lun *lun)
{
    g_string_free(lun->seen, TRUE);
}

PathOps lun_ops(Lun *lun)
{
    return (PathOps){
        .count = OURS, .context = lun, .send = sim_send, .ask = sim_ask, .is_ours = sim_is_ours};
}
