/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The kernel's reservation ioctls (linux/pr.h), for devices that know no SCSI: NVMe. They have
 * other numbers for the types and return codes of three kinds; here is where SCSI becomes of them.
 * NVMe's Reservation Report stands for PERSISTENT RESERVE IN. Plain C, no state.
 */
#pragma once

#include "prhelper/mpath/paths.h"

/** As map_command(). */
void kernel_ioctl_command(int fd, const uint8_t cdb[16], bool in, uint8_t *data, size_t size,
                          size_t *ret_len, PathResult *result);

/**
 * What an IOC_PR_* returned, as a SCSI status: 0, a positive code (of SCSI or NVMe, raw as the
 * driver has it), or -1 with `error`.
 */
void kernel_ioctl_result(int returned, int error, PathResult *ret_result);

/**
 * Makes the answer to READ KEYS, READ RESERVATION or READ FULL STATUS of a Reservation Report
 * (NVMe base specification 1.4, figure 402). Returns its length (of which at most `size` bytes are
 * written), or 0 when the report is malformed or the action is another.
 */
size_t kernel_ioctl_report(SpcInAction action, const uint8_t *report, size_t len, uint8_t *data,
                           size_t size);
