/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Each format's way into the list of formats.c; for formats.c and the formats' own files. */
#pragma once

#include "image/image.h"

extern const ImageFormat image_raw, image_qcow2, image_qcow, image_qed, image_luks;
extern const ImageFormat image_mbr, image_gpt;
extern const ImageFormat image_vmdk, image_vdi, image_vhd, image_vhdx, image_parallels, image_iso;
extern const ImageFormat image_bochs, image_cloop, image_dmg, image_cow;

/* For `beside`: partition tables, where the guest's own may be at the file's begin or end. */
extern const char *const image_partitions[];

/* Defines image_ID, which cannot be asked for: all there is to it is ID_recognise(). */
#define IMAGE_RECOGNISED_ONLY(id, its_title, its_reason)                                           \
    const ImageFormat image_##id = {                                                               \
        .name = #id, .title = its_title, .also = its_reason, .recognise = id##_recognise}
