/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * holdfastd, also called virtlockd. main() brings the modules up in one visible order and down in
 * reverse:
 *
 *     options      command line and files; what is wrong with them is said here
 *     process      with -d, the fork, whose parent waits for "ready"; where there is no systemd,
 *                  the keeper, which runs this program again as its child
 *     drivers      loaded and configured; the last that runs without an event loop
 *     vault        what a supervisor has kept of an earlier daemon
 *     engine       lock table, lanes; from here on there may be threads; leases are adopted
 *     server       sockets, handed over or made; the last whose errors reach the terminal
 *     ready        the terminal is left, systemd is told
 *     loop         until a signal, or the idle time-out (loop.c)
 */
#define G_LOG_DOMAIN "holdfast.main"

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "background.h"
#include "daemon.h"
#include "keeper/closer.h"
#include "log.h"

/* One second in all, looked at every 5 ms: a daemon that ends drains its lanes first, but does not
 * wait for stuck ones; its files are closed right after its end. */
#define DAEMON_PATIENCE_STEPS 200
/* How long the closing of files is waited for at the end; a hung file would take for ever. */
#define DAEMON_CLOSE_MSEC 2000
/* Descriptors: 10,000 locks, and connections. */
#define DAEMON_TABLE_SIZE 16384

static int daemon_fail(const Daemon *self, const char *what, int r)
{
    fprintf(stderr, "%s: %s: %s\n", self->options.program, what, g_strerror(-r));
    return EXIT_FAILURE;
}

/* The kernel makes a process's table of descriptors larger in steps, and if it is shared, as with
 * the closer or between threads, it waits for all processors each time: 10 to 20 ms, in the middle
 * of a request. So it is made as large as a large host needs, at 8 bytes each, while it is not. */
static void daemon_widen_table(rlim_t limit)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int high = fcntl(null, F_DUPFD_CLOEXEC, (int)MIN(limit, DAEMON_TABLE_SIZE) - 1);

    if (high >= 0)
        close(high);
    if (null >= 0)
        close(null);
}

/* Each lease is a descriptor, and so is each connection and owner: allow as many as may be. */
static void daemon_raise_limits(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
        daemon_widen_table(limit.rlim_cur);
    }
    /* lanes allocate little; an arena a thread would cost more than it gains */
    mallopt(M_ARENA_MAX, 2);
}

/* ---- drivers --------------------------------------------------------------------------- */

static gboolean daemon_configure_drivers(Daemon *self)
{
    const Settings *settings = self->options.settings;
    g_autoptr(Fault) fault = NULL;

    for (guint i = 0; i < settings->driver_config->len; i++) {
        const SettingsDriverOption *option = g_ptr_array_index(settings->driver_config, i);

        if (!drivers_configure(self->by_name, option->driver, option->key, option->value, &fault)) {
            fprintf(stderr, "%s: holdfast.conf:%u: %s\n", self->options.program, option->line,
                    fault->message);
            return FALSE;
        }
    }
    if (!drivers_complete(self->drivers, &fault)) {
        fprintf(stderr, "%s: %s\n", self->options.program, fault->message);
        return FALSE;
    }
    if (!g_hash_table_lookup(self->by_name, settings->default_driver)) {
        fprintf(stderr,
                "%s: default_driver '%s' is not installed; holdfast drivers lists what is\n",
                self->options.program, settings->default_driver);
        return FALSE;
    }
    return TRUE;
}

static gboolean daemon_load_drivers(Daemon *self)
{
    const Settings *settings = self->options.settings;
    g_autoptr(GPtrArray) problems = g_ptr_array_new_with_free_func(g_free);

    self->drivers =
        drivers_load(settings->driver_dir ? settings->driver_dir : HOLDFAST_DRIVERDIR, problems);
    self->by_name = drivers_by_name(self->drivers);
    for (guint i = 0; i < problems->len; i++)
        g_warning("%s", (const char *)g_ptr_array_index(problems, i));
    return daemon_configure_drivers(self);
}

