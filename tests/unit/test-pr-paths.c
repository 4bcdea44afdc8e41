/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The rules of several paths, on a LUN that is made of SPC-4's sentences: each path is a registrant
 * of its own, some die, some come without a registration, answers get lost. After every single
 * command that reaches the LUN the holder must be able to write by each of its living, registered
 * paths, and nobody else's registration may have changed but by what was asked for.
 */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "prhelper/mpath/kernel-ioctl.h"
#include "prhelper/mpath/paths.h"
#include "prhelper/mpath/watch.h"

#define OURS 3    /* paths 0 to 2 */
#define FOREIGN 3 /* the nexus of another host */
#define NEXUSES 5

typedef struct Nexus {
    guint64 key; /* 0: not registered */
    gboolean dead;
    gboolean mute; /* carries out, and the answer is lost */
    gboolean full; /* has no room for a registration */
    guint attentions;
} Nexus;

typedef struct Lun {
    Nexus nexuses[NEXUSES];
    int holder; /* -1: none */
    guint type;
    GString *seen;       /* "0:REGISTER 1:REGISTER ..." */
    gboolean nameless;   /* whose registrations are whose can't be told */
    gboolean must_write; /* our living paths have to be able to write at any time */
} Lun;

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

static void lun_out(Lun *lun, int i, const SpcOut *out, PathResult *result)
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

static void lun_init(Lun *lun)
{
    *lun = (Lun){.holder = -1, .seen = g_string_new(NULL)};
}

static void lun_clear_auto(Lun *lun)
{
    g_string_free(lun->seen, TRUE);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Lun, lun_clear_auto)

static PathsOutcome execute(Lun *lun, SpcOutAction action, guint64 key, guint64 service_key,
                            guint8 type)
{
    const PathOps ops = {
        .count = OURS, .context = lun, .send = sim_send, .ask = sim_ask, .is_ours = sim_is_ours};
    const SpcOut out = {.action = action, .key = key, .service_key = service_key, .type = type};
    PathsOutcome outcome;

    g_string_truncate(lun->seen, 0);
    paths_execute(&ops, &out, &outcome);
    g_assert_true(outcome.result.answered);
    return outcome;
}

static guint status_of(Lun *lun, SpcOutAction action, guint64 key, guint64 service_key, guint8 type)
{
    return execute(lun, action, key, service_key, type).result.status;
}

static void catch_up(Lun *lun, PathsOutcome *outcome)
{
    const PathOps ops = {
        .count = OURS, .context = lun, .send = sim_send, .ask = sim_ask, .is_ours = sim_is_ours};

    paths_catch_up(&ops, outcome);
}

static void assert_keys(const Lun *lun, guint64 first, guint64 second, guint64 third)
{
    g_assert_cmphex(lun->nexuses[0].key, ==, first);
    g_assert_cmphex(lun->nexuses[1].key, ==, second);
    g_assert_cmphex(lun->nexuses[2].key, ==, third);
}

#define GOOD SPC_STATUS_GOOD
#define CONFLICT SPC_STATUS_RESERVATION_CONFLICT
#define CHECK SPC_STATUS_CHECK_CONDITION
#define WERO SPC_WRITE_EXCLUSIVE_REGISTRANTS
#define REGISTERED(lun) g_assert_cmpuint(status_of((lun), SPC_OUT_REGISTER, 0, 0xa, 0), ==, GOOD)

/* ---- registrations -----------------------------------------------------------------------------
 */

