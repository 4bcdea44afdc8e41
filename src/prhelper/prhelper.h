/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the parts of holdfast-pr-helper share: the values that travel through it, and the few
 * functions by which one part calls another.
 *
 *     bytes ──conn──> PrCommand ──gate──> policy ──> back end ──> PrReply ──conn──> bytes
 *                                                └──────> audit record
 *
 * Threads. Each connection has a thread of its own, which reads a request, carries it out and
 * answers; what blocks (the ioctl, /sys) blocks in that thread. One more, the reader (reader.h),
 * waits for all requests, and spares the connection's thread those that are over at once.
 * Everything below marked "in the connection's thread" runs there, or in the reader's in its
 * stead, while the gate of the command's device is held (gate.h): for one device at most one such
 * call is under way at a time, but that several PERSISTENT RESERVE IN of a PR_KIND_SCSI device may
 * be; for different devices there are several at once. A module that keeps state across devices
 * (policy, audit) therefore protects it with a mutex of its own, and holds that mutex over no call
 * that can block on a device.
 *
 * Stacks are small (PR_STACK_BYTES): nothing big goes on them. Memory is part of the contract
 * (4 MB idle): nothing here links libsystemd, and what one command allocates it frees.
 */
#pragma once

#include <glib.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "prhelper/spc-in.h"
#include "prhelper/spc-out.h"

G_BEGIN_DECLS

/* ---- sizes; those of SCSI are in spc-out.h and spc-sense.h -------------------------------- */

/** Of a CDB in the protocol (docs/interop of QEMU: pr-helper). */
#define PR_CDB_BYTES 16
#define PR_STACK_BYTES (256 * 1024)

/** Milliseconds, monotonic, some of them late: the coarse clock costs nothing. Any thread. */
static inline gint64 pr_now_msec(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return now.tv_sec * G_GINT64_CONSTANT(1000) + now.tv_nsec / 1000000;
}

/* ---- who asks ---------------------------------------------------------------------------- */

/**
 * The process at the other end of a connection, as it was when it connected. Made once for each
 * connection, never changed, freed with it. Strings are valid UTF-8.
 */
typedef struct PrPeer {
    pid_t pid; /**< 0: in another pid namespace, and so unknown */
    uid_t uid;
    gid_t gid;
    int pidfd;    /**< -1: unknown; for "does it still live", never for signals */
    char *cgroup; /**< path in the unified hierarchy, "/machine.slice/..."; NULL: unknown */
    char *label;  /**< of a security module, without a newline; NULL: none */
    char *vm;     /**< name of the VM (QEMU's -name guest=, libvirt's scope); NULL: can't be told */
} PrPeer;

/* ---- on what ----------------------------------------------------------------------------- */

typedef enum PrKind {
    PR_KIND_OTHER,     /**< no disk at all: a file, a pipe, /dev/null, a loop device */
    PR_KIND_SCSI,      /**< a whole SCSI disk (sd), or another SCSI device that knows SG_IO */
    PR_KIND_SG,        /**< the same as a character device (sg) */
    PR_KIND_MULTIPATH, /**< dm-multipath: device-mapper, its UUID begins with "mpath-" */
    PR_KIND_NVME,      /**< a whole NVMe namespace */
    PR_KIND_PARTITION, /**< of any disk, including a dm partition (UUID "partN-") */
    PR_KIND_STACKED,   /**< dm-linear, LVM, MD or whatever else is made of other devices */
} PrKind;

/** "scsi", "multipath", ...: for messages and the log. Static. */
const char *pr_kind_name(PrKind kind);

/**
 * What the descriptor of a command refers to. Found in /sys, once for each device and kept as long
 * as the kernel's disk sequence number is the same. Never changed once it is made, but for how
 * quick it is; shared by reference between connections.
 */
typedef struct PrDevice {
    gatomicrefcount refs;
    dev_t dev;        /**< st_rdev */
    gboolean is_char; /**< a character device; dev numbers of both are apart */
    PrKind kind;
    uint64_t disk_sequence; /**< the kernel's number of this very disk; 0: it has none */
    char *name;             /**< the kernel's: "sda", "dm-3"; "" for PR_KIND_OTHER */
    char *wwid; /**< "naa.6001405…", "eui.…", "t10.…", for a map or partition that of the LUN below;
                     "" : none is known */
    /* how quick it is; see pr_device_is_quick() */
    atomic_uint commands;
    atomic_int slowness;
    atomic_llong slow_since_msec;
} PrDevice;

PrDevice *pr_device_ref(PrDevice *device);
void pr_device_unref(PrDevice *device);

/* ---- what -------------------------------------------------------------------------------- */

