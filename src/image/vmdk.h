/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the parts of the VMDK check tell each other. */
#pragma once

#include "image/image.h"

#define VMDK_SECTOR 512u
/* QEMU looks for the parent's name and the CIDs in 20 sectors from sector 1 on, whatever the header
 * says of the descriptor's place and size. */
#define VMDK_DESCRIPTOR_AT 1u
#define VMDK_DESCRIPTOR_SECTORS 20u
/* A grain's size in sectors: VMware's text demands more than 4 KiB, VirtualBox 8 sectors; QEMU
 * refuses more than 1 GiB. */
#define VMDK_GRAIN_MIN 8u
#define VMDK_GRAIN_MAX 0x200000u
/* QEMU: entries of a grain directory. */
#define VMDK_DIRECTORY_MAX (32u * 1024 * 1024)

/* Where tables and grains of an extent are, in sectors; each range is [begin, end). */
typedef struct VmdkLayout {
    uint64_t directory;     /* of the grain directory */
    uint64_t redundant;     /* of the redundant one; 0: there is none */
    uint64_t entries;       /* in each directory */
    uint32_t table_entries; /* grains of a table */
    uint64_t grain;         /* sectors of a grain */
    uint64_t grains;        /* of the whole disk */
    uint64_t tables_begin, tables_end;
    uint64_t grains_begin, grains_end;
    bool compressed; /* a grain's length is in its marker */
    bool zeroed;     /* an entry of 1 is a grain of zeroes */
} VmdkLayout;

/*
 * The descriptor's text, in check->chunk, which is at `offset` in the file. `capacity` is what the
 * header says, in sectors; 0: the file is nothing but the descriptor. It may be larger than the
 * descriptor's by less than `grain` sectors. Reports every file that is named.
 */
void vmdk_descriptor(ImageCheck *check, uint64_t offset, size_t length, uint64_t capacity,
                     uint64_t grain);

/* Walks both directories and all tables, and reports the first entry that is wrong. */
void vmdk_tables(ImageCheck *check, const VmdkLayout *layout);

/* The file as an extent of older or newer ESX, which has no descriptor inside. */
void vmdk_check_cowd(ImageCheck *check);
void vmdk_check_sesparse(ImageCheck *check);
