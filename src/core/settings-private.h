/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the parts of the settings module share: the problem being reported and the value being
 * checked. For settings*.c only; everybody else includes settings.h.
 */
#pragma once

#include "core/conffile.h"
#include "core/settings.h"

/** The entry that is being looked at, and where complaints about it go. */
typedef struct SettingsContext {
    SettingsFile which;
    const char *file;       /**< its name */
    const ConfEntry *entry; /**< NULL: the whole file is meant */
    const SettingsKey *key; /**< NULL: not known yet */
    GPtrArray *problems;
    gboolean failed; /**< an error was reported */
} SettingsContext;

/** A checked value on its way into Settings; which member counts depends on the key's kind. */
typedef struct SettingsValue {
    guint number;
    char *string;
    GPtrArray *array;
} SettingsValue;

/** Adds a problem at `line` of the file. */
G_GNUC_PRINTF(4, 5)
void settings_report(SettingsContext *context, guint line, SettingsSeverity severity,
                     const char *format, ...);

/* For `return settings_refuse(...)` in functions that return a gboolean. */
#define settings_refuse(context, ...)                                                              \
    (settings_report((context), (context)->entry->line, SETTINGS_ERROR, __VA_ARGS__), FALSE)

/**
 * Checks the context's entry against its key and fills `ret_value`, which the caller then owns.
 * FALSE: it is not to be used, and the reason has been reported.
 */
gboolean settings_check_value(SettingsContext *context, SettingsValue *ret_value);

/** The parts of log_filters and log_outputs: as settings_check_value(). */
gboolean settings_check_log_filters(SettingsContext *context, GPtrArray **ret_filters);
gboolean settings_check_log_outputs(SettingsContext *context, GPtrArray **ret_outputs);

/** What holdfast-pr-helper's keys need, in settings-pr.c: as settings_check_value(). */
gboolean settings_check_choice(SettingsContext *context, char **ret_string);
gboolean settings_check_pr_rules(SettingsContext *context, GPtrArray **ret_rules);

/** The inverse, for settings_value_to_string(): the array as the string of the file. */
char *settings_log_filters_to_string(const GPtrArray *filters);
char *settings_log_outputs_to_string(const GPtrArray *outputs);

/** Arrays that free what they hold. */
GPtrArray *settings_log_filters_new(void);
GPtrArray *settings_log_outputs_new(void);
GPtrArray *settings_driver_options_new(void);

/** The key that `which` knows and that `name` was probably meant to be, or NULL. */
const SettingsKey *settings_nearest_key(const char *name, SettingsFile which);

/** "holdfast.conf", ... : what people call the file. */
const char *settings_file_title(SettingsFile which);

/** Whether `which` may have the key. */
gboolean settings_key_belongs(const SettingsKey *key, SettingsFile which);

/** The member of `settings` that holds the key's value. */
#define settings_member(type, settings, key)                                                       \
    (*(type *)G_STRUCT_MEMBER_P((settings), (glong)(key)->offset))