/** The parameter list of a PERSISTENT RESERVE OUT, in the host's byte order. */
typedef struct PrOutParameters {
    uint64_t key;           /**< reservation key: whose registration acts */
    uint64_t service_key;   /**< service action reservation key: new, or to be preempted */
    gboolean all_targets;   /**< ALL_TG_PT */
    gboolean specify_ports; /**< SPEC_I_PT: a list of transport ids follows */
    gboolean through_power; /**< APTPL */
    gboolean unregister;    /**< REGISTER AND MOVE only */
    uint16_t relative_port; /**< REGISTER AND MOVE only */
    const uint8_t *ids;     /**< transport ids, inside `data`; NULL: none */
    uint32_t ids_len;       /**< bytes at `ids` */
} PrOutParameters;

/** A request that was read whole. Lives in its connection, for one command at a time. */
typedef struct PrCommand {
    uint8_t cdb[PR_CDB_BYTES];
    uint8_t opcode;  /**< SPC_IN_OPCODE or SPC_OUT_OPCODE, nothing else gets here */
    uint8_t action;  /**< SpcOutAction or SpcInAction, or a number that is neither */
    uint8_t scope;   /**< OUT: CDB byte 2, high half */
    uint8_t type;    /**< OUT: CDB byte 2, low half: 1 WE, 3 EA, 5 WERO, 6 EARO, 7 WEAR, 8 EAAR */
    uint16_t length; /**< CDB bytes 7 and 8: allocation length (IN), parameter list length (OUT) */
    const uint8_t *data;     /**< OUT: `length` bytes of parameters, as they came */
    gboolean has_parameters; /**< OUT: `parameters` could be read; a list that is too short, or
                                  whose transport ids are wrong, is for the device to refuse */
    PrOutParameters parameters;
    int fd;             /**< the device; owned by the connection */
    gboolean writable;  /**< whether `fd` was opened for writing; only looked at for OUT */
    const PrPeer *peer; /**< owned by the connection */
    PrDevice *device;   /**< never NULL; referenced for the command's time */
} PrCommand;

/**
 * Reads the parameter list of `command` (an OUT with `data` and `length` set) into
 * `command->parameters`, and sets `has_parameters`. Pure; SPC-4, 6.16.3. In pr-out.c.
 */
void pr_out_parse(PrCommand *command);

/** "REGISTER AND IGNORE EXISTING KEY", "READ KEYS", ..., "service action 0x1f". Static. */
const char *pr_action_name(uint8_t opcode, uint8_t action);

/** "Write Exclusive", ..., NULL for a number that is no type. Static. */
const char *pr_type_name(uint8_t type);

/* ---- and the answer ---------------------------------------------------------------------- */

/** An answer. All zero is GOOD without data. */
typedef struct PrReply {
    int32_t status;                /**< a SpcStatus, or what else the device said */
    uint8_t sense[SPC_SENSE_SIZE]; /**< fixed format (SPC-4, 4.5.3); with CHECK CONDITION only */
    uint32_t size;                 /**< bytes at `data`; only with GOOD, at most the length asked */
    uint8_t *data;                 /**< SPC_LIST_MAX, the caller's; never NULL */
} PrReply;

/** Makes the reply a CHECK CONDITION with fixed-format sense data. */
void pr_reply_check_condition(PrReply *reply, SpcSense sense);

/** Makes the reply a bare status without data and sense. */
void pr_reply_status(PrReply *reply, int32_t status);

/**
 * Turns descriptor-format sense data (72h, 73h) of `len` bytes into fixed format; fixed format is
 * copied. `sense` and `ret_sense` may be the same. Pure. SPC-4, 4.5. In sense.c.
 */
void pr_sense_to_fixed(const uint8_t *sense, gsize len, uint8_t ret_sense[SPC_SENSE_SIZE]);

/** The key, code and qualifier of sense data in either format; all 0 when there are none. */
SpcSense pr_sense_read(const uint8_t *sense, gsize len);

/* ---- back ends --------------------------------------------------------------------------- */

typedef struct PrConfig PrConfig;

/**
 * One way to carry a command out. Plain blocking code; static, one for each way. The table of all
 * is in dispatch.c, the first that takes the device gets the command.
 */
typedef struct PrBackend {
    const char *name; /**< "sg-io", "mpath", "kernel" */

    /**
     * Called once, before threads exist and while the process still has all its privileges: loads
     * what has to be loaded (dlopen), or starts a process that has to keep them. Returns 0, or a
     * negative errno when the back end can't work: it then takes no device; `ret_error` says why,
     * in a sentence for the log. NULL: nothing to do.
     */
    int (*prepare)(const PrConfig *config, char **ret_error);

    /** Whether this back end is for that device. Must not block. In the connection's thread. */
    gboolean (*takes)(const PrConfig *config, const PrDevice *device);

    /**
     * Carries the command out and fills `reply`, which is all zero but for `data`. It may block as
     * long as the device does; the answer to the guest does not depend on its return (gate.c). In
     * the connection's thread. Must not close command->fd.
     */
    void (*execute)(const PrConfig *config, const PrCommand *command, PrReply *reply);

    /** The inverse of `prepare`, at the end of the process, when no command is under way. */
    void (*finish)(void);

    /** Capabilities that `execute` needs, a mask of 1 << CAP_*; they survive the drop. */
    uint64_t capabilities;
} PrBackend;

