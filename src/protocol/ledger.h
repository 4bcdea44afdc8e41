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

typedef struct LedgerOwner {
    char *id;
    char *name; /* each of these three may be NULL */
    char *uuid;
    char *uri;
    pid_t pid;
    guint64 start_ticks;
    gboolean until_close;
    char *pidfd; /* name of the descriptor; NULL: none */
    char *conns; /* names of connections that its leases last with, with commas; NULL: none */
} LedgerOwner;

typedef struct LedgerPart {
    char *driver;
    char *space;
    char *key;
    char *fds;   /* names of the descriptors, with commas between them; "" for none */
    char *bytes; /* what the driver saved, in hexadecimal */
} LedgerPart;

typedef struct LedgerLease {
    char *id;
    char *owner; /* id */
    char *disk;  /* may be NULL */
    hf_mode mode;
    gint64 since_usec;
    guint count;
    GPtrArray *claims; /* of char * */
    GPtrArray *parts;  /* of LedgerPart, at least one */
} LedgerLease;

typedef struct Ledger {
    GHashTable *owners; /* id -> LedgerOwner */
    GHashTable *leases; /* id -> LedgerLease */
    guint damaged;      /* lines that were skipped */
} Ledger;

/* Appends a line. */
void ledger_put_owner(GString *out, const LedgerOwner *owner);
void ledger_put_lease(GString *out, const LedgerLease *lease);
void ledger_put_free(GString *out, const char *lease_id);
void ledger_put_gone(GString *out, const char *owner_id);

LedgerLease *ledger_lease_new(void);
void ledger_lease_free(LedgerLease *lease);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(LedgerLease, ledger_lease_free)
LedgerPart *ledger_lease_add_part(LedgerLease *lease);

/* What a file of `len` bytes says in the end; NULL with a fault if it is of another version or no
 * ledger at all. An empty file is an empty ledger. */
Ledger *ledger_parse(const char *text, gsize len, Fault **ret_fault);
void ledger_free(Ledger *ledger);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Ledger, ledger_free)
