/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * holdfast-pr-helper, also called qemu-pr-helper. main() brings everything up in one visible order,
 * and down in reverse:
 *
 *     options     command line and holdfast.conf
 *     process     with -d the fork, whose parent waits for "ready"
 *     back ends   loaded, or started where they need to keep what is dropped below
 *     socket      handed over or made; the pid file; the log of commands
 *     janitor     who removes these two when the helper may not any more
 *     confined    user, capabilities, files, system calls: for ever. Last errors for the terminal
 *     ready       the terminal is left, systemd is told
 *     loop        accepts connections, each with a thread (conn.c), and watches the gates; from
 *                 here on there are threads
 *
 * The end, by SIGTERM or SIGINT. A guest must not notice a restart:
 *
 *     0 s      no connection takes a new request (QEMU gets EPIPE, connects again and waits: in the
 *              backlog of systemd's socket, or by trying five times, one second apart)
 *     .. 3 s   commands that are under way get their answer. Healthy devices need milliseconds;
 * with a socket of our own QEMU's five seconds have to be enough for us and the next helper
 *     .. 25 s  with systemd's socket, where QEMU waits: longer than the kernel's limit for a
 * command then     whoever is left is stuck; the sockets are shut, the process ends
 */
#define G_LOG_DOMAIN "holdfast.pr"

#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "audit.h"
#include "confine.h"
#include "conn.h"
#include "core/settings.h"
#include "daemon/background.h"
#include "device.h"
#include "dispatch.h"
#include "gate.h"
#include "janitor.h"
#include "listen.h"
#include "log.h"
#include "options.h"
#include "reader.h"

#define HELPER_FINISH_OWN_MSEC 3000
#define HELPER_FINISH_ACTIVATED_MSEC 25000
/* More VMs than any host has; a bound, so that a peer cannot make threads without end. */
#define HELPER_CONNECTIONS_MAX 4096
/* A connection's socket, its peer's pidfd, the device of its request; and one in hand. */
#define HELPER_FDS_PER_CONNECTION 4
#define HELPER_WATCH_MSEC 1000
/* Without free descriptors accept() fails at once, again and again: look again after a while. */
#define HELPER_PAUSE_USEC 100000
#define HELPER_COMPLAIN_USEC (60 * G_USEC_PER_SEC)

typedef struct Helper {
    PrOptions options;
    PrConfig *config;
    PrListener listener;
    int signals;
    int pid_fd;     /* of the pid file; -1: none */
    int janitor_fd; /* -1: none is needed */
    pid_t janitor;
    PrIdentity identity;
    gboolean activated;
    gboolean watching; /* commands are under way: the gates are looked at every second */
    gint64 watch_usec; /* when next */
    gboolean reading;  /* the reader is at work: it is looked at every PR_READER_LOOK_MSEC */
    gint64 read_usec;  /* when next */
    gint64 complained_usec;
    gint64 accept_usec; /* no connection is taken before */
} Helper;

static gboolean helper_fail(const Helper *self, const char *error)
{
    fprintf(stderr, "%s: %s\n", self->options.program, error);
    return FALSE;
}

/* sd_notify(3), without the library. */
static void helper_notify(const char *state)
{
    const char *path = g_getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    gsize len = path ? strlen(path) : 0;
    int fd;

    if (len < 2 || len >= sizeof(address.sun_path))
        return;
    memcpy(address.sun_path, path, len);
    if (*path == '@')
        address.sun_path[0] = '\0';
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address,
               (socklen_t)(G_STRUCT_OFFSET(struct sockaddr_un, sun_path) + len)) < 0)
        g_debug("systemd can't be told %s: %s", state, g_strerror(errno));
    close(fd);
}

/* ---- the way up ------------------------------------------------------------------------ */

static gboolean helper_load(Helper *self)
{
    const PrOptions *options = &self->options;
    g_autoptr(GPtrArray) problems = settings_problems_new();

    self->config = pr_config_load(options->config, options->config_given, problems);
    for (guint i = 0; i < problems->len; i++) {
        const SettingsProblem *problem = g_ptr_array_index(problems, i);
        g_autofree char *text = settings_problem_to_string(problem);

        if (problem->severity != SETTINGS_NOTE || options->log_level == PR_LOG_VERBOSE)
            helper_fail(self, text);
    }
    return self->config != NULL;
}

/* How many connections there may be: each one is a thread and some descriptors. */
static guint helper_limits(void)
{
    struct rlimit limit;

    /* an arena for each thread would cost more memory than it gains time */
    mallopt(M_ARENA_MAX, 1);
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return HELPER_CONNECTIONS_MAX;
    limit.rlim_cur = MIN(limit.rlim_max, HELPER_CONNECTIONS_MAX * HELPER_FDS_PER_CONNECTION + 64);
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < 128)
        return 16;
    return (guint)MIN((limit.rlim_cur - 64) / HELPER_FDS_PER_CONNECTION, HELPER_CONNECTIONS_MAX);
}

