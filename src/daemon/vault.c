/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See vault.h: finding the supervisor, and sending to it. */
#define G_LOG_DOMAIN "holdfast.vault"

#include "vault-private.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "keeper/closer.h"
#include "keeper/keeper.h"
#include "vault-batch.h"

/* A message that waits until the supervisor's socket has room. */
typedef struct VaultMessage {
    char *text;
    int fd; /* a copy of ours, or -1 */
} VaultMessage;

typedef struct VaultCommit {
    guint64 after; /* number of the last message that has to be sent first */
    char *text;
    gsize len;
    VaultDone done;
    void *data;
} VaultCommit;

/* ---- what was kept --------------------------------------------------------------------- */

/* The keeper's list: a file with a line "NAME NUMBER" for each. */
static void vault_find_keeper(Vault *vault)
{
    const char *number = g_getenv("HOLDFAST_KEPT");
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%s", number ? number : "none");
    g_autofree char *text = NULL;
    char *line, *end;

    g_unsetenv("HOLDFAST_KEPT");
    if (!g_file_get_contents(path, &text, NULL, NULL))
        return;
    close(atoi(number));
    for (line = text; (end = strchr(line, '\n')); line = end + 1) {
        char *blank;

        *end = '\0';
        blank = strchr(line, ' ');
        if (!blank)
            continue;
        *blank = '\0';
        if (strcmp(line, KEEPER_CLOSING) == 0)
            closer_close(atoi(blank + 1));
        else
            vault_names_found(&vault->names, line, atoi(blank + 1));
    }
    /* what was inherited is for nobody else */
    if (close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
        g_warning("cannot keep inherited descriptors from children: %s", g_strerror(errno));
}

/* systemd hands sockets of units and stored descriptors over together: ours have a mark. */
static void vault_find_systemd(Vault *vault)
{
    char **names = NULL;
    int n = sd_listen_fds_with_names(FALSE, &names);

    for (int i = 0; i < n; i++) {
        if (g_str_has_prefix(names[i], "hf-")) /* sd_listen_fds() has set close-on-exec */
            vault_names_found(&vault->names, names[i] + 3, SD_LISTEN_FDS_START + i);
        free(names[i]);
    }
    free(names);
}

/* ---- sending --------------------------------------------------------------------------- */

static int vault_send(const Vault *vault, const char *text, int fd)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {.iov_base = (char *)text, .iov_len = strlen(text)};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd >= 0) {
        struct cmsghdr *cmsg = &control.header;

        message.msg_control = &control;
        message.msg_controllen = sizeof(control);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
    }
    return sendmsg(vault->socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static void vault_message_free(VaultMessage *message)
{
    g_free(message->text);
    if (message->fd >= 0)
        closer_close(message->fd);
    g_free(message);
}

static gboolean vault_is_busy(int r)
{
    /* the second: the kernel limits how many descriptors may be in sockets at once */
    return r == -EAGAIN || r == -ENOBUFS || r == -ETOOMANYREFS;
}

static void vault_lost(Vault *vault, int r)
{
    g_critical("the supervisor that keeps the locks' descriptors does not answer any more (%s): "
               "locks will not survive this process",
               g_strerror(-r));
    vault->kind = VAULT_NONE;
    sd_event_source_set_enabled(vault->source, SD_EVENT_OFF);
    if (vault->on_lost)
        vault->on_lost(vault->lost_data);
}

static void vault_do_commits(Vault *vault)
{
    VaultCommit *commit;

    while ((commit = g_queue_peek_head(&vault->commits)) &&
           (commit->after <= vault->sent || vault->kind == VAULT_NONE)) {
        g_queue_pop_head(&vault->commits);
        vault_write(vault, commit->text, commit->len);
        commit->done(commit->data);
        g_free(commit->text);
        g_free(commit);
    }
}

/* It was said to be stored, and is not. */
static void vault_refuse(Vault *vault, const char *name)
{
    g_hash_table_add(vault->refused, g_strdup(name));
    if (vault->on_refused)
        vault->on_refused(name, vault->refused_data);
}

/* The keeper says one thing only: it had no room for a descriptor. */
static void vault_listen(Vault *vault)
{
    static const char failed[] = "FDSTOREFAILED=1\nFDNAME=";
    char text[128];
    ssize_t n;

    while ((n = recv(vault->socket, text, sizeof(text) - 1, MSG_DONTWAIT)) > 0) {
        char *name = text + strlen(failed);

        text[n] = '\0';
        if (!g_str_has_prefix(text, failed))
            continue;
        name[strcspn(name, "\n")] = '\0';
        if (vault_is_stored(vault, name)) /* it may have been removed meanwhile */
            vault_refuse(vault, name);
    }
}

static int vault_on_socket(sd_event_source *source, int fd, uint32_t events, void *data)
{
    Vault *vault = data;
    VaultMessage *message;

    (void)fd;
    if (events & EPOLLIN)
        vault_listen(vault);
    if (events & EPOLLHUP)
        vault_lost(vault, -EPIPE);
    while (vault->kind != VAULT_NONE && (message = g_queue_peek_head(&vault->messages))) {
        int r = vault_send(vault, message->text, message->fd);

        if (vault_is_busy(r))
            break;
        if (r < 0) {
            vault_lost(vault, r);
            break;
        }
        vault->sent++;
        vault_message_free(g_queue_pop_head(&vault->messages));
        vault_do_commits(vault); /* before a later message removes what they are about */
    }
    if (vault->kind != VAULT_NONE && g_queue_is_empty(&vault->messages))
        sd_event_source_set_io_events(source, EPOLLIN);
    vault_do_commits(vault);
    return 0;
}

static void vault_flush(Vault *vault);

static gboolean vault_post(Vault *vault, const char *text, int fd)
{
    VaultMessage *message;
    int r = -EAGAIN, copy = -1;

    vault_flush(vault);
    if (vault->kind == VAULT_NONE)
        return TRUE;
    if (g_queue_is_empty(&vault->messages))
        r = vault_send(vault, text, fd);
    if (r == 0) {
        vault->queued++;
        vault->sent++;
        return TRUE;
    }
    if (!vault_is_busy(r)) {
        vault_lost(vault, r);
        return TRUE;
    }
    /* a copy, for a lease may be released before the message can be sent */
    if (fd >= 0 && (copy = fcntl(fd, F_DUPFD_CLOEXEC, 3)) < 0)
        return FALSE;
    vault->queued++;
    message = g_new0(VaultMessage, 1);
    message->text = g_strdup(text);
    message->fd = copy;
    g_queue_push_tail(&vault->messages, message);
    sd_event_source_set_io_events(vault->source, EPOLLIN | EPOLLOUT);
    return TRUE;
}

/* systemd's names are marked, so that they are told from those of socket units. */
static const char *vault_mark(const Vault *vault)
{
    return vault->kind == VAULT_SYSTEMD ? "hf-" : "";
}

static gboolean vault_post_store(Vault *vault, const char *name, int fd)
{
    char text[128];

    /* without FDPOLL=0 systemd drops a pidfd as soon as its process has ended */
    g_snprintf(text, sizeof(text), "FDSTORE=1\nFDPOLL=0\nFDNAME=%s%s\n", vault_mark(vault), name);
    return vault_post(vault, text, fd);
}

void vault_hold(Vault *vault)
{
    vault->batch.open = vault->takes_batches && vault->kind == VAULT_KEEPER &&
                        g_queue_is_empty(&vault->messages) && vault_batch_fits(vault->socket);
}

/* Sends what was held. */
static void vault_flush(Vault *vault)
{
    VaultBatch *batch = &vault->batch;
    const guint n = batch->n;
    int r;

    if (n == 0)
        return;
    r = vault->kind == VAULT_NONE ? 0 : vault_batch_send(batch, vault->socket);
    batch->n = 0;
    if (r == 0) {
        vault->queued++;
        vault->sent++;
        return;
    }
    if (!vault_is_busy(r)) {
        vault_lost(vault, r);
        return;
    }
    /* there was room a moment ago: it is the kernel that runs out of something */
    batch->open = FALSE;
    for (guint i = 0; i < n && vault->kind != VAULT_NONE; i++)
        if (!vault_post_store(vault, batch->names[i], batch->fds[i]))
            vault_refuse(vault, batch->names[i]);
}

gboolean vault_store(Vault *vault, const char *name, int fd)
{
    vault_names_use(&vault->names, name);
    if (vault->batch.open && vault->kind == VAULT_KEEPER) {
        vault_batch_add(&vault->batch, name, fd);
        if (vault_batch_is_full(&vault->batch))
            vault_flush(vault);
        return TRUE;
    }
    if (vault_post_store(vault, name, fd))
        return TRUE;
    vault_names_forget(&vault->names, name);
    return FALSE;
}

void vault_remove(Vault *vault, const char *name)
{
    char text[128];

    g_snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=%s%s\n", vault_mark(vault), name);
    vault_post(vault, text, -1);
    vault_names_forget(&vault->names, name);
    g_hash_table_remove(vault->refused, name);
}

void vault_ready(Vault *vault)
{
    vault_post(vault, "READY=1\n", -1);
}

void vault_leave(Vault *vault, int code)
{
    char text[32];

    if (vault->kind != VAULT_KEEPER)
        return;
    g_snprintf(text, sizeof(text), "EXIT_STATUS=%d\n", code);
    vault_send(vault, text, -1); /* if there is no room the code is not known: that is all */
}

/* ---- the ledger ------------------------------------------------------------------------ */

void vault_commit(Vault *vault, const char *text, gsize len, VaultDone done, void *data)
{
    VaultCommit *commit;

    vault_flush(vault);
    vault->batch.open = FALSE;
    if (vault->kind == VAULT_NONE ||
        (vault->sent == vault->queued && g_queue_is_empty(&vault->commits))) {
        vault_write(vault, text, len);
        done(data);
        return;
    }
    commit = g_new0(VaultCommit, 1);
    commit->after = vault->queued;
    commit->text = g_memdup2(text, len);
    commit->len = len;
    commit->done = done;
    commit->data = data;
    g_queue_push_tail(&vault->commits, commit);
}

gboolean vault_is_waiting(const Vault *vault)
{
    return vault->kind != VAULT_NONE && !g_queue_is_empty((GQueue *)&vault->commits);
}

/* ---- beginning and end ----------------------------------------------------------------- */

void vault_on_lost(Vault *vault, void (*func)(void *data), void *data)
{
    vault->on_lost = func;
    vault->lost_data = data;
}

void vault_on_refused(Vault *vault, void (*func)(const char *name, void *data), void *data)
{
    vault->on_refused = func;
    vault->refused_data = data;
}

gboolean vault_has_all(const Vault *vault)
{
    return g_hash_table_size(vault->refused) == 0;
}

VaultKind vault_kind(const Vault *vault)
{
    return vault->kind;
}

const char *vault_kind_name(const Vault *vault)
{
    static const char *const names[] = {"none", "systemd", "keeper"};

    return names[vault->kind];
}

/* $NOTIFY_SOCKET as systemd sets it: a path, or "@" for the abstract name space. */
static int vault_connect_systemd(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t len = strlen(path);
    int fd, r;

    if (len >= sizeof(address.sun_path) || (*path != '/' && *path != '@'))
        return -EINVAL;
    memcpy(address.sun_path, path, len);
    if (*path == '@')
        address.sun_path[0] = '\0';
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    r = connect(fd, (struct sockaddr *)&address,
                (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
    if (r < 0) {
        r = -errno;
        close(fd);
        return r;
    }
    return fd;
}

/* The keeper naps after messages, and what comes meanwhile waits in the socket. A small one takes
 * 768 bytes of the kernel's, so that usually there is room for 270, which many VMs that start at
 * once send within 5 ms; who finds no room waits for the end of the nap. */
#define VAULT_ROOM_BYTES (4 * 1024 * 1024)

static void vault_make_room(int fd)
{
    const int bytes = VAULT_ROOM_BYTES;

    /* more than net.core.wmem_max is for root only; others get that much */
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

/* $HOLDFAST_KEEPER: the number of our end of a socket pair, and how many descriptors at once may go
 * there; -1 if it is none. */
static int vault_keeper_socket(Vault *vault, const char *number)
{
    int fd = atoi(number), type = 0;
    socklen_t len = sizeof(type);

    if (fd <= STDERR_FILENO || getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 ||
        type != SOCK_SEQPACKET || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
        g_warning("$HOLDFAST_KEEPER is no keeper's socket: locks will not survive this process");
        return -1;
    }
    vault_make_room(fd);
    vault->takes_batches = strchr(number, ' ') && atoi(strchr(number, ' ')) >= KEEPER_MAX_FDS;
    return fd;
}

static void vault_find_supervisor(Vault *vault)
{
    const char *keeper = g_getenv("HOLDFAST_KEEPER");
    const char *notify = g_getenv("NOTIFY_SOCKET");

    if (keeper) {
        vault->socket = vault_keeper_socket(vault, keeper);
        if (vault->socket >= 0)
            vault->kind = VAULT_KEEPER;
        g_unsetenv("HOLDFAST_KEEPER");
        vault_find_keeper(vault);
    } else if (notify) {
        vault->socket = vault_connect_systemd(notify);
        if (vault->socket >= 0)
            vault->kind = VAULT_SYSTEMD;
        else
            g_warning("cannot reach $NOTIFY_SOCKET: %s; locks will not survive this process",
                      g_strerror(-vault->socket));
        vault_find_systemd(vault);
    }
}

int vault_new(sd_event *event, const char *ledger_path, Vault **ret_vault)
{
    Vault *vault = g_new0(Vault, 1);
    int r = 0;

    vault->socket = -1;
    vault->ledger = -1;
    vault->path = g_strdup(ledger_path);
    vault->refused = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    vault_names_init(&vault->names);
    vault_find_supervisor(vault);
    if (vault->kind != VAULT_NONE)
        r = sd_event_add_io(event, &vault->source, vault->socket, EPOLLIN, vault_on_socket, vault);
    if (r < 0) {
        vault_free(vault);
        return r;
    }
    *ret_vault = vault;
    return 0;
}

void vault_free(Vault *vault)
{
    VaultMessage *message;
    VaultCommit *commit;

    while ((message = g_queue_pop_head(&vault->messages)))
        vault_message_free(message);
    while ((commit = g_queue_pop_head(&vault->commits))) {
        g_free(commit->text);
        g_free(commit);
    }
    vault_names_clear(&vault->names);
    g_hash_table_unref(vault->refused);
    sd_event_source_disable_unref(vault->source);
    if (vault->socket >= 0)
        close(vault->socket);
    vault_ledger_close(vault);
    g_free(vault->path);
    g_free(vault);
}
