/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libholdfast: talk to a Holdfast daemon from C or C++.
 *
 * The library speaks the native protocol (docs/native-protocol.rst) over the daemon's Unix
 * socket. It never logs, never installs signal handlers, starts no threads and keeps no global
 * state. A client object belongs to one thread at a time; several clients may be used at once.
 *
 * Conventions, for every function below:
 *  - functions that can fail return 0 or a pointer on success, and a negative hf_code or NULL on
 *    failure; when `ret_error` is not NULL it then receives an hf_error that the caller frees
 *    with hf_error_free(), and it is left alone on success;
 *  - strings that are passed in are copied, strings handed out as `const char *` live as long as
 *    the object they came from, strings handed out as `char *` are freed with free();
 *  - times are in milliseconds unless the name says otherwise, points in time are microseconds
 *    since 1970-01-01 UTC.
 */
#ifndef HOLDFAST_H
#define HOLDFAST_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Version of the native protocol that this library speaks; see the daemon's greeting. */
#define HF_PROTOCOL_VERSION 1

/** How a disk or lease is wanted. The numbers are part of the ABI. */
typedef enum hf_mode {
    HF_MODE_EXCLUSIVE = 0, /**< one writer, nobody else */
    HF_MODE_SHARED = 1,    /**< several holders that have agreed among themselves to share */
    HF_MODE_READONLY = 2,  /**< a reader: goes with other readers and sharers, not with a writer */
} hf_mode;

/** What went wrong; the names in quotes are the error classes of the native protocol. */
typedef enum hf_code {
    HF_OK = 0,
    HF_ERR_INTERNAL = -1,          /**< "Internal": a fault in the daemon or the library */
    HF_ERR_CONNECTION = -2,        /**< no daemon, connection lost, or not a Holdfast daemon */
    HF_ERR_INVALID_SYNTAX = -3,    /**< "InvalidSyntax": not JSON, too long, too deep */
    HF_ERR_COMMAND_NOT_FOUND = -4, /**< "CommandNotFound" */
    HF_ERR_INVALID_ARGUMENT = -5,  /**< "InvalidArgument": missing, wrong type, impossible */
    HF_ERR_PERMISSION = -6,        /**< "PermissionDenied": this peer may only read, or that
                                        owner or disk is not this daemon's business */
    HF_ERR_BUSY = -7,              /**< "Busy": somebody else holds it */
    HF_ERR_NOT_HELD = -8,          /**< "NotHeld": the owner does not hold what it releases */
    HF_ERR_NO_SUCH_OWNER = -9,     /**< "NoSuchOwner": the owner's process does not exist */
    HF_ERR_LEASE_REQUIRED = -10,   /**< "LeaseRequired": require_lease_for_disks says so */
    HF_ERR_BAD_RESOURCE = -11,     /**< "BadResource": missing, a directory, a FIFO, ... */
    HF_ERR_STORAGE = -12,          /**< "StorageError": an operation on storage failed */
    HF_ERR_TIMEOUT = -13,          /**< "Timeout": storage did not answer in time */
} hf_code;

typedef struct hf_client hf_client;
typedef struct hf_error hf_error;
typedef struct hf_request hf_request;
typedef struct hf_leases hf_leases;

/* ---- errors ---------------------------------------------------------------------------- */

/** The code of an error. */
hf_code hf_error_code(const hf_error *error);
/** One sentence for people, without a newline. */
const char *hf_error_message(const hf_error *error);
/** The protocol's whole error object as JSON text ("{}" for errors made by the library). */
const char *hf_error_json(const hf_error *error);
/** Frees an error; NULL is allowed. */
void hf_error_free(hf_error *error);

/* ---- a connection ---------------------------------------------------------------------- */

/**
 * Where the daemon listens: $HOLDFAST_SOCKET, else for root /run/holdfast/holdfast.sock, else
 * $XDG_RUNTIME_DIR/holdfast/holdfast.sock (without that variable ~/.cache/holdfast/...).
 * Returns a string to free(), or NULL when out of memory.
 */
char *hf_default_socket(void);

/**
 * Connects and reads the greeting, within `timeout_ms` (-1: no limit).
 * `socket_path` NULL means hf_default_socket().
 */