static void test_register(void)
{
    g_auto(Lun) lun;
    PathsOutcome outcome;

    lun_init(&lun);
    outcome = execute(&lun, SPC_OUT_REGISTER, 0, 0xa, 0);
    g_assert_cmpuint(outcome.result.status, ==, GOOD);
    g_assert_true(outcome.key_change == PATHS_KEY_SET && outcome.key == 0xa);
    assert_keys(&lun, 0xa, 0xa, 0xa);
    /* stock on multipath: GOOD, CONFLICT, GOOD, CONFLICT */
    for (int i = 0; i < 4; i++)
        g_assert_cmpuint(status_of(&lun, SPC_OUT_REGISTER, 0, 0xa, 0), ==, CONFLICT);
    assert_keys(&lun, 0xa, 0xa, 0xa);
    g_assert_cmpuint(status_of(&lun, SPC_OUT_REGISTER, 0xb, 0xc, 0), ==, CONFLICT);
    g_assert_cmpuint(status_of(&lun, SPC_OUT_REGISTER, 0xa, 0xc, 0), ==, GOOD);
    assert_keys(&lun, 0xc, 0xc, 0xc);
    g_assert_cmpuint(status_of(&lun, SPC_OUT_REGISTER_IGNORE, 0, 0xd, 0), ==, GOOD);
    assert_keys(&lun, 0xd, 0xd, 0xd);
    outcome = execute(&lun, SPC_OUT_REGISTER, 0xd, 0, 0);
    g_assert_true(outcome.key_change == PATHS_KEY_UNSET);
    assert_keys(&lun, 0, 0, 0);
}

/* A path that is dead is left out, and gets its registration when it is back. */
static void test_register_dead(void)
{
    g_auto(Lun) lun;
    PathsOutcome outcome;

    lun_init(&lun);
    lun.nexuses[0].dead = TRUE;
    outcome = execute(&lun, SPC_OUT_REGISTER, 0, 0xa, 0);
    g_assert_cmpuint(outcome.result.status, ==, GOOD);
    g_assert_true(outcome.dead[0] && !outcome.dead[1]);
    assert_keys(&lun, 0, 0xa, 0xa);
    lun.nexuses[0].dead = FALSE;
    catch_up(&lun, &outcome);
    assert_keys(&lun, 0xa, 0xa, 0xa);
    for (int i = 0; i < OURS; i++)
        lun.nexuses[i].dead = TRUE;
    g_assert_cmpuint(status_of(&lun, SPC_OUT_REGISTER, 0xa, 0xb, 0), ==, CHECK);
}

/* The trap of the kernel and of libmpathpersist: a path without a registration must not cost the
 * others theirs. */
static void test_register_with_a_new_path(void)
{
    g_auto(Lun) lun;
    PathsOutcome outcome;

    lun_init(&lun);
    REGISTERED(&lun);
    g_assert_cmpuint(status_of(&lun, SPC_OUT_RESERVE, 0xa, 0, WERO), ==, GOOD);
    lun.nexuses[2].key = 0;
    outcome = execute(&lun, SPC_OUT_REGISTER, 0, 0xa, 0);
    g_assert_cmpuint(outcome.result.status, ==, CONFLICT);
    g_assert_cmpuint(outcome.repaired, ==, 1);
    assert_keys(&lun, 0xa, 0xa, 0xa);
    lun.nexuses[0].key = lun.nexuses[1].key; /* and with the holder's path the odd one */
    lun.nexuses[1].key = 0;
    g_assert_cmpuint(status_of(&lun, SPC_OUT_REGISTER, 0xa, 0xb, 0), ==, GOOD);
    assert_keys(&lun, 0xb, 0xb, 0xb);
    g_assert_cmpint(lun.holder, ==, 0);
}

/* A key of the host that is not the guest's: nothing of it is changed, and nothing left behind. */
static void test_register_over_another_key(void)
{
    g_auto(Lun) lun;

    lun_init(&lun);
    lun.nexuses[1].key = 0x77;
    g_assert_cmpuint(status_of(&lun, SPC_OUT_REGISTER, 0, 0xa, 0), ==, CONFLICT);
    assert_keys(&lun, 0, 0x77, 0);
}

static void test_register_without_room(void)
{
    g_auto(Lun) lun;
    PathsOutcome outcome;
    SpcSense sense;

    lun_init(&lun);
    lun.nexuses[1].full = TRUE;
    outcome = execute(&lun, SPC_OUT_REGISTER, 0, 0xa, 0);
    g_assert_cmpuint(outcome.result.status, ==, CHECK);
    spc_sense_read(outcome.result.sense, SPC_SENSE_SIZE, &sense);
    g_assert_cmphex(sense.asc, ==, 0x55);
    assert_keys(&lun, 0, 0, 0);
    g_assert_true(outcome.key_change == PATHS_KEY_AS_IT_IS);
}

