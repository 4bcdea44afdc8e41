/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is not written yet: everything is allowed and nothing recorded. Each function goes when the
 * real one comes. */
#include "prhelper.h"

PrConfig *pr_config_load(const char *path, gboolean must_exist, GPtrArray *problems)
{
    (void)path;
    (void)must_exist;
    (void)problems;
    return g_new0(PrConfig, 1);
}

void pr_config_free(PrConfig *config)
{
    g_free(config);
}

gboolean pr_audit_open(PrAudit *audit, char **ret_error)
{
    (void)audit;
    (void)ret_error;
    return TRUE;
}

void pr_audit_record(PrAudit *audit, const PrRecord *record)
{
    (void)audit;
    (void)record;
}

void pr_policy_decide(PrPolicy *policy, const PrCommand *command, PrDecision *ret_decision)
{
    (void)policy;
    (void)command;
    ret_decision->verdict = PR_ALLOW;
}

void pr_policy_note(PrPolicy *policy, const PrCommand *command, const PrReply *reply)
{
    (void)policy;
    (void)command;
    (void)reply;
}

void pr_policy_forget_peer(PrPolicy *policy, const PrPeer *peer)
{
    (void)policy;
    (void)peer;
}

static gboolean placeholder_takes(const PrConfig *config, const PrDevice *device)
{
    (void)config;
    (void)device;
    return FALSE;
}

const PrBackend pr_backend_mpath = {.name = "mpath", .takes = placeholder_takes};
const PrBackend pr_backend_kernel = {.name = "kernel", .takes = placeholder_takes};
