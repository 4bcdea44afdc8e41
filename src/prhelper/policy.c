/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The policy. What a refused guest is told, and why just that:
 *
 *   the LUN is not for this VM        ILLEGAL REQUEST, ACCESS DENIED - NO ACCESS RIGHTS: nothing
 * that trying again could change it must not preempt or clear      the same, and not RESERVATION
 * CONFLICT: after a PREEMPT that says "the victim is not registered", which cluster software may
 *                                     take for "is fenced already", and go on to write
 *   a key to register that it may     ILLEGAL REQUEST, INVALID FIELD IN PARAMETER LIST
 *   not have
 *   it speaks with such a key         RESERVATION CONFLICT: what a device says to the wrong key
 *   a second VM of this host          ILLEGAL REQUEST, INSUFFICIENT REGISTRATION RESOURCES
 *   a command that cannot be read     ILLEGAL REQUEST, INVALID FIELD IN PARAMETER LIST; only where
 *                                     there are rules, otherwise it is for the device to refuse
 *
 * The table of registered VMs is protected by a mutex that is held for a few instructions. It does
 * not survive a restart of the helper; a VM is entered again with the first command that shows its
 * registration.
 */
#define G_LOG_DOMAIN "holdfast.pr"

#include "prhelper/policy.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <grp.h>
#include <poll.h>
#include <pthread.h>
#include <pwd.h>
#include <string.h>
#include <unistd.h>

/* A rule with the numbers of its user and group. */
typedef struct PolicyRule {
    const PrRule *rule;
    uid_t uid;
    gid_t gid;
} PolicyRule;

/* A VM that is registered on a LUN. */
typedef struct PolicyUse {
    char *lun;
    pid_t pid;
    int pidfd; /* our own copy */
    char *vm;  /* NULL: can't be told */
} PolicyUse;

struct PrPolicy {
    GPtrArray *rules; /* of PrRule */
    GArray *compiled; /* of PolicyRule */
    PrSecondVm second_vm;
    pthread_mutex_t mutex; /* around `uses` */
    GPtrArray *uses;       /* of PolicyUse */
};

/* ---- rules --------------------------------------------------------------------------------- */

static gboolean policy_find_user(const char *name, uid_t *ret_uid)
{
    guint64 number;
    const struct passwd *entry;

    if (g_ascii_string_to_unsigned(name, 10, 0, G_MAXUINT32 - 1, &number, NULL)) {
        *ret_uid = (uid_t)number;
        return TRUE;
    }
    entry = getpwnam(name);
    if (entry)
        *ret_uid = entry->pw_uid;
    return entry != NULL;
}

static gboolean policy_find_group(const char *name, gid_t *ret_gid)
{
    guint64 number;
    const struct group *entry;

    if (g_ascii_string_to_unsigned(name, 10, 0, G_MAXUINT32 - 1, &number, NULL)) {
        *ret_gid = (gid_t)number;
        return TRUE;
    }
    entry = getgrnam(name);
    if (entry)
        *ret_gid = entry->gr_gid;
    return entry != NULL;
}

static gboolean policy_compile(PrPolicy *policy, guint *ret_line, char **ret_error)
{
    for (guint i = 0; i < policy->rules->len; i++) {
        PolicyRule compiled = {.rule = g_ptr_array_index(policy->rules, i)};

        *ret_line = compiled.rule->line;
        if (compiled.rule->user && !policy_find_user(compiled.rule->user, &compiled.uid)) {
            *ret_error = g_strdup_printf("there is no user '%s'", compiled.rule->user);
            return FALSE;
        }
        if (compiled.rule->group && !policy_find_group(compiled.rule->group, &compiled.gid)) {
            *ret_error = g_strdup_printf("there is no group '%s'", compiled.rule->group);
            return FALSE;
        }
        g_array_append_val(policy->compiled, compiled);
    }
    return TRUE;
}

/* Without a value nothing but "*" fits. */
static gboolean policy_fits(const char *pattern, const char *value)
{
    return !pattern || fnmatch(pattern, value ? value : "", 0) == 0;
}

static const PrRule *policy_find_rule(const PrPolicy *policy, const PrCommand *command)
{
    const PrPeer *peer = command->peer;

    for (guint i = 0; i < policy->compiled->len; i++) {
        const PolicyRule *compiled = &g_array_index(policy->compiled, PolicyRule, i);
        const PrRule *rule = compiled->rule;

        if ((!rule->user || compiled->uid == peer->uid) &&
            (!rule->group || compiled->gid == peer->gid) &&
            policy_fits(rule->cgroup, peer->cgroup) && policy_fits(rule->label, peer->label) &&
            policy_fits(rule->device, command->device->wwid))
            return rule;
    }
    return NULL;
}

/* ---- decisions ------------------------------------------------------------------------------- */

static void policy_refuse(PrDecision *decision, int32_t status, SpcSense sense, char *reason)
{
    *decision =
        (PrDecision){.verdict = PR_REFUSE, .status = status, .sense = sense, .reason = reason};
}