static int daemon_start_engine(Daemon *self)
{
    const Settings *settings = self->options.settings;
    EngineConfig config = {
        .host = self->options.host,
        .rules =
            {
                .auto_disk_leases = settings->auto_disk_leases,
                .require_lease_for_disks = settings->require_lease_for_disks,
                .file_lockspace_dir = settings->file_lockspace_dir,
                .lvm_lockspace_dir = settings->lvm_lockspace_dir,
                .scsi_lockspace_dir = settings->scsi_lockspace_dir,
            },
        .request_timeout_usec = settings->request_timeout * (guint64)G_USEC_PER_SEC,
        .kill_timeout_usec = settings->kill_timeout * (guint64)G_USEC_PER_SEC,
        .lane_threads = settings->lane_threads,
    };
    int r = engine_new(self->event, &config, self->by_name, settings->default_driver, self->vault,
                       &self->engine);

    if (r < 0)
        return r;
    self->context.vault = self->vault;
    self->context.engine = self->engine;
    self->context.drivers = self->drivers;
    self->context.driver_name = settings->default_driver;
    self->context.since_usec = g_get_real_time();
    engine_set_listener(self->engine, session_on_event, &self->context);
    self->engine->resume_connection = session_resume;
    return 0;
}

/* ---- up and down ------------------------------------------------------------------------ */

static int daemon_claim_pid_file(Daemon *self)
{
    const char *path = self->options.pid_file;
    int r = background_write_pid(path, &self->pid_fd);

    /* one that is just ending, as in a restart, needs a moment */
    for (int i = 0; r == -EAGAIN && i < DAEMON_PATIENCE_STEPS; i++) {
        g_usleep(5 * G_TIME_SPAN_MILLISECOND);
        r = background_write_pid(path, &self->pid_fd);
    }
    if (r == -EAGAIN)
        fprintf(stderr, "%s: another daemon runs: it has locked %s; end that one first\n",
                self->options.program, path);
    else if (r < 0)
        fprintf(stderr,
                "%s: cannot write %s: %s; see who may write there, or name another file with "
                "--pid-file\n",
                self->options.program, path, g_strerror(-r));
    return r;
}

static void daemon_leave(Daemon *self, int code) G_GNUC_NORETURN;

/* What the main thread does, whichever thread that is at the time: see lane-helm.c. */
static void daemon_steer(void *data)
{
    Daemon *self = data;
    int r;

    if (!daemon_loop(self, &r))
        return;
    sd_notify(FALSE, "STOPPING=1");
    daemon_leave(self, r < 0 ? daemon_fail(self, "the event loop failed", r) : r);
}

/* Returns only what is wrong. */
static int daemon_serve(Daemon *self)
{
    g_autofree char *error = NULL;
    int r = daemon_start_idle_timer(self);

    if (r < 0)
        return daemon_fail(self, "cannot set a timer", r);
    background_ready();
    if (self->options.background &&
        !log_open(self->options.settings, self->options.program, TRUE, &error))
        g_warning("%s", error);
    vault_ready(self->vault);
    g_message("serving %s%s%s", self->options.native_socket,
              self->options.virtlockd_socket ? " and " : "",
              self->options.virtlockd_socket ? self->options.virtlockd_socket : "");
    lane_hub_steer(self->engine->lanes, daemon_steer, self);
}

static int daemon_open_vault(Daemon *self)
{
    const Options *options = &self->options;
    g_autofree char *ledger =
        g_strconcat(options->as_virtlockd ? options->virtlockd_socket : options->native_socket,
                    ".leases", NULL);
    int r = vault_new(self->event, ledger, &self->vault);

    if (r >= 0)
        vault_on_lost(self->vault, daemon_on_vault_lost, self);
    return r;
}

/* Where a supervisor goes on after our end, that must not hang in closing files. Where there is
 * none the locks end with this process, and so that they end neither before nor after it there is
 * no closer. */
static void daemon_start_closer(const Daemon *self)
{
    int r;

    daemon_raise_limits();
    if (!g_getenv("HOLDFAST_KEEPER") && !g_getenv("NOTIFY_SOCKET"))
        return;
    r = closer_start(self->name, self->name_len);
    if (r < 0)
        g_warning("cannot start a process that closes files: %s", g_strerror(-r));
}

/* With -d the fork, and where there is no systemd the keeper, which starts this program again. */
static int daemon_settle_process(Daemon *self)
{
    gboolean again = g_getenv("HOLDFAST_KEEPER") != NULL;
    int r = self->options.background && !again ? background_start() : 0;

    if (r < 0)
        return daemon_fail(self, "cannot go into the background", r);
    if (!self->options.no_keeper && !background_with_keeper(self->argv))
        fprintf(stderr,
                "%s: warning: holdfast-keeper is not installed; locks will end with this "
                "process\n",
                self->options.program);
    daemon_start_closer(self);
    return 0;
}

