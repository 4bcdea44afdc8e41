/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * holdfast-pr-multipath: the part of holdfast-pr-helper that needs more than the helper may keep.
 * It is started by the helper, before that gives its privileges up, with a socket as descriptor 0,
 * and takes requests from it (protocol.h). Each is carried out by a child of its own, so that
 * a path that hangs, or a library that ends its process, costs one command. Should the one that
 * takes the requests end, there is a new one (minder.h).
 *
 * It also looks for paths that appear while their map is registered (watch.h). It reads no
 * configuration, opens no sockets but multipathd's and the kernel's, and has no state. It ends when
 * the helper has closed its end.
 */
#include <errno.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "prhelper/mpath/library.h"
#include "prhelper/mpath/map.h"
#include "prhelper/mpath/minder.h"
#include "prhelper/mpath/multipathd.h"
#include "prhelper/mpath/protocol.h"
#include "prhelper/mpath/watch.h"

/* ---- a request, in its child ------------------------------------------------------------------
 */

static void answer_note(MpathAnswer *answer, const char *text)
{
    size_t used = strlen(answer->note);

    if (text && *text)
        snprintf(answer->note + used, sizeof(answer->note) - used, "%s%s", used > 0 ? "; " : "",
                 text);
}

static void answer_result(MpathAnswer *answer, const PathResult *result)
{
    if (!result->answered) {
        answer->status = SPC_STATUS_CHECK_CONDITION;
        spc_sense_build(answer->sense, SPC_SENSE_LUN_COMM_FAILURE);
        return;
    }
    answer->status = result->status;
    memcpy(answer->sense, result->sense, sizeof(answer->sense));
}

static void answer_fault(MpathAnswer *answer, const SpcOutFault *fault)
{
    answer->status = SPC_STATUS_CHECK_CONDITION;
    if (fault->sense.key == 5)
        spc_sense_build_field(answer->sense, fault->sense, fault->byte);
    else
        spc_sense_build(answer->sense, fault->sense);
    answer_note(answer, fault->reason);
}

/* What the outcome means for multipathd, and then for paths that came back before it knew. */
static void worker_settle(const Map *old_map, dev_t dev, PathsOutcome *outcome, MpathAnswer *answer)
{
    char text[256] = "";
    PathOps ops;
    Map map;

    if (outcome->key_change == PATHS_KEY_AS_IT_IS)
        return;
    if (outcome->key_change == PATHS_KEY_SET)
        multipathd_set_key(old_map->name, outcome->key, outcome->aptpl, text, sizeof(text));
    else
        multipathd_unset_key(old_map->name, text, sizeof(text));
    answer_note(answer, text);
    if (map_read(dev, &map) == 0) {
        map_ops(&map, &ops);
        paths_catch_up(&ops, outcome);
    }
}

static void worker_note_paths(const Map *map, const PathsOutcome *outcome, MpathAnswer *answer)
{
    char text[160];

    answer_note(answer, outcome->remark);
    if (outcome->repaired > 0) {
        snprintf(text, sizeof(text), "%zu paths were registered again", outcome->repaired);
        answer_note(answer, text);
    }
    for (size_t i = 0; i < map->count; i++) {
        if (outcome->dead[i]) {
            snprintf(text, sizeof(text), "path %s does not answer", map->paths[i].name);
            answer_note(answer, text);
        }
    }
}

/* What the library has done is then in the paths' hands as if they had done it. */
static int worker_try_library(int fd, const SpcOut *out, PathsOutcome *outcome, MpathAnswer *answer)
{
    char text[200] = "";

    if (!library_wants(out))
        return -1;
    if (library_execute(fd, out, text, sizeof(text)) < 0) {
        /* "syntax error" is its answer to a wrong key and to a map without reservation_key */
        answer_note(answer, text);
        return -1;
    }
    memset(outcome, 0, sizeof(*outcome));
    outcome->result.answered = true;
    outcome->aptpl = out->aptpl;
    if (out->action == SPC_OUT_REGISTER || out->action == SPC_OUT_REGISTER_IGNORE) {
        outcome->key_change = PATHS_KEY_SET;
        outcome->key = out->service_key;
    } else if (out->action == SPC_OUT_CLEAR) {
        outcome->key_change = PATHS_KEY_UNSET;
        outcome->key = out->key;
    }
    return 0;
}

