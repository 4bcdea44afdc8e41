/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What went wrong, once, with all that a front end needs to tell it: the code, the sentence, and
 * the facts behind it. Made where the trouble is seen, reported where the request came from.
 */
#pragma once

#include "holder.h"

typedef struct Fault {
    hf_code code;
    int err;       /* an errno value, or 0 */
    char *message; /* one sentence for people */
    char *driver;  /* each string may be NULL: does not apply */
    char *space;
    char *key;
    char *disk;
    char *argument;  /* of HF_ERR_INVALID_ARGUMENT */
    char *operation; /* of HF_ERR_TIMEOUT: what is stuck */
    gint64 since_usec;
    pid_t pid; /* of HF_ERR_NO_SUCH_OWNER */
    hf_mode mode;
    GPtrArray *holders; /* of Holder; of HF_ERR_BUSY; never NULL */
} Fault;

/* A new fault with its sentence. Free with fault_free(). */
Fault *fault_new(hf_code code, int err, const char *format, ...) G_GNUC_PRINTF(3, 4);
Fault *fault_copy(const Fault *fault);
void fault_free(Fault *fault);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Fault, fault_free)

/* The name of a code in the native protocol, e.g. "Busy". */
const char *fault_class(hf_code code);
