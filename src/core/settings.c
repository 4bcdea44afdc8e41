/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Settings from the defaults and the configuration files. What a key may be is in
 * settings-schema.c, how a value is checked in settings-check.c and settings-log.c; here they are
 * brought together, and the problems are collected.
 *
 * Reads the files it is told to and nothing else. Does not log.
 */
#include "core/pr-rule.h"
#include "core/settings-private.h"

#include <string.h>

/* ---- problems -------------------------------------------------------------------------- */

static void settings_problem_free(gpointer data)
{
    SettingsProblem *problem = data;

    g_free(problem->file);
    g_free(problem->message);
    g_free(problem);
}

GPtrArray *settings_problems_new(void)
{
    return g_ptr_array_new_with_free_func(settings_problem_free);
}

gboolean settings_problems_have_error(const GPtrArray *problems)
{
    for (guint i = 0; i < problems->len; i++) {
        const SettingsProblem *problem = g_ptr_array_index(problems, i);

        if (problem->severity == SETTINGS_ERROR)
            return TRUE;
    }
    return FALSE;
}

char *settings_problem_to_string(const SettingsProblem *problem)
{
    static const char *const severities[] = {
        [SETTINGS_NOTE] = "note",
        [SETTINGS_WARNING] = "warning",
        [SETTINGS_ERROR] = "error",
    };
    const char *severity = severities[problem->severity];

    if (problem->line == 0)
        return g_strdup_printf("%s: %s: %s", problem->file, severity, problem->message);
    return g_strdup_printf("%s:%u: %s: %s", problem->file, problem->line, severity,
                           problem->message);
}

void settings_report(SettingsContext *context, guint line, SettingsSeverity severity,
                     const char *format, ...)
{
    SettingsProblem *problem = g_new0(SettingsProblem, 1);
    va_list args;

    va_start(args, format);
    problem->message = g_strdup_vprintf(format, args);
    va_end(args);
    problem->file = g_filename_display_name(context->file);
    problem->line = line;
    problem->severity = severity;
    if (severity == SETTINGS_ERROR)
        context->failed = TRUE;
    g_ptr_array_add(context->problems, problem);
}

/* ---- storing values -------------------------------------------------------------------- */

SettingsFile settings_origin(const Settings *settings, const SettingsKey *key)
{
    return (SettingsFile)settings->origin[key - settings_keys()];
}

/** Puts a checked value into its member, which takes it over, unless a better file gave one. */
static void settings_store(Settings *settings, SettingsContext *context, SettingsValue *value)
{
    const SettingsKey *key = context->key;
    SettingsFile origin = settings_origin(settings, key);

    if (origin > context->which) {
        settings_report(context, context->entry->line, SETTINGS_NOTE,
                        "%s is set in %s too, and that counts", key->name,
                        settings_file_title(origin));
        return;
    }
    switch (key->kind) {
    case SETTINGS_BOOL:
    case SETTINGS_NUMBER:
        settings_member(guint, settings, key) = value->number;
        break;
    case SETTINGS_DRIVER_OPTIONS:
    case SETTINGS_PR_RULES:
    case SETTINGS_LOG_FILTERS:
    case SETTINGS_LOG_OUTPUTS:
        g_ptr_array_unref(settings_member(GPtrArray *, settings, key));
        settings_member(GPtrArray *, settings, key) = g_steal_pointer(&value->array);
        break;
    case SETTINGS_UNUSED:
        settings_report(context, context->entry->line, SETTINGS_NOTE,
                        "%s has no effect: Holdfast has no such limit", key->name);
        return;
    default:
        g_free(settings_member(char *, settings, key));
        settings_member(char *, settings, key) = g_steal_pointer(&value->string);
        break;
    }
    settings->origin[key - settings_keys()] = (guint8)context->which;
}

/** Fills in the default that depends on another key. */
static void settings_derive(Settings *settings)
{
    const SettingsKey *require = settings_find_key("require_lease_for_disks");

    if (settings_origin(settings, require) == SETTINGS_DEFAULT)
        settings->require_lease_for_disks = !settings->auto_disk_leases;
}

/* ---- from a file to settings ----------------------------------------------------------- */

