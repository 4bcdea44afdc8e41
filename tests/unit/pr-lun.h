/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A LUN for tests of several paths, made of SPC-4's sentences: each path is a registrant of its
 * own, some die, some have no room, answers get lost. It knows the standard and none of Holdfast's
 * rules, so that it cannot agree with a mistake in them.
 */
#pragma once

#include <glib.h>

#include "prhelper/mpath/paths.h"

#define OURS 3    /* paths 0 to 2 */
#define FOREIGN 3 /* the nexus of another host */
#define NEXUSES 5

typedef struct Nexus {
    guint64 key; /* 0: not registered */
    gboolean dead;
    gboolean mute; /* carries out, and the answer is lost */
    gboolean full; /* has no room for a registration */
    guint attentions;
} Nexus;

typedef struct Lun {
    Nexus nexuses[NEXUSES];
    int holder; /* -1: none */
    guint type;
    GString *seen;       /* "0:REGISTER 1:REGISTER ..." */
    gboolean nameless;   /* whose registrations are whose can't be told */
    gboolean must_write; /* our living paths have to be able to write at any time */
} Lun;

/* No registration, no reservation, all paths alive. */
Lun lun_new(void);
void lun_free_contents(Lun *lun);

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Lun, lun_free_contents)

/* The paths of this host, for the code under test. After every single command that reaches the LUN
 * they are looked at, see `must_write`. `lun` has to outlive what is returned. */
PathOps lun_ops(Lun *lun);

/* One command by one nexus, as the LUN itself answers it. */
void lun_out(Lun *lun, int i, const SpcOut *out, PathResult *result);