static int daemon_bring_up(Daemon *self)
{
    g_autofree char *error = NULL;
    guint adopted;
    int r = daemon_settle_process(self);

    if (r != 0)
        return r;

    if (!log_open(self->options.settings, self->options.program, FALSE, &error)) {
        fprintf(stderr, "%s: %s\n", self->options.program, error);
        return EXIT_FAILURE;
    }
    if (!daemon_load_drivers(self) || daemon_claim_pid_file(self) < 0)
        return EXIT_FAILURE;
    r = sd_event_new(&self->event);
    if (r >= 0)
        r = daemon_add_signals(self);
    if (r >= 0)
        r = daemon_open_vault(self);
    if (r >= 0)
        r = daemon_start_engine(self);
    if (r < 0)
        return daemon_fail(self, "cannot start", r);
    r = conn_set_new(self->event, &self->conns);
    if (r < 0)
        return daemon_fail(self, "cannot start", r);
    self->context.conns = self->conns;
    self->server = self->context.server = server_new(self->event, self->conns);
    adopted = handover_adopt(self->engine);
    if (adopted)
        g_message("took over %u leases of an earlier daemon", adopted);
    if (!daemon_listen(self))
        return EXIT_FAILURE;
    return daemon_serve(self);
}

/* FALSE if something cannot be waited for: the process must then leave at once. */
static gboolean daemon_bring_down(Daemon *self, int code)
{
    gboolean clean = TRUE;

    /* a thread in a lane that hangs may keep the process from ending */
    if (self->vault)
        vault_leave(self->vault, code);
    /* What is held must not be let go by a daemon that starts anew, nor by one that has failed: the
     * keeper starts the next one with all descriptors, which needs ledger and sockets as they are.
     */
    if (self->restarting || (code != 0 && self->vault && vault_kind(self->vault) == VAULT_KEEPER))
        return FALSE;
    if (self->server)
        server_free(self->server, vault_kind(self->vault) == VAULT_SYSTEMD);
    if (self->engine)
        self->engine->ending = TRUE;
    if (self->conns)
        conn_set_free(self->conns);
    if (self->engine)
        clean = engine_free(self->engine);
    background_remove_pid(self->options.pid_file, self->pid_fd);
    /* with systemd this may be a restart, in which the next daemon goes on */
    if (self->vault && vault_kind(self->vault) != VAULT_SYSTEMD)
        vault_remove_ledger(self->vault);
    if (!clean)
        return FALSE;
    if (self->vault)
        vault_free(self->vault);
    sd_event_source_disable_unref(self->idle_timer);
    sd_event_unref(self->event);
    if (self->drivers) {
        g_hash_table_unref(self->by_name);
        g_ptr_array_unref(self->drivers);
    }
    log_close();
    options_clear(&self->options);
    return TRUE;
}

static void daemon_leave(Daemon *self, int code)
{
    if (!daemon_bring_down(self, code)) {
        if (code == 0) /* the locks end here, and before whoever waits for us goes on */
            closer_close_all(DAEMON_CLOSE_MSEC);
        _exit(code);
    }
    exit(code);
}

int main(int argc, char **argv)
{
    g_auto(GStrv) arguments = g_strdupv(argv); /* GLib's parser takes what it knows out of argv */
    Daemon self = {.pid_fd = -1, .argv = arguments, .name = argv[0]};
    int code;

    for (int i = 0; i < argc; i++) /* they lie one behind the other, see execve(2) */
        self.name_len = (gsize)(argv[i] - argv[0]) + strlen(argv[i]) + 1;
    /* not even a start that fails at once may hang in closing what was kept for it */
    if (g_getenv("HOLDFAST_KEEPER"))
        daemon_start_closer(&self);

    setlocale(LC_CTYPE, "");
    code = options_read(argc, argv, &self.options);

    if (code >= 0) {
        options_clear(&self.options);
        return code;
    }
    /* returns only if it fails: a daemon that has served leaves from daemon_steer() */
    daemon_leave(&self, daemon_bring_up(&self));
}
