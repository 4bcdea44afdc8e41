/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the vault's files share; for no other file. */
#pragma once

#include "vault-batch.h"
#include "vault.h"

/* Names that vault_new_name() makes are numbers, and up to this one they are kept as such. */
#define VAULT_NUMBERS (1024 * 1024)

/* Which names are in use, and what was kept under them: a descriptor, or one of these. */
#define VAULT_FREE (-1)    /* not in use */
#define VAULT_TAKEN (-2)   /* in use, its descriptor is none of ours */
#define VAULT_CLAIMED (-3) /* this and below: as VAULT_CLAIMED - fd, kept and spoken for */

typedef struct VaultNames {
    GArray *numbers;    /* of int, by the name's number */
    GHashTable *others; /* name -> int: the names that are no numbers */
    guint in_use;
    guint next;   /* below it all have been in use */
    GArray *free; /* of guint, below `next`: not in use any more */
} VaultNames;

struct Vault {
    VaultKind kind;
    int socket;
    void (*on_lost)(void *data);
    void *lost_data;
    void (*on_refused)(const char *name, void *data);
    void *refused_data;
    GHashTable *refused;     /* set of names that are in use, and for which there was no room */
    sd_event_source *source; /* of the socket: room in it, and its end */
    GQueue messages;         /* of VaultMessage */
    guint64 queued;          /* messages ever queued or sent */
    guint64 sent;
    GQueue commits;         /* of VaultCommit */
    gboolean takes_batches; /* the supervisor is a keeper that knows them */
    VaultBatch batch;
    VaultNames names;
    /* of vault-ledger.c */
    char *path;
    int ledger;
    gsize size;
    gboolean torn; /* something could not be written */
};

/* ---- vault-names.c --------------------------------------------------------------------- */

void vault_names_init(VaultNames *names);
/* Closes what nobody has taken. */
void vault_names_clear(VaultNames *names);
/* The supervisor has kept that descriptor, which is ours. */
void vault_names_found(VaultNames *names, const char *name, int fd);
gboolean vault_is_stored(const Vault *vault, const char *name);
/* It is in use; it is not any more. */
void vault_names_use(VaultNames *names, const char *name);
void vault_names_forget(VaultNames *names, const char *name);

/* ---- vault-ledger.c -------------------------------------------------------------------- */

void vault_ledger_close(Vault *vault);
