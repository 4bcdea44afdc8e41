/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Checks one value of a configuration file against its key: type, range, shape. Only the value
 * itself is looked at, never the system: whether a path exists is found out by who uses it.
 */
#include "core/settings-private.h"

#include <limits.h>
#include <string.h>
#include <sys/un.h>

/** The longest name of a host that the domain name system allows, in bytes. */
#define HOST_MAX 253

#define NAME_LETTERS G_CSET_A_2_Z G_CSET_a_2_z G_CSET_DIGITS

static ConfType settings_kind_type(SettingsKind kind)
{
    switch (kind) {
    case SETTINGS_BOOL:
    case SETTINGS_NUMBER:
    case SETTINGS_UNUSED:
        return CONF_NUMBER;
    case SETTINGS_DRIVER_OPTIONS:
    case SETTINGS_PR_RULES:
        return CONF_LIST;
    default:
        return CONF_STRING;
    }
}

/** A value of the right kind, to show in a message how it is written. */
static const char *settings_kind_example(const SettingsKey *key)
{
    switch (key->kind) {
    case SETTINGS_BOOL:
        return "1";
    case SETTINGS_UNUSED:
        return "1024";
    case SETTINGS_PATH:
    case SETTINGS_SOCKET:
        return "\"/some/path\"";
    case SETTINGS_DRIVER_OPTIONS:
        return "[ \"driver.key=value\" ]";
    case SETTINGS_PR_RULES:
        return "[ \"user=libvirt-qemu device=naa.6001405*\" ]";
    case SETTINGS_LOG_FILTERS:
        return "\"1:name\"";
    case SETTINGS_LOG_OUTPUTS:
        return "\"3:stderr\"";
    default:
        return key->initial ? key->initial : "\"name\"";
    }
}

/* ---- numbers --------------------------------------------------------------------------- */

static gboolean settings_check_number(SettingsContext *context, guint *ret_number)
{
    const SettingsKey *key = context->key;
    gint64 number = context->entry->number;

    if (key->kind == SETTINGS_BOOL) {
        if (number != 0 && number != 1)
            return settings_refuse(context, "%s is 0 (no) or 1 (yes), not %" G_GINT64_FORMAT,
                                   key->name, number);
    } else if (number == 0 && key->min > 0 && context->which == SETTINGS_VIRTLOCKD_CONF) {
        /* virtlockd takes log_level = 0 as if the line were not there. */
        settings_report(context, context->entry->line, SETTINGS_WARNING,
                        "%s = 0 means that it is not set; remove the line, or use %u to %u",
                        key->name, key->min, key->max);
        return FALSE;
    } else if (number < key->min || number > key->max) {
        return settings_refuse(context, "%s has to be from %u to %u, not %" G_GINT64_FORMAT,
                               key->name, key->min, key->max, number);
    }
    *ret_number = (guint)number;
    return TRUE;
}

/* ---- strings --------------------------------------------------------------------------- */

static gboolean settings_has_control(const char *text)
{
    for (; *text != '\0'; text++)
        if (g_ascii_iscntrl(*text))
            return TRUE;
    return FALSE;
}

static gboolean settings_check_path(SettingsContext *context, const char *path, const char *quoted)
{
    const char *name = context->key->name;
    gsize limit = context->key->kind == SETTINGS_SOCKET
                      ? sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1
                      : PATH_MAX - 1;

    if (*path != '/')
        return settings_refuse(context, "%s has to be an absolute path, not %s; begin it with /",
                               name, quoted);
    if (settings_has_control(path))
        return settings_refuse(context, "%s has a control character in its path %s; remove it",
                               name, quoted);
    if (strlen(path) > limit)
        return settings_refuse(context,
                               "%s: the path %s is %zu bytes long; use one of at most %zu bytes",
                               name, quoted, strlen(path), limit);
    if (context->key->kind == SETTINGS_SOCKET && g_str_has_suffix(path, "/"))
        return settings_refuse(
            context, "%s names the directory %s; add the name of the socket in it", name, quoted);
    return TRUE;
}

static gboolean settings_is_name(const char *text, const char *also, gsize limit)
{
    gsize len = strlen(text);
    g_autofree char *allowed = g_strconcat(NAME_LETTERS, also, NULL);

    return len > 0 && len <= limit && g_ascii_isalnum(*text) && strspn(text, allowed) == len;
}

static gboolean settings_check_word(SettingsContext *context, const char *word, const char *quoted)
{
    const char *name = context->key->name;

    switch (context->key->kind) {
    case SETTINGS_GROUP:
        /* What the system's own tools leave to a group: neither separators nor white space. */
        if (settings_has_control(word) || strpbrk(word, " :,/") || !g_utf8_validate(word, -1, NULL))
            return settings_refuse(context, "%s can't be the name of a group: %s", name, quoted);
        return TRUE;
    case SETTINGS_HOST:
        if (!settings_is_name(word, ".-_", HOST_MAX))
            return settings_refuse(context,
                                   "%s can't be the name of a host: %s; use letters, digits, "
                                   "'.', '-' and '_'",
                                   name, quoted);
        return TRUE;
    default:
        if (!settings_is_name(word, "-_", NAME_MAX))
            return settings_refuse(context,
                                   "%s can't be the name of a driver: %s; use letters, digits, "
                                   "'-' and '_'",
                                   name, quoted);
        return TRUE;
    }
}

