/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One connection: socket, greeting, lines in and lines out. Every wait is a poll() with a
 * deadline on a non-blocking, close-on-exec socket; nothing here knows commands, or connects a
 * second time.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "client-internal.h"

#define CONNECTION_CHUNK ((size_t)64 << 10)
/* So much of a stranger's line is quoted in an error. */
#define CONNECTION_EXCERPT 40

int64_t hfc_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t hfc_deadline(int64_t timeout_ms)
{
    return timeout_ms < 0 ? HFC_FOREVER : hfc_now() + timeout_ms;
}

/* What poll() takes: the time left, rounded to its range; 0 when it is over. */
static int connection_left(int64_t deadline)
{
    int64_t left;

    if (deadline == HFC_FOREVER)
        return -1;
    left = deadline - hfc_now();
    if (left <= 0)
        return 0;
    return left > 3600000 ? 3600000 : (int)left;
}

void hfc_sleep(int64_t ms, int64_t deadline)
{
    int left = connection_left(deadline);

    poll(NULL, 0, left >= 0 && left < ms ? left : (int)ms);
}

static const char *connection_strerror(int err)
{
    const char *text = strerrordesc_np(err);

    return text ? text : "unknown error";
}

/* HFC_DONE when the socket is ready for one of `events`. */
static hfc_result connection_wait(const hfc_connection *connection, short events, int64_t deadline)
{
    struct pollfd item = {.fd = connection->fd, .events = events};

    for (;;) {
        int left = connection_left(deadline);
        int n = poll(&item, 1, left);

        if (n > 0)
            return HFC_DONE;
        /* The range of poll() is shorter than a deadline may be, and a signal is no time-out. */
        if ((n == 0 || errno == EINTR) && connection_left(deadline) != 0)
            continue;
        return HFC_TIME_OVER;
    }
}

static hfc_result connection_lost(const hfc_connection *connection, int err, hf_error **ret_error)
{
    if (err == 0)
        hfc_error(ret_error, HF_ERR_CONNECTION, "the daemon at %s closed the connection",
                  connection->path);
    else
        hfc_error(ret_error, HF_ERR_CONNECTION, "the connection to the daemon at %s broke: %s",
                  connection->path, connection_strerror(err));
    return HFC_LOST;
}

/* A socket that is none of the three standard streams, even when the caller has closed those:
 * what a program prints must never end up in the daemon. */
static int connection_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd >= 0 && fd <= STDERR_FILENO) {
        int higher = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
        int err = errno;

        close(fd);
        errno = err;
        return higher;
    }
    return fd;
}

/* Tells what to do about it; whether trying again could help. */
static hfc_result connection_refused(const char *path, int err, hf_error **ret_error)
{
    switch (err) {
    case ENOENT:
    case ECONNREFUSED:
        hfc_error(ret_error, HF_ERR_CONNECTION,
                  "no Holdfast daemon listens on %s (%s): start it with \"systemctl %sstart "
                  "holdfastd\" or \"holdfastd --socket %s\", or set HOLDFAST_SOCKET to where it "
                  "listens",
                  path, connection_strerror(err), geteuid() == 0 ? "" : "--user ", path);
        return HFC_LOST;
    case EACCES:
    case EPERM:
        hfc_error(ret_error, HF_ERR_CONNECTION,
                  "cannot connect to the Holdfast daemon at %s (%s): it serves its own user only, "
                  "and readers in its socket_group",
                  path, connection_strerror(err));
        return HFC_FAILED;
    case ENOTSOCK:
    case EPROTOTYPE:
        hfc_error(ret_error, HF_ERR_CONNECTION, "%s is not a Holdfast daemon's socket (%s)", path,
                  connection_strerror(err));
        return HFC_FAILED;
    default:
        hfc_error(ret_error, HF_ERR_CONNECTION, "cannot connect to the Holdfast daemon at %s: %s",
                  path, connection_strerror(err));
        return HFC_FAILED;
    }
}

