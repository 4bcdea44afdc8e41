/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of libholdfast share and nobody else sees (the version script hides hfc_*).
 * Plain C and json-c: the library must not drag GLib into its users' programs, must not log, and
 * must not touch anything that belongs to the whole process (signals, locale, working directory).
 *
 *   error.c       hf_error
 *   text.c        escaping, UTF-8, points in time
 *   connection.c  one socket: connect, greeting, lines in and out, deadlines
 *   events.c      the queue of events that came while something else was awaited
 *   image.c       hf_image_check(); image-copy.c hf_image_copy()
 *   client.c      hf_client: a connection that comes back, one request at a time
 *   request.c     hf_request
 *   commands.c    the commands with an interface of their own
 *   leases.c      hf_leases
 */
#pragma once

#include <json-c/json.h>
#include <stdbool.h>

#include "holdfast/holdfast.h"

/* A longer line is nobody's honest reply. */
#define HFC_MAX_REPLY ((size_t)16 << 20)
/* What the daemon takes at most; a longer request is refused here, with its reason. */
#define HFC_MAX_REQUEST ((size_t)1 << 20)
/* Replies are nested six deep at most in version 1; the daemon's own limit leaves room. */
#define HFC_MAX_DEPTH 32
/* Events that wait in the library: what 1 s of a busy host's events can be, and no more. */
#define HFC_MAX_EVENTS 8192
#define HFC_MAX_EVENT_BYTES ((size_t)8 << 20)

/*
 * How the times of one request add up. `timeout` is what the daemon was given for the request;
 * the library waits a little longer, so that the daemon's own "Timeout", which names the storage
 * that hangs, arrives first. A request without a timeout has the daemon's request_timeout, which
 * the library does not know, but which is an hour at most; HFC_SILENCE ends the wait for a daemon
 * that is stopped. A command that has no business with storage is answered at once or never.
 *
 *    0 s                 timeout     timeout + HFC_GRACE
 *    |-- daemon works ------|-- reply travels --|  here the library gives up
 *
 * A connection that is lost on the way is made again within the same time, and within
 * HFC_RECONNECT when the request has no timeout of its own.
 */
#define HFC_GRACE_MS 2000
#define HFC_SILENCE_MS 3660000
#define HFC_SILENCE_AT_ONCE_MS 60000
#define HFC_RECONNECT_MS 15000
/* A request that the daemon did not survive three times is perhaps why it did not. */
#define HFC_MAX_LOSSES 3

#define HFC_FOREVER INT64_MAX

/* The outcome of one step on the wire. */
typedef enum hfc_result {
    HFC_DONE,
    HFC_TIME_OVER, /* the deadline has passed; no error object was made */
    HFC_LOST,      /* the connection is gone: worth connecting again */
    HFC_FAILED,    /* hopeless: connecting again would not help */
} hfc_result;

/* ---- error.c ------------------------------------------------------------------------------ */

