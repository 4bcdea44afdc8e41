/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who may do what: rules from their text to the answer that a guest gets, and a second VM of one
 * host.
 */
#include "prhelper/policy.h"

#include <glib/gstdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/settings.h"
#include "pr-command.h"
#include "prhelper/audit.h"

static PrPolicy *policy_of(PrSecondVm second_vm, const char *const *texts)
{
    g_autoptr(GPtrArray) rules = pr_rules_new();
    g_autofree char *error = NULL;
    guint line = 0;
    PrPolicy *policy;

    for (guint i = 0; texts && texts[i]; i++) {
        PrRule *rule = pr_rule_parse(texts[i], i + 1, &error);

        g_assert_cmpstr(error, ==, NULL);
        g_ptr_array_add(rules, rule);
    }
    policy = pr_policy_new(rules, second_vm, &line, &error);
    g_assert_cmpstr(error, ==, NULL);
    return policy;
}

/* "" for yes, "conflict", or the sense data. */
static char *decide(PrPolicy *policy, const Fixture *f)
{
    PrDecision decision;
    char *text;

    pr_policy_decide(policy, &f->command, &decision);
    g_assert_true((decision.verdict == PR_ALLOW) == (decision.reason == NULL));
    if (decision.verdict == PR_ALLOW)
        text = g_strdup("");
    else if (decision.verdict == PR_WARN)
        text = g_strdup("warn");
    else if (decision.status == SPC_STATUS_RESERVATION_CONFLICT)
        text = g_strdup("conflict");
    else
        text = g_strdup_printf("%x/%02x/%02x", decision.sense.key, decision.sense.asc,
                               decision.sense.ascq);
    g_free(decision.reason);
    return text;
}

static void assert_decision(const char *rule, SpcOutAction action, guint64 key, guint64 service_key,
                            const char *expected)
{
    const char *const rules[] = {rule, NULL};
    PrPolicy *policy = policy_of(PR_SECOND_ALLOW, rules);
    g_autofree char *found = NULL;
    Fixture f;

    set_up(&f, action, key, service_key);
    found = decide(policy, &f);
    if (!g_str_equal(found, expected))
        g_error("%s, %s 0x%" G_GINT64_MODIFIER "x 0x%" G_GINT64_MODIFIER "x: '%s', not '%s'", rule,
                spc_out_action_name(action), key, service_key, found, expected);
    pr_policy_free(policy);
}

/* ---- rules ----------------------------------------------------------------------------------- */

static void test_no_rules(void)
{
    PrPolicy *policy = policy_of(PR_SECOND_ALLOW, NULL);
    g_autofree char *found = NULL;
    Fixture f;

    set_up(&f, SPC_OUT_CLEAR, 1, 0);
    f.command.has_parameters = FALSE; /* what the device cannot read, it refuses */
    found = decide(policy, &f);
    g_assert_cmpstr(found, ==, "");
    pr_policy_free(policy);
}

static void test_conditions(void)
{
    static const struct {
        const char *rule, *expected;
    } cases[] = {
        {"device=*", ""},
        {"device=naa.6001405a*", ""},
        {"device=naa.6001405b*", "5/20/02"},
        {"user=64055", ""},
        {"user=0", "5/20/02"},
        {"user=root group=108", "5/20/02"},
        {"group=108", ""},
        {"cgroup=/machine.slice/web*", ""},
        {"cgroup=/machine.slice/web", "5/20/02"},
        {"label=*", ""},
        {"label=libvirt-*", "5/20/02"}, /* has none */
        {"user=64055 device=naa.* cgroup=*web1*", ""},
        {"user=64055 device=naa.* cgroup=*web2*", "5/20/02"},
        {"device=* deny", "5/20/02"},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++)
        assert_decision(cases[i].rule, SPC_OUT_RESERVE, 0xa, 0, cases[i].expected);
}

static void test_keys(void)
{
    static const char rule[] = "device=* keys=0xa0-0xaf,0x100";

    assert_decision(rule, SPC_OUT_REGISTER, 0, 0xa0, "");
    assert_decision(rule, SPC_OUT_REGISTER, 0, 0xb0, "5/26/00");
    assert_decision(rule, SPC_OUT_REGISTER, 0xaf, 0, "");
    assert_decision(rule, SPC_OUT_REGISTER, 0xb0, 0xa0, "conflict");
    assert_decision(rule, SPC_OUT_REGISTER_IGNORE, 0xdead, 0x100, "");
    assert_decision(rule, SPC_OUT_REGISTER_IGNORE, 0, 0x101, "5/26/00");
    assert_decision(rule, SPC_OUT_RESERVE, 0xa5, 0, "");
    assert_decision(rule, SPC_OUT_RELEASE, 0xb0, 0, "conflict"); /* another VM's registration */
    assert_decision(rule, SPC_OUT_PREEMPT, 0xa1, 0xb0, "");
}