static void test_attentions(void)
{
    g_auto(Lun) lun;

    lun_init(&lun);
    lun.nexuses[0].attentions = 3;
    lun.nexuses[2].attentions = 1;
    REGISTERED(&lun);
    assert_keys(&lun, 0xa, 0xa, 0xa);
}

/* ---- reservations ------------------------------------------------------------------------------
 */

static void test_reserve(void)
{
    g_auto(Lun) lun;

    lun_init(&lun);
    g_assert_cmpuint(status_of(&lun, SPC_OUT_RESERVE, 0xa, 0, WERO), ==, CONFLICT);
    REGISTERED(&lun);
    lun.must_write = TRUE;
    g_assert_cmpuint(status_of(&lun, SPC_OUT_RESERVE, 0xa, 0, WERO), ==, GOOD);
    /* again, and by another path: the guest holds it already */
    g_assert_cmpuint(status_of(&lun, SPC_OUT_RESERVE, 0xa, 0, WERO), ==, GOOD);
    lun.nexuses[0].dead = TRUE;
    g_assert_cmpuint(status_of(&lun, SPC_OUT_RESERVE, 0xa, 0, WERO), ==, GOOD);
    g_assert_cmpint(lun.holder, ==, 0);
    g_assert_cmpuint(status_of(&lun, SPC_OUT_RESERVE, 0xa, 0, SPC_EXCLUSIVE_ACCESS_REGISTRANTS), ==,
                     CONFLICT);
    /* a foreign one */
    lun.must_write = FALSE;
    lun.nexuses[FOREIGN].key = 0xf;
    lun.holder = FOREIGN;
    g_assert_cmpuint(status_of(&lun, SPC_OUT_RESERVE, 0xa, 0, WERO), ==, CONFLICT);
    lun.nexuses[FOREIGN].key = 0xa; /* another host that uses the same key is another host */
    g_assert_cmpuint(status_of(&lun, SPC_OUT_RESERVE, 0xa, 0, WERO), ==, CONFLICT);
}

static void test_reserve_lost_answer(void)
{
    g_auto(Lun) lun;

    lun_init(&lun);
    REGISTERED(&lun);
    lun.nexuses[0].mute = TRUE;
    g_assert_cmpuint(status_of(&lun, SPC_OUT_RESERVE, 0xa, 0, WERO), ==, GOOD);
    g_assert_cmpint(lun.holder, ==, 0);
}

static void test_release(void)
{
    g_auto(Lun) lun;

    lun_init(&lun);
    REGISTERED(&lun);
    lun.must_write = TRUE;
    g_assert_cmpuint(status_of(&lun, SPC_OUT_RELEASE, 0xa, 0, WERO), ==, GOOD);
    status_of(&lun, SPC_OUT_RESERVE, 0xa, 0, WERO);
    lun.holder = 2;
    g_assert_cmpuint(status_of(&lun, SPC_OUT_RELEASE, 0xa, 0, SPC_WRITE_EXCLUSIVE_ALL), ==, CHECK);
    g_assert_cmpint(lun.holder, ==, 2);
    g_assert_cmpuint(status_of(&lun, SPC_OUT_RELEASE, 0xb, 0, WERO), ==, CONFLICT);
    g_assert_cmpuint(status_of(&lun, SPC_OUT_RELEASE, 0xa, 0, WERO), ==, GOOD);
    g_assert_cmpint(lun.holder, ==, -1);
}

/* The path that holds it is dead: the others act for it, and can write all the time. */
static void test_release_for_dead(void)
{
    g_auto(Lun) lun;
    PathsOutcome outcome;

    lun_init(&lun);
    REGISTERED(&lun);
    lun.nexuses[FOREIGN].key = 0xf;
    status_of(&lun, SPC_OUT_RESERVE, 0xa, 0, WERO);
    lun.nexuses[0].dead = TRUE;
    lun.must_write = TRUE;
    outcome = execute(&lun, SPC_OUT_RELEASE, 0xa, 0, WERO);
    g_assert_cmpuint(outcome.result.status, ==, GOOD);
    g_assert_cmpint(lun.holder, ==, -1);
    assert_keys(&lun, 0, 0xa, 0xa); /* the dead one gets its own when it is back */
    g_assert_cmphex(lun.nexuses[FOREIGN].key, ==, 0xf);
}

