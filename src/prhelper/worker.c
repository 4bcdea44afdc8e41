/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See worker.h. */
#define G_LOG_DOMAIN "holdfast.pr"

#include "prhelper/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "prhelper/log.h"

#define WORKER_NAME "holdfast-pr-multipath"
/* One second in all. */
#define WORKER_END_TRIES 100
#define WORKER_END_PAUSE_USEC 10000

static int worker_socket = -1; /* set before threads exist, and closed when there are none */
static int worker_users;
static pid_t worker_pid;

/* ---- starting ------------------------------------------------------------------------------ */

/* Beside the helper in a build tree, else where it is installed. */
static char *worker_find(void)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *dir = self ? g_path_get_dirname(self) : NULL;
    g_autofree char *beside = dir ? g_build_filename(dir, WORKER_NAME, NULL) : NULL;

    if (beside && access(beside, X_OK) == 0)
        return g_steal_pointer(&beside);
    return g_strdup(HOLDFAST_LIBEXECDIR "/" WORKER_NAME);
}

/* Becomes the program, with the socket as its standard input. Async-signal-safe. */
static void worker_become(const char *path, int socket)
{
    char *const argv[] = {(char *)(uintptr_t)WORKER_NAME, NULL};
    int null = pr_log_in_background() ? open("/dev/null", O_RDWR | O_CLOEXEC) : -1;
    sigset_t none;

    /* who waits for the end of our output, as a caller of -d does, must not wait for this process
     */
    if (null >= 0) {
        dup2(null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (dup2(socket, MPATH_SOCKET) == MPATH_SOCKET)
        execv(path, argv);
    _exit(127);
}

int pr_worker_start(char **ret_error)
{
    g_autofree char *path = worker_find();
    int ends[2];
    pid_t pid;

    worker_users++;
    if (worker_socket >= 0)
        return 0;
    if (access(path, X_OK) < 0) {
        *ret_error = g_strdup_printf("cannot run %s: %s; without it there are no reservations on "
                                     "multipath and NVMe devices",
                                     path, g_strerror(errno));
        return -errno;
    }
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) {
        *ret_error = g_strdup_printf("cannot make a socket: %s", g_strerror(errno));
        return -errno;
    }
    pid = fork();
    if (pid == 0)
        worker_become(path, ends[1]);
    close(ends[1]);
    if (pid < 0) {
        *ret_error = g_strdup_printf("cannot start %s: %s", path, g_strerror(errno));
        close(ends[0]);
        return -errno;
    }
    worker_socket = ends[0];
    worker_pid = pid;
    return 0;
}

gboolean pr_worker_has_library(char **ret_error)
{
    g_autofree char *path = worker_find();
    char *argv[] = {path, (char *)(uintptr_t) "--check-library", NULL};
    g_autofree char *output = NULL;
    g_autoptr(GError) error = NULL;
    int status = 0;

    if (!g_spawn_sync(NULL, argv, NULL, G_SPAWN_STDOUT_TO_DEV_NULL, NULL, NULL, NULL, &output,
                      &status, &error)) {
        *ret_error = g_strdup(error->message);
        return FALSE;
    }
    if (g_spawn_check_wait_status(status, NULL))
        return TRUE;
    *ret_error = g_strdup(g_strstrip(output));
    return FALSE;
}

void pr_worker_stop(void)
{
    if (worker_users > 0 && --worker_users == 0 && worker_socket >= 0) {
        close(worker_socket);
        worker_socket = -1;
        /* it ends at once: milliseconds; whoever hangs in a device is a child of its own */
        for (int i = 0; i < WORKER_END_TRIES && waitpid(worker_pid, NULL, WNOHANG) == 0; i++)
            g_usleep(WORKER_END_PAUSE_USEC);
    }
}

/* ---- one command --------------------------------------------------------------------------- */

static int worker_send(uint32_t kind, uint32_t use, const PrCommand *command, int answer_socket)
{
    MpathRequest request = {.kind = kind, .use = use, .size = command->length};
    gboolean is_out = command->opcode == SPC_OUT_OPCODE;
    struct iovec parts[2] = {
        {.iov_base = &request, .iov_len = offsetof(MpathRequest, list)},
        {.iov_base = (void *)(uintptr_t)command->data, .iov_len = is_out ? command->length : 0}};
    union {
        char bytes[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr head;
    } control = {.bytes = {0}};
    struct msghdr message = {.msg_iov = parts,
                             .msg_iovlen = 2,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    const int fds[2] = {command->fd, answer_socket};

    memcpy(request.cdb, command->cdb, sizeof(request.cdb));
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(fds));
    memcpy(CMSG_DATA(head), fds, sizeof(fds));
    return sendmsg(worker_socket, &message, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* The answer's length; 0: the process has died; -ETIMEDOUT. */
static int worker_receive(int socket, MpathAnswer *answer)
{
    struct pollfd ready = {.fd = socket, .events = POLLIN};
    ssize_t len;
    int r;

    do
        r = poll(&ready, 1, MPATH_ANSWER_MSEC);
    while (r < 0 && errno == EINTR);
    if (r <= 0)
        return r < 0 ? -errno : -ETIMEDOUT;
    len = recv(socket, answer, sizeof(*answer), 0);
    if (len < 0)
        return errno == ECONNRESET ? 0 : -errno;
    if (len > 0 && ((gsize)len < offsetof(MpathAnswer, data) ||
                    (gsize)len - offsetof(MpathAnswer, data) < answer->size))
        return -EPROTO;
    return (int)len;
}

static void worker_reply(const PrCommand *command, const MpathAnswer *answer, PrReply *reply)
{
    if (answer->note[0] != '\0')
        g_message("%s, %s: %s", command->device->name,
                  pr_action_name(command->opcode, command->action), answer->note);
    reply->status = answer->status;
    memcpy(reply->sense, answer->sense, sizeof(reply->sense));
    if (answer->status == SPC_STATUS_GOOD && command->opcode == SPC_IN_OPCODE) {
        reply->size = MIN(MIN(answer->size, command->length), SPC_LIST_MAX);
        memcpy(reply->data, answer->data, reply->size);
    }
}

void pr_worker_execute(uint32_t kind, uint32_t use, const PrCommand *command, PrReply *reply)
{
    g_autofree MpathAnswer *answer = g_new0(MpathAnswer, 1); /* too big for a stack */
    int ends[2] = {-1, -1};
    int result;

    result = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0 ? -errno : 0;
    if (result == 0) {
        result = worker_send(kind, use, command, ends[1]);
        close(ends[1]);
        if (result == 0)
            result = worker_receive(ends[0], answer);
        close(ends[0]);
    }
    if (result > 0) {
        worker_reply(command, answer, reply);
        return;
    }
    g_warning("%s, %s: %s", command->device->name, pr_action_name(command->opcode, command->action),
              result == 0        ? "the process that carries it out has died"
              : result == -EPIPE ? WORKER_NAME " does not run any more; restart the helper"
                                 : g_strerror(-result));
    pr_reply_check_condition(reply, SPC_SENSE_LUN_COMM_FAILURE);
}
