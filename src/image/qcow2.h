/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What qcow2.c and qcow2-tables.c share. */
#pragma once

#include "image/image.h"

/* Incompatible features; the mask is what QEMU 7.2 and 9.2 know. */
#define QCOW2_DIRTY ((uint64_t)1 << 0)
#define QCOW2_CORRUPT ((uint64_t)1 << 1)
#define QCOW2_DATA_FILE ((uint64_t)1 << 2)
#define QCOW2_COMPRESSION ((uint64_t)1 << 3)
#define QCOW2_EXTENDED_L2 ((uint64_t)1 << 4)
#define QCOW2_INCOMPATIBLE_KNOWN 0x1f

#define QCOW2_AUTOCLEAR_BITMAPS ((uint64_t)1 << 0)
#define QCOW2_AUTOCLEAR_RAW_DATA ((uint64_t)1 << 1)

#define QCOW2_CRYPT_AES 1
#define QCOW2_CRYPT_LUKS 2

#define QCOW2_EXT_BACKING_FORMAT 0xe2792acaU
#define QCOW2_EXT_CRYPTO 0x0537be77U
#define QCOW2_EXT_BITMAPS 0x23852875U
#define QCOW2_EXT_DATA_FILE 0x44415441U

/* QEMU's limits: of the L1 table, the refcount table, snapshots, bitmaps. */
#define QCOW2_MAX_L1 ((uint64_t)32 << 20)
#define QCOW2_MAX_REFTABLE ((uint64_t)8 << 20)
#define QCOW2_MAX_SNAPSHOTS 65536
#define QCOW2_MAX_SNAPSHOT_EXTRA 1024
#define QCOW2_MAX_BITMAPS 65535

/* One of the places that nothing else may have: header, tables. */
typedef struct Qcow2Part {
    const char *what;
    uint64_t begin;
    uint64_t end;
} Qcow2Part;

#define QCOW2_MAX_PARTS 8

typedef struct Qcow2 {
    ImageCheck *check;
    const uint8_t *header; /* its first 112 bytes, zero beyond the file's end */
    uint32_t version;
    uint32_t header_length;
    uint32_t cluster_bits;
    uint64_t cluster_size;
    uint32_t refcount_order;
    uint32_t l2_entry_size;
    uint64_t incompatible;
    uint64_t autoclear;
    uint32_t crypt_method;
    bool has_crypto;
    uint64_t disk_size;
    /* 0: there is none that can be read */
    uint64_t l1_entries;
    uint64_t l1_offset;
    uint64_t reftable_entries;
    uint64_t reftable_offset;
    Qcow2Part parts[QCOW2_MAX_PARTS];
    size_t n_parts;
} Qcow2;

/* Reports what is wrong with where a part lies, and remembers it if nothing is. `field` is where
 * the file says so. */
bool qcow2_part(Qcow2 *q, const char *what, uint64_t field, uint64_t offset, uint64_t length);

/* ---- qcow2-tables.c ------------------------------------------------------------------------- */

/* The sizes and places that the header gives: L1 table, refcount table, snapshots. */
void qcow2_tables(Qcow2 *q);
/* The directory that the bitmaps extension `bytes`, at `at`, points to. */
void qcow2_bitmaps(Qcow2 *q, uint64_t at, const uint8_t *bytes);
/* What is in the L1 and the refcount table, after all parts are known. */
void qcow2_entries(Qcow2 *q);
