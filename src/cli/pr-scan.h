/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a device says of its persistent reservations, and what /sys says of who this host is for it.
 * Sends PERSISTENT RESERVE IN and nothing else; blocks as long as the device does, some 10 s at
 * most for each question.
 */
#pragma once

#include <glib.h>

#include "prhelper/spc-in.h"

typedef enum PrTernary { PR_UNKNOWN, PR_NO, PR_YES } PrTernary;

typedef struct PrScanRegistration {
    guint64 key;
    char *initiator;     /* NULL: the device does not say */
    guint16 target_port; /* 0: the same */
    gboolean holder;
    PrTernary this_host;
} PrScanRegistration;

typedef struct PrScanPath {
    char *name;      /* "sdb" */
    char *state;     /* as the kernel has it: "running" */
    char *initiator; /* of this path; NULL: can't be told */
    guint16 target_port;
    PrTernary registered;
    guint64 key; /* when it is */
} PrScanPath;

typedef struct PrScan {
    char *disk; /* "dm-0" */
    char *wwid; /* NULL: none is known */
    guint32 generation;
    gboolean held;
    guint8 type;
    guint64 holder;           /* key; 0: all registrants */
    GPtrArray *registrations; /* of PrScanRegistration */
    GPtrArray *paths;         /* of PrScanPath; empty unless it is a multipath device */
} PrScan;

/* NULL with a sentence in `ret_error` when the device can't be asked. */
PrScan *pr_scan(const char *device, char **ret_error);
void pr_scan_free(PrScan *scan);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(PrScan, pr_scan_free)

/* ---- pure ------------------------------------------------------------------------------------ */

/* The relative port in an answer to INQUIRY's page 83h (SPC-4, 7.8.5); 0: there is none. */
guint16 pr_scan_port_of_page(const guint8 *page, gsize len);
/* Whether a TransportID in words is that initiator: "iqn.x" is "iqn.x,i,0x..." too. */
gboolean pr_scan_is_initiator(const char *transport_id, const char *initiator);
