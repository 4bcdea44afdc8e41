/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What may be done to which LUN by whom: what prhelper.h does not show of it. Rules are those of
 * pr_rules in holdfast.conf; besides, the policy remembers which VM has registered where.
 */
#pragma once

#include "core/pr-rule.h"
#include "prhelper/prhelper.h"

G_BEGIN_DECLS

typedef enum PrSecondVm { PR_SECOND_ALLOW, PR_SECOND_WARN, PR_SECOND_REFUSE } PrSecondVm;

/**
 * A policy with these rules (of PrRule; a reference is kept). Looks names of users and groups up:
 * NULL when there is no such user, with a sentence and `ret_line`, the line of that rule.
 */
PrPolicy *pr_policy_new(GPtrArray *rules, PrSecondVm second_vm, guint *ret_line, char **ret_error);
void pr_policy_free(PrPolicy *policy);

G_END_DECLS
