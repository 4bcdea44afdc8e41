/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * See closer.h. What runs in the new process comes after a bare clone(2), perhaps out of a process
 * with threads: it calls the kernel, and nothing that may allocate or take a lock.
 */
#include "closer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "closer-private.h"

/* Nobody else sends this one: systemctl kill and the like reach the closer, too. */
#define CLOSER_SIGNAL (SIGRTMIN + 7)
/* Looks for the parent's end, 0.1 ms apart, after the signal that announces it. */
#define CLOSER_LOOKS 10000
/* How often a watcher looks that may get no signal. */
#define CLOSER_LOOK_SECONDS 1
/* Workers that hang and have been replaced: each waits for storage of its own. Of more than these
 * the remains are collected at the end. */
#define CLOSER_RETIRED 64

/* What the worker and its parent see. */
struct closer_shared {
    unsigned done; /* descriptors closed; atomic */
    int retired;   /* there is a younger worker; atomic */
};

static struct closer {
    pid_t watcher; /* waits for our end; it never waits for storage */
    int *watched;  /* its own two descriptors: to be closed by us if it is killed */
    pid_t worker;  /* closes what it is told to; 0: not needed so far */
    int pipe[2];   /* numbers of descriptors; both ends are in both processes */
    struct closer_shared *shared;
    unsigned asked;       /* descriptors handed to this worker */
    unsigned seen;        /* how many of them were done when we looked last */
    long long since_msec; /* and since when */
    pid_t retired[CLOSER_RETIRED];
    int n_retired;
    char *name;
    size_t name_len;
} closer = {.pipe = {-1, -1}};

long long closer_now_msec(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

void closer_rename(void)
{
    static const char title[] = "holdfast-closer";

    prctl(PR_SET_NAME, title);
    if (closer.name && closer.name_len > sizeof(title)) {
        memset(closer.name, 0, closer.name_len);
        memcpy(closer.name, title, sizeof(title));
    }
}

/* ---- in the watcher ------------------------------------------------------------------------ */

/* True if the process's main thread has ended; others may be left, in the kernel. `stat` is its
 * file of that name in /proc. */
static int closer_has_ended(pid_t pid, int stat)
{
    char text[256], *p;
    ssize_t len;

    if (getppid() != pid)
        return 1;
    len = pread(stat, text, sizeof(text) - 1, 0);
    text[len > 0 ? len : 0] = '\0';
    p = strrchr(text, ')');
    return p && (p[2] == 'Z' || p[2] == 'X');
}

/* ---- the new processes ----------------------------------------------------------------- */

static volatile sig_atomic_t closer_signalled;

static void closer_on_signal(int number)
{
    (void)number;
    closer_signalled = 1;
}

/* The signal tells the end of the thread that has made us. Only of the process's first thread is it
 * sure that it never hangs, and so comes to its end with the process: `by_first`. */
static void closer_watch(pid_t parent, const char *stat_path, int by_first)
{
    struct sigaction action = {.sa_handler = closer_on_signal};
    const struct timespec pause = {.tv_sec = CLOSER_LOOK_SECONDS};
    /* opened now: if our parent ever has as many files open as it may, so have we */
    int status = closer_open_status();
    int stat = open(stat_path, O_RDONLY | O_CLOEXEC);
    sigset_t others;

    closer.watched[0] = status;
    closer.watched[1] = stat;
    sigaction(CLOSER_SIGNAL, &action, NULL);
    sigfillset(&others);
    sigdelset(&others, CLOSER_SIGNAL);
    prctl(PR_SET_PDEATHSIG, CLOSER_SIGNAL);
    closer_rename();
    closer_shed();
    while (!closer_has_ended(parent, stat)) {
        struct timespec moment = {.tv_nsec = 100 * 1000};

        if (!closer_signalled) {
            ppoll(NULL, 0, by_first ? NULL : &pause, &others);
            continue;
        }
        /* the signal comes a little before the end is to be seen, or from somebody else */
        nanosleep(&moment, NULL);
        closer_signalled = closer_signalled < CLOSER_LOOKS ? closer_signalled + 1 : 0;
    }
    closer_close_sockets(status);
    closer_close_files(status, -1);
    _exit(0);
}

static void closer_work(pid_t parent)
{
    struct pollfd from = {.fd = closer.pipe[0], .events = POLLIN};
    struct sigaction action = {.sa_handler = closer_on_signal};
    sigset_t others;
    ssize_t n;
    int fd;

    /* it also comes when the thread that has made us ends, and its process does not: so it only
     * makes us look */
    sigaction(CLOSER_SIGNAL, &action, NULL);
    sigfillset(&others);
    sigdelset(&others, CLOSER_SIGNAL);
    prctl(PR_SET_PDEATHSIG, CLOSER_SIGNAL);
    closer_rename();
    closer_shed();
    while (getppid() == parent) {
        while ((n = read(closer.pipe[0], &fd, sizeof(fd))) == sizeof(fd)) {
            close(fd);
            __atomic_fetch_add(&closer.shared->done, 1, __ATOMIC_RELEASE);
        }
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            break; /* closed with all else, after the main thread's end */
        if (__atomic_load_n(&closer.shared->retired, __ATOMIC_ACQUIRE)) {
            close(closer.pipe[0]); /* not earlier, and by nobody else: we were to read from it */
            break;
        }
        ppoll(&from, 1, NULL, &others);
    }
    _exit(0);
}

/* ---- in the parent --------------------------------------------------------------------- */

/* A copy of this process with the same descriptors, all signals blocked: 0 in the copy. */
static pid_t closer_clone(void)
{
    sigset_t all, before;
    pid_t child;

    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    child = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL);
    if (child == 0)
        return 0;
    if (child < 0)
        child = -errno;
    sigprocmask(SIG_SETMASK, &before, NULL);
    return child;
}

