/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who holds a disk, as it is told to people: one VM, where, since when, in which mode.
 * Plain values; no I/O beyond reading the clock's time zone.
 */
#pragma once

#include <glib.h>
#include <holdfast/driver.h>

/* How the facts are known; the words are part of the native protocol. */
typedef enum HolderSource {
    HOLDER_FROM_TABLE,  /* this daemon granted it */
    HOLDER_FROM_RECORD, /* the holder wrote it into the lock file */
    HOLDER_FROM_KERNEL, /* only the lock was seen */
} HolderSource;

typedef struct Holder {
    char *disk; /* each string may be NULL: not known */
    char *name;
    char *uuid;
    char *uri;
    char *host;
    pid_t pid;         /* 0: not known */
    gint64 since_usec; /* 0: not known */
    hf_mode mode;
    HolderSource source;
    gboolean stopping; /* its connection is lost and the daemon is ending it */
} Holder;

/* A deep copy of what a driver or the table says. Free with holder_free(). */
Holder *holder_new(const struct hf_holder *facts, HolderSource source);
Holder *holder_copy(const Holder *holder);
void holder_free(Holder *holder);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Holder, holder_free)

/* "VM web1 (uuid ..., pid 4711) on host n3 since 2026-01-31 10:42:07 CET, exclusive": a new string,
 * with what is not known left out; control characters in names are escaped. */
char *holder_to_string(const Holder *holder);

/* The sentence of a refusal, of which `what` is the subject ("disk /srv/a.img"): who holds it and
 * what to do. A holder that knows the thing under another name than `disk` (may be NULL) is shown
 * with it. `holders` may be empty. A new string. */
char *holder_refusal(const char *what, const char *disk, GPtrArray *holders);

/* "exclusive", "shared", "readonly". */
const char *mode_to_string(hf_mode mode);
gboolean mode_from_string(const char *text, hf_mode *ret_mode);
/* TRUE if holders in these modes get along. */
gboolean mode_compatible(hf_mode a, hf_mode b);

/* "2026-01-31T10:42:07.123456Z", a new string, of microseconds since 1970-01-01 UTC, and back. */
char *time_to_iso8601(gint64 usec);
/* The same into `text`, which it returns. */
#define TIME_BYTES 32
const char *time_format(gint64 usec, char text[static TIME_BYTES]);

/* A copy of text from somebody else that is safe to show: valid UTF-8, no control characters. */
char *text_for_people(const char *text);
