/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Configuration files: each is read or refused with a message for people, and the settings made of
 * it can be shown in the files' own syntax.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/conffile.h"
#include "core/settings.h"
#include "guard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(gboolean condition)
{
    if (!condition)
        abort();
}

static void check_message(const char *text)
{
    check(text && g_utf8_validate(text, -1, NULL) && !strpbrk(text, "\r\n"));
}

static void try_file(const char *data, gsize size)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(ConfFile) file = conffile_parse("f", data, size, &error);

    check((file != NULL) == (error == NULL));
    if (error)
        check_message(error->message);
    for (guint i = 0; file && i < file->entries->len; i++) {
        const ConfEntry *entry = g_ptr_array_index(file->entries, i);

        check(conffile_lookup(file, entry->key) != NULL);
        check(entry->line > 0 && entry->first_line < entry->line + 1);
    }
}

static void try_settings(SettingsFile which, const char *data, gsize size)
{
    g_autoptr(Settings) settings = settings_new();
    g_autoptr(GPtrArray) problems = settings_problems_new();
    gboolean good = settings_parse(settings, which, "f", data, size, problems);

    check(good == !settings_problems_have_error(problems));
    for (guint i = 0; i < problems->len; i++) {
        g_autofree char *text = settings_problem_to_string(g_ptr_array_index(problems, i));

        check_message(text);
    }
    for (guint i = 0; i < SETTINGS_KEY_COUNT; i++)
        g_free(settings_value_to_string(settings, &settings_keys()[i]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *exact = guard_copy(data, size);

    try_file(exact, size);
    try_settings(SETTINGS_HOLDFAST_CONF, exact, size);
    try_settings(SETTINGS_LOCKD_CONF, exact, size);
    try_settings(SETTINGS_VIRTLOCKD_CONF, exact, size);
    return 0;
}
