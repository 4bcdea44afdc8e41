/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The engine: requests for locks become jobs in lanes, their results become leases in the table.
 * It knows neither sockets nor protocols, and nothing of a driver but its table of functions.
 * Everything here runs in the main thread and never blocks; what can block is an Op.
 *
 *     op.c         one job in one lane, in order with all others on the same resource
 *                  (op-tickets.c), in an open lockspace (op-space.c)
 *     acquire.c    a VM's whole set, or nothing (its first half is in acquire-plan.c)
 *     refusal.c    saying who is in the way
 *     release.c    giving leases back
 *     inspect.c    who holds a disk; making and removing resources
 *     handover.c   leases that outlive the daemon; adopt.c is the next daemon's half, and
 *                  adopt-check.c what it does later
 *     supervise.c  owners' processes: watching them, ending them, releasing after their exit
 *     metrics.c    counting what all of these do
 */
#pragma once

#include <systemd/sd-event.h>

#include "core/identity.h"
#include "core/lease.h"
#include "deadline.h"
#include "lane.h"

typedef struct Engine Engine;
typedef struct Acquire Acquire;
typedef struct Op Op;

/* What happens, for whoever listens: see engine_set_listener(). */
typedef enum EngineEvent {
    EVENT_LEASE_ACQUIRED, /* lease */
    EVENT_LEASE_RELEASED, /* lease, text is the reason */
    EVENT_LEASE_REFUSED,  /* owner, fault */
    EVENT_OWNER_STOPPING, /* owner */
    EVENT_OWNER_GONE,     /* owner */
    EVENT_LEASE_ADOPTED,  /* lease, which an earlier daemon had made */
    EVENT_LEASE_LOST,     /* lease, text is the reason */
} EngineEvent;

typedef void (*EngineListener)(EngineEvent event, const Lease *lease, const Owner *owner,
                               const Fault *fault, const char *text, void *data);

/* The part of the configuration that the engine needs; strings are borrowed for its lifetime. */
typedef struct EngineConfig {
    const char *host;
    IdentityRules rules;
    guint64 request_timeout_usec;
    guint64 kill_timeout_usec;
    guint lane_threads;
} EngineConfig;

struct Mounts;
struct Vault;

struct Engine {
    sd_event *event;
    EngineConfig config;
    Table *table;
    LaneHub *lanes;
    DeadlineClock *clock;
    struct Mounts *mounts;
    struct Vault *vault;        /* borrowed */
    GHashTable *drivers;        /* name -> Driver, borrowed */
    const Driver *disk_driver;  /* of disks and leases that name no other */
    GHashTable *spaces;         /* of op.c: id -> Space */
    struct Space *last_space;   /* of op.c: the one that was asked for last, or NULL */
    GHashTable *tickets;        /* of op.c: who waits for which resource */
    gboolean ending;            /* connections close because the daemon ends */
    guint ops;                  /* under way */
    GQueue waiting_for_release; /* of Acquire, see acquire.c */
    guint64 next_id;            /* of handover.c: 1 and above */
    struct Adoption *adoption;  /* of adopt-check.c: while leases are to be checked */
    gboolean unkept;            /* of handover.c: there may be leases that have to be kept again */
    guint64 epoch;              /* counts releases and commits */
    gboolean retrying;          /* of acquire.c: requests that have waited are at it */
    gboolean retry_again;       /* and there is something new for them */
    struct Metrics *metrics;
    /* Goes on with a connection of an earlier daemon that the owner's leases last with; takes the
     * descriptor over. */
    void (*resume_connection)(int fd, Owner *owner, const char *name, void *data);
    EngineListener listener;
    void *listener_data;
};

/* `drivers` must hold `default_driver`; `vault` is borrowed. Returns 0 or a negative errno. */
int engine_new(sd_event *event, const EngineConfig *config, GHashTable *drivers,
               const char *default_driver, struct Vault *vault, Engine **ret_engine);
void engine_set_listener(Engine *engine, EngineListener listener, void *data);
/* Waits shortly for what is under way, then frees everything. Returns FALSE if leases are held or a
 * lane is stuck: then nothing is freed, and the process should leave with _exit(). */
