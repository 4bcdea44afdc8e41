/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The child in which a check runs. It has two descriptors, the image and a pipe, and can make these
 * system calls: pread64() of the image, write() to the pipe, exit_group(). Anything else kills it.
 * So whoever found a fault in a format's code could say "safe" of his own image, and nothing more.
 *
 * After the clone the child calls nothing that takes a lock or memory: the caller may have threads.
 */
#include "image/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__)
#define SANDBOX_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define SANDBOX_ARCH AUDIT_ARCH_AARCH64
#elif defined(__powerpc64__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define SANDBOX_ARCH AUDIT_ARCH_PPC64LE
#elif defined(__s390x__)
#define SANDBOX_ARCH AUDIT_ARCH_S390X
#elif defined(__riscv) && __riscv_xlen == 64
#define SANDBOX_ARCH AUDIT_ARCH_RISCV64
#else
// cppcheck-suppress preprocessorErrorDirective
#error "the system calls of this architecture are not known here"
#endif

/* Where the child has what it needs. */
enum { SANDBOX_IMAGE_FD = 0, SANDBOX_PIPE_FD = 1 };

/* More CPU than any check needs; the caller's time limit is for what waits. */
#define SANDBOX_CPU_S 10
/* The child of a main thread grows its stack; it needs a few KiB. */
#define SANDBOX_STACK ((rlim_t)1 << 20)

/* ---- the child ------------------------------------------------------------------------------ */

static _Noreturn void sandbox_exit(int status)
{
    for (;;)
        syscall(SYS_exit_group, status);
}

/* The image and the pipe, and nothing else. */
static bool sandbox_keep(int image, int pipe)
{
    /* out of the way of the numbers that they are to have */
    int high_image = fcntl(image, F_DUPFD, 2);
    int high_pipe = fcntl(pipe, F_DUPFD, 2);

    return high_image >= 0 && high_pipe >= 0 && dup2(high_image, SANDBOX_IMAGE_FD) >= 0 &&
           dup2(high_pipe, SANDBOX_PIPE_FD) >= 0 && syscall(SYS_close_range, 2U, ~0U, 0U) == 0;
}

static bool sandbox_limit(int resource, rlim_t value)
{
    const struct rlimit limit = {.rlim_cur = value, .rlim_max = value};

    return setrlimit((__rlimit_resource_t)resource, &limit) == 0;
}

static bool sandbox_limits(void)
{
    return sandbox_limit(RLIMIT_CORE, 0) && sandbox_limit(RLIMIT_DATA, 0) &&
           sandbox_limit(RLIMIT_FSIZE, 0) && sandbox_limit(RLIMIT_NOFILE, 0) &&
           sandbox_limit(RLIMIT_STACK, SANDBOX_STACK) && sandbox_limit(RLIMIT_CPU, SANDBOX_CPU_S);
}

/* No path is reachable any more, where the kernel has Landlock (5.13) and it is switched on. The
 * filter below does not need it: it is for the day when there is a way around the filter. */
static void sandbox_landlock(void)
{
    const struct landlock_ruleset_attr all = {.handled_access_fs =
                                                  (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1};
    long ruleset = syscall(SYS_landlock_create_ruleset, &all, sizeof(all.handled_access_fs), 0);

    if (ruleset < 0)
        return;
    syscall(SYS_landlock_restrict_self, ruleset, 0);
    close((int)ruleset);
}

#define SANDBOX_LOAD(field)                                                                        \
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)offsetof(struct seccomp_data, field))
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define SANDBOX_LOW 0
#else
#define SANDBOX_LOW 4
#endif
/* Allows system call `nr`, if its first argument is `fd`: it is an int, so its lower half decides.
 */
#define SANDBOX_ALLOW_FD(nr, fd)                                                                   \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 4),                                                 \
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS,                                                         \
                 (unsigned)offsetof(struct seccomp_data, args) + SANDBOX_LOW),                     \
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, fd, 0, 1),                                             \
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),                                              \
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)

