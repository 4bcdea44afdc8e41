/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * holdfast-keeper: keeps the daemon's descriptors while the daemon is not there, and starts it
 * again. It stands in for systemd's file-descriptor store where there is no systemd.
 *
 *     holdfast-keeper PROGRAM NAME [ARGUMENT ...]
 *
 * runs PROGRAM as NAME with the arguments. The two talk over a socket pair, whose end the daemon
 * finds in $HOLDFAST_KEEPER (a descriptor's number, and KEEPER_MAX_FDS), in the words of
 * sd_notify(3): FDSTORE=1 with descriptors and as many lines FDNAME=, in the same order,
 * FDSTOREREMOVE=1 with FDNAME=, READY=1. A descriptor is safe as soon as it is sent: the kernel
 * holds it in the socket, and the keeper reads the socket to its end before it starts the daemon
 * anew. Should it have no room for one, it says so: FDSTOREFAILED=1 with FDNAME=, which is the only
 * thing that it ever says. The new daemon finds in $HOLDFAST_KEPT the number of a file with a line
 * "NAME NUMBER" for each descriptor that it inherits; those named "-" it is to close.
 *
 * How the daemon's end is answered:
 *
 *     exit 0, or before its first READY: the keeper ends with the same code, what it kept is closed
 *     exit KEEPER_RESTART: the daemon is started again at once
 *     anything else: again, after a pause that grows if it dies early
 *
 * A process with a thread that storage keeps in the kernel never comes to its end. So it counts as
 * ended as well when its end of the socket pair is closed, see closer.h; its code is then what it
 * has said in EXIT_STATUS=. It is collected whenever it can be.
 *
 * It closes nothing itself that could be on storage that hangs (closer.h), allocates little, opens
 * nothing but that list and files in /proc, never writes anywhere else, and links nothing but the C
 * library and libseccomp: what is not there cannot fail.
 */
#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "closer.h"
#include "confine.h"
#include "store.h"

/* A daemon that lived this long was well: the next crash is a new story. */
#define KEEPER_WELL_MSEC 10000
/* The first restart is immediate; then 0.1 s, doubled each time, up to 5 s. */
#define KEEPER_PAUSE_MSEC 100
#define KEEPER_MAX_PAUSE_MSEC 5000
/* The socket holds what a daemon sends meanwhile: 5,000 messages, and 550 if it is not root's, see
 * vault.c; who sends more waits for the rest. */
#define KEEPER_NAP_MSEC 5
/* From the end of a daemon's socket to its exit it is well below 1 ms; one that takes longer than
 * this has a thread in the kernel. */
#define KEEPER_EXIT_MSEC 200
/* How often a daemon that has not said READY is looked at: it may hang in its exit, and has nobody
 * yet who closes its socket. */
#define KEEPER_LOOK_MSEC 100
/* How long closing is waited for at the end. */
#define KEEPER_CLOSE_MSEC 2000
/* Of linux/sched.h in the kernel: the process is ending. See proc(5), field 9 of stat. */
#define KEEPER_PF_EXITING 4

static struct keeper {
    char **argv;  /* of the daemon: program, name, arguments */
    int socket;   /* our end of the pair; -1 while no daemon runs */
    int signals;  /* signalfd */
    pid_t daemon; /* 0: not running */
    int *closing; /* see keeper_list_closing() */
    size_t n_closing;
    int was_ready;
    int is_ready; /* the daemon that runs now */
    int stopping;
    int activated; /* sockets were handed to us, see sd_listen_fds(3) */
    long long started_msec;
    long long start_at_msec; /* when to start the daemon again */
    long long give_up_msec;  /* when its exit is not waited for any more; 0: it lives */
    int said_code;           /* of EXIT_STATUS=; -1: none */
    int pause_msec;
} keeper = {.socket = -1};

static void keeper_die(const char *what)
{
    fprintf(stderr, "holdfast-keeper: %s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

/* ---- messages -------------------------------------------------------------------------- */

/* The value of the line "KEY=value" in the message. */
static const char *keeper_value(const char *message, const char *key)
{
    size_t len = strlen(key);
    const char *line = message;

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

/* The daemon is told: it has said that this survives. */
static void keeper_refuse(const char *name, const char *why)
{
    char text[KEEPER_NAME_MAX + 64];
    int len = snprintf(text, sizeof(text), "FDSTOREFAILED=1\nFDNAME=%s\n", name);

    fprintf(stderr,
            "holdfast-keeper: cannot keep descriptor '%s' (%s): its lock will not survive the "
            "daemon\n",
            name, why);
    if (send(keeper.socket, text, (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        fprintf(stderr, "holdfast-keeper: and the daemon could not be told\n");
}

/* Takes the descriptor over; -1: the kernel had no room for it. */
static void keeper_store(const char *name, int fd)
{
    int r = fd < 0 ? -EMFILE : store_keep(name, fd);

    if (r < 0)
        keeper_refuse(name, strerror(-r));
}

/* The name in the next line that has one, "" if there is none or it is too long; what is behind its
 * beginning, or NULL. */
static const char *keeper_next_name(const char *message, char name[static KEEPER_NAME_MAX + 1])
{
    const char *value = message ? keeper_value(message, "FDNAME=") : NULL;
    size_t len = value ? strcspn(value, "\n") : 0;

    if (len > KEEPER_NAME_MAX)
        len = 0;
    if (len > 0)
        memcpy(name, value, len);
    name[len] = '\0';
    return value;
}

/* Keeps the descriptors under the names that stand there. Those that the kernel had no room for are
 * the last ones, and missing. What has no name is closed. */
static void keeper_take_all(const char *names, const int *fds, size_t n_fds)
{
    char name[KEEPER_NAME_MAX + 1];
    size_t i;

    for (i = 0; (names = keeper_next_name(names, name)); i++)
        keeper_store(name, i < n_fds ? fds[i] : -1);
    for (; i < n_fds; i++)
        closer_close(fds[i]);
}

static void keeper_message(const char *message, const int *fds, size_t n_fds)
{
    char name[KEEPER_NAME_MAX + 1];
    const char *value;

    if (keeper_value(message, "READY=1")) {
        keeper.is_ready = 1;
        keeper_ready();
    }
    value = keeper_value(message, "EXIT_STATUS=");
    if (value)
        keeper.said_code = atoi(value);
    if (keeper_value(message, "FDSTOREREMOVE=1")) {
        keeper_next_name(message, name);
        store_drop(name);
    }
    keeper_take_all(keeper_value(message, "FDSTORE=1"), fds, n_fds);
}

/* Reads one message; 0 when there is none, -1 at the end. */
static int keeper_receive(void)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int) * KEEPER_MAX_FDS)];
    } control;
    char message[KEEPER_MESSAGE_BYTES + 1];
    struct iovec iov = {.iov_base = message, .iov_len = KEEPER_MESSAGE_BYTES};
    struct msghdr header = {.msg_iov = &iov,
                            .msg_iovlen = 1,
                            .msg_control = &control,
                            .msg_controllen = sizeof(control)};
    int fds[KEEPER_MAX_FDS];
    struct cmsghdr *cmsg;
    size_t n_fds = 0;
    ssize_t n;

    /* not close-on-exec: what is kept is for the daemon, and nothing else is ever executed */
    n = recvmsg(keeper.socket, &header, MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    cmsg = CMSG_FIRSTHDR(&header);
    if (cmsg && cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS) {
        n_fds = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(fds, CMSG_DATA(cmsg), n_fds * sizeof(int));
    }
    if (n == 0 && n_fds == 0)
        return -1;
    message[n] = '\0';
    keeper_message(message, fds, n_fds);
    return 1;
}

/* ---- the daemon ------------------------------------------------------------------------ */

/* In the child: becomes the daemon. If that fails, it must not hang in closing what it inherits. */
static void keeper_become(int socket)
{
    int number_of_list = memfd_create("kept", 0);
    FILE *list = number_of_list < 0 ? NULL : fdopen(number_of_list, "w");
    char number[16];
    sigset_t chld;

    if (!list)
        keeper_die("memfd_create");
    store_list(list);
    for (size_t i = 0; i < keeper.n_closing; i++)
        fprintf(list, "%s %d\n", KEEPER_CLOSING, keeper.closing[i]);
    if (fflush(list) != 0)
        keeper_die("memfd");
    snprintf(number, sizeof(number), "%d", number_of_list);
    setenv("HOLDFAST_KEPT", number, 1);
    if (fcntl(socket, F_SETFD, 0) < 0)
        keeper_die("fcntl");
    snprintf(number, sizeof(number), "%d %d", socket, KEEPER_MAX_FDS);
    setenv("HOLDFAST_KEEPER", number, 1);
    /* sockets that a service manager gave us, from 3 on, are for the daemon */
    if (keeper.activated) {
        snprintf(number, sizeof(number), "%d", (int)getpid());
        setenv("LISTEN_PID", number, 1);
    }
    /* the others stay blocked until the daemon reads them: one that comes early is not lost */
    sigemptyset(&chld);
    sigaddset(&chld, SIGCHLD);
    sigprocmask(SIG_UNBLOCK, &chld, NULL);
    execv(keeper.argv[0], keeper.argv + 1);
    closer_forget();
    closer_start(NULL, 0);
    keeper_die(keeper.argv[0]);
}

/* What waits to be closed would be inherited without a name: the daemon is told to close it. */
static void keeper_list_closing(void)
{
    int fd;

    while ((fd = closer_take_back()) >= 0) {
        int *more = realloc(keeper.closing, (keeper.n_closing + 1) * sizeof(*more));

        if (!more)
            keeper_die("realloc");
        keeper.closing = more;
        keeper.closing[keeper.n_closing++] = fd;
    }
}

static void keeper_start(void)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        keeper_die("socketpair");
    keeper.started_msec = closer_now_msec();
    keeper.start_at_msec = keeper.give_up_msec = 0;
    keeper.said_code = -1;
    keeper.is_ready = 0;
    fflush(NULL);
    keeper_list_closing();
    keeper.daemon = fork();
    if (keeper.daemon < 0)
        keeper_die("fork");
    if (keeper.daemon == 0)
        keeper_become(pair[1]);
    close(pair[1]);
    keeper.socket = pair[0];
    while (keeper.n_closing > 0)
        closer_close(keeper.closing[--keeper.n_closing]);
}

/* The locks end, if they can, before whoever has waited for our end goes on. */
static void keeper_exit(int code)
{
    fflush(NULL);
    closer_close_all(KEEPER_CLOSE_MSEC);
    _exit(code);
}

static void keeper_ended(int code, int was_killed)
{
    long long lived = closer_now_msec() - keeper.started_msec;

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
        keeper_exit(keeper.stopping && keeper.was_ready ? EXIT_SUCCESS : code);
    if (code == KEEPER_RESTART) {
        keeper_start();
        return;
    }
    /* and who was well and was killed has not died of himself */
    if (lived >= KEEPER_WELL_MSEC || (keeper.is_ready && was_killed))
        keeper.pause_msec = 0;
    fprintf(stderr,
            "holdfast-keeper: the daemon ended with %d and is started again in %d ms, with "
            "%zu descriptors\n",
            code, keeper.pause_msec, store_count());
    keeper.start_at_msec = closer_now_msec() + keeper.pause_msec;
    keeper.pause_msec = keeper.pause_msec ? keeper.pause_msec * 2 : KEEPER_PAUSE_MSEC;
    if (keeper.pause_msec > KEEPER_MAX_PAUSE_MSEC)
        keeper.pause_msec = KEEPER_MAX_PAUSE_MSEC;
}

/* Until when to sleep, in ms; -1: for ever. */
static int keeper_timeout(void)
{
    long long now = closer_now_msec(), until = keeper.start_at_msec;

    if (keeper.daemon && keeper.give_up_msec)
        until = keeper.give_up_msec;
    else if (keeper.daemon && !keeper.is_ready)
        until = now + KEEPER_LOOK_MSEC;
    if (!until)
        return -1;
    return until > now ? (int)(until - now) : 0;
}

/* Collects whatever has ended: the daemon, one before it that took its time, the closer's. The next
 * daemon is started before the last one is collected: if somebody has looked at its thousands of
 * descriptors in /proc, the kernel takes tens of milliseconds for that. */
static void keeper_collect(void)
{
    siginfo_t info = {0};

    while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid > 0) {
        pid_t pid = info.si_pid;

        if (pid == keeper.daemon)
            keeper_ended(info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status,
                         info.si_code == CLD_KILLED && info.si_status == SIGKILL);
        if (keeper.start_at_msec && keeper_timeout() == 0)
            keeper_start();
        waitpid(pid, NULL, 0);
        closer_reaped(pid);
        info.si_pid = 0;
    }
}

/* TRUE if the daemon is on its way out, wherever it may hang there. */
static int keeper_is_exiting(void)
{
    char text[256], path[64];
    unsigned flags = 0;
    const char *p;
    ssize_t n;
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)keeper.daemon);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    n = read(fd, text, sizeof(text) - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    p = strrchr(text, ')'); /* before it is a name, which may contain anything */
    return p && sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %u", &flags) == 1 &&
           (flags & KEEPER_PF_EXITING);
}

