/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * holdfast-keeper: keeps the daemon's descriptors while the daemon is not there, and starts it
 * again. It stands in for systemd's file-descriptor store where there is no systemd.
 *
 *     holdfast-keeper PROGRAM NAME [ARGUMENT ...]
 *
 * runs PROGRAM as NAME with the arguments. The two talk over a socket pair, whose end the daemon
 * finds in $HOLDFAST_KEEPER (a descriptor's number), in the words of sd_notify(3): FDSTORE=1 with
 * FDNAME= and one descriptor, FDSTOREREMOVE=1 with FDNAME=, READY=1. A descriptor is safe as soon
 * as it is sent: the kernel holds it in the socket, and the keeper reads the socket to its end
 * before it starts the daemon anew. The new daemon finds in $HOLDFAST_KEPT the number of a file
 * with a line "NAME NUMBER" for each descriptor that it inherits.
 *
 * How the daemon's end is answered:
 *     exit 0, or before its first READY   the keeper ends with the same code; what it kept is
 * closed exit KEEPER_RESTART                 the daemon is started again at once anything else
 * again, after a pause that grows if it dies early
 *
 * It allocates little, opens nothing but that list, never writes anywhere else, and links nothing
 * but the C library and libseccomp: what is not there cannot fail.
 */
#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <search.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KEEPER_MESSAGE_BYTES 4096
/* A daemon that lived this long was well: the next crash is a new story. */
#define KEEPER_WELL_MSEC 10000
/* The first restart is immediate; then 0.1 s, doubled each time, up to 5 s. */
#define KEEPER_PAUSE_MSEC 100
#define KEEPER_MAX_PAUSE_MSEC 5000
/* The socket holds some 250 messages meanwhile; a daemon that sends more waits for the rest. */
#define KEEPER_NAP_MSEC 5

/* One descriptor that is kept. */
struct kept {
    char name[KEEPER_NAME_MAX + 1];
    int fd;
};

static struct keeper {
    char **argv; /* of the daemon: program, name, arguments */
    void *store; /* tsearch(3) tree of struct kept */
    size_t n_kept;
    int socket;   /* our end of the pair; -1 while no daemon runs */
    int signals;  /* signalfd */
    pid_t daemon; /* 0: not running */
    int was_ready;
    int is_ready; /* the daemon that runs now */
    int stopping;
    int activated; /* sockets were handed to us, see sd_listen_fds(3) */
    long long started_msec;
    long long start_at_msec; /* when to start the daemon again */
    int pause_msec;
} keeper = {.socket = -1};

static void keeper_die(const char *what)
{
    fprintf(stderr, "holdfast-keeper: %s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

static long long keeper_now_msec(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* ---- the store ------------------------------------------------------------------------- */

static int keeper_compare(const void *a, const void *b)
{
    return strcmp(((const struct kept *)a)->name, ((const struct kept *)b)->name);
}

static void keeper_drop(const char *name)
{
    struct kept key, *kept;
    void *node;

    snprintf(key.name, sizeof(key.name), "%s", name);
    node = tfind(&key, &keeper.store, keeper_compare);
    if (!node)
        return;
    kept = *(struct kept **)node;
    tdelete(kept, &keeper.store, keeper_compare);
    close(kept->fd);
    free(kept);
    keeper.n_kept--;
}

/* Takes the descriptor over. A name that is kept already gets the new descriptor. */
static void keeper_keep(const char *name, int fd)
{
    struct kept *kept = malloc(sizeof(*kept));

    keeper_drop(name);
    if (!kept || strlen(name) > KEEPER_NAME_MAX) {
        fprintf(stderr, "holdfast-keeper: cannot keep descriptor '%.32s'\n", name);
        close(fd);
        free(kept);
        return;
    }
    strcpy(kept->name, name);
    kept->fd = fd;
    if (!tsearch(kept, &keeper.store, keeper_compare)) {
        fprintf(stderr, "holdfast-keeper: out of memory for descriptor '%s'\n", name);
        close(fd);
        free(kept);
        return;
    }
    keeper.n_kept++;
}

/* ---- messages -------------------------------------------------------------------------- */

/* The value of the line "KEY=value" in the message, which this cuts into lines. */
static const char *keeper_value(char *message, const char *key)
{
    size_t len = strlen(key);
    char *line = message;

    while (line && strncmp(line, key, len) != 0) {
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    return line ? line + len : NULL;
}

/* The daemon runs in the background: it has left the terminal, and so does its keeper. */
static void keeper_ready(void)
{
    int null;

    if (keeper.was_ready++ || !getenv("HOLDFAST_READY"))
        return;
    null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        return;
    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
    dup2(null, STDERR_FILENO);
    close(null);
    close(atoi(getenv("HOLDFAST_READY")));
    unsetenv("HOLDFAST_READY");
}

static void keeper_message(char *message, int fd)
{
    char name[KEEPER_NAME_MAX + 2] = "";
    const char *value = keeper_value(message, "FDNAME=");

    if (value) {
        size_t len = strcspn(value, "\n");

        if (len <= KEEPER_NAME_MAX)
            memcpy(name, value, len);
    }
    if (keeper_value(message, "READY=1")) {
        keeper.is_ready = 1;
        keeper_ready();
    }
    if (keeper_value(message, "FDSTOREREMOVE=1"))
        keeper_drop(name);
    else if (fd >= 0 && *name && keeper_value(message, "FDSTORE=1"))
        keeper_keep(name, fd);
    else if (fd >= 0)
        close(fd);
}

/* Reads one message; 0 when there is none, -1 at the end. */
static int keeper_receive(void)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    char message[KEEPER_MESSAGE_BYTES + 1];
    struct iovec iov = {.iov_base = message, .iov_len = KEEPER_MESSAGE_BYTES};
    struct msghdr header = {.msg_iov = &iov,
                            .msg_iovlen = 1,
                            .msg_control = &control,
                            .msg_controllen = sizeof(control)};
    struct cmsghdr *cmsg;
    ssize_t n;
    int fd = -1;

    /* not close-on-exec: what is kept is for the daemon, and nothing else is ever executed */
    n = recvmsg(keeper.socket, &header, MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    cmsg = CMSG_FIRSTHDR(&header);
    if (cmsg && cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
    if (n == 0 && fd < 0)
        return -1;
    message[n] = '\0';
    keeper_message(message, fd);
    return 1;
}

/* ---- the daemon ------------------------------------------------------------------------ */

static FILE *keeper_list; /* for twalk(3), which passes nothing on */

static void keeper_list_one(const void *node, VISIT visit, int depth)
{
    const struct kept *kept = *(struct kept *const *)node;

    (void)depth;
    if (visit == postorder || visit == leaf)
        fprintf(keeper_list, "%s %d\n", kept->name, kept->fd);
}

/* In the child: becomes the daemon. */
static void keeper_become(int socket)
{
    char number[16];
    sigset_t chld;
    int list;

    list = memfd_create("kept", 0);
    keeper_list = list < 0 ? NULL : fdopen(list, "w");
    if (!keeper_list)
        keeper_die("memfd_create");
    twalk(keeper.store, keeper_list_one);
    if (fflush(keeper_list) != 0)
        keeper_die("memfd");
    snprintf(number, sizeof(number), "%d", list);
    setenv("HOLDFAST_KEPT", number, 1);
    if (fcntl(socket, F_SETFD, 0) < 0)
        keeper_die("fcntl");
    snprintf(number, sizeof(number), "%d", socket);
    setenv("HOLDFAST_KEEPER", number, 1);
    if (keeper.activated) { /* sockets that a service manager gave us, from 3 on, are for the daemon
                             */
        snprintf(number, sizeof(number), "%d", (int)getpid());
        setenv("LISTEN_PID", number, 1);
    }
    /* the others stay blocked until the daemon reads them: one that comes early is not lost */
    sigemptyset(&chld);
    sigaddset(&chld, SIGCHLD);
    sigprocmask(SIG_UNBLOCK, &chld, NULL);
    execv(keeper.argv[0], keeper.argv + 1);
    keeper_die(keeper.argv[0]);
}

static void keeper_start(void)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        keeper_die("socketpair");
    keeper.started_msec = keeper_now_msec();
    keeper.start_at_msec = 0;
    fflush(NULL);
    keeper.daemon = fork();
    if (keeper.daemon < 0)
        keeper_die("fork");
    if (keeper.daemon == 0)
        keeper_become(pair[1]);
    close(pair[1]);
    keeper.socket = pair[0];
}

static void keeper_ended(int status)
{
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    long long lived = keeper_now_msec() - keeper.started_msec;

    while (keeper.socket >= 0 && keeper_receive() > 0) /* what it sent last */
        ;
    close(keeper.socket);
    keeper.socket = -1;
    keeper.daemon = 0;
    if (keeper.stopping == 1 && code != 0 && keeper.was_ready) {
        /* it died before it could end: the next one finds the signal and ends in good order */
        keeper.stopping = 2;
        keeper_start();
        kill(keeper.daemon, SIGTERM);
        return;
    }
    if (code == 0 || keeper.stopping || !keeper.was_ready)
        exit(keeper.stopping && keeper.was_ready ? EXIT_SUCCESS : code);
    if (code == KEEPER_RESTART) {
        keeper.is_ready = 0;
        keeper_start();
        return;
    }
    /* and who was well and was killed has not died of himself */
    if (lived >= KEEPER_WELL_MSEC ||
        (keeper.is_ready && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL))
        keeper.pause_msec = 0;
    keeper.is_ready = 0;
    fprintf(stderr,
            "holdfast-keeper: the daemon ended with %d and is started again in %d ms, with "
            "%zu descriptors\n",
            code, keeper.pause_msec, keeper.n_kept);
    keeper.start_at_msec = keeper_now_msec() + keeper.pause_msec;
    keeper.pause_msec = keeper.pause_msec ? keeper.pause_msec * 2 : KEEPER_PAUSE_MSEC;
    if (keeper.pause_msec > KEEPER_MAX_PAUSE_MSEC)
        keeper.pause_msec = KEEPER_MAX_PAUSE_MSEC;
}

static void keeper_on_signal(void)
{
    struct signalfd_siginfo info;
    int status;

    if (read(keeper.signals, &info, sizeof(info)) != sizeof(info))
        return;
    if (info.ssi_signo == SIGCHLD) {
        if (keeper.daemon > 0 && waitpid(keeper.daemon, &status, WNOHANG) == keeper.daemon)
            keeper_ended(status);
        return;
    }
    if ((info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT) && !keeper.stopping)
        keeper.stopping = 1;
    if (keeper.daemon > 0)
        kill(keeper.daemon, (int)info.ssi_signo);
    else if (keeper.stopping ==
             1) { /* it pauses before the next start: start, and end in good order */
        keeper.stopping = 2;
        keeper_start();
        kill(keeper.daemon, SIGTERM);
    }
}

static int keeper_timeout(void)
{
    long long left;

    if (!keeper.start_at_msec)
        return -1;
    left = keeper.start_at_msec - keeper_now_msec();
    return left > 0 ? (int)left : 0;
}

/* ---- the beginning --------------------------------------------------------------------- */

/* The daemon inherits this filter, so it forbids only what neither has any business with. */
static void keeper_confine(void)
{
    static const int forbidden[] = {
#ifndef __SANITIZE_ADDRESS__ /* the leak checker traces its own process */
        SCMP_SYS(ptrace),
#endif
        SCMP_SYS(process_vm_writev),
        SCMP_SYS(mount),
        SCMP_SYS(umount2),
        SCMP_SYS(pivot_root),
        SCMP_SYS(chroot),
        SCMP_SYS(setns),
        SCMP_SYS(unshare),
        SCMP_SYS(init_module),
        SCMP_SYS(finit_module),
        SCMP_SYS(delete_module),
        SCMP_SYS(kexec_load),
        SCMP_SYS(kexec_file_load),
        SCMP_SYS(reboot),
        SCMP_SYS(swapon),
        SCMP_SYS(swapoff),
        SCMP_SYS(bpf),
        SCMP_SYS(perf_event_open),
        SCMP_SYS(userfaultfd),
        SCMP_SYS(keyctl),
        SCMP_SYS(add_key),
        SCMP_SYS(request_key),
        SCMP_SYS(open_by_handle_at),
        SCMP_SYS(iopl),
        SCMP_SYS(ioperm),
        SCMP_SYS(settimeofday),
        SCMP_SYS(clock_settime),
        SCMP_SYS(sethostname),
        SCMP_SYS(setdomainname),
        SCMP_SYS(acct),
        SCMP_SYS(quotactl),
        SCMP_SYS(syslog),
    };
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);

    if (!filter)
        return;
    for (size_t i = 0; i < sizeof(forbidden) / sizeof(*forbidden); i++)
        seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), forbidden[i], 0);
    if (seccomp_load(filter) < 0)
        fprintf(stderr, "holdfast-keeper: goes on without a seccomp filter\n");
    seccomp_release(filter);
}

/* The last to go when memory is short: with it go all locks. Only root may ask for that. */
static void keeper_protect(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return;
    if (write(fd, "-900", 4) < 0)
        errno = 0; /* an ordinary user may not */
    close(fd);
}

static void keeper_raise_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

int main(int argc, char **argv)
{
    sigset_t set;
    int napping = 0;

    if (argc < 3) {
        fprintf(stderr, "usage: holdfast-keeper PROGRAM NAME [ARGUMENT ...]\n"
                        "holdfastd starts it by itself where there is no systemd.\n");
        return 2;
    }
    keeper.argv = argv + 1;
    keeper.activated = getenv("LISTEN_PID") && atoi(getenv("LISTEN_PID")) == (int)getpid();
    keeper_raise_limit();
    keeper_protect();
    keeper_confine();
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    keeper.signals = signalfd(-1, &set, SFD_CLOEXEC);
    if (keeper.signals < 0)
        keeper_die("signalfd");
    keeper_start();
    for (;;) {
        /* after messages a nap: to be woken for each would cost the daemon more than to send it,
         * and what lies in the socket is as safe as what was read */
        struct pollfd fds[2] = {{.fd = keeper.signals, .events = POLLIN},
                                {.fd = napping ? -1 : keeper.socket, .events = POLLIN}};
        int timeout = napping ? KEEPER_NAP_MSEC : keeper_timeout();

        napping = 0;
        if (poll(fds, 2, timeout) < 0 && errno != EINTR)
            keeper_die("poll");
        if (keeper.socket >= 0 && (fds[1].revents & POLLIN))
            while (keeper_receive() > 0)
                napping = 1;
        else if (fds[1].revents & (POLLHUP | POLLERR)) {
            /* the daemon is ending: only its exit counts now */
            struct pollfd exit_only = {.fd = keeper.signals, .events = POLLIN};

            poll(&exit_only, 1, -1);
            fds[0].revents = POLLIN;
        }
        if (fds[0].revents & POLLIN)
            keeper_on_signal();
        if (keeper.start_at_msec && keeper_timeout() == 0)
            keeper_start();
    }
}