hf_client *hf_connect(const char *socket_path, int timeout_ms, hf_error **ret_error);

/** The greeting as JSON text. */
const char *hf_greeting(const hf_client *client);

/**
 * The connection's descriptor, to wait for events with poll(); owned by the client and
 * close-on-exec. It changes when the library connects again after a daemon's restart.
 */
int hf_fd(const hf_client *client);

/** Closes the connection and frees the client; NULL is allowed. Leases are not affected,
 *  except those acquired with hf_request_set_until_close(). */
void hf_disconnect(hf_client *client);

/* ---- what to acquire or release -------------------------------------------------------- */

/** An empty request for the owner with this pid; 0 is the calling process. NULL: no memory. */
hf_request *hf_request_new(pid_t pid);
void hf_request_free(hf_request *request);
/** The VM's name, UUID (text form) and hypervisor URI; each optional, NULL removes it. */
int hf_request_set_name(hf_request *request, const char *name);
int hf_request_set_uuid(hf_request *request, const char *uuid);
int hf_request_set_uri(hf_request *request, const char *uri);
/**
 * The owner lasts until its process has ended AND this connection is closed in every process
 * that has it (hand hf_fd() down to children without close-on-exec). For programs that put
 * themselves into the background. Without this call the owner is its process alone.
 */
int hf_request_set_until_close(hf_request *request);
/** How long the daemon may work on the request; 0 is the daemon's request_timeout. */
int hf_request_set_timeout(hf_request *request, unsigned timeout_ms);
/** A disk: an absolute path of an image file or block device. */
int hf_request_add_disk(hf_request *request, const char *path, hf_mode mode);
/** A manual lease: the file `key` in the lockspace directory `lockspace`. */
int hf_request_add_lease(hf_request *request, const char *lockspace, const char *key, hf_mode mode);

/* ---- commands -------------------------------------------------------------------------- */

/**
 * Acquires everything in the request, or nothing. What the same owner holds already in the same
 * mode counts as acquired, so a request may be repeated. The result lists the owner's leases
 * that the request named; `ret_leases` may be NULL.
 */
int hf_acquire(hf_client *client, const hf_request *request, hf_leases **ret_leases,
               hf_error **ret_error);
/** Releases what the request names, or all that the owner holds if it names nothing. */
int hf_release(hf_client *client, const hf_request *request, hf_error **ret_error);
/** Lists the leases that this daemon knows. */
int hf_query_leases(hf_client *client, hf_leases **ret_leases, hf_error **ret_error);
/**
 * What the daemon counts: the value that query-metrics returns as JSON text, to be freed with
 * free(); NULL with an error.
 */
char *hf_query_metrics(hf_client *client, hf_error **ret_error);

/**
 * Any command of the native protocol. `arguments` is a JSON object as text, or NULL. Returns the
 * value of "return" as JSON text, to be freed with free(), or NULL with an error.
 */
char *hf_command(hf_client *client, const char *command, const char *arguments,
                 hf_error **ret_error);

/**
 * The next event as JSON text (to free()), waiting at most `timeout_ms` (-1: for ever, 0: not at
 * all). Events flow after hf_command(client, "subscribe", ...). Returns 1 and sets `ret_event`,
 * 0 when the time is over, or a negative hf_code.
 */
int hf_next_event(hf_client *client, int timeout_ms, char **ret_event, hf_error **ret_error);

/* ---- lists of leases ------------------------------------------------------------------- */

/** One lease; later versions add members at the end only. Absent strings are NULL. */
typedef struct hf_lease_info {
    const char *disk;      /**< what the user named: path of the disk; NULL for a lease */
    const char *driver;    /**< name of the driver */
    const char *lockspace; /**< directory; "" when the disk itself is locked */
    const char *key;       /**< name within the lockspace */
    hf_mode mode;
    int64_t since_usec;
    const char *owner_name;
    const char *owner_uuid;
    pid_t owner_pid;
    const char *host;
} hf_lease_info;

size_t hf_leases_count(const hf_leases *leases);
/** The lease at `index`, or NULL past the end. Owned by the list. */
const hf_lease_info *hf_leases_get(const hf_leases *leases, size_t index);
void hf_leases_free(hf_leases *leases);

#ifdef __cplusplus
}
#endif

#endif
