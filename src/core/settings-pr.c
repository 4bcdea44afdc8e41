/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Checks the values that only holdfast-pr-helper has: words to choose from, and rules. As in
 * settings-check.c nothing but the value itself is looked at: whether a user exists is found out by
 * the helper.
 */
#include "core/pr-rule.h"
#include "core/settings-private.h"

#include <limits.h>
#include <string.h>

/* "auto", "library" or "paths" */
static char *settings_choices_text(char **choices)
{
    GString *text = g_string_new(NULL);

    for (guint i = 0; choices[i]; i++)
        g_string_append_printf(text, "%s\"%s\"",
                               i == 0           ? ""
                               : choices[i + 1] ? ", "
                                                : " or ",
                               choices[i]);
    return g_string_free(text, FALSE);
}

gboolean settings_check_choice(SettingsContext *context, char **ret_string)
{
    const SettingsKey *key = context->key;
    const char *value = context->entry->string;
    gboolean path = key->kind == SETTINGS_PR_LOG;
    g_auto(GStrv) choices = g_strsplit(key->choices, " ", -1);
    g_autofree char *quoted = conffile_quote(value, -1);
    g_autofree char *text = settings_choices_text(choices);

    if (!g_strv_contains((const char *const *)choices, value) && !(path && *value == '/'))
        return settings_refuse(context, "%s has to be %s%s, not %s", key->name, text,
                               path ? " or an absolute path" : "", quoted);
    if (path && (strlen(value) >= PATH_MAX || g_str_has_suffix(value, "/") ||
                 strpbrk(value, "\n\r") || !g_utf8_validate(value, -1, NULL)))
        return settings_refuse(context, "%s: %s can't be the path of a file", key->name, quoted);
    *ret_string = g_strdup(value);
    return TRUE;
}

gboolean settings_check_pr_rules(SettingsContext *context, GPtrArray **ret_rules)
{
    g_autoptr(GPtrArray) rules = pr_rules_new();
    const GPtrArray *items = context->entry->items;

    for (guint i = 0; i < items->len; i++) {
        const ConfItem *item = g_ptr_array_index(items, i);
        g_autofree char *error = NULL;
        PrRule *rule = pr_rule_parse(item->text, item->line, &error);

        if (rule)
            g_ptr_array_add(rules, rule);
        else
            settings_report(context, item->line, SETTINGS_ERROR, "%s: %s", context->key->name,
                            error);
    }
    if (rules->len < items->len)
        return FALSE;
    *ret_rules = g_steal_pointer(&rules);
    return TRUE;
}
