/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Descriptors that go to the keeper in one message: to send each by itself takes the kernel a
 * third of what it takes to lock it, and wakes the keeper as often. Only what is to be sent is kept
 * here, and no descriptor owned; vault.c decides when. The message has a line FDNAME= for each
 * descriptor, in their order; systemd knows only one name for all, so that it gets none of these.
 */
#pragma once

#include <glib.h>

#include "keeper/keeper.h"

typedef struct VaultBatch {
    gboolean open; /* what is stored comes in here */
    guint n;
    int fds[KEEPER_MAX_FDS]; /* borrowed */
    char names[KEEPER_MAX_FDS][KEEPER_NAME_MAX + 1];
} VaultBatch;

/* TRUE if there is room for one just now. */
gboolean vault_batch_fits(int socket);
/* It must not be full. */
void vault_batch_add(VaultBatch *batch, const char *name, int fd);
gboolean vault_batch_is_full(const VaultBatch *batch);
/* Sends all of it. Returns 0 or a negative errno. */
int vault_batch_send(const VaultBatch *batch, int socket);