/* The session that holds it is no more, and a new one has come in its place. */
static void test_release_for_stale(void)
{
    g_auto(Lun) lun;

    lun_init(&lun);
    REGISTERED(&lun);
    lun.nexuses[4].key = 0xa;
    lun.holder = 4;
    lun.type = WERO;
    lun.must_write = TRUE;
    g_assert_cmpuint(status_of(&lun, SPC_OUT_RESERVE, 0xa, 0, WERO), ==, GOOD);
    g_assert_cmpuint(status_of(&lun, SPC_OUT_RELEASE, 0xa, 0, WERO), ==, GOOD);
    g_assert_cmpint(lun.holder, ==, -1);
    g_assert_cmphex(lun.nexuses[4].key, ==, 0);
    assert_keys(&lun, 0xa, 0xa, 0xa);
}

/* Another host has the same key: then nothing can be preempted without harm to it. */
static void test_release_shared_key(void)
{
    g_auto(Lun) lun;

    lun_init(&lun);
    REGISTERED(&lun);
    lun.nexuses[FOREIGN].key = 0xa;
    status_of(&lun, SPC_OUT_RESERVE, 0xa, 0, WERO);
    lun.nexuses[0].dead = TRUE;
    g_assert_cmpuint(status_of(&lun, SPC_OUT_RELEASE, 0xa, 0, WERO), ==, CHECK);
    lun.nameless = TRUE;
    g_assert_cmpuint(status_of(&lun, SPC_OUT_RELEASE, 0xa, 0, WERO), ==, CHECK);
    g_assert_cmphex(lun.nexuses[FOREIGN].key, ==, 0xa);
    g_assert_cmpint(lun.holder, ==, 0);
}

static void test_change_key_with_dead_holder(void)
{
    g_auto(Lun) lun;

    lun_init(&lun);
    REGISTERED(&lun);
    status_of(&lun, SPC_OUT_RESERVE, 0xa, 0, WERO);
    lun.nexuses[0].dead = TRUE;
    lun.must_write = TRUE;
    g_assert_cmpuint(status_of(&lun, SPC_OUT_REGISTER, 0xa, 0xb, 0), ==, GOOD);
    assert_keys(&lun, 0, 0xb, 0xb);
    g_assert_cmpint(lun.holder, ==, 1);
    g_assert_cmpuint(status_of(&lun, SPC_OUT_RELEASE, 0xb, 0, WERO), ==, GOOD);
    g_assert_cmpint(lun.holder, ==, -1);
}

/* ---- preempt, clear -----------------------------------------------------------------------------
 */

static void test_preempt(void)
{
    g_auto(Lun) lun;

    lun_init(&lun);
    REGISTERED(&lun);
    lun.nexuses[FOREIGN].key = 0xf;
    lun.holder = FOREIGN;
    lun.type = WERO;
    lun.nexuses[0].key = 0; /* a path that has lost its registration does not do */
    g_assert_cmpuint(status_of(&lun, SPC_OUT_PREEMPT_ABORT, 0xa, 0xf, WERO), ==, GOOD);
    g_assert_nonnull(strstr(lun.seen->str, "1:PREEMPT AND ABORT"));
    g_assert_cmphex(lun.nexuses[FOREIGN].key, ==, 0);
    g_assert_cmpint(lun.holder, ==, 1);
    assert_keys(&lun, 0, 0xa, 0xa);
    /* the victim is not there */
    g_assert_cmpuint(status_of(&lun, SPC_OUT_PREEMPT, 0xa, 0xf, WERO), ==, CONFLICT);
}