/** Strings that stay strings. "" is taken as not set, where that can be. */
static gboolean settings_check_string(SettingsContext *context, char **ret_string)
{
    const SettingsKey *key = context->key;
    const char *text = context->entry->string;
    g_autofree char *quoted = conffile_quote(text, -1);

    if (*text == '\0') {
        if (key->initial)
            return settings_refuse(context, "%s can't be empty; write a name or remove the line",
                                   key->name);
        /* What stock libvirt makes of an empty directory is neither direct locks nor an error. */
        if (context->which == SETTINGS_LOCKD_CONF)
            return settings_refuse(context,
                                   "%s has to be an absolute path, not empty; remove the line "
                                   "to do without the directory",
                                   key->name);
        *ret_string = NULL;
        return TRUE;
    }
    if (key->kind == SETTINGS_PATH || key->kind == SETTINGS_SOCKET) {
        if (!settings_check_path(context, text, quoted))
            return FALSE;
    } else if (!settings_check_word(context, text, quoted)) {
        return FALSE;
    }
    *ret_string = g_strdup(text);
    return TRUE;
}

/* ---- driver_config --------------------------------------------------------------------- */

static void settings_driver_option_free(gpointer data)
{
    SettingsDriverOption *option = data;

    g_free(option->driver);
    g_free(option->key);
    g_free(option->value);
    g_free(option);
}

GPtrArray *settings_driver_options_new(void)
{
    return g_ptr_array_new_with_free_func(settings_driver_option_free);
}

/** "driver.key=value"; NULL when it isn't. The value is the driver's business. */
static SettingsDriverOption *settings_driver_option_parse(const ConfItem *item)
{
    const char *equals = strchr(item->text, '=');
    const char *dot = equals ? memchr(item->text, '.', (gsize)(equals - item->text)) : NULL;
    g_autofree char *driver = dot ? g_strndup(item->text, (gsize)(dot - item->text)) : NULL;
    g_autofree char *key = dot ? g_strndup(dot + 1, (gsize)(equals - dot - 1)) : NULL;
    SettingsDriverOption *option;

    if (!dot || !settings_is_name(driver, "-_", NAME_MAX) || !settings_is_name(key, "-_", NAME_MAX))
        return NULL;
    option = g_new0(SettingsDriverOption, 1);
    option->driver = g_steal_pointer(&driver);
    option->key = g_steal_pointer(&key);
    option->value = g_strdup(equals + 1);
    option->line = item->line;
    return option;
}

static gboolean settings_check_driver_options(SettingsContext *context, GPtrArray **ret_options)
{
    g_autoptr(GPtrArray) options = settings_driver_options_new();
    const GPtrArray *items = context->entry->items;

    for (guint i = 0; i < items->len; i++) {
        const ConfItem *item = g_ptr_array_index(items, i);
        SettingsDriverOption *option = settings_driver_option_parse(item);

        if (option) {
            g_ptr_array_add(options, option);
        } else {
            g_autofree char *quoted = conffile_quote(item->text, -1);

            settings_report(context, item->line, SETTINGS_ERROR,
                            "%s: %s is not of the form \"driver.key=value\"", context->key->name,
                            quoted);
        }
    }
    if (options->len < items->len)
        return FALSE;
    *ret_options = g_steal_pointer(&options);
    return TRUE;
}

/* ---- all kinds ------------------------------------------------------------------------- */

gboolean settings_check_value(SettingsContext *context, SettingsValue *ret_value)
{
    const SettingsKey *key = context->key;
    const ConfEntry *entry = context->entry;
    ConfType type = settings_kind_type(key->kind);

    if (entry->type != type)
        return settings_refuse(context, "%s takes %s, not %s; write: %s = %s", key->name,
                               conffile_type_name(type), conffile_type_name(entry->type), key->name,
                               settings_kind_example(key));
    switch (key->kind) {
    case SETTINGS_BOOL:
    case SETTINGS_NUMBER:
    case SETTINGS_UNUSED:
        return settings_check_number(context, &ret_value->number);
    case SETTINGS_DRIVER_OPTIONS:
        return settings_check_driver_options(context, &ret_value->array);
    case SETTINGS_PR_RULES:
        return settings_check_pr_rules(context, &ret_value->array);
    case SETTINGS_CHOICE:
    case SETTINGS_PR_LOG:
        return settings_check_choice(context, &ret_value->string);
    case SETTINGS_LOG_FILTERS:
        return settings_check_log_filters(context, &ret_value->array);
    case SETTINGS_LOG_OUTPUTS:
        return settings_check_log_outputs(context, &ret_value->array);
    default:
        return settings_check_string(context, &ret_value->string);
    }
}