static hfc_result connection_connect(hfc_connection *connection, int64_t deadline,
                                     hf_error **ret_error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = connection->path;
    int64_t pause = 1;

    if (strlen(path) >= sizeof(address.sun_path)) {
        hfc_error(ret_error, HF_ERR_CONNECTION,
                  "the path of the daemon's socket is too long, a Unix socket's has at most %zu "
                  "bytes: %s",
                  sizeof(address.sun_path) - 1, path);
        return HFC_FAILED;
    }
    strcpy(address.sun_path, path);
    connection->fd = connection_socket();
    if (connection->fd < 0) {
        hfc_error(ret_error, HF_ERR_CONNECTION, "cannot create a socket to connect to %s: %s", path,
                  connection_strerror(errno));
        return HFC_FAILED;
    }
    while (connect(connection->fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        /* EAGAIN: as many are waiting to be accepted as the daemon allows; poll() cannot tell. */
        if (errno != EAGAIN && errno != EINTR)
            return connection_refused(path, errno, ret_error);
        if (connection_left(deadline) == 0) {
            hfc_error(ret_error, HF_ERR_CONNECTION,
                      "the Holdfast daemon at %s did not accept the connection in time", path);
            return HFC_FAILED;
        }
        hfc_sleep(pause, deadline);
        pause = pause < 100 ? pause * 2 : pause;
    }
    return HFC_DONE;
}

static hfc_result connection_not_holdfast(const hfc_connection *connection, const char *line,
                                          hf_error **ret_error)
{
    char *excerpt = hfc_printable(line, strlen(line), CONNECTION_EXCERPT);

    hfc_error(ret_error, HF_ERR_CONNECTION, "%s is not a Holdfast daemon: it greets with \"%s\"",
              connection->path, excerpt ? excerpt : "");
    free(excerpt);
    return HFC_FAILED;
}

static hfc_result connection_check_greeting(const hfc_connection *connection,
                                            struct json_object *object, const char *line,
                                            hf_error **ret_error)
{
    struct json_object *greeting = NULL, *protocol = NULL;

    if (!json_object_object_get_ex(object, "holdfast", &greeting) ||
        !json_object_object_get_ex(greeting, "protocol", &protocol) ||
        !json_object_is_type(protocol, json_type_int))
        return connection_not_holdfast(connection, line, ret_error);
    if (json_object_get_int(protocol) != HF_PROTOCOL_VERSION) {
        hfc_error(ret_error, HF_ERR_CONNECTION,
                  "the Holdfast daemon at %s speaks version %d of the protocol, this library "
                  "version %d: use those of one release",
                  connection->path, json_object_get_int(protocol), HF_PROTOCOL_VERSION);
        return HFC_FAILED;
    }
    return HFC_DONE;
}

static hfc_result connection_greeting(hfc_connection *connection, int64_t deadline,
                                      char **ret_greeting, hf_error **ret_error)
{
    struct json_object *object = NULL;
    hf_error *error = NULL;
    const char *line;
    hfc_result result = hfc_connection_receive(connection, deadline, &object, &line, &error);

    if (result == HFC_TIME_OVER) {
        hfc_error(ret_error, HF_ERR_CONNECTION,
                  "whatever listens on %s sent no greeting in time: the Holdfast daemon is stopped "
                  "or overloaded, or it is another program",
                  connection->path);
        return HFC_FAILED;
    }
    if (result == HFC_LOST) {
        /* Whom the daemon does not serve, it leaves without a word. */
        hf_error_free(error);
        hfc_error(ret_error, HF_ERR_CONNECTION,
                  "the daemon at %s closed the connection without a greeting: it serves its own "
                  "user only, and readers in its socket_group",
                  connection->path);
        return HFC_LOST;
    }
    if (result != HFC_DONE) {
        hfc_error_hand_over(ret_error, error);
        return result;
    }
    result = connection_check_greeting(connection, object, line, ret_error);
    json_object_put(object);
    if (result != HFC_DONE)
        return result;
    *ret_greeting = strdup(line);
    if (!*ret_greeting) {
        hfc_no_memory(ret_error);
        return HFC_FAILED;
    }
    return HFC_DONE;
}

hfc_result hfc_connection_open(hfc_connection *connection, int64_t deadline, char **ret_greeting,
                               hf_error **ret_error)
{
    hfc_result result = connection_connect(connection, deadline, ret_error);

    connection->met = result == HFC_DONE;
    if (result == HFC_DONE)
        result = connection_greeting(connection, deadline, ret_greeting, ret_error);
    if (result != HFC_DONE)
        hfc_connection_close(connection);
    return result;
}

void hfc_connection_close(hfc_connection *connection)
{
    if (connection->fd >= 0)
        close(connection->fd);
    connection->fd = -1;
    free(connection->input);
    connection->input = NULL;
    connection->start = connection->used = connection->size = connection->scanned = 0;
}

/* Makes room for another chunk behind what is there. */
static bool connection_reserve(hfc_connection *connection)
{
    size_t size = connection->size ? connection->size : CONNECTION_CHUNK;
    char *input;

    if (connection->start > 0) {
        memmove(connection->input, connection->input + connection->start, connection->used);
        connection->start = 0;
    }
    while (size < connection->used + CONNECTION_CHUNK)
        size *= 2;
    if (size == connection->size)
        return true;
    input = realloc(connection->input, size);
    if (!input)
        return false;
    connection->input = input;
    connection->size = size;
    return true;
}

/* Takes what has arrived, a chunk at most; HFC_DONE also when nothing has. */
static hfc_result connection_read(hfc_connection *connection, hf_error **ret_error)
{
    ssize_t n;

    if (!connection_reserve(connection)) {
        hfc_no_memory(ret_error);
        return HFC_FAILED;
    }
    n = recv(connection->fd, connection->input + connection->used, CONNECTION_CHUNK, 0);
    if (n > 0) {
        connection->used += (size_t)n;
        return HFC_DONE;
    }
    if (n == 0)
        return connection_lost(connection, 0, ret_error);
    if (errno == EAGAIN || errno == EINTR)
        return HFC_DONE;
    return connection_lost(connection, errno, ret_error);
}

/* A daemon that is still writing to us, events say, may read on only when we do. */
static bool connection_wants_read(const hfc_connection *connection)
{
    return connection->used < HFC_MAX_REPLY;
}

hfc_result hfc_connection_send(hfc_connection *connection, const char *text, size_t length,
                               int64_t deadline, hf_error **ret_error)
{
    while (length > 0) {
        ssize_t n = send(connection->fd, text, length, MSG_NOSIGNAL);

        if (n >= 0) {
            text += n;
            length -= (size_t)n;
        } else if (errno == EAGAIN) {
            hfc_result result = connection_wait(
                connection, connection_wants_read(connection) ? POLLIN | POLLOUT : POLLOUT,
                deadline);

            if (result == HFC_DONE && connection_wants_read(connection))
                result = connection_read(connection, ret_error);
            if (result != HFC_DONE)
                return result;
        } else if (errno != EINTR) {
            return connection_lost(connection, errno, ret_error);
        }
    }
    return HFC_DONE;
}

/* The next whole line that has arrived already, ended by NUL instead of its line feed. */
static char *connection_take_line(hfc_connection *connection, size_t *ret_length)
{
    char *line = connection->input ? connection->input + connection->start : NULL;
    char *end = NULL;

    if (connection->used > connection->scanned)
        end = memchr(line + connection->scanned, '\n', connection->used - connection->scanned);
    if (!end) {
        connection->scanned = connection->used;
        return NULL;
    }
    *end = '\0';
    *ret_length = (size_t)(end - line);
    connection->start += *ret_length + 1;
    connection->used -= *ret_length + 1;
    connection->scanned = 0;
    return line;
}

static struct json_object *connection_parse(const char *line, size_t length)
{
    struct json_tokener *tokener = json_tokener_new_ex(HFC_MAX_DEPTH);
    struct json_object *object = NULL;

    if (!tokener)
        return NULL;
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    if (length > 0) {
        /* The NUL belongs to what is parsed: with it, the value is known to be complete. */
        object = json_tokener_parse_ex(tokener, line, (int)length + 1);
        if (json_tokener_get_error(tokener) != json_tokener_success ||
            json_tokener_get_parse_end(tokener) < length ||
            !json_object_is_type(object, json_type_object)) {
            json_object_put(object);
            object = NULL;
        }
    }
    json_tokener_free(tokener);
    return object;
}

hfc_result hfc_connection_receive(hfc_connection *connection, int64_t deadline,
                                  struct json_object **ret_object, const char **ret_text,
                                  hf_error **ret_error)
{
    size_t length = 0;
    char *line, *excerpt;

    for (bool waited = false; !(line = connection_take_line(connection, &length)); waited = true) {
        hfc_result result;

        /* A line that trickles in byte by byte must not stop the clock. */
        if (waited && connection_left(deadline) == 0)
            return HFC_TIME_OVER;
        if (connection->used > HFC_MAX_REPLY) {
            hfc_error(ret_error, HF_ERR_CONNECTION,
                      "%s is not a Holdfast daemon: it sent a line of more than %zu MiB",
                      connection->path, HFC_MAX_REPLY >> 20);
            return HFC_FAILED;
        }
        result = connection_wait(connection, POLLIN, deadline);
        if (result == HFC_DONE)
            result = connection_read(connection, ret_error);
        if (result != HFC_DONE)
            return result;
    }
    *ret_object = connection_parse(line, length);
    if (*ret_object) {
        *ret_text = line;
        return HFC_DONE;
    }
    excerpt = hfc_printable(line, length, CONNECTION_EXCERPT);
    hfc_error(ret_error, HF_ERR_CONNECTION,
              "%s is not a Holdfast daemon: it sent \"%s\", which is no JSON object",
              connection->path, excerpt ? excerpt : "");
    free(excerpt);
    return HFC_FAILED;
}
