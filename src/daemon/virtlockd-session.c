/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The session of virtlockd's protocol, as stock libvirt's plugin uses it. Its answers are stock's,
 * but for what stock gets wrong:
 *
 *  - an acquire in a directory that nobody has announced opens that lockspace by itself: libvirt
 *    never announces the lockspaces of manual leases;
 *  - libvirt takes a VM's set with one acquire after the other on one connection, and when one is
 *    refused it releases nothing and closes. So a connection whose last word was a refusal gives
 *    back what it had newly taken; with stock, such a VM is locked out by itself for ever.
 *
 * A connection whose peer is the registered owner itself is the VM's own: libvirt leaves it open
 * in the VM. When it closes while the VM runs on with leases, the VM is ended (supervise.c).
 */
#define G_LOG_DOMAIN "holdfast.virtlockd"

#include "virtlockd-private.h"

/* Work whose answer comes later; the connection may go first. */
typedef struct PeerWork {
    Peer *peer;
    Owner *owner;
    Engine *engine;
} PeerWork;

static const Driver *peer_driver(const Peer *peer)
{
    return peer->context->engine->disk_driver;
}

/* ---- work whose answer comes later ----------------------------------------------------- */

static PeerWork *peer_begin(Peer *peer)
{
    PeerWork *work = g_new0(PeerWork, 1);

    work->peer = peer;
    work->engine = peer->context->engine;
    work->owner = peer->owner ? owner_ref(peer->owner) : NULL;
    peer->work = work;
    conn_wait(peer->conn);
    return work;
}

/* The peer that waits for the answer, or NULL. */
static Peer *peer_end(PeerWork *work)
{
    Peer *peer = work->peer;

    if (work->owner)
        supervise_unref(work->engine, work->owner);
    g_free(work);
    if (peer)
        peer->work = NULL;
    return peer;
}

static void peer_ran(const Fault *fault, void *data)
{
    Peer *peer = peer_end(data);

    if (!peer)
        return;
    if (fault)
        peer_fault(peer, fault);
    else
        peer_ok(peer);
    conn_resume(peer->conn);
}

static void peer_run(Peer *peer, OpKind kind, const char *space, const char *key, unsigned flags)
{
    Resource resource = {.driver = peer_driver(peer), .space = (char *)space, .key = (char *)key};

    inspect_run(peer->context->engine, kind, &resource, flags, peer_ran, peer_begin(peer));
}

/* ---- what must hold before a call is looked at ----------------------------------------- */

static gboolean peer_check(Peer *peer, guint32 flags_known, gboolean needs_owner)
{
    if (peer->args.flags & ~flags_known) {
        peer_error(peer, VIRTLOCKD_ERR_INVALID_ARG, VIRTLOCKD_FROM_RPC, 0,
                   "unsupported flags (0x%x) in this call", peer->args.flags & ~flags_known);
        return FALSE;
    }
    if (peer->restricted) {
        peer_error(peer, VIRTLOCKD_ERR_OPERATION_DENIED, VIRTLOCKD_FROM_RPC, 0,
                   "operation forbidden: lock manager connection has been restricted");
        return FALSE;
    }
    if (needs_owner && !peer->owner) {
        peer_error(peer, VIRTLOCKD_ERR_OPERATION_INVALID, VIRTLOCKD_FROM_RPC, 0,
                   "Requested operation is not valid: lock owner details have not been registered");
        return FALSE;
    }
    return TRUE;
}

/* The default lockspace is always there, others once they were announced or used. A directory that
 * was not announced is opened by the first acquire. */
static gboolean peer_space_ok(const Peer *peer)
{
    return peer->args.path[0] == '\0' || peer->args.path[0] == '/';
}

/* ---- the procedures -------------------------------------------------------------------- */

static void peer_drop_owner(Peer *peer)
{
    Owner *owner = g_steal_pointer(&peer->owner);

    if (!owner)
        return;
    if (peer->is_owner)
        supervise_disconnected(peer->context->engine, owner, TRUE);
    peer->is_owner = FALSE;
    supervise_unref(peer->context->engine, owner);
}

