/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The native protocol's codec: lines of JSON to structs and back, as docs/native-protocol.rst
 * describes them. No I/O, no locks, no state. Safe in any thread.
 */
#pragma once

#include <json-c/json.h>

#include "core/lease.h"

#define NATIVE_PROTOCOL_VERSION HF_PROTOCOL_VERSION
/* Bounds what one client can make the daemon keep, parse and do in one turn of its loop. */
#define NATIVE_MAX_LINE (1024 * 1024)
#define NATIVE_MAX_DEPTH 32
#define NATIVE_MAX_WANTS 4096

/* One request. */
typedef struct NativeRequest {
    char *execute;
    json_object *arguments; /* an object, or NULL */
    json_object *id;        /* NULL: none was given */
    gboolean has_id;
} NativeRequest;

/* A disk (path) or a lease (space, key). */
typedef struct NativeWant {
    char *path;
    char *format; /* of the disk's image, which is to be checked; or NULL */
    char *space;
    char *key;
    hf_mode mode;
} NativeWant;

/* Arguments of all commands; those that were not given are 0 or NULL. */
typedef struct NativeArguments {
    gboolean has_owner;
    pid_t pid;
    char *name;
    char *uuid;
    char *uri;
    gboolean until_close;
    GPtrArray *wants;   /* of NativeWant; never NULL */
    gboolean named_any; /* disks or leases was given, even if empty */
    guint64 timeout_usec;
    GPtrArray *events; /* of char *; NULL: all */
} NativeArguments;

/* Which arguments a command takes; or-ed. */
typedef enum NativeTakes {
    NATIVE_OWNER = 1 << 0,
    NATIVE_OWNER_PID = 1 << 1, /* an owner of which only the pid counts */
    NATIVE_WANTS = 1 << 2,     /* disks, leases */
    NATIVE_TIMEOUT = 1 << 3,
    NATIVE_FILTER = 1 << 4,  /* pid, uuid */
    NATIVE_SUBJECT = 1 << 5, /* disk or lease: one want */
    NATIVE_EVENTS = 1 << 6,
} NativeTakes;

/* Parses one line (without its line feed). FALSE with a fault; `request` then has as much of the
 * id as could be read, and is to be cleared in any case. */
gboolean native_parse_request(const char *line, gsize len, NativeRequest *request,
                              Fault **ret_fault);
void native_request_clear(NativeRequest *request);

/* Decodes a request's arguments; unknown ones are a fault. Free with native_arguments_free(). */
NativeArguments *native_parse_arguments(const NativeRequest *request, guint takes,
                                        Fault **ret_fault);
void native_arguments_free(NativeArguments *arguments);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(NativeArguments, native_arguments_free)

/* Values for replies; each returns a new object. */
json_object *native_owner(const Owner *owner, const char *host);
/* `reason` may be NULL; only events have one. */
json_object *native_lease(const Lease *lease, const char *host, const char *reason);
json_object *native_holder(const Holder *holder);
json_object *native_time(gint64 usec);        /* null for 0 */
json_object *native_string(const char *text); /* null for NULL; made valid UTF-8 */
json_object *native_refusal(const Fault *fault, const Owner *owner, const char *host);

/* Whole lines, with the line feed: new strings. They take `value` over. */
char *native_encode_return(const NativeRequest *request, json_object *value);
/* {"leases": [...]} as the value. */
char *native_encode_leases(const NativeRequest *request, GPtrArray *leases, const char *host);
char *native_encode_error(const NativeRequest *request, const Fault *fault);
char *native_encode_event(const char *name, json_object *data, gint64 usec);
char *native_encode_greeting(const char *version, const char *host, pid_t pid, gboolean full);
