/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What op.c, op-tickets.c and op-space.c share; for no other file. */
#pragma once

#include "engine.h"

/* Its turn has come: its lockspaces are opened if they are new, then it enters its lane. */
void op_begin(Op *op);
/* All its lockspaces are open, or it does without. */
void op_enter_lane(Op *op);
/* It has come to its end: tells, and frees it. */
void op_complete(Op *op);

/* ---- op-tickets.c ---------------------------------------------------------------------- */

/* Puts the op into the queues of its resources. */
void op_take_tickets(Op *op);
/* TRUE if it is the first in all of them. */
gboolean op_has_turn(const Op *op);
/* Takes it out, and begins those whose turn has come by that. */
void op_return_tickets(Op *op);

/* ---- op-space.c ------------------------------------------------------------------------ */

/* FALSE if it is of no lockspace's business. */
gboolean op_needs_space(const Op *op);
/* Has the lockspaces opened that are not; op->spaces_pending tells how many. Each that is opened
 * later lets the op enter its lane, or ends it. */
void op_open_spaces(Op *op);
/* The driver's handle of an open lockspace, or NULL. */
void *op_space_handle(Engine *engine, const Resource *resource);
