/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ledger: the facts of each lease, kept in the run-time directory for the next daemon. The
 * descriptors that belong to them are with the supervisor, under the names that the ledger tells.
 *
 * A text file that is only appended to, and written anew now and then:
 *
 *     HOLDFAST LEDGER 1
 *     CRC owner<TAB>key=value<TAB>...     an owner, or what is new about it
 *     CRC lease<TAB>key=value<TAB>...     a lease, or what is new about it
 *     CRC free<TAB>id=ID                  the lease is released
 *     CRC gone<TAB>id=ID                  the owner is forgotten
 *
 * CRC is the CRC-32 of the rest of the line (ISO 3309, as zlib's) in eight hexadecimal digits.
 * Values are escaped as C strings. A later line about an id replaces an earlier one. Keys that are
 * not known are skipped and missing ones have a default, so that the next and the previous version
 * can read it; a change that they could not bear gets another number in the first line. A last line
 * that is torn is as if it had not been written.
 *
 * Codec only: bytes to structs and back, no I/O. Safe in any thread.
 */
#pragma once

#include "core/fault.h"

#define LEDGER_HEADER "HOLDFAST LEDGER 1\n"

/* All strings are borrowed: of who writes, or of the ledger that was read. */
typedef struct LedgerOwner {
    const char *id;
    const char *name; /* each of these three may be NULL */
    const char *uuid;
    const char *uri;
    pid_t pid;
    guint64 start_ticks;
    gboolean until_close;
    const char *pidfd; /* name of the descriptor; NULL: none */
    const char *conns; /* names of connections that its leases last with, with commas; NULL: none */
} LedgerOwner;

typedef struct LedgerPart {
    const char *driver;
    const char *space;
    const char *key;
    const char *fds;   /* names of the descriptors, with commas between them; "" for none */
    const char *bytes; /* what the driver saved, in hexadecimal */
} LedgerPart;

typedef struct LedgerLease {
    const char *id;
    const char *owner; /* id */
    const char *disk;  /* may be NULL */
    gint64 since_usec;
    hf_mode mode;
    guint count;
    guint n_claims;
    guint n_parts; /* at least one */
    const char **claims;
    LedgerPart *parts;
} LedgerLease;

typedef struct Ledger {
    GHashTable *owners; /* id -> LedgerOwner */
    GHashTable *leases; /* id -> LedgerLease */
    guint lines;        /* all of them */
    guint damaged;      /* those that were skipped */
    gsize whole;        /* bytes up to the end of the last line that is not torn */
    /* of ledger.c */
    char *text;
    struct LedgerBlock *blocks;
} Ledger;

/* Appends a line. */
void ledger_put_owner(GString *out, const LedgerOwner *owner);
void ledger_put_lease(GString *out, const LedgerLease *lease);
void ledger_put_free(GString *out, const char *lease_id);
void ledger_put_gone(GString *out, const char *owner_id);

/* What a file of `len` bytes says in the end; NULL with a fault if it is of another version or no
 * ledger at all. An empty file is an empty ledger. Takes `text` over, which has a NUL behind it. */
Ledger *ledger_parse(char *text, gsize len, Fault **ret_fault);
void ledger_free(Ledger *ledger);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Ledger, ledger_free)