/* Makes an error unless `ret_error` is NULL. Returns `code`, for "return hfc_error(...)". */
int hfc_error(hf_error **ret_error, hf_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int hfc_no_memory(hf_error **ret_error);
/* From the "error" object of a reply. Returns its code. */
int hfc_error_from_reply(hf_error **ret_error, struct json_object *error);
/* Gives `error` to the caller who may not want it. */
void hfc_error_hand_over(hf_error **ret_error, hf_error *error);

/* ---- text.c ------------------------------------------------------------------------------- */

/* A copy of at most `max` bytes of `text` that is safe in a one-line sentence: what is no printable
 * UTF-8 is written as \xNN, and "..." tells that it was cut. NULL: no memory. */
char *hfc_printable(const char *text, size_t length, size_t max);
bool hfc_is_utf8(const char *text, size_t length);
/* TIME of the protocol to microseconds since 1970; false if it is none. */
bool hfc_parse_time(const char *text, int64_t *ret_usec);
/* The present as TIME; `buffer` takes at least 32 bytes. */
void hfc_format_now(char *buffer, size_t size);
/* Adds the string, or nothing when it is NULL. False: no memory. */
bool hfc_add_string(struct json_object *object, const char *key, const char *value);
/* Adds `value` and owns it from here on, whatever happens. False: no memory. */
bool hfc_add(struct json_object *object, const char *key, struct json_object *value);
/* The string at `key`, or NULL when there is none or it is something else. */
const char *hfc_get_string(struct json_object *object, const char *key);

/* ---- connection.c ------------------------------------------------------------------------- */

typedef struct hfc_connection {
    int fd;      /* -1: not connected */
    bool met;    /* somebody accepted the last connection */
    char *path;  /* of the socket */
    char *input; /* what was received and not yet taken: [start, start + used) */
    size_t start;
    size_t used;
    size_t size;
    size_t scanned; /* so much of `used` has no line feed */
} hfc_connection;

/* Milliseconds of the monotonic clock: the library's only look at the time that passes. */
int64_t hfc_now(void);
/* now + timeout_ms, or HFC_FOREVER for a negative one. */
int64_t hfc_deadline(int64_t timeout_ms);
void hfc_sleep(int64_t ms, int64_t deadline);

/* Connects to connection->path and takes the greeting's line; `ret_greeting` is its JSON text. */
hfc_result hfc_connection_open(hfc_connection *connection, int64_t deadline, char **ret_greeting,
                               hf_error **ret_error);
void hfc_connection_close(hfc_connection *connection);
/* Writes all of it. */
hfc_result hfc_connection_send(hfc_connection *connection, const char *text, size_t length,
                               int64_t deadline, hf_error **ret_error);
/* The next line as an object, and its text, which lives until the next call. */
hfc_result hfc_connection_receive(hfc_connection *connection, int64_t deadline,
                                  struct json_object **ret_object, const char **ret_text,
                                  hf_error **ret_error);

/* ---- events.c ----------------------------------------------------------------------------- */

typedef struct hfc_event hfc_event;
typedef struct hfc_events {
    hfc_event *first;
    hfc_event *last;
    size_t count;
    size_t bytes;
    size_t lost; /* came when the queue was full; told after the queue's last one */
} hfc_events;

/* Keeps a copy of the event's text, or counts it as lost when the queue is full. */
void hfc_events_push(hfc_events *events, const char *text);
/* Says in the stream of events that an unknown number of them is missing here. */
void hfc_events_push_gap(hfc_events *events);
/* The oldest, to free(), or NULL when there is none. */
char *hfc_events_pop(hfc_events *events);
void hfc_events_clear(hfc_events *events);

/* ---- client.c ----------------------------------------------------------------------------- */

/*
 * One command and its reply, over as many connections as it takes. `arguments` may be NULL.
 * Returns the value of "return" with a reference for the caller, or NULL with an error.
 */
struct json_object *hfc_call(hf_client *client, const char *command, struct json_object *arguments,
                             hf_error **ret_error);
/* In commands.c. A release was repeated, and something that it names is not held: the first try may
 * have released all, or have come to its end for some only, and the daemon releases all or nothing.
 * So what is left of several is released one by one. The reply to the whole, or NULL. */
struct json_object *hfc_release_rest(hf_client *client, struct json_object *arguments,
                                     hf_error **ret_error);
/* HF_ERR_CONNECTION: the daemon answered `command` with something that is no answer to it. */
int hfc_bad_reply(const hf_client *client, const char *command, const char *what,
                  hf_error **ret_error);

/* ---- request.c ---------------------------------------------------------------------------- */

/* The arguments of "acquire", or, with `release`, of "release". NULL: no memory. */
struct json_object *hfc_request_arguments(const hf_request *request, bool release);

/* ---- leases.c ----------------------------------------------------------------------------- */

/* From {"leases": [...]}; takes a reference of its own. NULL with `ret_what` (what is wrong with
 * it) when it is something else, NULL with `ret_what` NULL when there is no memory. */
hf_leases *hfc_leases_from_reply(struct json_object *reply, const char **ret_what);