static void test_preempt_lost_answer(void)
{
    g_auto(Lun) lun;

    lun_init(&lun);
    REGISTERED(&lun);
    lun.nexuses[FOREIGN].key = 0xf;
    lun.nexuses[0].mute = TRUE;
    g_assert_cmpuint(status_of(&lun, SPC_OUT_PREEMPT, 0xa, 0xf, WERO), ==, GOOD);
    g_assert_cmphex(lun.nexuses[FOREIGN].key, ==, 0);
}

/* To change the type of one's own reservation: no path may lose its registration by that. */
static void test_preempt_own(void)
{
    g_auto(Lun) lun;

    lun_init(&lun);
    REGISTERED(&lun);
    status_of(&lun, SPC_OUT_RESERVE, 0xa, 0, WERO);
    lun.must_write = TRUE;
    g_assert_cmpuint(status_of(&lun, SPC_OUT_PREEMPT, 0xa, 0xa, SPC_EXCLUSIVE_ACCESS_REGISTRANTS),
                     ==, GOOD);
    assert_keys(&lun, 0xa, 0xa, 0xa);
    g_assert_cmpuint(lun.type, ==, SPC_EXCLUSIVE_ACCESS_REGISTRANTS);
}

static void test_preempt_all(void)
{
    g_auto(Lun) lun;

    lun_init(&lun);
    REGISTERED(&lun);
    lun.nexuses[FOREIGN].key = 0xf;
    status_of(&lun, SPC_OUT_RESERVE, 0xa, 0, SPC_WRITE_EXCLUSIVE_ALL);
    g_assert_cmpuint(status_of(&lun, SPC_OUT_PREEMPT, 0xa, 0, SPC_WRITE_EXCLUSIVE_ALL), ==, GOOD);
    assert_keys(&lun, 0xa, 0xa, 0xa);
    g_assert_cmphex(lun.nexuses[FOREIGN].key, ==, 0);
}

static void test_clear(void)
{
    g_auto(Lun) lun;
    PathsOutcome outcome;

    lun_init(&lun);
    REGISTERED(&lun);
    lun.nexuses[0].mute = TRUE;
    outcome = execute(&lun, SPC_OUT_CLEAR, 0xa, 0, 0);
    g_assert_cmpuint(outcome.result.status, ==, GOOD);
    g_assert_true(outcome.key_change == PATHS_KEY_UNSET);
    assert_keys(&lun, 0, 0, 0);
    g_assert_cmpuint(status_of(&lun, SPC_OUT_CLEAR, 0xa, 0, 0), ==, CONFLICT);
}

static void test_check(void)
{
    SpcOutFault fault;
    SpcOut out = {.action = SPC_OUT_RESERVE, .type = SPC_WRITE_EXCLUSIVE};

    g_assert_cmpint(paths_check(&out, &fault), ==, -1);
    g_assert_cmpuint(fault.byte, ==, 2);
    out.action = SPC_OUT_RELEASE; /* there may be one from another time */
    g_assert_cmpint(paths_check(&out, &fault), ==, 0);
    out = (SpcOut){.action = SPC_OUT_RESERVE, .type = WERO};
    g_assert_cmpint(paths_check(&out, &fault), ==, 0);
    out.action = SPC_OUT_REGISTER_MOVE;
    g_assert_cmpint(paths_check(&out, &fault), ==, -1);
    out = (SpcOut){.action = SPC_OUT_REGISTER, .others = true};
    g_assert_cmpint(paths_check(&out, &fault), ==, -1);
}

/*
 * Anything in any order, with paths that die and come back as multipathd brings them back: what the
 * guest is told is what a single path would have told it.
 */
