/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The rules of several paths, on the LUN of pr-lun.h: some paths die, some come without a
 * registration, answers get lost. After every single command that reaches the LUN the holder must
 * be able to write by each of its living, registered paths, and nobody else's registration may have
 * changed but by what was asked for.
 */
#include <string.h>

#include "pr-lun.h"

static PathsOutcome execute(Lun *lun, SpcOutAction action, guint64 key, guint64 service_key,
                            guint8 type)
{
    const PathOps ops = lun_ops(lun);
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
    const PathOps ops = lun_ops(lun);

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

/* ---- registrations --------------------------------------------------------------------------- */

static void test_register(void)
{
    g_auto(Lun) lun = lun_new();
    PathsOutcome outcome;

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
    g_auto(Lun) lun = lun_new();
    PathsOutcome outcome;

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
    g_auto(Lun) lun = lun_new();
    PathsOutcome outcome;

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
    g_auto(Lun) lun = lun_new();

    lun.nexuses[1].key = 0x77;
    g_assert_cmpuint(status_of(&lun, SPC_OUT_REGISTER, 0, 0xa, 0), ==, CONFLICT);
    assert_keys(&lun, 0, 0x77, 0);
}

static void test_register_without_room(void)
{
    g_auto(Lun) lun = lun_new();
    PathsOutcome outcome;
    SpcSense sense;

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
    g_auto(Lun) lun = lun_new();

    lun.nexuses[0].attentions = 3;
    lun.nexuses[2].attentions = 1;
    REGISTERED(&lun);
    assert_keys(&lun, 0xa, 0xa, 0xa);
}

/* ---- reservations ---------------------------------------------------------------------------- */

static void test_reserve(void)
{
    g_auto(Lun) lun = lun_new();

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
    g_auto(Lun) lun = lun_new();

    REGISTERED(&lun);
    lun.nexuses[0].mute = TRUE;
    g_assert_cmpuint(status_of(&lun, SPC_OUT_RESERVE, 0xa, 0, WERO), ==, GOOD);
    g_assert_cmpint(lun.holder, ==, 0);
}

static void test_release(void)
{
    g_auto(Lun) lun = lun_new();

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
    g_auto(Lun) lun = lun_new();
    PathsOutcome outcome;

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
    g_auto(Lun) lun = lun_new();

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
    g_auto(Lun) lun = lun_new();

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
    g_auto(Lun) lun = lun_new();

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

/* ---- preempt, clear -------------------------------------------------------------------------- */

static void test_preempt(void)
{
    g_auto(Lun) lun = lun_new();

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
    g_auto(Lun) lun = lun_new();

    REGISTERED(&lun);
    lun.nexuses[FOREIGN].key = 0xf;
    lun.nexuses[0].mute = TRUE;
    g_assert_cmpuint(status_of(&lun, SPC_OUT_PREEMPT, 0xa, 0xf, WERO), ==, GOOD);
    g_assert_cmphex(lun.nexuses[FOREIGN].key, ==, 0);
}

/* To change the type of one's own reservation: no path may lose its registration by that. */
static void test_preempt_own(void)
{
    g_auto(Lun) lun = lun_new();

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
    g_auto(Lun) lun = lun_new();

    REGISTERED(&lun);
    lun.nexuses[FOREIGN].key = 0xf;
    status_of(&lun, SPC_OUT_RESERVE, 0xa, 0, SPC_WRITE_EXCLUSIVE_ALL);
    g_assert_cmpuint(status_of(&lun, SPC_OUT_PREEMPT, 0xa, 0, SPC_WRITE_EXCLUSIVE_ALL), ==, GOOD);
    assert_keys(&lun, 0xa, 0xa, 0xa);
    g_assert_cmphex(lun.nexuses[FOREIGN].key, ==, 0);
}

static void test_clear(void)
{
    g_auto(Lun) lun = lun_new();
    PathsOutcome outcome;

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
        g_auto(Lun) many = lun_new();
        g_auto(Lun) one = lun_new();

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

/* ---- paths that appear ----------------------------------------------------------------------- */

static size_t repair(Lun *lun, guint64 key, gboolean thorough)
{
    const PathOps ops = lun_ops(lun);

    g_string_truncate(lun->seen, 0);
    return paths_repair(&ops, key, thorough);
}

static void test_repair(void)
{
    g_auto(Lun) lun = lun_new();

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
    g_auto(Lun) lun = lun_new();

    lun.nexuses[FOREIGN].key = 0xf;
    g_assert_cmpuint(repair(&lun, 0xa, FALSE), ==, 0);
    lun.nexuses[FOREIGN].key = 0xa; /* even if another host has our key */
    g_assert_cmpuint(repair(&lun, 0xa, TRUE), ==, 0);
    assert_keys(&lun, 0, 0, 0);
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
    return g_test_run();
}
