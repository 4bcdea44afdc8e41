/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Formats that are only recognised: nobody has use for them. The readers of those that QEMU opens
 * have had their share of faults (CVE-2014-0142, -0144, -0145, -0146, -0147). Sources: QEMU's
 * block/bochs.c, cloop.c and dmg.c; Linux's arch/um/drivers/cow_user.c for COW.
 */
#include "image/formats.h"

/* QEMU looks at type, subtype and version as well; file(1) does not. */
static bool bochs_recognise(const ImageSample *sample)
{
    return image_sample_has(sample, 0, "Bochs Virtual HD Image", 22);
}

/* Version 2.0 is what QEMU probes for; it opens any, if asked to. */
static bool cloop_recognise(const ImageSample *sample)
{
    static const char begin[] = "#!/bin/sh\n#V";

    return image_sample_has(sample, 0, begin, sizeof(begin) - 1);
}

/* QEMU probes for the file's name, which may become .dmg at any time. Then it looks for the trailer
 * in the last 1,023 bytes, as files of any length are rounded up to sectors. */
static bool dmg_recognise(const ImageSample *sample)
{
    size_t from = sample->tail_len < 1023 ? sample->tail_len : 1023;

    for (; from >= 4; from--) {
        if (image_sample_ends(sample, from, "koly", 4))
            return true;
    }
    return false;
}

/* QEMU has forgotten it. libvirt has not: in a storage pool it takes the file for a disk with the
 * backing file that stands behind the version. */
static bool cow_recognise(const ImageSample *sample)
{
    return image_sample_has(sample, 0, "OOOM", 4);
}

IMAGE_RECOGNISED_ONLY(bochs, "a Bochs disk", IMAGE_ALSO_BOCHS);
IMAGE_RECOGNISED_ONLY(cloop, "a compressed loop file", IMAGE_ALSO_CLOOP);
IMAGE_RECOGNISED_ONLY(dmg, "an Apple disk image", IMAGE_ALSO_DMG);
IMAGE_RECOGNISED_ONLY(cow, "a user-mode Linux COW file", IMAGE_ALSO_COW);
