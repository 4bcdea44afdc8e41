/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One rule of pr_rules in holdfast.conf: which VM may do what with which LUN.
 *
 *     "cgroup=/machine.slice/machine-qemu-1-* device=naa.6001405* keys=0xa000-0xafff clear=no"
 *
 * Words of the form NAME=VALUE, in any order, separated by blanks. Conditions, all of which have to
 * hold: user, group (a name or a number), cgroup, label, device (the shell's wildcards). What is
 * then allowed: keys (numbers and ranges, separated by commas; without it all keys), preempt and
 * clear (yes or no). The word deny alone allows nothing.
 *
 * A value and its parser: no I/O, no state.
 */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

typedef struct PrKeyRange {
    guint64 first;
    guint64 last;
} PrKeyRange;

typedef struct PrRule {
    char *text; /**< as it was written */
    char *user; /**< NULL: everybody; the same for the next four */
    char *group;
    char *cgroup;
    char *label;
    char *device;
    GArray *keys; /**< of PrKeyRange; NULL: every key */
    gboolean deny;
    gboolean preempt; /**< keys of others may be preempted */
    gboolean clear;
    guint line; /**< of the file */
} PrRule;

/** NULL when `text` is no rule, with a sentence about it in `ret_error`. */
PrRule *pr_rule_parse(const char *text, guint line, char **ret_error);
void pr_rule_free(PrRule *rule);

/** Whether a VM under that rule may have that key. */
gboolean pr_rule_has_key(const PrRule *rule, guint64 key);

/** A key as people write it: "0xabc" or "2748". FALSE when it is none. */
gboolean pr_rule_parse_key(const char *text, guint64 *ret_key);

/** An array that frees its PrRule. */
GPtrArray *pr_rules_new(void);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(PrRule, pr_rule_free)

G_END_DECLS
