/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Every reason why an image is not safe. The names are a contract: they are given to --allow, and
 * programs compare them. A reason is never renamed or given another meaning; new ones are added.
 * The sentence is what documentation says of the reason in general.
 */
#pragma once

#define IMAGE_REASONS(R)                                                                           \
    /* what it is */                                                                               \
    R(WRONG_FORMAT, "wrong-format", "The content is not of the format that was stated.")           \
    R(ALSO_QCOW2, "also-qcow2", "The content could be taken for qcow2.")                           \
    R(ALSO_QCOW, "also-qcow", "The content could be taken for qcow.")                              \
    R(ALSO_QED, "also-qed", "The content could be taken for QED.")                                 \
    R(ALSO_VMDK, "also-vmdk", "The content could be taken for VMDK.")                              \
    R(ALSO_VDI, "also-vdi", "The content could be taken for VDI.")                                 \
    R(ALSO_VHD, "also-vhd", "The content could be taken for VHD.")                                 \
    R(ALSO_VHDX, "also-vhdx", "The content could be taken for VHDX.")                              \
    R(ALSO_LUKS, "also-luks", "The content could be taken for a LUKS volume.")                     \
    R(ALSO_PARALLELS, "also-parallels", "The content could be taken for a Parallels disk.")        \
    R(ALSO_ISO, "also-iso", "The content could be taken for an ISO 9660 or UDF file system.")      \
    R(ALSO_BOCHS, "also-bochs", "The content could be taken for a Bochs disk.")                    \
    R(ALSO_CLOOP, "also-cloop", "The content could be taken for a compressed loop file.")          \
    R(ALSO_DMG, "also-dmg", "The content could be taken for an Apple disk image.")                 \
    R(ALSO_COW, "also-cow", "The content could be taken for a user-mode Linux COW file.")          \
    R(ALSO_PARTITIONS, "also-partitions",                                                          \
      "The file begins with a partition table where the format has none.")                         \
    /* what it refers to */                                                                        \
    R(BACKING_FILE, "backing-file", "The image names a backing file or a parent.")                 \
    R(EXTERNAL_DATA, "external-data", "The image's data is in another file.")                      \
    R(DETACHED_HEADER, "detached-header", "The header has no data, or the data no header.")        \
    /* what it asks of its reader */                                                               \
    R(UNKNOWN_VERSION, "unknown-version", "The format's version is not one that can be checked.")  \
    R(UNKNOWN_FEATURE, "unknown-feature", "The image needs a feature that is not known.")          \
    R(LEGACY_ENCRYPTION, "legacy-encryption",                                                      \
      "The image uses an encryption that protects nobody.")                                        \
    R(UNLOCK_COST, "unlock-cost",                                                                  \
      "To unlock the image takes more time or memory than any honest one.")                        \
    R(MARKED_CORRUPT, "marked-corrupt", "The image says of itself that it is damaged.")            \
    R(NOT_CLOSED, "not-closed", "The image was not closed; who opens it has to repair it first.")  \
    /* size */                                                                                     \
    R(SIZE_LIMIT, "size-limit", "The disk is larger than allowed.")                                \
    R(SIZE_UNKNOWN, "size-unknown", "The size of the disk cannot be determined.")                  \
    R(SIZE_MISMATCH, "size-mismatch", "The image tells its size twice, and not the same.")         \
    R(TOO_MUCH_METADATA, "too-much-metadata", "The tables are larger than the size limit allows.") \
    /* consistency */                                                                              \
    R(TRUNCATED, "truncated", "The file ends before what its header says.")                        \
    R(BAD_HEADER, "bad-header", "A field of the header has an impossible value.")                  \
    R(BAD_CHECKSUM, "bad-checksum", "A checksum is wrong.")                                        \
    R(TABLE_OUTSIDE, "table-outside", "A table or its entry points outside the file.")             \
    R(TABLE_MISALIGNED, "table-misaligned", "A table or its entry is not where clusters begin.")   \
    R(TABLE_SIZE, "table-size", "A table is too small for the disk, or larger than is allowed.")   \
    R(TABLE_OVERLAP, "table-overlap", "Two parts of the metadata lie on top of each other.")       \
    R(BAD_ENTRY, "bad-entry", "An entry of a table has an impossible value.")

#define IMAGE_REASON_ENUM(id, name, text) IMAGE_##id,
typedef enum ImageReasonId { IMAGE_REASONS(IMAGE_REASON_ENUM) IMAGE_N_REASONS } ImageReasonId;
#undef IMAGE_REASON_ENUM

/* "backing-file"; NULL if there is no such reason. */
const char *image_reason_name(unsigned id);
/* The sentence of the table. */
const char *image_reason_text(unsigned id);
/* The id, or IMAGE_N_REASONS if no reason has that name. */
unsigned image_reason_find(const char *name);
