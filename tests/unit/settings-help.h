/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Shared by the tests of the settings: parsing a text, and problems and values as text.
 */
#pragma once

#include "core/settings.h"

#include <string.h>

#define HOLDFAST SETTINGS_HOLDFAST_CONF
#define LOCKD SETTINGS_LOCKD_CONF
#define VIRTLOCKD SETTINGS_VIRTLOCKD_CONF

/** Problems one a line, "LINE severity: message". */
static inline char *describe(const GPtrArray *problems)
{
    GString *text = g_string_new(NULL);

    for (guint i = 0; i < problems->len; i++) {
        g_autofree char *one = settings_problem_to_string(g_ptr_array_index(problems, i));

        g_assert_true(g_str_has_prefix(one, "t.conf:"));
        g_string_append_printf(text, "%s\n", one + strlen("t.conf:"));
    }
    return g_string_free(text, FALSE);
}

static inline gboolean parse(Settings *settings, SettingsFile which, const char *text,
                             GPtrArray *problems)
{
    return settings_parse(settings, which, "t.conf", text, strlen(text), problems);
}

/** Parses what must not have any problem. */
static inline void parse_clean(Settings *settings, SettingsFile which, const char *text)
{
    g_autoptr(GPtrArray) problems = settings_problems_new();
    gboolean good = parse(settings, which, text, problems);
    g_autofree char *described = describe(problems);

    g_assert_cmpstr(described, ==, "");
    g_assert_true(good);
}

static inline void assert_value(const Settings *settings, const char *name, const char *expected)
{
    g_autofree char *value = settings_value_to_string(settings, settings_find_key(name));

    g_assert_cmpstr(value, ==, expected);
}