static void test_random(void)
{
    static const guint8 types[] = {WERO, SPC_EXCLUSIVE_ACCESS_REGISTRANTS};

    for (int round = 0; round < 2000; round++) {
        g_auto(Lun) many;
        g_auto(Lun) one;

        lun_init(&many);
        lun_init(&one);
        many.nexuses[FOREIGN].key = one.nexuses[FOREIGN].key = 0xf;
        for (int step = 0; step < 12; step++) {
            SpcOut out = {.action = (SpcOutAction)g_test_rand_int_range(0, 7),
                          .key = (guint64)g_test_rand_int_range(0xa, 0xc),
                          .service_key = (guint64)g_test_rand_int_range(0xa, 0xc),
                          .type = types[g_test_rand_int_range(0, 2)]};
            int died = g_test_rand_int_range(0, OURS + 2);
            PathResult expected = {.answered = false};
            guint status;

            if (out.action == SPC_OUT_REGISTER && g_test_rand_bit())
                out.key = 0;
            /* it may only end when all paths are there; what a dead one keeps is another test */
            if (died < OURS && out.action != SPC_OUT_CLEAR)
                many.nexuses[died].dead = TRUE;
            else if (out.action <= SPC_OUT_REGISTER && g_test_rand_bit())
                out.service_key = 0;
            if (out.action == SPC_OUT_PREEMPT || out.action == SPC_OUT_PREEMPT_ABORT)
                out.service_key = g_test_rand_bit() ? 0xf : out.key;
            /* not registered, or with the other key: a conflict whatever the victim is */
            lun_out(&one, 0, &out, &expected);
            status = status_of(&many, out.action, out.key, out.service_key, out.type);
            if (status != expected.status)
                g_error("%s %" G_GINT64_MODIFIER "x %" G_GINT64_MODIFIER
                        "x type %u: %u instead of %u after %s",
                        spc_out_action_name(out.action), out.key, out.service_key, out.type, status,
                        expected.status, many.seen->str);
            for (int i = 0; i < OURS; i++) {
                many.nexuses[i].dead = FALSE;
                many.nexuses[i].key = one.nexuses[0].key; /* multipathd */
            }
            g_assert_cmphex(many.nexuses[FOREIGN].key, ==, one.nexuses[FOREIGN].key);
            g_assert_true((many.holder >= 0) == (one.holder >= 0));
            g_assert_true((many.holder == FOREIGN) == (one.holder == FOREIGN));
            many.type = one.type;
        }
    }
}

/* ---- paths that appear
 * --------------------------------------------------------------------------- */

static size_t repair(Lun *lun, guint64 key, gboolean thorough)
{
    const PathOps ops = {
        .count = OURS, .context = lun, .send = sim_send, .ask = sim_ask, .is_ours = sim_is_ours};

    g_string_truncate(lun->seen, 0);
    return paths_repair(&ops, key, thorough);
}

static void test_repair(void)
{
    g_auto(Lun) lun;

    lun_init(&lun);
    REGISTERED(&lun);
    status_of(&lun, SPC_OUT_RESERVE, 0xa, 0, WERO);
    g_assert_cmpuint(repair(&lun, 0xa, FALSE), ==, 0);
    g_assert_cmpstr(lun.seen->str, ==, ""); /* nothing was sent */
    lun.nexuses[1].key = 0;
    g_assert_cmpuint(repair(&lun, 0xa, FALSE), ==, 1);
    assert_keys(&lun, 0xa, 0xa, 0xa);
    lun.nexuses[2].key = 0;
    lun.nexuses[FOREIGN].key = 0xa; /* as many keys as paths, and yet one is missing: not noticed */
    g_assert_cmpuint(repair(&lun, 0xa, FALSE), ==, 0);
    g_assert_cmpuint(repair(&lun, 0xa, TRUE), ==, 1);
    lun.nexuses[2].key = 0;
    lun.nexuses[1].key = 0x77; /* a path with another key keeps that */
    g_assert_cmpuint(repair(&lun, 0xa, FALSE), ==, 1);
    assert_keys(&lun, 0xa, 0x77, 0xa);
}

/* A fence lasts as long as nobody on the fenced host registers again. */
static void test_repair_fenced(void)
{
    g_auto(Lun) lun;

    lun_init(&lun);
    lun.nexuses[FOREIGN].key = 0xf;
    g_assert_cmpuint(repair(&lun, 0xa, FALSE), ==, 0);
    lun.nexuses[FOREIGN].key = 0xa; /* even if another host has our key */
    g_assert_cmpuint(repair(&lun, 0xa, TRUE), ==, 0);
    assert_keys(&lun, 0, 0, 0);
}