static void worker_map_out(int fd, dev_t dev, const MpathRequest *request, MpathAnswer *answer)
{
    PathsOutcome outcome;
    SpcOutFault fault;
    PathOps ops;
    SpcOut out;
    Map map;

    if (spc_out_parse(request->cdb, request->list, request->size, &out, &fault) < 0 ||
        paths_check(&out, &fault) < 0) {
        answer_fault(answer, &fault);
        return;
    }
    if (map_read(dev, &map) < 0 || map.count == 0) {
        fault = (SpcOutFault){SPC_SENSE_LUN_COMM_FAILURE, 0, "the map has no paths"};
        answer_fault(answer, &fault);
        return;
    }
    map_ops(&map, &ops);
    if (request->use != MPATH_USE_LIBRARY || worker_try_library(fd, &out, &outcome, answer) < 0)
        paths_execute(&ops, &out, &outcome);
    worker_settle(&map, dev, &outcome, answer);
    worker_note_paths(&map, &outcome, answer);
    answer_result(answer, &outcome.result);
}

static void worker_map_in(dev_t dev, const MpathRequest *request, MpathAnswer *answer)
{
    PathResult result = {.answered = false};
    size_t len = 0;
    PathOps ops;
    Map map;

    if (map_read(dev, &map) == 0) {
        map_ops(&map, &ops);
        paths_read(&ops, request->cdb, answer->data, request->size, &len, &result);
    }
    answer->size = (uint32_t)len;
    answer_result(answer, &result);
}

static void worker_kernel(int fd, const MpathRequest *request, MpathAnswer *answer)
{
    bool in = request->cdb[0] == SPC_IN_OPCODE;
    PathResult result;
    size_t len = 0;

    if (!in)
        memcpy(answer->data, request->list, request->size);
    map_command(fd, request->cdb, in, answer->data, request->size, &len, &result);
    answer->size = (uint32_t)len;
    answer_result(answer, &result);
}

static void worker_execute(int fd, const MpathRequest *request, MpathAnswer *answer)
{
    struct stat info;

    if (fstat(fd, &info) < 0 || !S_ISBLK(info.st_mode)) {
        answer->status = SPC_STATUS_CHECK_CONDITION;
        spc_sense_build(answer->sense, SPC_SENSE_INVALID_OPCODE);
    } else if (request->kind == MPATH_KERNEL) {
        worker_kernel(fd, request, answer);
    } else if (request->cdb[0] == SPC_IN_OPCODE) {
        worker_map_in(info.st_rdev, request, answer);
    } else {
        worker_map_out(fd, info.st_rdev, request, answer);
    }
}

static int worker_main(const MpathRequest *request, int device, int socket)
{
    static MpathAnswer answer;
    sigset_t none;
    size_t len;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGCHLD, SIG_DFL);
    worker_execute(device, request, &answer);
    len = offsetof(MpathAnswer, data) + answer.size;
    return send(socket, &answer, len, MSG_NOSIGNAL) == (ssize_t)len ? 0 : 1;
}

/* ---- the broker ------------------------------------------------------------------------------ */

