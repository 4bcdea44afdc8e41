/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Our declarations of libmpathpersist's interface have its layout: by numbers always, and by the
 * library's own header where that is installed.
 */
#include <dlfcn.h>
#include <glib.h>
#include <stddef.h>

#include "prhelper/mpath/library.h"
#include "prhelper/mpath/mpath-persist.h"

#if __has_include(<mpath_persist.h>)
#include <mpath_persist.h>
#define HAS_HEADER 1
#else
#define HAS_HEADER 0
#endif

static void test_numbers(void)
{
    g_assert_cmpuint(offsetof(MpathPersistOut, sa_key), ==, 8);
    g_assert_cmpuint(offsetof(MpathPersistOut, sa_flags), ==, 20);
    g_assert_cmpuint(offsetof(MpathPersistOut, private_buffer), ==, 24);
    g_assert_cmpuint(offsetof(MpathPersistOut, num_transportid), ==, 24 + 8192);
    g_assert_cmpuint(offsetof(MpathPersistOut, trnptid_list), ==, 24 + 8192 + 8);
}

static void test_header(void)
{
#if HAS_HEADER
    typedef struct prout_param_descriptor Theirs;

    G_STATIC_ASSERT(sizeof(Theirs) == sizeof(MpathPersistOut));
    G_STATIC_ASSERT(offsetof(Theirs, key) == offsetof(MpathPersistOut, key));
    G_STATIC_ASSERT(offsetof(Theirs, sa_key) == offsetof(MpathPersistOut, sa_key));
    G_STATIC_ASSERT(offsetof(Theirs, sa_flags) == offsetof(MpathPersistOut, sa_flags));
    G_STATIC_ASSERT(offsetof(Theirs, num_transportid) ==
                    offsetof(MpathPersistOut, num_transportid));
    G_STATIC_ASSERT(offsetof(Theirs, trnptid_list) == offsetof(MpathPersistOut, trnptid_list));
    G_STATIC_ASSERT(MPATH_F_APTPL_MASK == MPATH_PERSIST_APTPL);
    G_STATIC_ASSERT(MPATH_F_ALL_TG_PT_MASK == MPATH_PERSIST_ALL_TG_PT);
    G_STATIC_ASSERT(MPATH_MAX_PARAM_LEN == MPATH_PERSIST_LIST_SIZE);
    G_STATIC_ASSERT((int)MPATH_PROUT_REG_IGN_SA == (int)SPC_OUT_REGISTER_IGNORE);
    g_assert_cmpint(MPATH_PR_SUCCESS, ==, 0);
#endif
}

/* What it is asked for, and what it must never be asked for. */
static void test_wants(void)
{
    static const struct {
        SpcOut out;
        gboolean wanted;
    } cases[] = {
        {{.action = SPC_OUT_REGISTER, .service_key = 1}, TRUE},
        {{.action = SPC_OUT_REGISTER_IGNORE, .service_key = 1}, TRUE},
        {{.action = SPC_OUT_RESERVE, .key = 1}, TRUE},
        {{.action = SPC_OUT_PREEMPT_ABORT, .key = 1, .service_key = 2}, TRUE},
        {{.action = SPC_OUT_CLEAR, .key = 1}, TRUE},
        /* it takes back what was there before, when one path refuses */
        {{.action = SPC_OUT_REGISTER, .key = 1, .service_key = 2}, FALSE},
        {{.action = SPC_OUT_REGISTER, .key = 1}, FALSE},
        {{.action = SPC_OUT_REGISTER_IGNORE}, FALSE},
        /* it clears everybody's, when the holder's path is dead */
        {{.action = SPC_OUT_RELEASE, .key = 1}, FALSE},
        /* it would take the registrations of our own paths */
        {{.action = SPC_OUT_PREEMPT, .key = 1, .service_key = 1}, FALSE},
        {{.action = SPC_OUT_PREEMPT, .key = 1}, FALSE},
        {{.action = SPC_OUT_REGISTER, .service_key = 1, .others = true}, FALSE},
        {{.action = SPC_OUT_REGISTER_MOVE, .key = 1, .service_key = 1}, FALSE},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++)
        g_assert_cmpint(library_wants(&cases[i].out), ==, cases[i].wanted);
}

/* A call never ends this process, whatever the library does: there is no such descriptor. */
static void test_call(void)
{
    const SpcOut out = {.action = SPC_OUT_CLEAR, .key = 1};
    char text[256] = "";

    g_assert_cmpint(library_execute(-1, &out, text, sizeof(text)), ==, -1);
    g_assert_cmpstr(text, !=, "");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/mpath-persist/numbers", test_numbers);
    g_test_add_func("/mpath-persist/header", test_header);
    g_test_add_func("/mpath-persist/wants", test_wants);
    g_test_add_func("/mpath-persist/call", test_call);
    return g_test_run();
}
