/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The list of formats: what is here is checked for in every file. */
#include "image/formats.h"

const ImageFormat *const image_formats[] = {
    &image_raw,   &image_qcow2, &image_qcow, &image_qed,       &image_luks, &image_vmdk,
    &image_vdi,   &image_vhd,   &image_vhdx, &image_parallels, &image_iso,  &image_bochs,
    &image_cloop, &image_dmg,   &image_cow,  &image_mbr,       &image_gpt,  NULL,
};

const ImageFormat *image_format_find(const char *name)
{
    for (const ImageFormat *const *format = image_formats; *format; format++) {
        const char *alias = (*format)->alias;

        if ((*format)->check &&
            (strcmp((*format)->name, name) == 0 || (alias && strcmp(alias, name) == 0)))
            return *format;
    }
    return NULL;
}
