/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Identity rules: which resources stand for a disk, named exactly as stock libvirt's lockd plugin
 * names them, so that hosts with either can share a lockspace.
 *
 *   /dev/...  and lvm_lockspace_dir set, the disk is a logical volume:  its UUID, in that directory
 *   /dev/...  and scsi_lockspace_dir set, the disk has a SCSI id:       that id, in that directory
 *   file_lockspace_dir set:              SHA-256 (hex) of the path as it was given, in that
 * directory otherwise:                           the disk itself, "direct"
 *
 * Where stock's name would miss something, a second resource is added to stock's: the SHA-256 of
 * the path without symlinks, /./ and the like when that is another path (so two hosts that use
 * different names exclude each other), and the id of an NVMe namespace, which stock does not know.
 */
#pragma once

#include "fault.h"

/* The rules, from qemu-lockd.conf or holdfast.conf. Directories are NULL when unset. */
typedef struct IdentityRules {
    gboolean auto_disk_leases;
    gboolean require_lease_for_disks;
    const char *file_lockspace_dir;
    const char *lvm_lockspace_dir;
    const char *scsi_lockspace_dir;
} IdentityRules;

/* What had to be looked up to apply the rules. Strings are NULL where there is none. */
typedef struct IdentityFacts {
    char *canonical; /* the path with every link followed */
    char *claim;     /* "file:..." or "block:..." of the disk itself */
    char *lv_uuid;
    char *scsi_id;
    char *nvme_id;
} IdentityFacts;

/* (space, key) of one resource. */
typedef struct IdentityName {
    char *space;
    char *key;
    gboolean autocreate;
} IdentityName;

/* TRUE if the rules need identity_look_up() for this path; otherwise identity_names() takes NULL.
 */
gboolean identity_needs_facts(const IdentityRules *rules, const char *path);

/* Looks the facts up. Blocks on the disk's file system and on /sys: for lanes only. Returns NULL
 * with a fault when there is no such disk or it is neither a file nor a block device. */
IdentityFacts *identity_look_up(const IdentityRules *rules, const char *path, Fault **ret_fault);
void identity_facts_free(IdentityFacts *facts);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(IdentityFacts, identity_facts_free)

/* The resources of a disk: an array of IdentityName, the first is stock's. Pure. */
#define IDENTITY_MAX_NAMES 3 /* as many at most */
GPtrArray *identity_names(const IdentityRules *rules, const char *path, const IdentityFacts *facts);
void identity_name_free(IdentityName *name);

/* "file:MAJOR:MINOR:INODE" or "block:MAJOR:MINOR" of an open or stat'ed object; a new string. */
struct stat;
char *identity_claim(const struct stat *st);

/* The key of a logical volume from its device mapper UUID, or NULL if that is none. Source: LVM2
 * sets the UUID of a visible LV to "LVM-" + 32 characters of the VG's id + 32 of the LV's id; lvs
 * prints the latter in groups of 6-4-4-4-4-4-6. A new string. */
char *identity_lv_key(const char *dm_uuid);

/* How a hash gets its disk's name back: looks through what process `pid` has open, and what its
 * command line names, for a path whose SHA-256 is `key`. Returns the path as a new string or NULL;
 * with `ret_claim` also what the file is, as identity_claim() has it, or NULL. Reads /proc, and
 * asks for the file's device and inode without asking its server; may block all the same: for
 * lanes, unless `ret_claim` is NULL. */
char *identity_guess_disk(pid_t pid, const char *key, char **ret_claim);