static void peer_register(Peer *peer)
{
    g_autoptr(Fault) fault = NULL;
    char uuid[37];
    const guint8 *u = peer->args.uuid;
    Owner *owner;

    if (!peer_check(peer, 0, FALSE))
        return;
    g_snprintf(uuid, sizeof(uuid),
               "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1],
               u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14],
               u[15]);
    if (peer->args.id == 0) { /* stock takes 0 as "not registered" */
        peer_error(peer, VIRTLOCKD_ERR_OPERATION_INVALID, VIRTLOCKD_FROM_RPC, 0,
                   "Requested operation is not valid: 0 is not the id of a running domain");
        return;
    }
    if (peer->args.pid > G_MAXINT) {
        peer_error(peer, VIRTLOCKD_ERR_INVALID_ARG, VIRTLOCKD_FROM_RPC, 0,
                   "invalid argument: %u is not a process id", peer->args.pid);
        return;
    }
    owner = supervise_get(peer->context->engine, peer->args.name, uuid, NULL, (pid_t)peer->args.pid,
                          FALSE, &fault);
    if (!owner) {
        peer_fault(peer, fault);
        return;
    }
    peer_drop_owner(peer); /* stock accepts a second registration; the later owner counts */
    peer->owner = owner;
    peer->is_owner = peer->args.pid != 0 && peer->conn->peer.pid == (pid_t)peer->args.pid;
    if (peer->is_owner)
        supervise_connected(owner);
    peer_ok(peer);
}

static void peer_restrict(Peer *peer)
{
    if (!peer_check(peer, 0, TRUE))
        return;
    peer->restricted = TRUE;
    peer_ok(peer);
}

static void peer_new_space(Peer *peer, unsigned flags)
{
    if (!peer_check(peer, 0, (flags & HF_RESOURCE_EXCLUSIVE_CREATE) != 0))
        return;
    if (peer->args.path[0] == '\0') {
        peer_error(peer, VIRTLOCKD_ERR_OPERATION_INVALID, VIRTLOCKD_FROM_RPC, 0,
                   "Requested operation is not valid: the default lockspace already exists");
        return;
    }
    if ((flags & HF_RESOURCE_EXCLUSIVE_CREATE) &&
        op_space_known(peer->context->engine, peer_driver(peer), peer->args.path)) {
        peer_error(peer, VIRTLOCKD_ERR_INTERNAL, VIRTLOCKD_FROM_RPC, 0,
                   "internal error: Lockspace for path %s already exists", peer->args.path);
        return;
    }
    peer_run(peer, OP_SPACE, peer->args.path, "", HF_RESOURCE_CREATE);
}

static void peer_resource(Peer *peer, OpKind kind)
{
    if (!peer_check(peer, 0, TRUE))
        return;
    if (!peer_space_ok(peer))
        peer_no_space(peer);
    else
        peer_run(peer, kind, peer->args.path, peer->args.name, 0);
}

static void peer_resource_free(gpointer data)
{
    resource_clear(data);
    g_free(data);
}

/* Gives back what this connection has newly taken, if the owner still has it. */
static void peer_undo(Peer *peer)
{
    g_autoptr(GPtrArray) leases = g_ptr_array_new();
    Engine *engine = peer->context->engine;

    for (guint i = 0; i < peer->fresh->len; i++) {
        Lease *lease =
            table_find_owned(engine->table, peer->owner, g_ptr_array_index(peer->fresh, i));

        if (lease && lease->state == LEASE_HELD && lease->count == 1)
            g_ptr_array_add(leases, lease);
    }
    release_leases(engine, leases, "released", 0, NULL, NULL);
}

static void peer_remember(Peer *peer, const Lease *lease)
{
    const Resource *resource = lease_resource(lease);
    Resource *fresh = g_new0(Resource, 1);

    resource_init(fresh, resource->driver, resource->space, resource->key);
    g_ptr_array_add(peer->fresh, fresh);
}