gboolean engine_free(Engine *engine);
void engine_emit(Engine *engine, EngineEvent event, Lease *lease, const Owner *owner,
                 const Fault *fault, const char *text);

/* ---- op.c ------------------------------------------------------------------------------ */

typedef enum OpKind {
    OP_ACQUIRE,
    OP_RELEASE,
    OP_ADOPT,
    OP_HOLDER,
    OP_CREATE,
    OP_REMOVE,
    OP_SPACE,
    OP_IDENTIFY,
    OP_CHECK_IMAGE
} OpKind;

/* One resource in a job. The result members are valid in done(). */
typedef struct OpItem {
    Resource resource;
    char *disk;
    char *format; /* of check image: what the image is said to be */
    hf_mode mode;
    unsigned flags;        /* of hf_resource_flag */
    void *handle;          /* out: of acquire and adopt */
    LeasePart *part;       /* of release: whose handle it is, once the op begins */
    struct hf_saved saved; /* out: of acquire; in: of adopt */
    gboolean survives;     /* saved is filled in */
    void *data;            /* the caller's */
    void *space;           /* the driver's handle of the lockspace */
    GPtrArray *claims;
    GPtrArray *holders;
    gboolean is_free;     /* of holder */
    IdentityFacts *facts; /* of identify */
    gboolean done;        /* was carried out with success */
    char *why;            /* or why not */
} OpItem;

typedef void (*OpDone)(Op *op, void *data);

struct Op {
    LaneJob job;
    Engine *engine;
    OpKind kind;
    Lane *lane;
    GPtrArray *items; /* of OpItem */
    Holder *owner;    /* of acquire: who wants it */
    Fault *fault;     /* out: why it failed */
    OpItem *failed;   /* out: at which item */
    OpDone done;
    void *data;
    GPtrArray *tickets; /* of op-tickets.c: the queues in which it stands */
    guint spaces_pending;
    gint64 begun_usec; /* monotonic: when it was submitted */
    gboolean submitted;
    gint abandoned; /* atomic: do nothing any more */
};

/* An empty job for that lane, whose reference it takes over. */
Op *op_new(Engine *engine, OpKind kind, Lane *lane);
/* The op among those that is for that lane, whose reference it takes over; a new one, which is
 * added to them, if there is none. */
Op *op_for_lane(Engine *engine, GPtrArray *ops, OpKind kind, Lane *lane);
OpItem *op_add(Op *op, const Resource *resource, const char *disk, hf_mode mode, unsigned flags);
/* Runs it when its turn has come; done() is called exactly once, and the op is freed after it.
 * An op of several items stops at the first that fails, and undoes an acquire's earlier ones. */
void op_submit(Op *op, OpDone done, void *data);
/* Frees an op that was never submitted. */
void op_discard(Op *op);
/* The op's result is not wanted any more: if it has not begun it will fail with a time-out. done()
 * is called all the same. */
void op_abandon(Op *op);
/* The lane of a resource, and the lane of a disk's path as such; each with a reference. */
Lane *op_lane(Engine *engine, const Resource *resource);
Lane *op_disk_lane(Engine *engine, const char *path);
/* The name of a resource's lane: a new string. */
char *op_lane_name(Engine *engine, const Resource *resource);
/* A time-out's fault, naming the lane and what is stuck in it. */
Fault *op_timeout_fault(const Op *op);
/* TRUE if the lockspace is known, by space_open or by use. */
gboolean op_space_known(Engine *engine, const Driver *driver, const char *space);
/* The names of the open lockspaces of a driver: a new array of borrowed strings. */
GPtrArray *op_space_names(Engine *engine, const char *driver_name);
/* The lockspace of `resource` was opened by an OP_SPACE of one's own: takes the handle over. */
void op_space_opened_by_name(Engine *engine, const Resource *resource, void *handle);
/* The empty table of lockspaces; unreferencing it closes them. */
GHashTable *op_spaces_new(void);
/* The empty table of who waits for which resource. */
GHashTable *op_tickets_new(void);