static gboolean helper_block_signals(Helper *self)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    self->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return self->signals >= 0 || helper_fail(self, g_strerror(errno));
}

static gboolean helper_listen(Helper *self)
{
    g_autofree char *error = NULL;
    gboolean fine = self->activated ? pr_listen_adopt(&self->listener, &error)
                                    : pr_listen_make(self->options.socket, &self->listener, &error);

    return fine || helper_fail(self, error);
}

static gboolean helper_write_pid(Helper *self)
{
    const PrOptions *options = &self->options;
    g_autofree char *error = NULL;
    int r;

    if (!options->background && !options->pid_file_given)
        return TRUE;
    r = background_write_pid(options->pid_file, &self->pid_fd);
    if (r >= 0)
        return TRUE;
    error = r == -EAGAIN
                ? g_strdup_printf("another helper runs: it has locked %s", options->pid_file)
                : g_strdup_printf("cannot write %s: %s", options->pid_file, g_strerror(-r));
    return helper_fail(self, error);
}

/* Whether the process that this one becomes can remove the file: without capabilities it has only
 * the rights that the directory's mode gives. */
static gboolean helper_may_remove(const Helper *self, const char *path)
{
    g_autofree char *dir = g_path_get_dirname(path);
    struct stat st;

    return stat(dir, &st) == 0 && st.st_uid == self->identity.uid && (st.st_mode & S_IWUSR);
}

static gboolean helper_start_janitor(Helper *self)
{
    const char *socket = self->listener.path;
    const char *pid_file = self->pid_fd >= 0 ? self->options.pid_file : NULL;

    if ((!socket || helper_may_remove(self, socket)) &&
        (!pid_file || helper_may_remove(self, pid_file)))
        return TRUE;
    self->janitor_fd = pr_janitor_start(socket, pid_file, &self->janitor);
    return self->janitor_fd >= 0 || helper_fail(self, g_strerror(-self->janitor_fd));
}

static gboolean helper_confine(Helper *self)
{
    g_autofree char *error = NULL;
    const char *const removed[] = {
        self->janitor_fd < 0 ? self->listener.path : NULL,
        self->janitor_fd < 0 && self->pid_fd >= 0 ? self->options.pid_file : NULL};
    gboolean files = FALSE;

    if (!pr_confine_privileges(&self->identity, pr_backends_capabilities(), &error) ||
        !pr_confine_files(removed, G_N_ELEMENTS(removed), pr_audit_directory(self->config->audit),
                          &files, &error) ||
        !pr_confine_calls(&error))
        return helper_fail(self, error);
    if (!files)
        g_message("this kernel has no Landlock: access to files is not restricted");
    return TRUE;
}

/* Before the background's chdir(); freed by helper_free(). */
static void helper_absolute_paths(Helper *self)
{
    self->options.socket = g_canonicalize_filename(self->options.socket, NULL);
    self->options.pid_file = g_canonicalize_filename(self->options.pid_file, NULL);
}

static gboolean helper_bring_up(Helper *self)
{
    const PrOptions *options = &self->options;
    g_autofree char *error = NULL;
    guint handed_over = pr_listen_handed_over();
    guint limit = helper_limits();
    int r;

    if (handed_over > 1)
        return helper_fail(self, "more than one socket was handed over; give this service one "
                                 "socket unit with one ListenStream=");
    if (handed_over && options->socket_given)
        return helper_fail(self,
                           "--socket makes no sense with a socket from systemd; leave it away");
    self->activated = handed_over == 1;
    pr_log_open(options->program, options->log_level, options->background);
    if (!pr_confine_identity(options->user, options->group, &self->identity, &error))
        return helper_fail(self, error);
    if (!helper_load(self))
        return FALSE;
    if (options->background && background_start() < 0)
        return helper_fail(self, "cannot go into the background");
    if (!helper_block_signals(self))
        return FALSE;
    r = pr_gate_init();
    if (r < 0)
        return helper_fail(self, g_strerror(-r));
    pr_backends_prepare(self->config);
    r = pr_conns_init(self->config, limit);
    if (r < 0)
        return helper_fail(self, g_strerror(-r));
    if (!pr_audit_open(self->config->audit, &error))
        return helper_fail(self, error);
    return helper_listen(self) && helper_write_pid(self) && helper_start_janitor(self) &&
           helper_confine(self);
}

/* ---- the loop -------------------------------------------------------------------------- */

static void helper_complain(Helper *self, int err)
{
    gint64 now = g_get_monotonic_time();

    if (self->complained_usec && now - self->complained_usec < HELPER_COMPLAIN_USEC)
        return;
    self->complained_usec = now;
    g_warning("a connection could not be served: %s; there are %u. Raise the limits of open files "
              "and of tasks, or find out who connects so often",
              g_strerror(err), pr_conns_count());
}

