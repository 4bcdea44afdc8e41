/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libmpathpersist; see library.h. */
#include "prhelper/mpath/library.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "prhelper/mpath/mpath-persist.h"
#include "prhelper/mpath/protocol.h"

/* Exit codes of the process that calls it: those of the library are below 16. */
enum { LIBRARY_MISSING = 100, LIBRARY_INCOMPLETE, LIBRARY_INIT_FAILED };

/* The names of its results in mpath_persist.h. */
static const char *library_result_name(int result)
{
    static const char *const names[] = {
        "success",        "syntax error",        "not ready",
        "medium error",   "hardware error",      "illegal request",
        "unit attention", "invalid opcode",      "aborted command",
        "no sense",       "malformed answer",    "reservation conflict",
        "file error",     "device-mapper error", "thread error",
        "other error"};

    switch (result) {
    case LIBRARY_MISSING:
        return LIBRARY_NAME " cannot be loaded; install multipath-tools";
    case LIBRARY_INCOMPLETE:
        return LIBRARY_NAME " lacks functions that are needed";
    case LIBRARY_INIT_FAILED:
        return LIBRARY_NAME " cannot read its configuration (multipath.conf)";
    default:
        return result >= 0 && result < 16 ? names[result] : "unknown result";
    }
}

static int library_load(MpathPersistReserveOut *ret_reserve_out)
{
    void *library = dlopen(LIBRARY_NAME, RTLD_NOW | RTLD_LOCAL);
    MpathPersistInit init;
    unsigned *answer_size;

    if (!library)
        return LIBRARY_MISSING;
    init = (MpathPersistInit)(uintptr_t)dlsym(library, "libmpathpersist_init");
    *ret_reserve_out =
        (MpathPersistReserveOut)(uintptr_t)dlsym(library, "mpath_persistent_reserve_out");
    answer_size = dlsym(library, "mpath_mx_alloc_len");
    if (!init || !*ret_reserve_out || !answer_size)
        return LIBRARY_INCOMPLETE;
    *answer_size = MPATH_PERSIST_LIST_SIZE;
    return init() == 0 ? 0 : LIBRARY_INIT_FAILED;
}

/* In the process that may end at any time. */
static int library_run(int fd, const SpcOut *out)
{
    MpathPersistReserveOut reserve_out = NULL;
    MpathPersistOut *list;
    int result = library_load(&reserve_out);

    if (result != 0 || !out)
        return result;
    list = calloc(1, sizeof(*list) + sizeof(void *));
    if (!list)
        return LIBRARY_INCOMPLETE;
    spc_put64(list->key, out->key);
    spc_put64(list->sa_key, out->service_key);
    list->sa_flags = (uint8_t)((out->aptpl ? MPATH_PERSIST_APTPL : 0) |
                               (out->all_target_ports ? MPATH_PERSIST_ALL_TG_PT : 0));
    return reserve_out(fd, out->action, out->scope, out->type, list, 0, 0);
}

/* Its exit code, or -1: killed, by whatever. */
static int library_wait(pid_t pid)
{
    struct pollfd ended = {.events = POLLIN};
    int status;

    ended.fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (ended.fd >= 0) {
        while (poll(&ended, 1, MPATH_LIBRARY_MSEC) < 0 && errno == EINTR)
            ;
        close(ended.fd);
    }
    /* A process in an uninterruptible call is not there to be waited for; init inherits it. */
    kill(pid, SIGKILL);
    for (int i = 0; i < 50; i++) {
        pid_t found = waitpid(pid, &status, WNOHANG);

        if (found == pid)
            return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        if (found < 0 && errno != EINTR)
            return -1;
        usleep(1000);
    }
    return -1;
}

static int library_call(int fd, const SpcOut *out, char *text, size_t size)
{
    int result;
    pid_t pid = fork();

    if (pid < 0) {
        snprintf(text, size, "cannot start a process: %s", strerror(errno));
        return -1;
    }
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (null >= 0)
            dup2(null, STDERR_FILENO); /* it talks of limits that it does not need */
        _exit(library_run(fd, out));
    }
    result = library_wait(pid);
    if (result == 0)
        return 0;
    if (result < 0)
        snprintf(text, size, LIBRARY_NAME " has crashed or does not answer");
    else
        snprintf(text, size, "%s%s", result < 16 ? "libmpathpersist: " : "",
                 library_result_name(result));
    return -1;
}

int library_check(char *text, size_t size)
{
    return library_call(-1, NULL, text, size);
}

bool library_wants(const SpcOut *out)
{
    switch (out->action) {
    case SPC_OUT_REGISTER:
        return out->key == 0 && out->service_key != 0 && !out->others;
    case SPC_OUT_REGISTER_IGNORE:
        return out->service_key != 0 && !out->others;
    case SPC_OUT_RESERVE:
    case SPC_OUT_CLEAR:
        return true;
    case SPC_OUT_PREEMPT:
    case SPC_OUT_PREEMPT_ABORT:
        /* one that is aimed at our own paths is not for it */
        return out->service_key != 0 && out->service_key != out->key;
    default:
        return false;
    }
}

int library_execute(int fd, const SpcOut *out, char *text, size_t size)
{
    return library_call(fd, out, text, size);
}