/* ---- acquire.c ------------------------------------------------------------------------- */

/* How a protocol wants repetition to be treated. */
typedef enum AcquireStyle {
    ACQUIRE_REPEATABLE, /* what the owner holds in the same mode counts as acquired */
    ACQUIRE_COUNTED,    /* stock: again exclusive is busy, again shared is counted */
} AcquireStyle;

/* `leases` are the owner's leases, one for each want in order, borrowed and only for the moment;
 * NULL with a fault (borrowed). */
typedef void (*AcquireDone)(GPtrArray *leases, const Fault *fault, void *data);

/* An empty request; adds a reference to the owner. `timeout_usec` 0 is the default. */
Acquire *acquire_new(Engine *engine, Owner *owner, AcquireStyle style, guint64 timeout_usec);
/* A disk by its path, to which the identity rules apply. */
void acquire_add_disk(Acquire *acquire, const char *path, hf_mode mode);
/* The disk that was added last is to be a safe image of this format, or the request fails. */
void acquire_check_image(Acquire *acquire, const char *format);
/* A resource by its name; `disk` may be NULL. */
void acquire_add_resource(Acquire *acquire, const Driver *driver, const char *space,
                          const char *key, const char *disk, hf_mode mode, unsigned flags);
/* Starts; done() is called exactly once unless acquire_cancel() comes first. The request frees
 * itself. */
void acquire_start(Acquire *acquire, AcquireDone done, void *data);
/* The caller went away: done() will not be called, what was taken is given back. */
void acquire_cancel(Acquire *acquire);
/* Something was released or committed: requests that wait for that try again. */
void acquire_retry_waiting(Engine *engine);

/* ---- image-check.c --------------------------------------------------------------------- */

gboolean image_check_knows(const char *format);
/* In a lane: 0 if the image is safe, else -1 after hf_call_error(). */
int image_check_disk(const char *path, const char *format, struct hf_call *call);

/* ---- refusal.c ------------------------------------------------------------------------- */

/* A lease that libvirt named by a hash gets its disk's name from the files its VM has open, if it
 * can be found now. TRUE if it had to be looked for. */
gboolean refusal_learn_disk(Lease *lease);
/* What a refusal is about: "disk /srv/a.img", a new string. `disk` may be NULL. */
char *refusal_subject(const Resource *resource, const char *disk);
/* HF_ERR_BUSY with its sentence. `leases` (may be empty) are those of the table that are in the
 * way; only if there are none, `seen` (may be NULL) tells whom the driver saw. `asking` may be
 * NULL. */
Fault *refusal_new(Engine *engine, const Owner *asking, const Resource *resource, const char *disk,
                   hf_mode mode, GPtrArray *leases, GPtrArray *seen);

/* ---- release.c ------------------------------------------------------------------------- */

/* All leases are free again; `fault` (or NULL) is something that was left behind; or, with
 * HF_ERR_TIMEOUT, storage does not answer: they will be free when it does. */
typedef void (*ReleaseDone)(const Fault *fault, void *data);
/* `leases` are of the table, in any state but RELEASING. `reason` is static text for the event,
 * or NULL for none. done() may be NULL; it is called once, perhaps before this returns, and after
 * `timeout_usec` at the latest unless that is 0. */
void release_leases(Engine *engine, GPtrArray *leases, const char *reason, guint64 timeout_usec,
                    ReleaseDone done, void *data);

/* ---- inspect.c ------------------------------------------------------------------------- */

typedef struct InspectResult {
    GPtrArray *resources; /* of Resource */
    GPtrArray *states;    /* of const char *, one for each */
    GPtrArray *holders;   /* of Holder */
    const char *state;    /* "free", "held", "shared" */
} InspectResult;
typedef void (*InspectDone)(const InspectResult *result, const Fault *fault, void *data);
/* Who holds the disk `path`, or if that is NULL the lease (space, key). done() is called once,
 * later. */
void inspect_start(Engine *engine, const char *path, const char *space, const char *key,
                   guint64 timeout_usec, InspectDone done, void *data);

