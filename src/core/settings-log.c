/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * log_filters and log_outputs: from libvirt's notation to arrays and back. Nothing is opened or
 * logged here.
 */
#include "core/settings-private.h"

#include <string.h>

static const char *const log_kinds[] = {
    [SETTINGS_LOG_STDERR] = "stderr",
    [SETTINGS_LOG_FILE] = "file",
    [SETTINGS_LOG_SYSLOG] = "syslog",
    [SETTINGS_LOG_JOURNALD] = "journald",
};

static void settings_log_filter_free(gpointer data)
{
    SettingsLogFilter *filter = data;

    g_free(filter->match);
    g_free(filter);
}

static void settings_log_output_free(gpointer data)
{
    SettingsLogOutput *output = data;

    g_free(output->target);
    g_free(output);
}

GPtrArray *settings_log_filters_new(void)
{
    return g_ptr_array_new_with_free_func(settings_log_filter_free);
}

GPtrArray *settings_log_outputs_new(void)
{
    return g_ptr_array_new_with_free_func(settings_log_output_free);
}

/* ---- checking -------------------------------------------------------------------------- */

/** The "N:" that a part begins with. `ret_rest` is what follows, inside `part`. */
static gboolean settings_check_log_level(SettingsContext *context, const char *part,
                                         SettingsLogLevel *ret_level, const char **ret_rest)
{
    const char *colon = strchr(part, ':');
    g_autofree char *quoted = conffile_quote(part, -1);
    g_autofree char *digits = NULL;
    guint64 level = 0;

    if (!colon)
        return settings_refuse(context,
                               "%s: %s has no level in front; write LEVEL:%s, with a "
                               "level from 1 (debug) to 4 (errors)",
                               context->key->name, quoted,
                               context->key->kind == SETTINGS_LOG_FILTERS ? "name" : "output");
    digits = g_strndup(part, (gsize)(colon - part));
    if (!g_ascii_string_to_unsigned(digits, 10, SETTINGS_LOG_DEBUG, SETTINGS_LOG_ERROR, &level,
                                    NULL))
        return settings_refuse(context,
                               "%s: %s does not begin with a level; use 1 (debug), 2 "
                               "(information), 3 (warnings) or 4 (errors)",
                               context->key->name, quoted);
    *ret_level = (SettingsLogLevel)level;
    *ret_rest = colon + 1;
    return TRUE;
}

static gboolean settings_check_log_filter(SettingsContext *context, const char *part,
                                          GPtrArray *filters)
{
    SettingsLogLevel level = 0;
    const char *match = NULL;
    SettingsLogFilter *filter;

    if (!settings_check_log_level(context, part, &level, &match))
        return FALSE;
    /* Old libvirt logged a stack trace for "N:+name"; the sign is still found in files. */
    if (*match == '+')
        match++;
    if (*match == '\0' || !g_utf8_validate(match, -1, NULL)) {
        g_autofree char *quoted = conffile_quote(part, -1);

        return settings_refuse(context, "%s: %s has no name after the level; write LEVEL:name",
                               context->key->name, quoted);
    }
    filter = g_new0(SettingsLogFilter, 1);
    filter->level = level;
    filter->match = g_strdup(match);
    g_ptr_array_add(filters, filter);
    return TRUE;
}

/** The kind that `rest` names, up to a ':' if it has one; -1 for none. */
static int settings_log_kind(const char *rest)
{
    gsize len = strcspn(rest, ":");

    for (gsize i = 0; i < G_N_ELEMENTS(log_kinds); i++)
        if (strlen(log_kinds[i]) == len && strncmp(log_kinds[i], rest, len) == 0)
            return (int)i;
    return -1;
}