static void test_watch_events(void)
{
    static const char add[] = "add@/devices/x/block/sdc\0ACTION=add\0SUBSYSTEM=block\0"
                              "DEVNAME=sdc\0DEVTYPE=disk";
    static const char part[] = "add@/x\0ACTION=add\0SUBSYSTEM=block\0DEVNAME=sdc1\0"
                               "DEVTYPE=partition";
    static const char change[] = "change@/x\0DEVTYPE=disk\0DEVNAME=dm-3\0SUBSYSTEM=block\0"
                                 "ACTION=change";
    static const char other[] = "add@/x\0ACTION=add\0SUBSYSTEM=net\0DEVNAME=sdc\0DEVTYPE=disk";
    WatchEvent event;

    g_assert_true(watch_parse(add, sizeof(add), &event));
    g_assert_cmpstr(event.disk, ==, "sdc");
    g_assert_true(watch_parse(change, sizeof(change), &event));
    g_assert_cmpstr(event.disk, ==, "dm-3");
    g_assert_false(watch_parse(part, sizeof(part), &event));
    g_assert_false(watch_parse(other, sizeof(other), &event));
    for (gsize len = 0; len < sizeof(add); len++) {
        g_autofree char *cut = g_memdup2(add, MAX(len, 1));

        g_assert_false(watch_parse(cut, len, &event));
    }
}

static void test_watch_keys(void)
{
    static const char text[] = "# Multipath persistent reservation keys\n# prkey wwid\n#\n"
                               "0x000000000000000a 3600140512\n0xb:aptpl 36001405123\n"
                               "rubbish\n0xc 3600140599";

    g_assert_cmphex(watch_find_key(text, "3600140512"), ==, 0xa);
    g_assert_cmphex(watch_find_key(text, "36001405123"), ==, 0xb);
    g_assert_cmphex(watch_find_key(text, "3600140599"), ==, 0xc);
    g_assert_cmphex(watch_find_key(text, "360014051"), ==, 0);
    g_assert_cmphex(watch_find_key("", "1"), ==, 0);
}

/* ---- the kernel's ioctls
 * ------------------------------------------------------------------------- */

static void test_kernel_results(void)
{
    static const struct {
        int returned, error;
        gboolean answered;
        guint status, asc;
    } cases[] = {
        {0, 0, TRUE, GOOD, 0},
        {280, 0, TRUE, CONFLICT, 0},    /* sd: 0x118 */
        {0x18, 0, TRUE, CONFLICT, 0},   /* since Linux 6.3 */
        {0x83, 0, TRUE, CONFLICT, 0},   /* NVMe */
        {0x4083, 0, TRUE, CONFLICT, 0}, /* with "do not retry" */
        {16385, 0, TRUE, CHECK, 0x20},  /* NVMe, invalid opcode */
        {24577, 0, TRUE, CHECK, 0x20},
        {2, 0, TRUE, CHECK, 0x24},
        {65536, 0, FALSE, 0, 0}, /* no path */
        {-1, EOPNOTSUPP, TRUE, CHECK, 0x20},
        {-1, EINVAL, TRUE, CHECK, 0x24},
        {-1, EIO, FALSE, 0, 0},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        PathResult result;
        SpcSense sense;

        kernel_ioctl_result(cases[i].returned, cases[i].error, &result);
        g_assert_cmpint(result.answered, ==, cases[i].answered);
        if (!result.answered)
            continue;
        g_assert_cmpuint(result.status, ==, cases[i].status);
        spc_sense_read(result.sense, SPC_SENSE_SIZE, &sense);
        g_assert_cmphex(result.status == CHECK ? sense.asc : 0, ==, cases[i].asc);
    }
}

