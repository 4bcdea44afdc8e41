/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the load generator knows of the two protocols: calls are built before the clock starts, and
 * replies are only looked at as far as it takes to see that they say "yes". An error ends the
 * program with the daemon's own words. One thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { WIRE_ACQUIRE_SHARED = 1, WIRE_ACQUIRE_AUTOCREATE = 2 };

/* One call, ready to be sent: a frame of virtlockd's protocol, or a line of the native one. */
typedef struct Call {
    uint8_t *data;
    size_t len;
} Call;

/* Prints "load: MESSAGE" and ends the program. */
void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
/* Also says what errno means. */
void die_errno(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Calls of virtlockd's protocol; free with call_clear(). `space` "" is the default lockspace. */
Call wire_register(pid_t pid, uint32_t id);
Call wire_restrict(void);
Call wire_create_lockspace(const char *space);
Call wire_acquire(const char *space, const char *name, uint32_t flags);
Call wire_release(const char *space, const char *name);
void call_clear(Call *call);

/* Calls of the native protocol: all disks `paths` for the process `pid`; all that it holds. */
Call native_acquire(pid_t pid, char *const *paths, size_t n);
Call native_release(pid_t pid);

/* A connected stream socket. With `wait` false it does not block, and -1 means: not yet. */
int wire_connect(const char *path, bool wait);
/* A listening socket at a path that is not there yet. */
int wire_listen(const char *path);
void wire_send(int fd, const Call *call);
/* Sends a call and waits for its reply, which must be "yes". */
void wire_call(int fd, const Call *call);
/* The same, but any reply will do: it says that the daemon has come this far. */
void wire_ping(int fd, const Call *call);
/* Connects, makes a call and waits so long for any reply; false if something of that fails. */
bool wire_ask(const char *path, const Call *call, int timeout_ms);
/* The length of the reply that `data` begins with, 0 if it is not there yet. */
size_t wire_reply(const uint8_t *data, size_t have);
/* Ends the program if the reply is an error. */
void wire_check(const uint8_t *reply, size_t len);

/* Connects and reads the greeting. */
int native_connect(const char *path);
void native_call(int fd, const Call *call);