static void peer_not_acquired(Peer *peer, const Fault *fault)
{
    Resource resource = {
        .driver = peer_driver(peer), .space = peer->args.path, .key = peer->args.name};

    /* in one's own way is no reason to give anything back */
    peer->refused = !table_find_owned(peer->context->engine->table, peer->owner, &resource);
    peer_fault(peer, fault);
}

static void peer_acquired(GPtrArray *leases, const Fault *fault, void *data)
{
    Peer *peer = data;

    peer->acquire = NULL;
    if (fault) {
        peer_not_acquired(peer, fault);
    } else {
        const Lease *lease = g_ptr_array_index(leases, 0);

        if (lease->count == 1)
            peer_remember(peer, lease);
        peer_ok(peer);
    }
    conn_resume(peer->conn);
}

static void peer_acquire(Peer *peer)
{
    guint32 flags = peer->args.flags;
    const char *disk = peer->args.path[0] ? NULL : peer->args.name;

    if (!peer_check(peer, VIRTLOCKD_ACQUIRE_SHARED | VIRTLOCKD_ACQUIRE_AUTOCREATE, TRUE))
        return;
    if (!peer_space_ok(peer)) {
        peer_no_space(peer);
        return;
    }
    peer->acquire = acquire_new(peer->context->engine, peer->owner, ACQUIRE_COUNTED, 0);
    acquire_add_resource(peer->acquire, peer_driver(peer), peer->args.path, peer->args.name, disk,
                         flags & VIRTLOCKD_ACQUIRE_SHARED ? HF_MODE_SHARED : HF_MODE_EXCLUSIVE,
                         flags & VIRTLOCKD_ACQUIRE_AUTOCREATE ? HF_RESOURCE_AUTOCREATE : 0);
    conn_wait(peer->conn);
    acquire_start(peer->acquire, peer_acquired, peer);
}

/* Nobody's, or somebody else's: stock tells these apart. */
static void peer_cannot_release(Peer *peer, const Resource *resource)
{
    g_autoptr(GPtrArray) others = table_find(peer->context->engine->table, resource, NULL);

    if (others->len == 0)
        peer_error(peer, VIRTLOCKD_ERR_RESOURCE_BUSY, VIRTLOCKD_FROM_LOCKSPACE, 0,
                   "resource busy: Lockspace resource '%s' is not locked", peer->args.name);
    else
        peer_error(peer, VIRTLOCKD_ERR_INTERNAL, VIRTLOCKD_FROM_LOCKSPACE, 0,
                   "internal error: owner %d does not hold the resource lock '%s'",
                   (int)peer->owner->pid, peer->args.name);
}

static void peer_released(const Fault *left_behind, void *data)
{
    /* of what was left behind only the log needs to know: the lock is gone all the same */
    peer_ran(left_behind && left_behind->code == HF_ERR_TIMEOUT ? left_behind : NULL, data);
}

static void peer_release(Peer *peer)
{
    Resource resource = {
        .driver = peer_driver(peer), .space = peer->args.path, .key = peer->args.name};
    Engine *engine = peer->context->engine;
    g_autoptr(GPtrArray) leases = NULL;
    Lease *lease;

    if (!peer_check(peer, 0, TRUE))
        return;
    lease = table_find_owned(engine->table, peer->owner, &resource);
    /* of a lease that was adopted the lockspace may not be open yet */
    if (!lease &&
        (!peer_space_ok(peer) ||
         (*peer->args.path && !op_space_known(engine, peer_driver(peer), peer->args.path)))) {
        peer_no_space(peer);
        return;
    }
    if (!lease || lease->state != LEASE_HELD) {
        peer_cannot_release(peer, &resource);
        return;
    }
    if (lease->count > 1) {
        lease->count--;
        handover_update(engine, lease);
        peer_ok(peer);
        return;
    }
    leases = g_ptr_array_new();
    g_ptr_array_add(leases, lease);
    release_leases(engine, leases, "released", engine->config.request_timeout_usec, peer_released,
                   peer_begin(peer));
}

