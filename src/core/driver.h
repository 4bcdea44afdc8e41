/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A driver as the daemon sees it: a table without holes, and the record of one call. No I/O.
 */
#pragma once

#include "fault.h"

/* A driver with every member filled in: nobody tests for NULL. */
typedef struct Driver {
    struct hf_driver api;
    gboolean builtin;
    char *path; /* of the shared object; NULL when built in */
} Driver;

/* What a callback said on its way. Lives on the caller's stack, see hf_call_init(). */
struct hf_call {
    const char *host;
    Fault *fault;       /* NULL until hf_call_error() */
    GPtrArray *claims;  /* of char * */
    GPtrArray *holders; /* of Holder; NULL: none, as mostly */
};

/* Copies `api` as far as its own size goes and fills in the rest. NULL with a fault if the struct
 * is not usable; `where` names it in the fault's sentence. Free with driver_free(). */
Driver *driver_new(const struct hf_driver *api, const char *where, Fault **ret_fault);
void driver_free(Driver *driver);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Driver, driver_free)

/* Prepares a call; `host` must outlive it. */
void hf_call_init(struct hf_call *call, const char *host);
/* hf_call_claim() for a text that is there already; takes it over. */
void call_take_claim(struct hf_call *call, char *claim);
/* Frees what the call has collected and nobody took out. */
void hf_call_clear(struct hf_call *call);
typedef struct hf_call HfCall;
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(HfCall, hf_call_clear)