static gboolean settings_check_log_target(SettingsContext *context, const char *part, int kind,
                                          const char *target)
{
    g_autofree char *quoted = conffile_quote(part, -1);

    switch (kind) {
    case SETTINGS_LOG_STDERR:
    case SETTINGS_LOG_JOURNALD:
        if (target)
            return settings_refuse(context, "%s: %s has too much in it; write LEVEL:%s",
                                   context->key->name, quoted, log_kinds[kind]);
        return TRUE;
    case SETTINGS_LOG_FILE:
        if (!target || *target != '/')
            return settings_refuse(context,
                                   "%s: %s does not name a file by an absolute path; write "
                                   "LEVEL:file:/path/to/file",
                                   context->key->name, quoted);
        return TRUE;
    case SETTINGS_LOG_SYSLOG:
        if (!target || strchr(target, ':') || !g_utf8_validate(target, -1, NULL))
            return settings_refuse(context,
                                   "%s: %s does not name an ident; write "
                                   "LEVEL:syslog:ident",
                                   context->key->name, quoted);
        return TRUE;
    default:
        return settings_refuse(context,
                               "%s: %s is no output that is known; use LEVEL:stderr, "
                               "LEVEL:file:/path, LEVEL:syslog:ident or LEVEL:journald",
                               context->key->name, quoted);
    }
}

/** A later output to the same place replaces an earlier one, as in libvirt. */
static void settings_add_log_output(GPtrArray *outputs, SettingsLogOutput *output)
{
    for (guint i = 0; i < outputs->len; i++) {
        const SettingsLogOutput *other = g_ptr_array_index(outputs, i);

        if (other->kind == output->kind && g_strcmp0(other->target, output->target) == 0) {
            g_ptr_array_remove_index(outputs, i);
            break;
        }
    }
    g_ptr_array_add(outputs, output);
}

static gboolean settings_check_log_output(SettingsContext *context, const char *part,
                                          GPtrArray *outputs)
{
    SettingsLogLevel level = 0;
    const char *rest = NULL;
    const char *target;
    SettingsLogOutput *output;
    int kind;

    if (!settings_check_log_level(context, part, &level, &rest))
        return FALSE;
    kind = settings_log_kind(rest);
    target = strchr(rest, ':');
    if (target)
        target++;
    if (!settings_check_log_target(context, part, kind, target))
        return FALSE;
    output = g_new0(SettingsLogOutput, 1);
    output->level = level;
    output->kind = (SettingsLogKind)kind;
    output->target = g_strdup(target);
    settings_add_log_output(outputs, output);
    return TRUE;
}

typedef gboolean (*SettingsCheckPart)(SettingsContext *context, const char *part, GPtrArray *array);

/** Checks every part of the string, so that all mistakes are reported, and adds them to `array`. */
static gboolean settings_check_log_parts(SettingsContext *context, SettingsCheckPart check,
                                         GPtrArray *array)
{
    g_auto(GStrv) parts = g_strsplit_set(context->entry->string, " \t\r\n", -1);
    gboolean good = TRUE;

    for (char **part = parts; *part; part++)
        if (**part != '\0' && !check(context, *part, array))
            good = FALSE;
    return good;
}

gboolean settings_check_log_filters(SettingsContext *context, GPtrArray **ret_filters)
{
    g_autoptr(GPtrArray) filters = settings_log_filters_new();

    if (!settings_check_log_parts(context, settings_check_log_filter, filters))
        return FALSE;
    *ret_filters = g_steal_pointer(&filters);
    return TRUE;
}

gboolean settings_check_log_outputs(SettingsContext *context, GPtrArray **ret_outputs)
{
    g_autoptr(GPtrArray) outputs = settings_log_outputs_new();

    if (!settings_check_log_parts(context, settings_check_log_output, outputs))
        return FALSE;
    *ret_outputs = g_steal_pointer(&outputs);
    return TRUE;
}

/* ---- and back -------------------------------------------------------------------------- */

char *settings_log_filters_to_string(const GPtrArray *filters)
{
    GString *text = g_string_new(NULL);

    for (guint i = 0; i < filters->len; i++) {
        const SettingsLogFilter *filter = g_ptr_array_index(filters, i);

        g_string_append_printf(text, "%s%d:%s", i > 0 ? " " : "", (int)filter->level,
                               filter->match);
    }
    return g_string_free(text, FALSE);
}

char *settings_log_outputs_to_string(const GPtrArray *outputs)
{
    GString *text = g_string_new(NULL);

    for (guint i = 0; i < outputs->len; i++) {
        const SettingsLogOutput *output = g_ptr_array_index(outputs, i);

        g_string_append_printf(text, "%s%d:%s%s%s", i > 0 ? " " : "", (int)output->level,
                               log_kinds[output->kind], output->target ? ":" : "",
                               output->target ? output->target : "");
    }
    return g_string_free(text, FALSE);
}