static void settings_report_unknown(SettingsContext *context)
{
    const char *name = context->entry->key;
    const SettingsKey *elsewhere = settings_find_key(name);
    const SettingsKey *nearest = settings_nearest_key(name, context->which);
    const char *title = settings_file_title(context->which);
    g_autofree char *quoted = conffile_quote(name, -1);
    g_autofree char *advice = NULL;

    if (elsewhere && elsewhere->kind == SETTINGS_UNUSED)
        advice = g_strdup("Holdfast has no such limit, remove the line");
    else if (elsewhere)
        advice = g_strdup("it belongs into holdfast.conf");
    else if (nearest)
        advice = g_strdup_printf("did you mean '%s'?", nearest->name);
    else
        advice = g_strdup("remove the line");
    settings_report(context, context->entry->line,
                    context->which == SETTINGS_HOLDFAST_CONF ? SETTINGS_ERROR : SETTINGS_WARNING,
                    "%s has no key %s%s; %s", title, quoted,
                    context->which == SETTINGS_HOLDFAST_CONF ? "" : ", the line has no effect",
                    advice);
}

static void settings_apply_entry(Settings *settings, SettingsContext *context)
{
    const ConfEntry *entry = context->entry;
    SettingsValue value = {0};

    context->key = settings_find_key(entry->key);
    if (!context->key || !settings_key_belongs(context->key, context->which)) {
        settings_report_unknown(context);
        return;
    }
    /* As in libvirt, a line that does not count does not even have to be right. */
    if (entry->first_line > 0) {
        settings_report(context, entry->line, SETTINGS_WARNING,
                        "%s was set in line %u, and that counts; remove one of the two",
                        context->key->name, entry->first_line);
        return;
    }
    if (settings_check_value(context, &value))
        settings_store(settings, context, &value);
    g_free(value.string);
    g_clear_pointer(&value.array, g_ptr_array_unref);
}

/** What no single line shows. */
static void settings_check_together(const Settings *settings, SettingsContext *context,
                                    const ConfFile *conf)
{
    const ConfEntry *entry = conffile_lookup(conf, "virtlockd_socket");

    if (entry && settings->virtlockd_socket &&
        g_strcmp0(settings->virtlockd_socket, settings->native_socket) == 0)
        settings_report(context, entry->line, SETTINGS_ERROR,
                        "virtlockd_socket and native_socket are the same path; each protocol "
                        "needs a socket of its own");
}

static void settings_apply(Settings *settings, SettingsContext *context, const ConfFile *conf)
{
    for (guint i = 0; i < conf->entries->len; i++) {
        context->entry = g_ptr_array_index(conf->entries, i);
        settings_apply_entry(settings, context);
    }
    context->entry = NULL;
    settings_check_together(settings, context, conf);
    settings_derive(settings);
}

/** The rest of a load: `conf` and `error` are what conffile_load() or conffile_parse() gave. */
static gboolean settings_finish(Settings *settings, SettingsContext *context, const ConfFile *conf,
                                const GError *error)
{
    if (conf) {
        settings_apply(settings, context, conf);
    } else {
        guint line = 0;
        const char *text = conffile_error_text(error, context->file, &line);

        settings_report(context, line, SETTINGS_ERROR, "%s", text);
    }
    return !context->failed;
}

gboolean settings_parse(Settings *settings, SettingsFile which, const char *name, const char *data,
                        gsize len, GPtrArray *problems)
{
    SettingsContext context = {.which = which, .file = name, .problems = problems};
    g_autoptr(GError) error = NULL;
    g_autoptr(ConfFile) conf = conffile_parse(name, data, len, &error);

    return settings_finish(settings, &context, conf, error);
}

static gboolean settings_load(Settings *settings, SettingsFile which, const char *path,
                              gboolean must_exist, GPtrArray *problems)
{
    SettingsContext context = {.which = which, .file = path, .problems = problems};
    g_autoptr(GError) error = NULL;
    g_autoptr(ConfFile) conf = conffile_load(path, &error);

    if (!must_exist && g_error_matches(error, CONFFILE_ERROR, CONFFILE_ERROR_MISSING))
        return TRUE;
    return settings_finish(settings, &context, conf, error);
}

gboolean settings_load_holdfast(Settings *settings, const char *path, gboolean must_exist,
                                GPtrArray *problems)
{
    return settings_load(settings, SETTINGS_HOLDFAST_CONF, path, must_exist, problems);
}

gboolean settings_load_lockd(Settings *settings, const char *path, gboolean must_exist,
                             GPtrArray *problems)
{
    return settings_load(settings, SETTINGS_LOCKD_CONF, path, must_exist, problems);
}

gboolean settings_load_virtlockd(Settings *settings, const char *path, gboolean must_exist,
                                 GPtrArray *problems)
{
    return settings_load(settings, SETTINGS_VIRTLOCKD_CONF, path, must_exist, problems);
}

/* ---- settings as a whole --------------------------------------------------------------- */