typedef void (*EngineDone)(const Fault *fault, void *data);
/* OP_SPACE (with flags), OP_CREATE or OP_REMOVE of one resource; done() is called once, later. */
void inspect_run(Engine *engine, OpKind kind, const Resource *resource, unsigned flags,
                 EngineDone done, void *data);

/* ---- handover.c ------------------------------------------------------------------------ */

/* Before anything else of this. */
void handover_begin(Engine *engine);
/* Makes leases survive this process; done() is called once they do, perhaps before it returns. */
void handover_keep(Engine *engine, GPtrArray *leases, void (*done)(void *data), void *data);
/* TRUE if the next daemon would find every lease; writes the ledger anew if it has to. */
gboolean handover_is_complete(Engine *engine);
/* The owner's leases last with this connection, too: keeps it for the next daemon. Returns its name
 * in the vault, a new string, or NULL without a vault. */
char *handover_keep_connection(Engine *engine, Owner *owner, int fd);
/* That connection has closed. */
void handover_forget_connection(Engine *engine, Owner *owner, const char *name);
/* The lease's count has changed. */
void handover_update(Engine *engine, Lease *lease);
/* The lease is released, the owner is not needed any more. */
void handover_forget_lease(Engine *engine, Lease *lease);
void handover_forget_owner(Engine *engine, Owner *owner);
/* Writes the whole ledger anew from the table, which must not be while the vault waits. */
void handover_rewrite(Engine *engine);
/* The same if it can be, and is worth it, or `always`. */
void handover_compact(Engine *engine, gboolean always);
/* In adopt.c. At the start: takes over what an earlier daemon held. Its leases are in the table
 * when this returns; that each is really held is checked in the lanes afterwards. Their number. */
guint handover_adopt(Engine *engine);

/* ---- adopt-check.c --------------------------------------------------------------------- */

/* Has the parts that are marked as unchecked, so many of them, looked at by their drivers, soon:
 * those who have waited for this daemon are answered before. They are in the table, and their
 * descriptors are claimed. With `compact` the ledger is written anew at the end. */
void adopt_check_all(Engine *engine, guint parts, gboolean compact);
/* The op in which the part's driver looks at it, which is submitted now unless it has been. */
Op *adopt_check_op(Engine *engine, LeasePart *part);

/* ---- adopt-strays.c -------------------------------------------------------------------- */

/* Unlocks and closes these descriptors, which no lease wants, without waiting for storage that
 * hangs. Takes them over. */
void adopt_drop_strays(const GArray *fds);

/* ---- supervise.c ----------------------------------------------------------------------- */

/* The owner with these facts, known or new, with a reference for the caller to give back with
 * supervise_unref(). With `must_live`, NULL with a fault when there is no such process; otherwise
 * an owner whose process is gone is in state OWNER_GONE. pid 0 is never watched. */
Owner *supervise_get(Engine *engine, const char *name, const char *uuid, const char *uri, pid_t pid,
                     gboolean must_live, Fault **ret_fault);
void supervise_unref(Engine *engine, Owner *owner);
/* The owner of an earlier daemon, with a reference for the caller; `pidfd` is taken over, -1 for
 * none: then the process counts as the same if it has the same pid and start time. */
Owner *supervise_adopt_owner(Engine *engine, const char *name, const char *uuid, const char *uri,
                             pid_t pid, guint64 start_ticks, int pidfd);
/* The owner's pidfd, which stays the supervisor's; -1 for none. */
int supervise_pidfd(const Owner *owner);
/* Releases what the owner has if its process has ended. */
void supervise_recheck(Engine *engine, Owner *owner);
/* Leases have gone: the owner may not be needed any more. */
void supervise_check(Engine *engine, Owner *owner);
/* One more connection that speaks as the owner itself, one fewer. When the last closes while the
 * owner's process lives and holds leases, then with `end_process` the process is ended. */
void supervise_connected(Owner *owner);
void supervise_disconnected(Engine *engine, Owner *owner, gboolean end_process);
/* TRUE if the process has ended, asking the kernel now; starts the release if that is news. */
gboolean supervise_has_ended(Engine *engine, Owner *owner);