/* One request with its two descriptors. 1; 0 at the end; -1 when it is to be dropped. */
static int broker_receive(MpathRequest *request, int *ret_device, int *ret_socket)
{
    union {
        char bytes[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr head;
    } control;
    struct iovec data = {.iov_base = request, .iov_len = sizeof(*request)};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    size_t head = offsetof(MpathRequest, list);
    ssize_t len = recvmsg(MPATH_SOCKET, &message, MSG_CMSG_CLOEXEC);
    struct cmsghdr *part = len > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    int fds[2];

    if (len == 0 || (len < 0 && errno != EINTR && errno != EAGAIN))
        return 0;
    if (!part || part->cmsg_type != SCM_RIGHTS || part->cmsg_len != CMSG_LEN(sizeof(fds)))
        return -1;
    memcpy(fds, CMSG_DATA(part), sizeof(fds));
    *ret_device = fds[0];
    *ret_socket = fds[1];
    /* and no other command: here it would be sent with rights that the helper does not have */
    if ((size_t)len < head || request->size > SPC_LIST_MAX ||
        (request->cdb[0] != SPC_IN_OPCODE &&
         (request->cdb[0] != SPC_OUT_OPCODE || (size_t)len != head + request->size))) {
        close(fds[0]);
        close(fds[1]);
        return -1;
    }
    return 1;
}

static void broker_start(const MpathRequest *request, int device, int socket)
{
    pid_t pid = fork();

    if (pid == 0)
        _exit(worker_main(request, device, socket));
    if (pid < 0)
        fprintf(stderr, "holdfast-pr-multipath: cannot start a process: %s\n", strerror(errno));
    close(device);
    close(socket);
}

static void broker_reap(int signals)
{
    struct signalfd_siginfo ignored;

    if (read(signals, &ignored, sizeof(ignored)) < 0)
        return;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
}

/* All but what path nodes, reservations and device-mapper need. */
static int broker_drop_privileges(void)
{
    const unsigned keep = 1u << CAP_SYS_RAWIO | 1u << CAP_SYS_ADMIN;
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{.effective = keep, .permitted = keep}, {0}};

    for (int i = 0; i <= CAP_LAST_CAP; i++) {
        if (!(keep & (i < 32 ? 1u << i : 0)))
            prctl(PR_CAPBSET_DROP, i, 0, 0, 0);
    }
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return (int)syscall(SYS_capset, &head, data);
}

/* An event is looked at in a process of its own. */
static void broker_repair(const WatchEvent *event)
{
    if (!watch_is_needed() || fork() != 0)
        return;
    signal(SIGCHLD, SIG_DFL);
    watch_repair(event);
    _exit(0);
}

/* Paths that may have appeared. */
static void broker_watch(int events)
{
    WatchEvent event;

    while (watch_next(events, &event))
        broker_repair(&event);
}

static void broker_run(int signals, int events)
{
    static MpathRequest request;
    struct pollfd fds[3] = {{.fd = MPATH_SOCKET, .events = POLLIN},
                            {.fd = signals, .events = POLLIN},
                            {.fd = events, .events = POLLIN}};
    int device, socket;

    for (;;) {
        if (poll(fds, 3, -1) < 0 && errno != EINTR)
            return;
        if (fds[1].revents)
            broker_reap(signals);
        if (fds[2].revents)
            broker_watch(events);
        if (!fds[0].revents)
            continue;
        switch (broker_receive(&request, &device, &socket)) {
        case 0:
            return;
        case 1:
            broker_start(&request, device, socket);
            break;
        default:
            break;
        }
    }
}

int main(int argc, char **argv)
{
    char text[200] = "";
    sigset_t mask;
    int signals, events;
    bool again;

    /* The helper asks once, before it serves: is the library there? */
    if (argc == 2 && strcmp(argv[1], "--check-library") == 0) {
        if (library_check(text, sizeof(text)) == 0)
            return 0;
        fprintf(stderr, "%s\n", text);
        return 1;
    }
    if (argc != 1) {
        fprintf(stderr, "holdfast-pr-multipath is started by holdfast-pr-helper; it takes no "
                        "arguments\n");
        return 2;
    }
    /* the terminal's and the service manager's signals end the helper, and that ends this */
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    if (broker_drop_privileges() < 0) {
        fprintf(stderr, "holdfast-pr-multipath: cannot drop privileges: %s\n", strerror(errno));
        return 1;
    }
    again = minder_run();
    sigemptyset(&mask);
    sigaddset(&mask, SIGCHLD);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0) {
        fprintf(stderr, "holdfast-pr-multipath: cannot wait for children: %s\n", strerror(errno));
        return 1;
    }
    events = watch_open();
    if (events < 0)
        fprintf(stderr, "holdfast-pr-multipath: new paths are not noticed: %s\n",
                strerror(-events));
    if (again)
        broker_repair(&(WatchEvent){.everything = true});
    broker_run(signals, events);
    return 0;
}