/* ---- frames ---------------------------------------------------------------------------- */

static void peer_call(Peer *peer)
{
    switch ((VirtlockdProcedure)peer->call.procedure) {
    case VIRTLOCKD_REGISTER:
        peer_register(peer);
        break;
    case VIRTLOCKD_RESTRICT:
        peer_restrict(peer);
        break;
    case VIRTLOCKD_NEW:
        peer_new_space(peer, HF_RESOURCE_EXCLUSIVE_CREATE);
        break;
    case VIRTLOCKD_CREATE_RESOURCE:
        peer_resource(peer, OP_CREATE);
        break;
    case VIRTLOCKD_DELETE_RESOURCE:
        peer_resource(peer, OP_REMOVE);
        break;
    case VIRTLOCKD_ACQUIRE_RESOURCE:
        peer_acquire(peer);
        break;
    case VIRTLOCKD_RELEASE_RESOURCE:
        peer_release(peer);
        break;
    case VIRTLOCKD_CREATE_LOCKSPACE:
        peer_new_space(peer, 0);
        break;
    }
}

static void peer_dispatch(Peer *peer, const guint8 *frame, gsize len)
{
    const VirtlockdHeader *call = &peer->call;

    peer->refused = FALSE; /* the client goes on */
    if (call->program != VIRTLOCKD_PROGRAM || call->version != VIRTLOCKD_VERSION)
        peer_error(peer, VIRTLOCKD_ERR_RPC, VIRTLOCKD_FROM_RPC, 0,
                   "Cannot find program %u version %u", call->program, call->version);
    else if (call->status != VIRTLOCKD_OK)
        peer_error(peer, VIRTLOCKD_ERR_RPC, VIRTLOCKD_FROM_RPC, 0, "Unexpected message status %d",
                   call->status);
    else if (call->procedure < VIRTLOCKD_REGISTER || call->procedure > VIRTLOCKD_CREATE_LOCKSPACE)
        peer_error(peer, VIRTLOCKD_ERR_RPC, VIRTLOCKD_FROM_RPC, 0, "unknown procedure: %d",
                   call->procedure);
    else if (!virtlockd_decode_args(call, frame, len, &peer->args))
        peer_error(peer, VIRTLOCKD_ERR_RPC, VIRTLOCKD_FROM_RPC, 0,
                   "Unable to decode message payload");
    else
        peer_call(peer);
}

static gssize peer_message(Conn *conn, const guint8 *data, gsize len)
{
    Peer *peer = conn->data;
    gssize frame = virtlockd_frame_length(data, len);

    if (frame < 0)
        g_message("pid %d sent no frame of virtlockd's protocol: closing its connection",
                  (int)conn->peer.pid);
    if (frame <= 0 || (gsize)frame > len)
        return frame < 0 ? -1 : 0;
    if (!virtlockd_decode_header(data, (gsize)frame, &peer->call))
        return -1;
    if (peer->call.type == VIRTLOCKD_CALL) /* stock has no answer to anything else either */
        peer_dispatch(peer, data, (gsize)frame);
    return frame;
}

static void peer_opened(Conn *conn)
{
    Peer *peer = g_new0(Peer, 1);

    peer->conn = conn;
    peer->context = conn->context;
    peer->fresh = g_ptr_array_new_with_free_func(peer_resource_free);
    conn->data = peer;
}

static void peer_closed(Conn *conn)
{
    Peer *peer = conn->data;

    if (peer->acquire)
        acquire_cancel(peer->acquire);
    if (peer->work)
        peer->work->peer = NULL;
    if (peer->refused && !peer->is_owner)
        peer_undo(peer);
    peer_drop_owner(peer);
    g_ptr_array_unref(peer->fresh);
    virtlockd_args_clear(&peer->args);
    g_free(peer);
}

const ConnProtocol virtlockd_protocol = {
    .name = "virtlockd",
    .opened = peer_opened,
    .message = peer_message,
    .closed = peer_closed,
};
