/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The vault: where descriptors survive the daemon, and the file with what belongs to them. The
 * descriptors go to a supervisor in the words of sd_notify(3): systemd's file-descriptor store, or
 * our own keeper. It knows nothing of leases; handover.c does.
 *
 * Nothing here waits: a message that does not fit into the supervisor's socket now is sent when
 * it does, and vault_commit() tells when all has gone. From then on the kernel holds the
 * descriptors in that socket, whatever becomes of this process.
 *
 * All functions are for the main thread.
 */
#pragma once

#include <glib.h>
#include <systemd/sd-event.h>

typedef struct Vault Vault;

/* What begins with this is a listening socket. */
#define VAULT_SOCKET_PREFIX "s-"

typedef enum VaultKind {
    VAULT_NONE,    /* no supervisor: what is stored is lost with the process */
    VAULT_SYSTEMD, /* its file-descriptor store */
    VAULT_KEEPER,  /* holdfast-keeper */
} VaultKind;

/* Looks for a supervisor in the environment, and takes over what it has kept for us. `ledger_path`
 * is the file for vault_write(). Returns 0 or a negative errno. */
int vault_new(sd_event *event, const char *ledger_path, Vault **ret_vault);
void vault_free(Vault *vault);

/* Called when the keeper has ended, and nothing survives any more. */
void vault_on_lost(Vault *vault, void (*func)(void *data), void *data);
/* Called when the keeper has no room for what was stored under that name. */
void vault_on_refused(Vault *vault, void (*func)(const char *name, void *data), void *data);
/* FALSE while there is such a name in use. */
gboolean vault_has_all(const Vault *vault);
VaultKind vault_kind(const Vault *vault);
const char *vault_kind_name(const Vault *vault);
/* How many descriptors are stored. */
guint vault_count(const Vault *vault);

/* The descriptor that was kept under that name, which is the caller's from now on and stays stored;
 * -1 if there is none. */
int vault_take(Vault *vault, const char *name);
/* It will be taken later. FALSE if nothing was kept under that name, or somebody was quicker. */
gboolean vault_claim(Vault *vault, const char *name);
/* The names that were kept and nobody has taken or claimed: a new array of char *. */
GPtrArray *vault_untaken(Vault *vault);

/* A name that is not in use; a new string. */
char *vault_new_name(Vault *vault);
/* Stores a copy of the descriptor. FALSE if that needs a descriptor of ours just now and there is
 * none: then nothing was stored, and the name may be used again. */
gboolean vault_store(Vault *vault, const char *name, int fd);
/* What is stored from now on may be sent together, with the next vault_commit() at the latest. The
 * descriptors have to stay open until then. */
void vault_hold(Vault *vault);
/* Removes what is stored under the name, which may then be used again. */
void vault_remove(Vault *vault, const char *name);

typedef void (*VaultDone)(void *data);
/* Calls done() once all that was stored before is on its way and `text` is in the ledger: perhaps
 * before it returns. The ledger is written last, so that it never names what is not stored. */
void vault_commit(Vault *vault, const char *text, gsize len, VaultDone done, void *data);
/* TRUE if there are such that have not been called yet: the ledger lacks their text, and so far may
 * not name what belongs to it. */
gboolean vault_is_waiting(const Vault *vault);
/* Appends to the ledger now. */
void vault_write(Vault *vault, const char *text, gsize len);
/* The whole ledger that the last daemon left, which from now on is written to; a new string, never
 * NULL. */
char *vault_read(Vault *vault, gsize *ret_len);
/* What is behind the first `len` bytes of it goes. FALSE if there is nothing to be written to: then
 * it has to be written anew. */
gboolean vault_cut(Vault *vault, gsize len);
/* Replaces the ledger. */
void vault_rewrite(Vault *vault, const char *text, gsize len);
/* FALSE if something could not be written: the ledger has to be written anew. */
gboolean vault_ledger_is_whole(const Vault *vault);
/* Bytes in the ledger. */
gsize vault_ledger_size(const Vault *vault);
/* Removes the ledger: nothing is held any more. */
void vault_remove_ledger(Vault *vault);
/* Tells the supervisor that the daemon serves. */
void vault_ready(Vault *vault);
/* Tells the keeper the exit code that will follow, for storage may keep the process from ending. */
void vault_leave(Vault *vault, int code);
