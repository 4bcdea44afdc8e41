/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the parts of the VHDX check tell each other. */
#pragma once

#include "image/image.h"

#define VHDX_MIB ((uint64_t)1 << 20)
/* Regions that are neither the log, the BAT nor the metadata: nobody writes any. */
#define VHDX_MAX_REGIONS 16
/* The metadata table: 2047 entries of 32 bytes behind a header of 32. */
#define VHDX_METADATA_TABLE ((size_t)65536)

typedef struct VhdxRegion {
    uint64_t at, length;
} VhdxRegion;

typedef struct VhdxDisk {
    VhdxRegion log, bat, metadata;
    VhdxRegion all[VHDX_MAX_REGIONS]; /* these three, the header section, and others */
    size_t n_all;
    uint64_t size; /* virtual, in bytes */
    uint64_t block;
    uint64_t sector;
} VhdxDisk;

static inline bool vhdx_overlap(VhdxRegion a, VhdxRegion b)
{
    return a.at < b.at + b.length && b.at < a.at + a.length;
}

/* Each returns whether the next one has something to stand on. */
bool vhdx_check_metadata(ImageCheck *check, VhdxDisk *disk);
void vhdx_check_bat(ImageCheck *check, const VhdxDisk *disk);