static void test_kernel_report(void)
{
    guint8 report[24 + 48] = {[0] = 7, [4] = 3, [5] = 2};
    guint8 data[256];
    SpcKeys keys;
    SpcReservation reservation;
    SpcFullStatus status;
    SpcRegistration registration;
    gsize len;

    report[24] = 1;
    report[24 + 16] = 0xa;
    report[48] = 2;
    report[48 + 2] = 1; /* holds it */
    report[48 + 16] = 0xb;
    len = kernel_ioctl_report(SPC_IN_KEYS, report, sizeof(report), data, sizeof(data));
    g_assert_cmpint(spc_in_parse_keys(data, len, &keys), ==, 0);
    g_assert_cmpuint(keys.count, ==, 2);
    g_assert_cmphex(spc_keys_at(&keys, 1), ==, 0xb);
    g_assert_cmpuint(keys.generation, ==, 7);
    len = kernel_ioctl_report(SPC_IN_RESERVATION, report, sizeof(report), data, sizeof(data));
    g_assert_cmpint(spc_in_parse_reservation(data, len, &reservation), ==, 0);
    g_assert_true(reservation.held);
    g_assert_cmphex(reservation.key, ==, 0xb);
    g_assert_cmpuint(reservation.type, ==, WERO);
    len = kernel_ioctl_report(SPC_IN_FULL_STATUS, report, sizeof(report), data, sizeof(data));
    g_assert_cmpint(spc_in_parse_full_status(data, len, &status), ==, 0);
    g_assert_cmpint(spc_full_status_next(&status, &registration), ==, 1);
    g_assert_cmpint(spc_full_status_next(&status, &registration), ==, 1);
    g_assert_true(registration.holder);
    g_assert_cmpuint(registration.target_port, ==, 2);
    g_assert_cmpint(spc_full_status_next(&status, &registration), ==, 0);
    report[4] = 0;
    len = kernel_ioctl_report(SPC_IN_RESERVATION, report, sizeof(report), data, sizeof(data));
    g_assert_cmpint(spc_in_parse_reservation(data, len, &reservation), ==, 0);
    g_assert_false(reservation.held);
    report[5] = 3; /* more than there are */
    g_assert_cmpuint(kernel_ioctl_report(SPC_IN_KEYS, report, sizeof(report), data, 8), ==, 0);
    g_assert_cmpuint(kernel_ioctl_report(SPC_IN_KEYS, report, 10, data, 8), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/pr-paths/register", test_register);
    g_test_add_func("/pr-paths/register/dead", test_register_dead);
    g_test_add_func("/pr-paths/register/new-path", test_register_with_a_new_path);
    g_test_add_func("/pr-paths/register/another-key", test_register_over_another_key);
    g_test_add_func("/pr-paths/register/without-room", test_register_without_room);
    g_test_add_func("/pr-paths/attentions", test_attentions);
    g_test_add_func("/pr-paths/reserve", test_reserve);
    g_test_add_func("/pr-paths/reserve/lost-answer", test_reserve_lost_answer);
    g_test_add_func("/pr-paths/release", test_release);
    g_test_add_func("/pr-paths/release/dead", test_release_for_dead);
    g_test_add_func("/pr-paths/release/stale", test_release_for_stale);
    g_test_add_func("/pr-paths/release/shared-key", test_release_shared_key);
    g_test_add_func("/pr-paths/change-key/dead-holder", test_change_key_with_dead_holder);
    g_test_add_func("/pr-paths/preempt", test_preempt);
    g_test_add_func("/pr-paths/preempt/lost-answer", test_preempt_lost_answer);
    g_test_add_func("/pr-paths/preempt/own", test_preempt_own);
    g_test_add_func("/pr-paths/preempt/all", test_preempt_all);
    g_test_add_func("/pr-paths/clear", test_clear);
    g_test_add_func("/pr-paths/check", test_check);
    g_test_add_func("/pr-paths/random", test_random);
    g_test_add_func("/pr-paths/repair", test_repair);
    g_test_add_func("/pr-paths/repair/fenced", test_repair_fenced);
    g_test_add_func("/pr-watch/events", test_watch_events);
    g_test_add_func("/pr-watch/keys", test_watch_keys);
    g_test_add_func("/pr-kernel/results", test_kernel_results);
    g_test_add_func("/pr-kernel/report", test_kernel_report);
    return g_test_run();
}
