/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Each format's way into the list of formats.c; for formats.c and the formats' own files. */
#pragma once

#include "image/image.h"

extern const ImageFormat image_raw, image_qcow2, image_qcow, image_qed, image_luks;
extern const ImageFormat image_mbr, image_gpt;
extern const ImageFormat image_vmdk, image_vdi, image_vhd, image_vhdx, image_parallels, image_iso;
extern const ImageFormat image_bochs, image_cloop, image_dmg;