static void policy_refuse_sense(PrDecision *decision, SpcSense sense, char *reason)
{
    policy_refuse(decision, SPC_STATUS_CHECK_CONDITION, sense, reason);
}

static gboolean policy_is_preempt(const PrCommand *command)
{
    return command->action == SPC_OUT_PREEMPT || command->action == SPC_OUT_PREEMPT_ABORT;
}

static gboolean policy_is_register(const PrCommand *command)
{
    return command->action == SPC_OUT_REGISTER || command->action == SPC_OUT_REGISTER_IGNORE ||
           command->action == SPC_OUT_REGISTER_MOVE;
}

/* The keys of a command that is for somebody under `rule`. */
static void policy_decide_keys(const PrRule *rule, const PrCommand *command, PrDecision *decision)
{
    const PrOutParameters *parameters = &command->parameters;
    gboolean speaks = command->action != SPC_OUT_REGISTER_IGNORE && parameters->key != 0;

    if (speaks && !pr_rule_has_key(rule, parameters->key))
        policy_refuse(decision, SPC_STATUS_RESERVATION_CONFLICT, (SpcSense){0},
                      g_strdup_printf("key 0x%" G_GINT64_MODIFIER "x is not one of this VM's, line "
                                      "%u of pr_rules",
                                      parameters->key, rule->line));
    else if (policy_is_register(command) && parameters->service_key != 0 &&
             !pr_rule_has_key(rule, parameters->service_key))
        policy_refuse_sense(decision, SPC_SENSE_INVALID_FIELD_IN_PARAMETERS,
                            g_strdup_printf("this VM must not register key 0x%" G_GINT64_MODIFIER
                                            "x, line %u of pr_rules",
                                            parameters->service_key, rule->line));
}

/* A preempt is one of foreign keys unless its victim is a key that the VM itself may have; without
 * a list of keys only the VM's own key is surely that. Victim 0 means everybody else. */
static gboolean policy_is_foreign(const PrRule *rule, const PrCommand *command)
{
    guint64 victim = command->parameters.service_key;

    return victim == 0 ||
           (victim != command->parameters.key && (!rule->keys || !pr_rule_has_key(rule, victim)));
}

static void policy_decide_out(const PrRule *rule, const PrCommand *command, PrDecision *decision)
{
    if (!command->has_parameters)
        policy_refuse_sense(decision, SPC_SENSE_INVALID_FIELD_IN_PARAMETERS,
                            g_strdup("the command cannot be understood, and rules apply to it"));
    else if (command->action == SPC_OUT_CLEAR && !rule->clear)
        policy_refuse_sense(decision, SPC_SENSE_ACCESS_DENIED,
                            g_strdup_printf("this VM must not clear reservations, line %u of "
                                            "pr_rules",
                                            rule->line));
    else if (policy_is_preempt(command) && !rule->preempt && policy_is_foreign(rule, command))
        policy_refuse_sense(decision, SPC_SENSE_ACCESS_DENIED,
                            g_strdup_printf("this VM must not preempt the key of others, line %u "
                                            "of pr_rules",
                                            rule->line));
    else
        policy_decide_keys(rule, command, decision);
}

static void policy_decide_rules(const PrPolicy *policy, const PrCommand *command,
                                PrDecision *decision)
{
    const PrRule *rule = policy_find_rule(policy, command);

    if (!rule)
        policy_refuse_sense(decision, SPC_SENSE_ACCESS_DENIED,
                            g_strdup("no rule of pr_rules gives this LUN to this VM"));
    else if (rule->deny)
        policy_refuse_sense(decision, SPC_SENSE_ACCESS_DENIED,
                            g_strdup_printf("line %u of pr_rules denies it", rule->line));
    else if (command->opcode == SPC_OUT_OPCODE)
        policy_decide_out(rule, command, decision);
}

/* ---- who uses a LUN ---------------------------------------------------------------------------
 */

static void policy_use_free(gpointer data)
{
    PolicyUse *use = data;

    close(use->pidfd);
    g_free(use->lun);
    g_free(use->vm);
    g_free(use);
}

static gboolean policy_lives(int pidfd)
{
    struct pollfd fd = {.fd = pidfd, .events = POLLIN};

    return poll(&fd, 1, 0) == 0;
}

/* What two VMs share: the LUN, whatever path or map leads to it. */
static char *policy_lun(const PrDevice *device)
{
    if (*device->wwid)
        return g_strdup(device->wwid);
    return g_strdup_printf("%c%lx", device->is_char ? 'c' : 'b', (unsigned long)device->dev);
}

/* With the mutex held. Drops those that have ended. */
static PolicyUse *policy_find_use(PrPolicy *policy, const char *lun, pid_t pid, gboolean other)
{
    for (guint i = policy->uses->len; i-- > 0;) {
        PolicyUse *use = g_ptr_array_index(policy->uses, i);

        if (!policy_lives(use->pidfd))
            g_ptr_array_remove_index_fast(policy->uses, i);
    }
    for (guint i = 0; i < policy->uses->len; i++) {
        PolicyUse *use = g_ptr_array_index(policy->uses, i);

        if (g_str_equal(use->lun, lun) && (use->pid == pid) != other)
            return use;
    }
    return NULL;
}