/* Reads what there is; TRUE if there was something. At the end the daemon is ending, and from now
 * on only its exit counts, but that not for long. */
static int keeper_receive_all(void)
{
    int r, any = 0;

    while ((r = keeper_receive()) > 0)
        any = 1;
    if (r < 0)
        keeper.give_up_msec = closer_now_msec() + KEEPER_EXIT_MSEC;
    return any && r == 0;
}

/* The daemon that should be gone is not: goes on without it. */
static void keeper_look(void)
{
    long long now = closer_now_msec();

    if (!keeper.daemon)
        return;
    if (!keeper.give_up_msec) {
        if (!keeper.is_ready && keeper_is_exiting())
            keeper.give_up_msec = now + KEEPER_EXIT_MSEC;
        return;
    }
    if (now < keeper.give_up_msec)
        return;
    keeper_collect();
    if (!keeper.daemon || !keeper.give_up_msec)
        return;
    fprintf(stderr,
            "holdfast-keeper: process %d cannot end, storage holds it up: going on without it\n",
            (int)keeper.daemon);
    keeper_ended(keeper.said_code >= 0 ? keeper.said_code : 128 + SIGKILL, keeper.said_code < 0);
}

static void keeper_on_signal(void)
{
    struct signalfd_siginfo info;

    if (read(keeper.signals, &info, sizeof(info)) != sizeof(info))
        return;
    if (info.ssi_signo == SIGCHLD) {
        keeper_collect();
        return;
    }
    if ((info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT) && !keeper.stopping)
        keeper.stopping = 1;
    if (keeper.daemon > 0) {
        kill(keeper.daemon, (int)info.ssi_signo);
    } else if (keeper.stopping == 1) {
        /* it pauses before the next start: start, and end in good order */
        keeper.stopping = 2;
        keeper_start();
        kill(keeper.daemon, SIGTERM);
    }
}

