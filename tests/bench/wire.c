/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See wire.h. */
#include "wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define WIRE_PROGRAM 0x0EA7BEEF
#define WIRE_HEADER_BYTES 28 /* with the length */
#define WIRE_REPLY_MAX 65536
#define WIRE_STATUS_OFFSET 24

enum {
    WIRE_REGISTER = 1,
    WIRE_RESTRICT = 2,
    WIRE_ACQUIRE_RESOURCE = 6,
    WIRE_RELEASE_RESOURCE = 7,
    WIRE_CREATE_LOCKSPACE = 8,
};

static void die_with(int err, const char *format, va_list args)
{
    fprintf(stderr, "load: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, err ? ": %s\n" : "%s\n", err ? strerror(err) : "");
    exit(EXIT_FAILURE);
}

void die(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    die_with(0, format, args);
    va_end(args);
    abort();
}

void die_errno(const char *format, ...)
{
    int err = errno;
    va_list args;

    va_start(args, format);
    die_with(err, format, args);
    va_end(args);
    abort();
}

/* ---- building calls -------------------------------------------------------------------- */

static void call_put(Call *call, const void *data, size_t len)
{
    call->data = realloc(call->data, call->len + len);
    if (!call->data)
        die("out of memory");
    memcpy(call->data + call->len, data, len);
    call->len += len;
}

void call_clear(Call *call)
{
    free(call->data);
    *call = (Call){0};
}

static void wire_u32(Call *call, uint32_t value)
{
    uint32_t net = htonl(value);

    call_put(call, &net, sizeof(net));
}

static void wire_string(Call *call, const char *text)
{
    static const char zeros[4];
    size_t len = strlen(text);

    wire_u32(call, (uint32_t)len);
    call_put(call, text, len);
    call_put(call, zeros, -len % 4);
}

static Call wire_begin(uint32_t procedure)
{
    const uint32_t header[] = {0, WIRE_PROGRAM, 1, procedure, 0, 1, 0};
    Call call = {0};

    for (size_t i = 0; i < sizeof(header) / sizeof(header[0]); i++)
        wire_u32(&call, header[i]);
    return call;
}

static Call wire_end(Call call)
{
    uint32_t net = htonl((uint32_t)call.len);

    memcpy(call.data, &net, sizeof(net));
    return call;
}

Call wire_register(pid_t pid, uint32_t id)
{
    static const uint8_t uuid[12] = "bench-owner";
    Call call = wire_begin(WIRE_REGISTER);

    call_put(&call, uuid, sizeof(uuid));
    wire_u32(&call, id);
    wire_string(&call, "bench");
    wire_u32(&call, id);
    wire_u32(&call, (uint32_t)pid);
    wire_u32(&call, 0);
    return wire_end(call);
}

Call wire_restrict(void)
{
    Call call = wire_begin(WIRE_RESTRICT);

    wire_u32(&call, 0);
    return wire_end(call);
}

Call wire_create_lockspace(const char *space)
{
    Call call = wire_begin(WIRE_CREATE_LOCKSPACE);

    wire_string(&call, space);
    return wire_end(call);
}

static Call wire_resource(uint32_t procedure, const char *space, const char *name, uint32_t flags)
{
    Call call = wire_begin(procedure);

    wire_string(&call, space);
    wire_string(&call, name);
    wire_u32(&call, flags);
    return wire_end(call);
}

Call wire_acquire(const char *space, const char *name, uint32_t flags)
{
    return wire_resource(WIRE_ACQUIRE_RESOURCE, space, name, flags);
}

Call wire_release(const char *space, const char *name)
{
    return wire_resource(WIRE_RELEASE_RESOURCE, space, name, 0);
}

static void call_print(Call *call, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void call_print(Call *call, const char *format, ...)
{
    char text[4352]; /* a path and what is around it */
    va_list args;
    int len;

    va_start(args, format);
    len = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (len < 0 || (size_t)len >= sizeof(text))
        die("this path is too long");
    call_put(call, text, (size_t)len);
}

Call native_acquire(pid_t pid, char *const *paths, size_t n)
{
    Call call = {0};

    call_print(&call,
               "{\"execute\":\"acquire\",\"arguments\":{\"owner\":{\"pid\":%d,"
               "\"name\":\"bench\",\"uuid\":\"62656e63-682d-6f77-6e65-720000000001\"},\"disks\":[",
               (int)pid);
    for (size_t i = 0; i < n; i++)
        call_print(&call, "%s{\"path\":\"%s\"}", i ? "," : "", paths[i]);
    call_print(&call, "]},\"id\":1}\n");
    return call;
}

Call native_release(pid_t pid)
{
    Call call = {0};

    call_print(&call, "{\"execute\":\"release\",\"arguments\":{\"owner\":{\"pid\":%d}},\"id\":2}\n",
               (int)pid);
    return call;
}

/* ---- talking --------------------------------------------------------------------------- */

static struct sockaddr_un wire_address(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(address.sun_path))
        die("the path of the socket is too long: %s", path);
    memcpy(address.sun_path, path, strlen(path));
    return address;
}

int wire_connect(const char *path, bool wait)
{
    struct sockaddr_un address = wire_address(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (wait ? 0 : SOCK_NONBLOCK), 0);

    if (fd < 0)
        die_errno("socket");
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    if (wait || errno != EAGAIN) /* the queue of the listening socket is full */
        die_errno("connect to %s", path);
    close(fd);
    return -1;
}

int wire_listen(const char *path)
{
    struct sockaddr_un address = wire_address(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(fd, SOMAXCONN) < 0)
        die_errno("listen at %s", path);
    return fd;
}

void wire_send(int fd, const Call *call)
{
    size_t sent = 0;

    while (sent < call->len) {
        ssize_t n = send(fd, call->data + sent, call->len - sent, MSG_NOSIGNAL);

        if (n < 0)
            die_errno("send");
        sent += (size_t)n;
    }
}

static size_t wire_recv(int fd, uint8_t *data, size_t have, size_t room)
{
    ssize_t n = recv(fd, data + have, room - have, 0);

    if (n < 0)
        die_errno("recv");
    if (n == 0)
        die("the daemon closed the connection");
    return have + (size_t)n;
}

static uint32_t wire_get_u32(const uint8_t *data)
{
    uint32_t net;

    memcpy(&net, data, sizeof(net));
    return ntohl(net);
}

size_t wire_reply(const uint8_t *data, size_t have)
{
    uint32_t len;

    if (have < WIRE_HEADER_BYTES)
        return 0;
    len = wire_get_u32(data);
    if (len < WIRE_HEADER_BYTES || len > WIRE_REPLY_MAX)
        die("a reply of %u bytes", len);
    return have < len ? 0 : len;
}

/* An error's payload begins with code, domain, and "there is a message". */
void wire_check(const uint8_t *data, size_t len)
{
    size_t text = WIRE_HEADER_BYTES + 4 * sizeof(uint32_t);

    if (wire_get_u32(data + WIRE_STATUS_OFFSET) == 0)
        return;
    if (len < text || wire_get_u32(data + text - 4) > len - text)
        die("refused without a message");
    die("refused: %.*s", (int)wire_get_u32(data + text - 4), (const char *)data + text);
}

static void wire_exchange(int fd, const Call *call, bool must_succeed)
{
    uint8_t data[WIRE_REPLY_MAX];
    size_t have = 0;

    wire_send(fd, call);
    while (wire_reply(data, have) == 0)
        have = wire_recv(fd, data, have, sizeof(data));
    if (must_succeed)
        wire_check(data, have);
}

void wire_call(int fd, const Call *call)
{
    wire_exchange(fd, call, true);
}

void wire_ping(int fd, const Call *call)
{
    wire_exchange(fd, call, false);
}

bool wire_ask(const char *path, const Call *call, int timeout_ms)
{
    const struct timeval timeout = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
    struct sockaddr_un address = wire_address(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    uint8_t data[4096];
    size_t have = 0;
    ssize_t n = 1;

    if (fd < 0)
        die_errno("socket");
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
        send(fd, call->data, call->len, MSG_NOSIGNAL) != (ssize_t)call->len)
        n = 0;
    while (n > 0 && wire_reply(data, have) == 0) {
        n = recv(fd, data + have, sizeof(data) - have, 0);
        have += n > 0 ? (size_t)n : 0;
    }
    close(fd);
    return n > 0;
}

/* A line of any length; only how it begins is looked at. */
static void native_recv(int fd, const char *begin)
{
    static uint8_t data[256 * 1024];
    size_t have = 0;

    do
        have = wire_recv(fd, data, have, sizeof(data));
    while (have < sizeof(data) && data[have - 1] != '\n');
    if (have < strlen(begin) || memcmp(data, begin, strlen(begin)) != 0)
        die("refused: %.*s", (int)have, (const char *)data);
}

int native_connect(const char *path)
{
    int fd = wire_connect(path, true);

    native_recv(fd, "{\"holdfast\":");
    return fd;
}

void native_call(int fd, const Call *call)
{
    wire_send(fd, call);
    native_recv(fd, "{\"return\":");
}
