/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The log of commands: what prhelper.h does not show of it. A record becomes a line of a file, as
 * text or as JSON, or an entry of the journal.
 */
#pragma once

#include "prhelper/prhelper.h"

G_BEGIN_DECLS

/** The journal's MESSAGE_ID of every record: how `holdfast pr log` finds them. */
#define PR_AUDIT_MESSAGE_ID "6f0bd1a5b9d94d0c8f5c0d6f8f6f1a52"
#define PR_AUDIT_JOURNAL_SOCKET "/run/systemd/journal/socket"

typedef enum PrAuditKind {
    PR_AUDIT_NONE,
    PR_AUDIT_JOURNAL,
    PR_AUDIT_TEXT,
    PR_AUDIT_JSON
} PrAuditKind;

/** `path`: of the file, or of the journal's socket. */
PrAudit *pr_audit_new(PrAuditKind kind, const char *path);
/** Ends the writer; what is queued is written first, unless the file hangs. */
void pr_audit_free(PrAudit *audit);

/** The directory of the file, which has to stay writable; NULL: there is no file. */
const char *pr_audit_directory(const PrAudit *audit);
/** Opens the file again before the next record (SIGHUP, for logrotate). Does not block. */
void pr_audit_reopen(PrAudit *audit);

/* ---- a record as bytes; pure ----------------------------------------------------------------- */

/** One line with its newline. */
GString *pr_audit_format_text(const PrRecord *record);
GString *pr_audit_format_json(const PrRecord *record);
/** A datagram in the journal's own protocol (systemd's JOURNAL_NATIVE_PROTOCOL). */
GString *pr_audit_format_journal(const PrRecord *record);

G_END_DECLS
