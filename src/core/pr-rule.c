/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One rule of pr_rules; see pr-rule.h. */
#include "core/pr-rule.h"

#include "core/conffile.h"

#include <string.h>

void pr_rule_free(PrRule *rule)
{
    if (!rule)
        return;
    g_free(rule->text);
    g_free(rule->user);
    g_free(rule->group);
    g_free(rule->cgroup);
    g_free(rule->label);
    g_free(rule->device);
    g_clear_pointer(&rule->keys, g_array_unref);
    g_free(rule);
}

GPtrArray *pr_rules_new(void)
{
    return g_ptr_array_new_with_free_func((GDestroyNotify)pr_rule_free);
}

gboolean pr_rule_parse_key(const char *text, guint64 *ret_key)
{
    gboolean hex = g_ascii_strncasecmp(text, "0x", 2) == 0;

    /* g_ascii_string_to_unsigned() takes no 0x, but it checks all the rest */
    return g_ascii_string_to_unsigned(hex ? text + 2 : text, hex ? 16 : 10, 0, G_MAXUINT64, ret_key,
                                      NULL);
}

static gboolean rule_parse_range(const char *text, PrKeyRange *ret_range)
{
    const char *dash = strchr(text, '-');
    g_autofree char *first = dash ? g_strndup(text, (gsize)(dash - text)) : g_strdup(text);

    if (!pr_rule_parse_key(first, &ret_range->first))
        return FALSE;
    ret_range->last = ret_range->first;
    return !dash ||
           (pr_rule_parse_key(dash + 1, &ret_range->last) && ret_range->last >= ret_range->first);
}

static gboolean rule_parse_keys(PrRule *rule, const char *value, char **ret_error)
{
    g_auto(GStrv) parts = g_strsplit(value, ",", -1);

    rule->keys = g_array_new(FALSE, FALSE, sizeof(PrKeyRange));
    for (char **part = parts; *part; part++) {
        PrKeyRange range;

        if (!rule_parse_range(*part, &range)) {
            g_autofree char *quoted = conffile_quote(*part, -1);

            *ret_error = g_strdup_printf("%s is no key and no range of keys; write keys=0x1f, or "
                                         "keys=0x1000-0x1fff,0x2000",
                                         quoted);
            return FALSE;
        }
        g_array_append_val(rule->keys, range);
    }
    return TRUE;
}

static gboolean rule_parse_yes(const char *name, const char *value, gboolean *ret_yes,
                               char **ret_error)
{
    *ret_yes = g_str_equal(value, "yes");
    if (*ret_yes || g_str_equal(value, "no"))
        return TRUE;
    *ret_error = g_strdup_printf("%s is yes or no", name);
    return FALSE;
}

static gboolean rule_set(PrRule *rule, const char *name, const char *value, char **ret_error)
{
    static const struct {
        const char *name;
        gsize offset;
    } texts[] = {{"user", G_STRUCT_OFFSET(PrRule, user)},
                 {"group", G_STRUCT_OFFSET(PrRule, group)},
                 {"cgroup", G_STRUCT_OFFSET(PrRule, cgroup)},
                 {"label", G_STRUCT_OFFSET(PrRule, label)},
                 {"device", G_STRUCT_OFFSET(PrRule, device)}};
    g_autofree char *quoted = NULL;

    for (gsize i = 0; i < G_N_ELEMENTS(texts); i++) {
        char **member = &G_STRUCT_MEMBER(char *, rule, texts[i].offset);

        if (!g_str_equal(name, texts[i].name))
            continue;
        g_free(*member);
        *member = g_strdup(value);
        return TRUE;
    }
    if (g_str_equal(name, "keys")) {
        g_clear_pointer(&rule->keys, g_array_unref);
        return rule_parse_keys(rule, value, ret_error);
    }
    if (g_str_equal(name, "preempt"))
        return rule_parse_yes(name, value, &rule->preempt, ret_error);
    if (g_str_equal(name, "clear"))
        return rule_parse_yes(name, value, &rule->clear, ret_error);
    quoted = conffile_quote(name, -1);
    *ret_error = g_strdup_printf("a rule has no %s; it knows user, group, cgroup, label, device, "
                                 "keys, preempt, clear and deny",
                                 quoted);
    return FALSE;
}

static gboolean rule_parse_word(PrRule *rule, const char *word, char **ret_error)
{
    const char *equals = strchr(word, '=');
    g_autofree char *name = equals ? g_strndup(word, (gsize)(equals - word)) : NULL;

    if (g_str_equal(word, "deny")) {
        rule->deny = TRUE;
        return TRUE;
    }
    if (!equals || equals[1] == '\0') {
        g_autofree char *quoted = conffile_quote(word, -1);

        *ret_error =
            g_strdup_printf("%s is not of the form NAME=VALUE (nor the word deny)", quoted);
        return FALSE;
    }
    return rule_set(rule, name, equals + 1, ret_error);
}

PrRule *pr_rule_parse(const char *text, guint line, char **ret_error)
{
    g_autoptr(PrRule) rule = g_new0(PrRule, 1);
    g_auto(GStrv) words = NULL;

    if (!g_utf8_validate(text, -1, NULL)) {
        *ret_error = g_strdup("a rule has to be UTF-8");
        return NULL;
    }
    words = g_strsplit_set(text, " \t\r\n", -1);
    rule->text = g_strdup(text);
    rule->line = line;
    rule->preempt = rule->clear = TRUE;
    for (char **word = words; *word; word++) {
        if (**word && !rule_parse_word(rule, *word, ret_error))
            return NULL;
    }
    if (*text == '\0' || strspn(text, " \t\r\n") == strlen(text)) {
        *ret_error = g_strdup("a rule can't be empty; a rule for everybody is \"device=*\"");
        return NULL;
    }
    return g_steal_pointer(&rule);
}

gboolean pr_rule_has_key(const PrRule *rule, guint64 key)
{
    for (guint i = 0; rule->keys && i < rule->keys->len; i++) {
        const PrKeyRange *range = &g_array_index(rule->keys, PrKeyRange, i);

        if (key >= range->first && key <= range->last)
            return TRUE;
    }
    return rule->keys == NULL;
}