/** The defaults go the way of any file, so that the table is their only source. */
static void settings_apply_defaults(Settings *settings)
{
    g_autoptr(GString) text = g_string_new(NULL);
    g_autoptr(GPtrArray) problems = settings_problems_new();
    const SettingsKey *keys = settings_keys();

    for (guint i = 0; i < SETTINGS_KEY_COUNT; i++)
        if (keys[i].initial)
            g_string_append_printf(text, "%s = %s\n", keys[i].name, keys[i].initial);
    settings_parse(settings, SETTINGS_DEFAULT, "defaults", text->str, text->len, problems);
    g_assert(problems->len == 0);
}

Settings *settings_new(void)
{
    Settings *settings = g_new0(Settings, 1);

    settings->driver_config = settings_driver_options_new();
    settings->pr_rules = pr_rules_new();
    settings->log_filters = settings_log_filters_new();
    settings->log_outputs = settings_log_outputs_new();
    settings_apply_defaults(settings);
    return settings;
}

void settings_free(Settings *settings)
{
    const SettingsKey *keys = settings_keys();

    if (!settings)
        return;
    for (guint i = 0; i < SETTINGS_KEY_COUNT; i++) {
        switch (keys[i].kind) {
        case SETTINGS_BOOL:
        case SETTINGS_NUMBER:
        case SETTINGS_UNUSED:
            break;
        case SETTINGS_DRIVER_OPTIONS:
        case SETTINGS_PR_RULES:
        case SETTINGS_LOG_FILTERS:
        case SETTINGS_LOG_OUTPUTS:
            g_ptr_array_unref(settings_member(GPtrArray *, settings, &keys[i]));
            break;
        default:
            g_free(settings_member(char *, settings, &keys[i]));
            break;
        }
    }
    g_free(settings);
}

const char *settings_lockd_conf(const Settings *settings, const char *standard,
                                gboolean *ret_must_exist)
{
    const SettingsKey *key = settings_find_key("lockd_conf");
    gboolean named = settings_origin(settings, key) != SETTINGS_DEFAULT;

    *ret_must_exist = named;
    return named ? settings->lockd_conf : standard;
}

/* ---- values as text -------------------------------------------------------------------- */

/** In quotes that the string does not contain; one of the three always fits, see conffile.h. */
static char *settings_quote(const char *text)
{
    const char *quote = "\"";

    if (strpbrk(text, "\"\r\n"))
        quote = strpbrk(text, "'\r\n") ? "\"\"\"" : "'";
    return g_strconcat(quote, text, quote, NULL);
}

static char *settings_driver_options_to_string(const GPtrArray *options)
{
    GString *text = g_string_new("[");

    for (guint i = 0; i < options->len; i++) {
        const SettingsDriverOption *option = g_ptr_array_index(options, i);
        g_autofree char *item =
            g_strdup_printf("%s.%s=%s", option->driver, option->key, option->value);
        g_autofree char *quoted = settings_quote(item);

        g_string_append_printf(text, "%s%s", i > 0 ? ", " : " ", quoted);
    }
    g_string_append(text, " ]");
    return g_string_free(text, FALSE);
}

static char *settings_pr_rules_to_string(const GPtrArray *rules)
{
    GString *text = g_string_new("[");

    for (guint i = 0; i < rules->len; i++) {
        const PrRule *rule = g_ptr_array_index(rules, i);
        g_autofree char *quoted = settings_quote(rule->text);

        g_string_append_printf(text, "%s%s", i > 0 ? ", " : " ", quoted);
    }
    g_string_append(text, " ]");
    return g_string_free(text, FALSE);
}

char *settings_value_to_string(const Settings *settings, const SettingsKey *key)
{
    g_autofree char *made = NULL;
    const char *text;

    switch (key->kind) {
    case SETTINGS_UNUSED:
        return NULL;
    case SETTINGS_BOOL:
    case SETTINGS_NUMBER:
        return g_strdup_printf("%u", settings_member(const guint, settings, key));
    case SETTINGS_DRIVER_OPTIONS:
        return settings_driver_options_to_string(settings->driver_config);
    case SETTINGS_PR_RULES:
        return settings_pr_rules_to_string(settings->pr_rules);
    case SETTINGS_LOG_FILTERS:
        text = made = settings_log_filters_to_string(settings->log_filters);
        break;
    case SETTINGS_LOG_OUTPUTS:
        text = made = settings_log_outputs_to_string(settings->log_outputs);
        break;
    default:
        text = settings_member(char *const, settings, key);
        break;
    }
    return text ? settings_quote(text) : NULL;
}
