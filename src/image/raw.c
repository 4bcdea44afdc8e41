/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Raw: the file is the disk. Nothing in it is read by the hypervisor, so all there is to check is
 * that nobody takes it for anything else, which image_check() has done.
 */
#include "image/formats.h"

static void raw_check(ImageCheck *check)
{
    /* QEMU: a raw disk has whole sectors, the last one filled up. */
    image_set_size(check, IMAGE_NO_OFFSET, (check->size + 511) & ~(uint64_t)511);
}

const ImageFormat image_raw = {
    .name = "raw",
    .title = "a raw disk",
    .check = raw_check,
    .beside = image_partitions,
};