/* ---- the beginning --------------------------------------------------------------------- */

/* The arguments lie one behind the other, see execve(2). */
static size_t keeper_name_len(int argc, char **argv)
{
    return (size_t)(argv[argc - 1] - argv[0]) + strlen(argv[argc - 1]) + 1;
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
    confine_self();
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
    /* what the closer of a dead daemon has started is collected as well, wherever init does not */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (closer_start(argv[0], keeper_name_len(argc, argv)) < 0)
        fprintf(stderr, "holdfast-keeper: goes on without a closer\n");
    keeper_start();
    for (;;) {
        /* after messages a nap: to be woken for each would cost the daemon more than to send it,
         * and what lies in the socket is as safe as what was read */
        struct pollfd fds[2] = {
            {.fd = keeper.signals, .events = POLLIN},
            {.fd = napping || keeper.give_up_msec ? -1 : keeper.socket, .events = POLLIN}};
        int timeout = napping ? KEEPER_NAP_MSEC : keeper_timeout();

        napping = 0;
        if (poll(fds, 2, timeout) < 0 && errno != EINTR)
            keeper_die("poll");
        if (fds[1].revents)
            napping = keeper_receive_all();
        if (fds[0].revents & POLLIN)
            keeper_on_signal();
        keeper_look();
        if (keeper.start_at_msec && keeper_timeout() == 0)
            keeper_start();
    }
}