extern const PrBackend pr_backend_sg_io;  /**< sg-io.c: SCSI */
extern const PrBackend pr_backend_mpath;  /**< mpath.c: dm-multipath */
extern const PrBackend pr_backend_kernel; /**< kernel.c: the kernel's IOC_PR_*, for NVMe */

/**
 * SG_IO with the command's CDB and data, as the SCSI back end does it: for back ends that need it
 * (READ KEYS by one path, reading a result back). `fd` need not be the command's own. With
 * `retry_attention`, unit attentions and other states that pass are tried again: only for commands
 * that the helper sends on its own account, never for a guest's, which must hear of them.
 */
void pr_sg_execute(int fd, const uint8_t cdb[PR_CDB_BYTES], const uint8_t *parameters,
                   uint16_t length, gboolean retry_attention, PrReply *reply);

/* ---- configuration ----------------------------------------------------------------------- */

typedef struct PrPolicy PrPolicy; /**< policy.c: rules, and which VM was seen on which device */
typedef struct PrAudit PrAudit;   /**< audit.c: where the records go */

/** How commands to a dm-multipath map are carried out. */
typedef enum PrMultipath {
    PR_MULTIPATH_AUTO,    /**< libmpathpersist where it can be loaded, otherwise path by path */
    PR_MULTIPATH_LIBRARY, /**< libmpathpersist has to be there */
    PR_MULTIPATH_PATHS,   /**< path by path, always */
} PrMultipath;

/** All settings of the helper. Read at the start, never changed. */
struct PrConfig {
    gboolean allow_partitions; /**< commands to a partition reach the whole LUN: default no */
    gboolean allow_stacked;    /**< the same for dm-linear, LVM and others */
    PrMultipath multipath;
    PrPolicy *policy; /**< never NULL */
    PrAudit *audit;   /**< never NULL */
};

/**
 * Reads holdfast.conf. What is wrong or odd is appended to `problems` (settings_problems_new());
 * NULL when one of them is an error. A missing file is an error with `must_exist`. In config.c.
 */
PrConfig *pr_config_load(const char *path, gboolean must_exist, GPtrArray *problems);
void pr_config_free(PrConfig *config);

/**
 * Opens what the log needs (a file, the journal's socket), before privileges are dropped and before
 * threads exist. FALSE with a sentence in `ret_error`: the helper refuses to start. In audit.c.
 */
gboolean pr_audit_open(PrAudit *audit, char **ret_error);

/* ---- policy ------------------------------------------------------------------------------ */

typedef enum PrVerdict {
    PR_ALLOW,
    PR_WARN,   /**< carried out; the reason goes to the log */
    PR_REFUSE, /**< not carried out; the guest gets status and sense, the log the reason */
} PrVerdict;

/** What the policy says about one command. */
typedef struct PrDecision {
    PrVerdict verdict;
    int32_t status; /**< with PR_REFUSE: CHECK CONDITION (then `sense`), RESERVATION CONFLICT… */
    SpcSense sense;
    char *reason; /**< one sentence, the caller frees it; NULL with PR_ALLOW */
} PrDecision;

/**
 * Whether the command may be sent. Before the back end; a read-only descriptor, a partition and a
 * stacked device have been refused already. In the connection's thread; must not block. In
 * policy.c.
 */
void pr_policy_decide(PrPolicy *policy, const PrCommand *command, PrDecision *ret_decision);

/**
 * Tells the policy how a command ended that it had allowed, so that it knows which VM registered
 * which key on which device. In the connection's thread; must not block.
 */
void pr_policy_note(PrPolicy *policy, const PrCommand *command, const PrReply *reply);

/** Tells the policy that a connection has ended: its peer may be gone. */
void pr_policy_forget_peer(PrPolicy *policy, const PrPeer *peer);

/* ---- audit ------------------------------------------------------------------------------- */

/** One line of the log: a command and what became of it. Valid for the call only. */
typedef struct PrRecord {
    const PrCommand *command;
    const PrReply *reply;
    const PrDecision *decision; /**< NULL: refused before the policy was asked, see `reason` */
    const char *reason;         /**< why it was refused or warned about; NULL: nothing to say */
    const char *backend;        /**< NULL: no back end saw it */
    gint64 time_usec;           /**< since the epoch, when the request had been read */
    gint64 latency_usec;        /**< from then until the answer was known */
} PrRecord;

/**
 * Writes the record of a command: each PR OUT, and each PR IN that was refused. Before the answer
 * is sent, so that what a guest was told is in the log. In the connection's thread; may block on
 * the log only. In audit.c.
 */
void pr_audit_record(PrAudit *audit, const PrRecord *record);

G_END_DECLS
