/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Partition tables: content of a disk, no format of an image. They are recognised because an image
 * that has one where its format has none shows one disk to a hypervisor that knows the format and
 * another to one that does not. Sources: the boot signature 55 AA at byte 510 of the first sector;
 * UEFI specification 2.10, 5.3.2 "GPT Header".
 */
#include "image/formats.h"

/* The signature alone, as file systems' boot sectors have it too. */
static bool mbr_recognise(const ImageSample *sample)
{
    return image_sample_has(sample, 510, "\x55\xaa", 2);
}

/* At sector 1, of 512 or of 4,096 bytes; the copy is in the last sector. */
static bool gpt_recognise(const ImageSample *sample)
{
    return image_sample_has(sample, 512, "EFI PART", 8) ||
           image_sample_has(sample, 4096, "EFI PART", 8) ||
           image_sample_ends(sample, 512, "EFI PART", 8);
}

IMAGE_RECOGNISED_ONLY(mbr, "a disk with an MBR or a boot sector", IMAGE_ALSO_PARTITIONS);
IMAGE_RECOGNISED_ONLY(gpt, "a disk with a GPT", IMAGE_ALSO_PARTITIONS);

const char *const image_partitions[] = {"mbr", "gpt", NULL};