void *closer_share(size_t size)
{
    void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    return page == MAP_FAILED ? NULL : page;
}

static int closer_start_watcher(void)
{
    pid_t parent = getpid(), child;
    int by_first = gettid() == parent;
    char stat_path[64];

    if (!closer.watched)
        closer.watched = closer_share(2 * sizeof(int));
    if (!closer.watched)
        return -ENOMEM;
    closer.watched[0] = closer.watched[1] = -1;
    snprintf(stat_path, sizeof(stat_path), "/proc/%d/stat", (int)parent);
    child = closer_clone();
    if (child == 0)
        closer_watch(parent, stat_path, by_first);
    closer.watcher = child > 0 ? child : 0;
    return child < 0 ? child : 0;
}

static int closer_start_worker(void)
{
    pid_t parent = getpid(), child;

    if (pipe2(closer.pipe, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    closer.shared = closer_share(sizeof(*closer.shared));
    child = closer.shared ? closer_clone() : -ENOMEM;
    if (child == 0)
        closer_work(parent);
    if (child < 0) {
        if (closer.shared)
            munmap(closer.shared, sizeof(*closer.shared));
        close(closer.pipe[0]);
        close(closer.pipe[1]);
        return child;
    }
    closer.worker = child;
    closer.asked = closer.seen = 0;
    return 0;
}

int closer_start(char *name, size_t name_len)
{
    if (closer.watcher)
        return 0;
    closer.name = name;
    closer.name_len = name_len;
    return closer_start_watcher();
}

void closer_forget(void)
{
    closer = (struct closer){.pipe = {-1, -1}};
}

/* What waits in the pipe of a worker goes to the present one. */
static void closer_pass_on(int from)
{
    int fd;

    while (read(from, &fd, sizeof(fd)) == sizeof(fd))
        closer_close(fd);
}

/* The worker hangs: another one does the work from now on, and the old one ends when it can. */
static void closer_replace_worker(void)
{
    struct closer old = closer;

    if (closer_start_worker() < 0) {
        closer = old;
        return;
    }
    closer.since_msec = closer_now_msec();
    if (closer.n_retired < CLOSER_RETIRED)
        closer.retired[closer.n_retired++] = old.worker;
    closer_pass_on(old.pipe[0]);
    /* from here on it may close its end, whose number is then somebody else's */
    __atomic_store_n(&old.shared->retired, 1, __ATOMIC_RELEASE);
    munmap(old.shared, sizeof(*old.shared));
    close(old.pipe[1]);
}

static void closer_look_after_worker(void)
{
    unsigned done = __atomic_load_n(&closer.shared->done, __ATOMIC_ACQUIRE);
    long long now = closer_now_msec();

    if (done == closer.asked || done != closer.seen) {
        closer.seen = done;
        closer.since_msec = now;
    } else if (now - closer.since_msec > CLOSER_PATIENCE_MSEC) {
        closer_replace_worker();
    }
}

void closer_close(int fd)
{
    if (!closer.watcher || (!closer.worker && closer_start_worker() < 0)) {
        close(fd);
        return;
    }
    closer_look_after_worker();
    if (write(closer.pipe[1], &fd, sizeof(fd)) == sizeof(fd))
        closer.asked++;
    /* else thousands wait before it: rather one open file too many than to wait as well */
}

void closer_reaped(pid_t pid)
{
    if (pid == closer.watcher) {
        closer.watcher = 0;
        for (int i = 0; i < 2; i++)
            if (closer.watched[i] >= 0)
                close(closer.watched[i]);
        closer_start_watcher();
    } else if (pid == closer.worker) {
        struct closer old = closer;

        closer.worker = 0;
        munmap(old.shared, sizeof(*old.shared));
        closer_pass_on(old.pipe[0]);
        close(old.pipe[0]);
        close(old.pipe[1]);
    } else {
        for (int i = 0; i < closer.n_retired; i++)
            if (closer.retired[i] == pid)
                closer.retired[i--] = closer.retired[--closer.n_retired];
    }
}

static int closer_is_gone(pid_t pid)
{
    return pid > 0 && waitpid(pid, NULL, WNOHANG) == pid;
}

void closer_collect(void)
{
    if (closer_is_gone(closer.watcher))
        closer_reaped(closer.watcher);
    if (closer_is_gone(closer.worker))
        closer_reaped(closer.worker);
    for (int i = 0; i < closer.n_retired; i++)
        if (closer_is_gone(closer.retired[i]))
            closer_reaped(closer.retired[i--]);
}

int closer_take_back(void)
{
    long long until = closer_now_msec() + CLOSER_PATIENCE_MSEC;
    struct timespec moment = {.tv_nsec = 100 * 1000};
    int fd;

    if (!closer.worker)
        return -1;
    if (read(closer.pipe[0], &fd, sizeof(fd)) == sizeof(fd)) {
        closer.asked--;
        return fd;
    }
    /* the one that it has taken is not in the table any more when it hangs */
    while (__atomic_load_n(&closer.shared->done, __ATOMIC_ACQUIRE) != closer.asked &&
           closer_now_msec() < until)
        nanosleep(&moment, NULL);
    return -1;
}

void closer_close_all(int patience_msec)
{
    if (closer.watcher) /* otherwise the end of the process does it */
        closer_close_files(closer_open_status(), closer_now_msec() + patience_msec);
}