static void policy_decide_second(PrPolicy *policy, const PrCommand *command, PrDecision *decision)
{
    g_autofree char *lun = policy_lun(command->device);
    g_autofree char *reason = NULL;
    const PolicyUse *other;

    pthread_mutex_lock(&policy->mutex);
    other = policy_find_use(policy, lun, command->peer->pid, TRUE);
    if (other)
        reason = g_strdup_printf("%s%s (pid %d) of this host is registered on the LUN too, and for "
                                 "the LUN both are one",
                                 other->vm ? "VM " : "another process", other->vm ? other->vm : "",
                                 (int)other->pid);
    pthread_mutex_unlock(&policy->mutex);
    if (!reason)
        return;
    if (policy->second_vm == PR_SECOND_REFUSE)
        policy_refuse_sense(decision, SPC_SENSE_INSUFFICIENT_REGISTRATION,
                            g_steal_pointer(&reason));
    else
        *decision = (PrDecision){.verdict = PR_WARN, .reason = g_steal_pointer(&reason)};
}

void pr_policy_decide(PrPolicy *policy, const PrCommand *command, PrDecision *ret_decision)
{
    *ret_decision = (PrDecision){.verdict = PR_ALLOW};
    if (policy->rules->len > 0)
        policy_decide_rules(policy, command, ret_decision);
    /* Taking a registration away harms nobody else. */
    if (ret_decision->verdict == PR_ALLOW && policy->second_vm != PR_SECOND_ALLOW &&
        command->opcode == SPC_OUT_OPCODE && policy_is_register(command) &&
        command->has_parameters && command->parameters.service_key != 0 && command->peer->pid > 0)
        policy_decide_second(policy, command, ret_decision);
}

static void policy_enter(PrPolicy *policy, const char *lun, const PrPeer *peer)
{
    PolicyUse *use;
    int pidfd;

    if (policy_find_use(policy, lun, peer->pid, FALSE))
        return;
    pidfd = fcntl(peer->pidfd, F_DUPFD_CLOEXEC, 3);
    if (pidfd < 0)
        return;
    use = g_new0(PolicyUse, 1);
    use->lun = g_strdup(lun);
    use->pid = peer->pid;
    use->pidfd = pidfd;
    use->vm = g_strdup(peer->vm);
    g_ptr_array_add(policy->uses, use);
}

void pr_policy_note(PrPolicy *policy, const PrCommand *command, const PrReply *reply)
{
    g_autofree char *lun = NULL;
    gboolean leaves;

    if (policy->second_vm == PR_SECOND_ALLOW || command->opcode != SPC_OUT_OPCODE ||
        reply->status != SPC_STATUS_GOOD || !command->has_parameters || command->peer->pid <= 0 ||
        command->peer->pidfd < 0)
        return;
    lun = policy_lun(command->device);
    leaves = command->action == SPC_OUT_CLEAR ||
             (command->action == SPC_OUT_REGISTER_MOVE && command->parameters.unregister) ||
             (policy_is_register(command) && command->action != SPC_OUT_REGISTER_MOVE &&
              command->parameters.service_key == 0);
    pthread_mutex_lock(&policy->mutex);
    if (leaves) {
        PolicyUse *use;

        /* CLEAR, or the end of the one registration that all of them share */
        while ((use = policy_find_use(policy, lun, 0, TRUE)))
            g_ptr_array_remove_fast(policy->uses, use);
    } else {
        policy_enter(policy, lun, command->peer);
    }
    pthread_mutex_unlock(&policy->mutex);
}

/* A VM that closes its connection keeps its registration; only its end ends it here. */
void pr_policy_forget_peer(PrPolicy *policy, const PrPeer *peer)
{
    pthread_mutex_lock(&policy->mutex);
    policy_find_use(policy, "", peer->pid, FALSE);
    pthread_mutex_unlock(&policy->mutex);
}

/* ---- all of it ------------------------------------------------------------------------------- */

PrPolicy *pr_policy_new(GPtrArray *rules, PrSecondVm second_vm, guint *ret_line, char **ret_error)
{
    PrPolicy *policy = g_new0(PrPolicy, 1);

    policy->rules = g_ptr_array_ref(rules);
    policy->compiled = g_array_new(FALSE, FALSE, sizeof(PolicyRule));
    policy->second_vm = second_vm;
    policy->uses = g_ptr_array_new_with_free_func(policy_use_free);
    pthread_mutex_init(&policy->mutex, NULL);
    if (policy_compile(policy, ret_line, ret_error))
        return policy;
    pr_policy_free(policy);
    return NULL;
}

void pr_policy_free(PrPolicy *policy)
{
    if (!policy)
        return;
    g_ptr_array_unref(policy->uses);
    g_array_unref(policy->compiled);
    g_ptr_array_unref(policy->rules);
    pthread_mutex_destroy(&policy->mutex);
    g_free(policy);
}