static void test_preempt_and_clear(void)
{
    assert_decision("device=* preempt=no", SPC_OUT_PREEMPT, 0xa, 0xb, "5/20/02");
    assert_decision("device=* preempt=no", SPC_OUT_PREEMPT_ABORT, 0xa, 0, "5/20/02");
    assert_decision("device=* preempt=no", SPC_OUT_PREEMPT, 0xa, 0xa, "");
    assert_decision("device=* preempt=no keys=0xa-0xb", SPC_OUT_PREEMPT, 0xa, 0xb, "");
    assert_decision("device=* preempt=no keys=0x0-0xb", SPC_OUT_PREEMPT, 0xa, 0, "5/20/02");
    assert_decision("device=* preempt=no", SPC_OUT_CLEAR, 0xa, 0, "");
    assert_decision("device=* clear=no", SPC_OUT_CLEAR, 0xa, 0, "5/20/02");
    assert_decision("device=* clear=no", SPC_OUT_PREEMPT, 0xa, 0xb, "");
}

static void test_first_rule_counts(void)
{
    static const char *const rules[] = {"user=1 deny", "cgroup=*web1* clear=no", "device=*", NULL};
    PrPolicy *policy = policy_of(PR_SECOND_ALLOW, rules);
    Fixture f;
    g_autofree char *first = NULL, *second = NULL, *third = NULL;

    set_up(&f, SPC_OUT_CLEAR, 1, 0);
    first = decide(policy, &f);
    g_assert_cmpstr(first, ==, "5/20/02");
    f.peer.cgroup = NULL;
    second = decide(policy, &f);
    g_assert_cmpstr(second, ==, "");
    f.command.has_parameters = FALSE;
    third = decide(policy, &f);
    g_assert_cmpstr(third, ==, "5/26/00");
    pr_policy_free(policy);
}

static void test_reading_has_rules_too(void)
{
    static const char *const rules[] = {"user=1", NULL};
    PrPolicy *policy = policy_of(PR_SECOND_ALLOW, rules);
    g_autofree char *found = NULL;
    Fixture f;

    set_up(&f, SPC_OUT_REGISTER, 0, 1);
    f.command.opcode = SPC_IN_OPCODE;
    found = decide(policy, &f);
    g_assert_cmpstr(found, ==, "5/20/02");
    pr_policy_free(policy);
}

static void test_bad_rules(void)
{
    static const char *const bad[] = {"",
                                      " ",
                                      "user",
                                      "user=",
                                      "usr=x",
                                      "keys=",
                                      "keys=x",
                                      "keys=1,",
                                      "keys=2-1",
                                      "keys=0x",
                                      "keys=-1",
                                      "preempt=maybe",
                                      "clear",
                                      "deny=1",
                                      "device=* bad",
                                      "\xff",
                                      "keys=0x1ffffffffffffffff"};

    for (gsize i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autofree char *error = NULL;
        g_autoptr(PrRule) rule = pr_rule_parse(bad[i], 1, &error);

        if (rule)
            g_error("'%s' was taken", bad[i]);
        g_assert_true(error && g_utf8_validate(error, -1, NULL));
    }
}

/* ---- the file -------------------------------------------------------------------------------- */

static PrConfig *load(const char *text, char **ret_problems)
{
    g_autoptr(GPtrArray) problems = settings_problems_new();
    g_autofree char *path = NULL;
    GString *told = g_string_new(NULL);
    PrConfig *config;
    int fd = g_file_open_tmp("hf-pr-XXXXXX", &path, NULL);

    g_assert_cmpint(write(fd, text, strlen(text)), ==, (int)strlen(text));
    close(fd);
    config = pr_config_load(path, TRUE, problems);
    for (guint i = 0; i < problems->len; i++) {
        const SettingsProblem *problem = g_ptr_array_index(problems, i);

        g_string_append_printf(told, "%u: %s\n", problem->line, problem->message);
    }
    g_unlink(path);
    *ret_problems = g_string_free(told, FALSE);
    return config;
}

static void test_config(void)
{
    g_autofree char *problems = NULL;
    PrConfig *config =
        load("pr_multipath = \"paths\"\npr_allow_stacked = 1\npr_rules = [\n \"user=0 deny\",\n "
             "\"device=*\" ]\npr_log = \"/tmp/x/pr.log\"\npr_log_format = 'json'\n",
             &problems);

    g_assert_cmpstr(problems, ==, "");
    g_assert_true(config->multipath == PR_MULTIPATH_PATHS && config->allow_stacked &&
                  !config->allow_partitions);
    g_assert_cmpstr(pr_audit_directory(config->audit), ==, "/tmp/x");
    pr_config_free(config);
}

