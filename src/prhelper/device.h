/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which device a descriptor refers to. What /sys says is kept for each device number, and is looked
 * up again when the kernel gives the number to another disk.
 */
#pragma once

#include "prhelper.h"

G_BEGIN_DECLS

/** The major number of sg devices (the kernel's Documentation/admin-guide/devices.txt). */
#define PR_SG_MAJOR 21

/**
 * The identity of the device behind `fd`, whose st_rdev is `dev`. The caller unrefs it. NULL when
 * /sys does not have the device: what it is made of is then unknown. May block on a sick device,
 * and so wants to be called inside the device's gate.
 */
PrDevice *pr_device_get(int fd, dev_t dev, gboolean is_char);

/** The same from memory alone, without a look at /sys: for a device that may be stuck. */
PrDevice *pr_device_recall(int fd, dev_t dev, gboolean is_char);

/** A descriptor of something that is no device: PR_KIND_OTHER. The caller unrefs it. */
PrDevice *pr_device_none(void);

/**
 * Whether commands that read are mostly over before a thread could be woken for them. A device
 * counts as quick until some have not been, and again after a second. Any thread.
 */
gboolean pr_device_is_quick(PrDevice *device);

/** Whether this command's time is wanted: that of some is, since a clock is dear on some hosts. */
gboolean pr_device_is_timed(PrDevice *device);
void pr_device_note_time(PrDevice *device, gint64 usec);

/** Looks into `root` instead of /sys, for tests; before any other call. */
void pr_device_set_root(const char *root);

/** Frees what is kept. At the end, when there are no other threads. */
void pr_device_forget_all(void);

G_END_DECLS
