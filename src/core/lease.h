/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The lock table: owners, the leases they hold, and the claims by which two names of one thing
 * are found to be the same. Belongs to the main thread; no locks, no I/O.
 */
#pragma once

#include <stdbool.h>

#include "driver.h"

typedef enum OwnerState { OWNER_RUNNING, OWNER_STOPPING, OWNER_GONE } OwnerState;

/* A VM. Reference counted: leases, connections and requests under way each have one. */
typedef struct Owner {
    guint refs;
    guint64 id;            /* in the ledger; 0: not there */
    char *pidfd_name;      /* in the vault; NULL: not there */
    GPtrArray *conn_names; /* in the vault: connections that its leases last with; NULL: none */
    char *name;            /* each string may be NULL */
    char *uuid;            /* text form */
    char *uri;
    pid_t pid;           /* 0: unknown, never watched */
    guint64 start_ticks; /* start time of the process, field 22 of /proc/PID/stat */
    OwnerState state;
    gboolean until_close;     /* lasts until its connections are closed, not only its process */
    guint connections;        /* open connections that speak as the owner itself */
    GPtrArray *leases;        /* of Lease, not owned */
    struct OwnerWatch *watch; /* of the daemon's supervision; freed by it */
} Owner;

typedef enum LeaseState {
    LEASE_PENDING, /* locked, but the request that it is part of is not complete */
    LEASE_HELD,
    LEASE_RELEASING,
} LeaseState;

/* A resource as the table names it. */
typedef struct Resource {
    const Driver *driver;
    char *space; /* "" is shared: see resource_init() */
    char *key;
} Resource;

/* What a lease is found by, in one of the table's indexes; begins what it is about. */
typedef struct LeaseName {
    struct LeaseName *next;
    struct Lease *lease;
    guint hash;
} LeaseName;

/* One lock of a lease. A disk usually has one; where two naming rules apply it has one for each.
 * In one piece with its name, for there may be ten thousands. */
typedef struct LeasePart {
    LeaseName name; /* of table.c */
    Resource resource;
    void *handle; /* the driver's; of one that is not checked yet, the op that does it, or NULL */
    struct hf_saved
        *saved; /* what makes it survive; NULL: nothing, or it is in the vault already */
    /* Names under which the vault has its descriptors, with commas, and behind the NUL what the
     * driver saved, in hexadecimal; NULL: not there. */
    char *kept;
    bool survives;
    bool unchecked; /* an earlier daemon's, and its driver has not looked at it yet */
    char key[];
} LeasePart;

/* What the list of claims points to is `text`. */
typedef struct LeaseClaim {
    LeaseName name; /* of table.c */
    char text[];
} LeaseClaim;

static inline LeaseClaim *lease_claim_of(char *text)
{
    return (LeaseClaim *)(void *)(text - G_STRUCT_OFFSET(LeaseClaim, text));
}

typedef struct Lease {
    guint64 id; /* in the ledger; 0: not there */
    Owner *owner;
    char *disk; /* what the user named; NULL for a manual lease or an unknown disk */
    /* Two lists, to be read as any GPtrArray, and to be changed by lease_add_...() alone: they are
     * no arrays of GLib's, each of which takes 200 bytes for the one thing that is mostly in it. */
    GPtrArray parts[1];  /* of LeasePart, at least one; the first names the lease */
    GPtrArray claims[1]; /* of char * */
    gpointer first_part; /* lists of one are here */
    gpointer first_claim;
    gint64 since_usec;
    struct MetricsSpace
        *metrics; /* of the daemon's metrics.c, which owns it; NULL: not looked up */
    struct Lease *next, *previous; /* of table.c: all leases */
    hf_mode mode;
    guint count; /* how often it was acquired, where the protocol counts */
    LeaseState state;
} Lease;

typedef struct Table Table;

Table *table_new(void);
/* The table must be empty of leases. */
void table_free(Table *table);

/* A new owner that is not yet in any table. Strings are copied. */
Owner *owner_new(const char *name, const char *uuid, const char *uri, pid_t pid, guint64 ticks);
Owner *owner_ref(Owner *owner);
void owner_unref(Owner *owner);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Owner, owner_unref)
/* TRUE if both speak of the same VM process. */
gboolean owner_same(const Owner *a, const Owner *b);

/* Resources by value; the last two are for hash tables with Resource as the key. */
void resource_init(Resource *resource, const Driver *driver, const char *space, const char *key);
void resource_clear(Resource *resource);
guint resource_hash(gconstpointer resource);
gboolean resource_equal(gconstpointer a, gconstpointer b);

/* A lease without parts; adds a reference to the owner. `disk` is copied. */
Lease *lease_new(Owner *owner, const char *disk, hf_mode mode, gint64 since_usec);
LeasePart *lease_add_part(Lease *lease, const Resource *resource, void *handle);
/* A further name of the thing; copied. Not while the lease is in a table. */
void lease_add_claim(Lease *lease, const char *claim);
/* What the disk is called; copied unless it is the name of its lock. */
void lease_set_disk(Lease *lease, const char *disk);
const Resource *lease_resource(const Lease *lease);
/* Must not be in a table any more. */
void lease_free(Lease *lease);
/* What was saved of the part, in hexadecimal; only if it is in the vault. */
const char *lease_part_saved(const LeasePart *part);
/* The lease as a holder, for refusals and lists. */
Holder *lease_holder(const Lease *lease, const char *host);

/* The table takes the lease over, and gives it back. */
void table_insert(Table *table, Lease *lease);
void table_remove(Table *table, Lease *lease);
/* Every lease, oldest first: a new array of Lease. */
GPtrArray *table_list(Table *table);
guint table_size(const Table *table);
/* The one that entered it first, or NULL; lease->next is the one after that. */
Lease *table_first(const Table *table);
/* The parts of leases of this resource that are not checked yet: a new array of LeasePart. */
GPtrArray *table_find_unchecked(Table *table, const Resource *resource);
/* Leases of this resource, or that share a claim: a new array of Lease, each once. `claims` may
 * be NULL. */
GPtrArray *table_find(Table *table, const Resource *resource, GPtrArray *claims);
/* The owner's lease of just this resource, or NULL. */
Lease *table_find_owned(Table *table, const Owner *owner, const Resource *resource);
/* Leases in the way of `owner` taking something with these claims in this mode: a new array. */
GPtrArray *table_conflicts(Table *table, GPtrArray *claims, hf_mode mode);

/* The known owner that is the same VM process as `like`, or NULL. Owners are not owned. */
Owner *table_owner(Table *table, const Owner *like);
/* The known owners with this pid, of which at most one lives: a new array of Owner. */
GPtrArray *table_owners_of(Table *table, pid_t pid);
void table_add_owner(Table *table, Owner *owner);
void table_remove_owner(Table *table, Owner *owner);
/* Every owner: a new array of Owner, not owned. */
GPtrArray *table_owners(Table *table);
