/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owners' processes. Each is watched by a pidfd; a pid alone is never trusted. Locks are released
 * when the process has been seen to end, never before.
 *
 * A holder whose last connection closes while its process lives and holds leases has lost what
 * protects it (libvirt's plugin leaves that connection open in the VM for just this):
 *
 *     0.0 s   the connection closes. Mostly the process is just ending: the kernel closes
 *             its files before it lets the pidfd speak, so give it GRACE
 *     0.2 s   still alive: TERM; the owner is "stopping"
 *    10.2 s   still alive after kill_timeout: KILL
 *     later   a process stuck in the kernel may take for ever; its leases stay until then
 */
#define G_LOG_DOMAIN "holdfast.supervise"

#include "engine.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "metrics.h"

#define SUPERVISE_GRACE_USEC (200 * G_TIME_SPAN_MILLISECOND)

typedef struct OwnerWatch {
    Engine *engine;
    Owner *owner;
    int pidfd;
    sd_event_source *exit;
    sd_event_source *timer; /* of the stages above */
    int signal;             /* the last that was sent, 0: none */
} OwnerWatch;

/* Field 22 of /proc/PID/stat, counted from behind the name, which may contain anything. */
static guint64 supervise_start_ticks(pid_t pid)
{
    unsigned long long ticks = 0;
    char text[1024]; /* a name of at most 64 bytes and 22 numbers, and more that is not needed */
    const char *p;
    ssize_t n;
    int fd;

    g_snprintf(text, sizeof(text), "/proc/%d/stat", (int)pid);
    fd = open(text, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    n = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    p = strrchr(text, ')');
    if (!p || sscanf(p + 1,
                     " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d "
                     "%*d %*d %llu",
                     &ticks) != 1)
        return 0;
    return ticks;
}

static gboolean supervise_pidfd_ended(int pidfd)
{
    struct pollfd poll_fd = {.fd = pidfd, .events = POLLIN};

    return poll(&poll_fd, 1, 0) > 0;
}

static void supervise_forget(Engine *engine, Owner *owner)
{
    OwnerWatch *watch = g_steal_pointer(&owner->watch);

    table_remove_owner(engine->table, owner);
    handover_forget_owner(engine, owner);
    if (watch) {
        sd_event_source_disable_unref(watch->exit);
        sd_event_source_disable_unref(watch->timer);
        if (watch->pidfd >= 0)
            close(watch->pidfd);
        g_free(watch);
    }
    owner_unref(owner);
}

void supervise_check(Engine *engine, Owner *owner)
{
    /* the last reference is the supervisor's own */
    if (owner->refs == 1 && owner->leases->len == 0)
        supervise_forget(engine, owner);
}

void supervise_unref(Engine *engine, Owner *owner)
{
    if (!owner)
        return;
    g_assert(owner->refs > 1);
    owner->refs--;
    supervise_check(engine, owner);
}

static void supervise_release(Engine *engine, Owner *owner)
{
    g_autoptr(GPtrArray) leases = g_ptr_array_new();

    for (guint i = 0; i < owner->leases->len; i++) {
        Lease *lease = g_ptr_array_index(owner->leases, i);

        /* a pending one belongs to a request, which will see that its owner is gone */
        if (lease->state == LEASE_HELD)
            g_ptr_array_add(leases, lease);
    }
    if (leases->len > 0)
        release_leases(engine, leases, "owner-gone", 0, NULL, NULL);
}

static void supervise_ended(Engine *engine, Owner *owner)
{
    owner_ref(owner);
    if (owner->state != OWNER_GONE) {
        owner->state = OWNER_GONE;
        if (owner->watch) {
            owner->watch->exit = sd_event_source_disable_unref(owner->watch->exit);
            owner->watch->timer = sd_event_source_disable_unref(owner->watch->timer);
        }
        if (owner->leases->len > 0)
            engine_emit(engine, EVENT_OWNER_GONE, NULL, owner, NULL, NULL);
    }
    if (!owner->until_close || owner->connections == 0)
        supervise_release(engine, owner);
    supervise_unref(engine, owner);
}

static int supervise_on_exit(sd_event_source *source, int fd, uint32_t events, void *data)
{
    OwnerWatch *watch = data;

    (void)source;
    (void)fd;
    (void)events;
    supervise_ended(watch->engine, watch->owner);
    return 0;
}

gboolean supervise_has_ended(Engine *engine, Owner *owner)
{
    if (owner->state == OWNER_GONE)
        return TRUE;
    if (!owner->watch || !supervise_pidfd_ended(owner->watch->pidfd))
        return FALSE;
    supervise_ended(engine, owner);
    return TRUE;
}

static int supervise_watch(Engine *engine, Owner *owner, int pidfd)
{
    OwnerWatch *watch = g_new0(OwnerWatch, 1);
    int r;

    watch->engine = engine;
    watch->owner = owner;
    watch->pidfd = pidfd;
    owner->watch = watch;
    r = sd_event_add_io(engine->event, &watch->exit, pidfd, EPOLLIN, supervise_on_exit, watch);
    if (r < 0)
        return r;
    /* a VM that ended and starts again must find its disks being released, not held */
    return sd_event_source_set_priority(watch->exit, SD_EVENT_PRIORITY_IMPORTANT);
}

static Fault *supervise_no_process(pid_t pid, int err)
{
    Fault *fault;

    /* the last two: it is the id of a thread, on older and on newer kernels */
    if (err == ESRCH || err == EINVAL || err == ENOENT)
        fault = fault_new(HF_ERR_NO_SUCH_OWNER, ESRCH,
                          "there is no process %d to hold anything; start it first, then acquire",
                          (int)pid);
    else
        fault = fault_new(HF_ERR_STORAGE, err,
                          "cannot watch process %d: %s; raise the daemon's limit of open files "
                          "(LimitNOFILE= of its unit)",
                          (int)pid, g_strerror(err));
    fault->pid = pid;
    return fault;
}

static Owner *supervise_add(Engine *engine, const char *name, const char *uuid, const char *uri,
                            pid_t pid, guint64 ticks)
{
    Owner *owner = owner_new(name, uuid, uri, pid, ticks);

    table_add_owner(engine->table, owner);
    return owner_ref(owner);
}

/* A client may know more about the VM than the one before. */
static void supervise_update(Owner *owner, const char *name, const char *uuid, const char *uri)
{
    if (name && !owner->name)
        owner->name = g_strdup(name);
    if (uuid && !owner->uuid)
        owner->uuid = g_strdup(uuid);
    if (uri && !owner->uri)
        owner->uri = g_strdup(uri);
}

static Owner *supervise_get_new(Engine *engine, const char *name, const char *uuid, const char *uri,
                                pid_t pid, gboolean must_live, Fault **ret_fault)
{
    int pidfd = pid > 0 ? pidfd_open(pid, 0) : -1;
    int err = errno;
    /* read after the pidfd was opened: whoever has the pid now is whom the pidfd means */
    guint64 ticks = pidfd >= 0 ? supervise_start_ticks(pid) : 0;
    gboolean ended = pid > 0 && (pidfd < 0 || ticks == 0 || supervise_pidfd_ended(pidfd));
    Owner like = {.pid = pid, .start_ticks = ticks, .uuid = (char *)uuid};
    Owner *owner;
    int r;

    if (ended && (must_live || (pidfd < 0 && err != ESRCH && err != EINVAL && err != ENOENT))) {
        if (pidfd >= 0)
            close(pidfd);
        *ret_fault = supervise_no_process(pid, pidfd >= 0 ? ESRCH : err);
        return NULL;
    }
    owner = table_owner(engine->table, &like);
    if (owner) {
        if (pidfd >= 0)
            close(pidfd);
        supervise_update(owner, name, uuid, uri);
        return owner_ref(owner);
    }
    owner = supervise_add(engine, name, uuid, uri, pid, ticks);
    if (ended || pid == 0) {
        if (pidfd >= 0)
            close(pidfd);
        owner->state = ended ? OWNER_GONE : OWNER_RUNNING;
        return owner;
    }
    r = supervise_watch(engine, owner, pidfd);
    if (r < 0) {
        supervise_unref(engine, owner);
        *ret_fault = supervise_no_process(pid, -r);
        return NULL;
    }
    return owner;
}

/* A known owner with this pid whose process has not ended: then the pid still means that one. */
static Owner *supervise_find_living(Engine *engine, pid_t pid)
{
    g_autoptr(GPtrArray) known = pid > 0 ? table_owners_of(engine->table, pid) : NULL;

    for (guint i = 0; known && i < known->len; i++) {
        Owner *owner = g_ptr_array_index(known, i);

        if (owner->state != OWNER_GONE && owner->watch &&
            !supervise_pidfd_ended(owner->watch->pidfd))
            return owner_ref(owner);
    }
    return NULL;
}

Owner *supervise_get(Engine *engine, const char *name, const char *uuid, const char *uri, pid_t pid,
                     gboolean must_live, Fault **ret_fault)
{
    Owner *living = supervise_find_living(engine, pid);

    if (living) {
        supervise_update(living, name, uuid, uri);
        return living;
    }
    return supervise_get_new(engine, name, uuid, uri, pid, must_live, ret_fault);
}

int supervise_pidfd(const Owner *owner)
{
    return owner->watch ? owner->watch->pidfd : -1;
}

Owner *supervise_adopt_owner(Engine *engine, const char *name, const char *uuid, const char *uri,
                             pid_t pid, guint64 start_ticks, int pidfd)
{
    Owner *owner = supervise_add(engine, name, uuid, uri, pid, start_ticks);

    if (pid == 0)
        return owner;
    if (pidfd < 0) {
        pidfd = pidfd_open(pid, 0);
        if (pidfd >= 0 && supervise_start_ticks(pid) != start_ticks) {
            close(pidfd); /* somebody else has the number now */
            pidfd = -1;
        }
    }
    if (pidfd < 0)
        owner->state = OWNER_GONE;
    else if (supervise_watch(engine, owner, pidfd) < 0)
        g_critical("cannot watch process %d: its leases stay until the next restart", (int)pid);
    return owner;
}

void supervise_recheck(Engine *engine, Owner *owner)
{
    if (supervise_has_ended(engine, owner))
        supervise_ended(engine, owner);
}

/* ---- ending a process ------------------------------------------------------------------ */

static int supervise_on_timer(sd_event_source *source, uint64_t usec, void *data);

static void supervise_next_stage(OwnerWatch *watch, guint64 after_usec)
{
    watch->timer = sd_event_source_disable_unref(watch->timer);
    if (sd_event_add_time_relative(watch->engine->event, &watch->timer, CLOCK_MONOTONIC, after_usec,
                                   0, supervise_on_timer, watch) < 0)
        g_warning("cannot set a timer to end process %d", (int)watch->owner->pid);
}

static void supervise_signal(OwnerWatch *watch, int number)
{
    Owner *owner = watch->owner;
    const char *name = owner->name ? owner->name : "?";

    g_message("VM %s (pid %d) lost its connection while it holds leases: sending SIG%s", name,
              (int)owner->pid, sigabbrev_np(number));
    if (pidfd_send_signal(watch->pidfd, number, NULL, 0) < 0 && errno != ESRCH)
        g_warning("cannot send SIG%s to VM %s (pid %d): %s; its leases stay until it ends",
                  sigabbrev_np(number), name, (int)owner->pid, g_strerror(errno));
    watch->signal = number;
    metrics_on_signal(watch->engine->metrics, number);
}

static int supervise_on_timer(sd_event_source *source, uint64_t usec, void *data)
{
    OwnerWatch *watch = data;
    Owner *owner = watch->owner;

    (void)source;
    (void)usec;
    if (owner->connections > 0 || owner->leases->len == 0) {
        owner->state = OWNER_RUNNING; /* it came back, or gave everything back */
        watch->signal = 0;
        return 0;
    }
    if (watch->signal == 0) {
        owner->state = OWNER_STOPPING;
        engine_emit(watch->engine, EVENT_OWNER_STOPPING, NULL, owner, NULL, NULL);
        supervise_signal(watch, SIGTERM);
        supervise_next_stage(watch, watch->engine->config.kill_timeout_usec);
    } else if (watch->signal == SIGTERM) {
        supervise_signal(watch, SIGKILL);
    }
    return 0;
}

void supervise_connected(Owner *owner)
{
    owner->connections++;
}

void supervise_disconnected(Engine *engine, Owner *owner, gboolean end_process)
{
    if (--owner->connections > 0 || engine->ending)
        return; /* when the daemon ends it is the daemon that closes */
    if (owner->state == OWNER_GONE)
        supervise_ended(engine, owner);
    else if (end_process && owner->state == OWNER_RUNNING && owner->watch && owner->leases->len > 0)
        supervise_next_stage(owner->watch, SUPERVISE_GRACE_USEC);
}
