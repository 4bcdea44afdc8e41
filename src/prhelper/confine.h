/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the process may do once it serves. Each function is called once, before threads exist, in
 * this order; all fail with a sentence in `ret_error`, and the helper then refuses to start.
 */
#pragma once

#include <glib.h>
#include <stdint.h>
#include <sys/types.h>

G_BEGIN_DECLS

/** A sanitizer's run-time needs calls and files that no helper does: it writes its reports, and
 * looks for leaks with a tracer. Such a build is confined in form only; programs it still can't
 * start. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define PR_CONFINE_LOOSELY 1
#else
#define PR_CONFINE_LOOSELY 0
#endif

/** Who to become. */
typedef struct PrIdentity {
    uid_t uid;
    gid_t gid;
    gboolean change_uid;
    gboolean change_gid;
} PrIdentity;

/**
 * Looks up the names of -u and -g, numbers are taken as they are; NULL: not given. A user without a
 * group brings its own group. Reads the user database: before anything is dropped.
 */
gboolean pr_confine_identity(const char *user, const char *group, PrIdentity *ret_identity,
                             char **ret_error);

/**
 * Becomes `identity` and keeps, of what it has, `capabilities` (1 << CAP_*); for ever. A helper
 * that lacks some of them warns and goes on: it may be a test, or a container.
 */
gboolean pr_confine_privileges(const PrIdentity *identity, uint64_t capabilities, char **ret_error);

/**
 * Of the file system, only reading /proc and /sys, /dev/null, removing files from the directories
 * of `removed`, whose elements may be NULL, and writing files in the directory `log`, which may be
 * NULL (Landlock). A kernel without it is no error: then *ret_active is FALSE.
 */
gboolean pr_confine_files(const char *const removed[], gsize n_removed, const char *log,
                          gboolean *ret_active, char **ret_error);

/** Of the system calls, only those that serving needs; another one fails with EPERM (seccomp). */
gboolean pr_confine_calls(char **ret_error);

G_END_DECLS
