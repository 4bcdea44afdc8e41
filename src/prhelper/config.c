/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The helper's settings: those keys of holdfast.conf that begin with pr_. The file is checked as a
 * whole, by the same code as everywhere, so that one mistake is one mistake for all who read it.
 */
#include <string.h>

#include "core/settings.h"
#include "prhelper/audit.h"
#include "prhelper/policy.h"
#include "prhelper/prhelper.h"

static PrAuditKind config_audit_kind(const Settings *settings)
{
    if (g_str_equal(settings->pr_log, "none"))
        return PR_AUDIT_NONE;
    if (g_str_equal(settings->pr_log, "journal"))
        return PR_AUDIT_JOURNAL;
    return g_str_equal(settings->pr_log_format, "json") ? PR_AUDIT_JSON : PR_AUDIT_TEXT;
}

static PrMultipath config_multipath(const char *value)
{
    if (g_str_equal(value, "library"))
        return PR_MULTIPATH_LIBRARY;
    return g_str_equal(value, "paths") ? PR_MULTIPATH_PATHS : PR_MULTIPATH_AUTO;
}

static PrSecondVm config_second_vm(const char *value)
{
    if (g_str_equal(value, "refuse"))
        return PR_SECOND_REFUSE;
    return g_str_equal(value, "allow") ? PR_SECOND_ALLOW : PR_SECOND_WARN;
}

static void config_report(GPtrArray *problems, const char *path, guint line, const char *error)
{
    SettingsProblem *problem = g_new0(SettingsProblem, 1);

    problem->file = g_filename_display_name(path);
    problem->line = line;
    problem->severity = SETTINGS_ERROR;
    problem->message = g_strdup_printf("pr_rules: %s; make it, or correct the rule", error);
    g_ptr_array_add(problems, problem);
}

PrConfig *pr_config_load(const char *path, gboolean must_exist, GPtrArray *problems)
{
    g_autoptr(Settings) settings = settings_new();
    g_autofree char *error = NULL;
    PrAuditKind audit;
    PrConfig *config;
    PrPolicy *policy;
    guint line = 0;

    if (!settings_load_holdfast(settings, path, must_exist, problems))
        return NULL;
    policy =
        pr_policy_new(settings->pr_rules, config_second_vm(settings->pr_second_vm), &line, &error);
    if (!policy) {
        config_report(problems, path, line, error);
        return NULL;
    }
    config = g_new0(PrConfig, 1);
    config->allow_partitions = settings->pr_allow_partitions;
    config->allow_stacked = settings->pr_allow_stacked;
    config->multipath = config_multipath(settings->pr_multipath);
    config->policy = policy;
    audit = config_audit_kind(settings);
    config->audit =
        pr_audit_new(audit, audit == PR_AUDIT_JOURNAL ? PR_AUDIT_JOURNAL_SOCKET : settings->pr_log);
    return config;
}

void pr_config_free(PrConfig *config)
{
    if (!config)
        return;
    pr_policy_free(config->policy);
    pr_audit_free(config->audit);
    g_free(config);
}