static void test_config_errors(void)
{
    static const struct {
        const char *text, *told;
    } cases[] = {
        {"pr_rules = [ \"device=*\",\n\"keys=z\" ]", "2: pr_rules: 'z' is no key"},
        {"\npr_rules = [ \"user=no-such-user-here\" ]", "2: pr_rules: there is no user 'no-such"},
        {"pr_multipath = \"fast\"", "1: pr_multipath has to be \"auto\", \"library\" or \"paths\""},
        {"pr_log = \"pr.log\"", "1: pr_log has to be \"journal\" or \"none\" or an absolute path"},
        {"pr_log = \"/var/log/\"", "1: pr_log: '/var/log/' can't be the path of a file"},
        {"pr_allow_stacked = 2", "1: pr_allow_stacked is 0 (no) or 1 (yes), not 2"},
        {"pr_second_vm = 1", "1: pr_second_vm takes a string"},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *problems = NULL;

        g_assert_null(load(cases[i].text, &problems));
        if (!g_str_has_prefix(problems, cases[i].told))
            g_error("%s: %s", cases[i].text, problems);
    }
}

/* ---- two VMs --------------------------------------------------------------------------------- */

static pid_t start_vm(Fixture *f, const char *name)
{
    pid_t pid = fork();

    if (pid == 0) {
        pause();
        _exit(0);
    }
    f->peer.pid = pid;
    f->peer.pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    f->peer.vm = (char *)name;
    return pid;
}

static void end_vm(const Fixture *f)
{
    kill(f->peer.pid, SIGKILL);
    waitpid(f->peer.pid, NULL, 0);
    close(f->peer.pidfd);
}

static void test_second_vm(void)
{
    PrPolicy *policy = policy_of(PR_SECOND_REFUSE, NULL);
    PrDecision decision;
    Fixture web1, web2;
    g_autofree char *other_lun = NULL, *own = NULL, *gone = NULL;

    set_up(&web1, SPC_OUT_REGISTER, 0, 0xa);
    set_up(&web2, SPC_OUT_REGISTER_IGNORE, 0, 0xb);
    start_vm(&web1, "web1");
    start_vm(&web2, "web2");
    pr_policy_note(policy, &web1.command, &web1.reply);
    pr_policy_decide(policy, &web2.command, &decision);
    g_assert_true(decision.verdict == PR_REFUSE && decision.sense.asc == 0x55);
    g_assert_nonnull(strstr(decision.reason, "VM web1 (pid "));
    g_free(decision.reason);
    own = decide(policy, &web1);
    g_assert_cmpstr(own, ==, "");
    web2.device.wwid = (char *)"naa.other";
    other_lun = decide(policy, &web2);
    g_assert_cmpstr(other_lun, ==, "");
    web2.device.wwid = web1.device.wwid;
    /* a connection that ends is not a VM that ends */
    pr_policy_forget_peer(policy, &web1.peer);
    pr_policy_decide(policy, &web2.command, &decision);
    g_assert_true(decision.verdict == PR_REFUSE);
    g_free(decision.reason);
    end_vm(&web1);
    gone = decide(policy, &web2);
    g_assert_cmpstr(gone, ==, "");
    end_vm(&web2);
    pr_policy_free(policy);
}

static void test_second_vm_after_the_first(void)
{
    PrPolicy *policy = policy_of(PR_SECOND_WARN, NULL);
    Fixture web1, web2;
    g_autofree char *warned = NULL, *fine = NULL;

    set_up(&web1, SPC_OUT_REGISTER, 0, 0xa);
    start_vm(&web1, "web1");
    pr_policy_note(policy, &web1.command, &web1.reply);
    set_up(&web2, SPC_OUT_REGISTER, 0, 0xb);
    start_vm(&web2, "web2");
    warned = decide(policy, &web2);
    g_assert_cmpstr(warned, ==, "warn");
    /* the first one leaves */
    web1.command.parameters.service_key = 0;
    pr_policy_note(policy, &web1.command, &web1.reply);
    fine = decide(policy, &web2);
    g_assert_cmpstr(fine, ==, "");
    end_vm(&web1);
    end_vm(&web2);
    pr_policy_free(policy);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/pr-policy/no-rules", test_no_rules);
    g_test_add_func("/pr-policy/conditions", test_conditions);
    g_test_add_func("/pr-policy/keys", test_keys);
    g_test_add_func("/pr-policy/preempt-and-clear", test_preempt_and_clear);
    g_test_add_func("/pr-policy/first-rule", test_first_rule_counts);
    g_test_add_func("/pr-policy/reading", test_reading_has_rules_too);
    g_test_add_func("/pr-policy/bad-rules", test_bad_rules);
    g_test_add_func("/pr-policy/config", test_config);
    g_test_add_func("/pr-policy/config/errors", test_config_errors);
    g_test_add_func("/pr-policy/second-vm", test_second_vm);
    g_test_add_func("/pr-policy/second-vm/leaves", test_second_vm_after_the_first);
    return g_test_run();
}