static bool sandbox_filter(void)
{
    struct sock_filter code[] = {
        SANDBOX_LOAD(arch),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SANDBOX_ARCH, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        SANDBOX_LOAD(nr),
        SANDBOX_ALLOW_FD(SYS_pread64, SANDBOX_IMAGE_FD),
        SANDBOX_ALLOW_FD(SYS_write, SANDBOX_PIPE_FD),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    const struct sock_fprog program = {
        .len = sizeof(code) / sizeof(code[0]),
        .filter = code,
    };

    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* What no check does. */
static void sandbox_misbehave(SandboxDeed deed)
{
    static char *const nothing[] = {NULL};
    char byte = 0;

    switch (deed) {
    case SANDBOX_OPEN:
        syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY);
        break;
    case SANDBOX_CONNECT:
        syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0);
        break;
    case SANDBOX_EXEC:
        syscall(SYS_execve, "/bin/true", nothing, nothing);
        break;
    case SANDBOX_FORK:
        syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
        break;
    case SANDBOX_READ_OTHER:
        syscall(SYS_pread64, SANDBOX_PIPE_FD, &byte, 1, 0);
        break;
    case SANDBOX_WRITE_OTHER:
        syscall(SYS_write, SANDBOX_IMAGE_FD, &byte, 1);
        break;
    case SANDBOX_MAP:
        syscall(SYS_mmap, NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        break;
    case SANDBOX_SPIN:
        for (;;)
            __asm__ volatile("" ::: "memory");
    default:
        break;
    }
}

static size_t sandbox_verdict_size(uint32_t n_reasons)
{
    return offsetof(ImageVerdict, reasons) + n_reasons * sizeof(ImageReason);
}

static _Noreturn void sandbox_child(ImageCheck *check, int pipe, SandboxDeed deed)
{
    const char *bytes;
    size_t size;

    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || !sandbox_keep(check->fd, pipe) ||
        !sandbox_limits() || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        sandbox_exit(2);
    sandbox_landlock();
    if (!sandbox_filter())
        sandbox_exit(3);
    if (deed != SANDBOX_CHECK)
        sandbox_misbehave(deed);
    check->fd = SANDBOX_IMAGE_FD;
    image_check(check);
    size = sandbox_verdict_size(check->verdict.n_reasons);
    /* with sanitizers gcc takes &check->verdict for the address of its first member alone */
    bytes = (const char *)check + offsetof(ImageCheck, verdict);
    sandbox_exit(write(SANDBOX_PIPE_FD, bytes, size) == (ssize_t)size ? 0 : 4);
}

/* ---- the caller ----------------------------------------------------------------------------- */

static int64_t sandbox_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Whether what came through the pipe is a verdict; the child is not trusted with more. */
static bool sandbox_is_verdict(ImageVerdict *verdict, size_t size)
{
    if (size < sandbox_verdict_size(0) || verdict->n_reasons > IMAGE_MAX_REASONS ||
        size != sandbox_verdict_size(verdict->n_reasons))
        return false;
    for (uint32_t i = 0; i < verdict->n_reasons; i++) {
        ImageReason *reason = &verdict->reasons[i];

        reason->sentence[IMAGE_MAX_SENTENCE - 1] = '\0';
        for (char *p = reason->sentence; *p; p++) {
            if (*p < 0x20 || *p > 0x7e)
                *p = '?';
        }
        if (reason->id >= IMAGE_N_REASONS && !verdict->failed)
            return false;
    }
    return verdict->failed <= 1 && verdict->has_size <= 1 &&
           (!verdict->failed || verdict->n_reasons == 1);
}

/* All that comes through the pipe until its end. */
static SandboxResult sandbox_listen(int fd, ImageVerdict *verdict, unsigned timeout_ms)
{
    int64_t deadline = sandbox_now() + timeout_ms;
    char *bytes = (char *)verdict;
    size_t have = 0;

    for (;;) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        int64_t left = deadline - sandbox_now();
        ssize_t n;

        if (left < 0 || left > INT32_MAX)
            left = left < 0 ? 0 : INT32_MAX;
        n = poll(&ready, 1, (int)left);
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            return SANDBOX_TIME_OVER;
        n = read(fd, bytes + have, sizeof(*verdict) - have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        have += (size_t)n;
    }
    return sandbox_is_verdict(verdict, have) ? SANDBOX_DONE : SANDBOX_DIED;
}

/* The child's end. One that a dead server holds in the kernel cannot be waited for: it is left
 * behind as a zombie of the caller's, after five seconds. */
static int sandbox_reap(pid_t pid, bool ended)
{
    const struct timespec pause = {.tv_nsec = 10000000};
    int status = 0;

    if (ended) {
        while (waitpid(pid, &status, __WALL) < 0 && errno == EINTR)
            ;
        return status;
    }
    kill(pid, SIGKILL);
    for (int i = 0; i < 500 && waitpid(pid, &status, __WALL | WNOHANG) == 0; i++)
        nanosleep(&pause, NULL);
    return status;
}

/*
 * A child without an exit signal: a caller that waits for any of its children, or ignores SIGCHLD,
 * neither sees it nor takes its status away. All signals are blocked while it begins, for the
 * caller's handlers are none of the child's business.
 */
static pid_t sandbox_fork(ImageCheck *check, const int fds[2], SandboxDeed deed)
{
    sigset_t all, before;
    pid_t pid;
    int err;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid = (pid_t)syscall(SYS_clone, 0, 0, 0, 0, 0);
    err = errno;
    if (pid == 0)
        sandbox_child(check, fds[1], deed);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = err;
    return pid;
}

SandboxResult sandbox_run(ImageCheck *check, SandboxDeed deed, unsigned timeout_ms, int *ret_status)
{
    SandboxResult result;
    int fds[2];
    pid_t pid;

    if (pipe2(fds, O_CLOEXEC) < 0)
        return SANDBOX_NO_SYSTEM;
    pid = sandbox_fork(check, fds, deed);
    if (pid < 0) {
        int err = errno;

        close(fds[0]);
        close(fds[1]);
        errno = err;
        return SANDBOX_NO_SYSTEM;
    }
    close(fds[1]);
    result = sandbox_listen(fds[0], &check->verdict, timeout_ms);
    close(fds[0]);
    *ret_status = sandbox_reap(pid, result != SANDBOX_TIME_OVER);
    /* A verdict of one that did not end well is none. */
    if (result == SANDBOX_DONE && *ret_status != 0)
        return SANDBOX_DIED;
    return result;
}
