/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The drivers that are built in; others come from the driver directory. */
#pragma once

#include <holdfast/driver.h>

extern const struct hf_driver hf_driver_nop;
extern const struct hf_driver hf_driver_lockd;
