/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The process of holdfast-keeper. */
#pragma once

/* Allows it as many descriptors as may be, has it killed last when memory is short, and forbids
 * system calls that neither it nor the daemon, which inherits that, has any business with. What
 * does not work is left out. */
void confine_self(void);
