/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The gates in front of the devices: commands enter in the order in which they came, and nobody
 * waits for ever. A command that changes something is alone in there; those that only read, which
 * a SCSI device can deal with together, share the gate.
 *
 * A command that does not return (storage that hangs, PREEMPT AND ABORT over tcm_loop) keeps its
 * own thread and its device's gate, and nothing else. Seconds after it has entered:
 *
 *      0   A enters. B, for the same device, waits (or shares the gate, and has the fate of A).
 *      5   PR_GATE_PATIENCE: B has waited enough. BUSY: "nothing was done, try again later"
 *          (SAM-5, 5.3.1). Whoever comes from now on gets that at once, until A has returned.
 *     20   The kernel's own time limit for A (PR_SG_TIMEOUT in sg-io.c). Mostly its error handler
 *          makes A return now, with a sense of COMMAND TIMEOUT, and all is as before.
 *     30   PR_GATE_ABANDON: A's connection is shut, since QEMU holds a lock for as long as it
 *          waits, so that the VM's other disks would wait as well. QEMU tells the guest ABORTED
 *          COMMAND, LOGICAL UNIT COMMUNICATION FAILURE: true, nobody knows what became of A. For
 *          its next command QEMU connects again; for this device that is BUSY, for others it works.
 *     60   A guest's own time limit for a command like A (sg3_utils, Windows), which so never
 *          passes without an answer.
 *
 * When A returns at last, its thread finds the connection shut and ends; nothing is left.
 *
 * There is one mutex, around the list of gates. It is held for a few instructions and over no call
 * that can block.
 */
#pragma once

#include <pthread.h>

#include "prhelper.h"

G_BEGIN_DECLS

#define PR_GATE_PATIENCE_MSEC 5000
#define PR_GATE_ABANDON_MSEC 30000
/* Commands that read, in one device at once: enough to keep it busy, and so many threads at most
 * hang in it with them. */
#define PR_GATE_SHARED_MAX 16

typedef struct PrGate PrGate;

/** A command's place at a gate. On the stack of its thread, from pr_gate_enter() to _leave(). */
typedef struct PrTicket {
    const PrCommand *command;
    int socket;      /**< of its connection */
    gboolean shared; /**< others that are shared may be inside as well */
    /* private */
    PrGate *gate;
    struct PrTicket *next;
    pthread_cond_t turn; /* only while it waits */
    gint64 since_msec;   /* inside since then */
    gboolean is_inside;
    gboolean reported;
    gboolean abandoned;
} PrTicket;

/** Before the first thread. Returns 0 or a negative errno. */
int pr_gate_init(void);

/**
 * Waits for the gate of device `dev`. FALSE: a command is stuck in it, or it took too long; the
 * ticket is void. Otherwise pr_gate_leave() has to follow, in the same thread.
 */
gboolean pr_gate_enter(PrTicket *ticket, dev_t dev, gboolean is_char);
void pr_gate_leave(PrTicket *ticket);

/** The same without waiting: FALSE, and the ticket is void, unless nobody is there. */
gboolean pr_gate_try(PrTicket *ticket, dev_t dev, gboolean is_char);

/**
 * For the main thread: the descriptor becomes readable when commands are under way after a time of
 * rest. Then pr_gate_watch() wants to be called about once a second, until it returns FALSE. It
 * reports commands that do not return, and shuts their connections.
 */
int pr_gate_watch_fd(void);
gboolean pr_gate_watch(void);

/** How many commands are inside now, and how many of these have been abandoned. Any thread. */
guint pr_gate_count(guint *ret_abandoned);

G_END_DECLS