static void helper_accept(Helper *self)
{
    int fd = accept4(self->listener.fd, NULL, NULL, SOCK_CLOEXEC);
    int err = fd < 0 ? errno : -pr_conns_add(fd);

    if (err == 0 || err == EAGAIN || err == EINTR || err == ECONNABORTED)
        return;
    helper_complain(self, err);
    self->accept_usec = g_get_monotonic_time() + HELPER_PAUSE_USEC;
}

/* Whether to end. */
static gboolean helper_take_signal(Helper *self)
{
    struct signalfd_siginfo info;

    if (read(self->signals, &info, sizeof(info)) != sizeof(info))
        return FALSE;
    if (info.ssi_signo == SIGHUP) {
        g_message("SIGHUP: the log of commands is opened again; the configuration is read at the "
                  "start only");
        pr_audit_reopen(self->config->audit);
        return FALSE;
    }
    g_message("SIG%s: ending", sigabbrev_np((int)info.ssi_signo));
    return TRUE;
}

static gboolean helper_loop(Helper *self)
{
    struct pollfd fds[] = {{.fd = self->signals, .events = POLLIN},
                           {.fd = self->listener.fd, .events = POLLIN},
                           {.fd = pr_gate_watch_fd(), .events = POLLIN},
                           {.fd = pr_reader_watch_fd(), .events = POLLIN}};

    for (;;) {
        const gboolean paused = g_get_monotonic_time() < self->accept_usec;
        gint64 now;
        int n;

        fds[1].fd = paused ? -1 : self->listener.fd; /* poll(2) passes over that */
        n = poll(fds, G_N_ELEMENTS(fds),
                 self->reading    ? PR_READER_LOOK_MSEC
                 : paused         ? (int)(HELPER_PAUSE_USEC / G_TIME_SPAN_MILLISECOND)
                 : self->watching ? HELPER_WATCH_MSEC
                                  : -1);
        now = g_get_monotonic_time();
        if (n < 0 && errno != EINTR) {
            g_critical("cannot wait: %s", g_strerror(errno));
            return FALSE;
        }
        if (n <= 0)
            fds[0].revents = fds[1].revents = fds[2].revents = fds[3].revents = 0;
        if (fds[0].revents && helper_take_signal(self))
            return TRUE;
        if (fds[1].revents)
            helper_accept(self);
        if (fds[2].revents || (self->watching && now >= self->watch_usec)) {
            self->watching = pr_gate_watch();
            self->watch_usec = now + HELPER_WATCH_MSEC * G_TIME_SPAN_MILLISECOND;
        }
        if (fds[3].revents || (self->reading && now >= self->read_usec)) {
            self->reading = pr_reader_watch();
            self->read_usec = now + PR_READER_LOOK_MSEC * G_TIME_SPAN_MILLISECOND;
        }
    }
}

static gboolean helper_serve(Helper *self)
{
    background_ready();
    pr_log_leave_terminal();
    helper_notify("READY=1");
    g_message("serving %s", self->activated ? "systemd's socket" : self->listener.path);
    return helper_loop(self);
}

/* ---- the way down ---------------------------------------------------------------------- */

/* FALSE: a command has not returned, and its thread uses what would be freed. */
static gboolean helper_bring_down(Helper *self)
{
    guint left;

    helper_notify("STOPPING=1");
    left = self->listener.fd < 0 ? 0
                                 : pr_conns_finish(self->activated ? HELPER_FINISH_ACTIVATED_MSEC
                                                                   : HELPER_FINISH_OWN_MSEC);
    if (left)
        g_warning("%u connections wait for commands that do not return; ending without them", left);
    pr_listen_close(&self->listener);
    background_remove_pid(self->options.pid_file, self->pid_fd);
    if (self->janitor_fd >= 0)
        pr_janitor_finish(self->janitor_fd, self->janitor);
    return left == 0;
}

static void helper_free(Helper *self)
{
    pr_backends_finish();
    pr_device_forget_all();
    if (self->config)
        pr_config_free(self->config);
    g_free((char *)self->options.socket);
    g_free((char *)self->options.pid_file);
}

int main(int argc, char **argv)
{
    Helper self = {.listener = {.fd = -1}, .signals = -1, .pid_fd = -1, .janitor_fd = -1};
    int code = pr_options_read(argc, argv, &self.options);
    gboolean fine;

    if (code >= 0)
        return code;
    helper_absolute_paths(&self);
    fine = helper_bring_up(&self) && helper_serve(&self);
    if (!helper_bring_down(&self))
        _exit(fine ? EXIT_SUCCESS : EXIT_FAILURE);
    helper_free(&self);
    return fine ? EXIT_SUCCESS : EXIT_FAILURE;
}
