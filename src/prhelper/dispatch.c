/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * See dispatch.h. The order of the questions: is the descriptor a device at all, and writable where
 * it has to be; is it the device's turn; what is the device made of; does the policy allow it. Then
 * the back end, the policy's notes, the record.
 */
#define G_LOG_DOMAIN "holdfast.pr"

#include "dispatch.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "device.h"
#include "gate.h"

static const PrBackend *const backends[] = {&pr_backend_mpath, &pr_backend_kernel,
                                            &pr_backend_sg_io};
static gboolean backend_works[G_N_ELEMENTS(backends)];

void pr_backends_prepare(const PrConfig *config)
{
    for (gsize i = 0; i < G_N_ELEMENTS(backends); i++) {
        g_autofree char *error = NULL;

        backend_works[i] = !backends[i]->prepare || backends[i]->prepare(config, &error) >= 0;
        if (!backend_works[i] && error)
            g_message("%s", error);
    }
}

void pr_backends_finish(void)
{
    for (gsize i = 0; i < G_N_ELEMENTS(backends); i++)
        if (backend_works[i] && backends[i]->finish)
            backends[i]->finish();
    memset(backend_works, 0, sizeof(backend_works));
}

uint64_t pr_backends_capabilities(void)
{
    uint64_t capabilities = 0;

    for (gsize i = 0; i < G_N_ELEMENTS(backends); i++)
        if (backend_works[i])
            capabilities |= backends[i]->capabilities;
    return capabilities;
}

static const PrBackend *dispatch_backend(const PrConfig *config, const PrDevice *device)
{
    for (gsize i = 0; i < G_N_ELEMENTS(backends); i++)
        if (backend_works[i] && backends[i]->takes(config, device))
            return backends[i];
    return NULL;
}

/* NULL, or why commands to such a device are refused. */
static const char *dispatch_refuses_kind(const PrConfig *config, const PrDevice *device)
{
    if (device->kind == PR_KIND_PARTITION && !config->allow_partitions)
        return "a reservation by a partition would be one of the whole LUN; see "
               "pr_allow_partitions";
    if (device->kind == PR_KIND_STACKED && !config->allow_stacked)
        return "a reservation by a stacked device would be one of the LUN below; see "
               "pr_allow_stacked";
    return NULL;
}

/* What is known of a command while it is dealt with. */
typedef struct Dispatch {
    const PrConfig *config;
    PrCommand *command;
    PrReply *reply;
    PrDecision decision;
    gboolean decided;
    const char *reason;
    const char *backend;
    gint64 time_usec;  /* OUT only: a clock costs more than the rest on some hosts */
    gint64 begin_usec; /* the same, monotonic */
    PrShared *shared;  /* NULL: the answer is the command's own */
    guint64 batch;
} Dispatch;

static void dispatch_refuse(Dispatch *self, SpcSense sense, const char *reason)
{
    pr_reply_check_condition(self->reply, sense);
    self->reason = reason;
}

/* By the back end, or by what it has said to somebody else. */
static void dispatch_execute_shared(Dispatch *self, const PrBackend *backend)
{
    const PrCommand *command = self->command;
    PrDevice *device = command->device;
    PrShared *shared = self->shared;
    gint64 begin_usec;

    if (shared->batch == self->batch && shared->disk_sequence == device->disk_sequence &&
        memcmp(shared->cdb, command->cdb, PR_CDB_BYTES) == 0) {
        *self->reply = shared->reply;
        return;
    }
    begin_usec = pr_device_is_timed(device) ? g_get_monotonic_time() : 0;
    backend->execute(self->config, command, self->reply);
    if (begin_usec)
        pr_device_note_time(device, g_get_monotonic_time() - begin_usec);
    /* only what is true for everybody: a unit attention is told once */
    shared->batch = self->reply->status == SPC_STATUS_GOOD ? self->batch : 0;
    shared->disk_sequence = device->disk_sequence;
    memcpy(shared->cdb, command->cdb, PR_CDB_BYTES);
    shared->reply = *self->reply;
}

/* Inside the gate, with the device known. */
static void dispatch_execute(Dispatch *self)
{
    const PrConfig *config = self->config;
    PrCommand *command = self->command;
    const char *reason = dispatch_refuses_kind(config, command->device);
    const PrBackend *backend;

    if (reason) {
        /* "this device knows no reservations": a guest's cluster software then uses none */
        dispatch_refuse(self, SPC_SENSE_INVALID_OPCODE, reason);
        return;
    }
    pr_policy_decide(config->policy, command, &self->decision);
    self->decided = TRUE;
    self->reason = self->decision.reason;
    if (self->decision.verdict == PR_REFUSE) {
        if (self->decision.status == SPC_STATUS_CHECK_CONDITION)
            pr_reply_check_condition(self->reply, self->decision.sense);
        else
            pr_reply_status(self->reply, self->decision.status);
        return;
    }
    backend = dispatch_backend(config, command->device);
    if (!backend) {
        dispatch_refuse(self, SPC_SENSE_TARGET_FAILURE, "no back end works for such a device");
        return;
    }
    self->backend = backend->name;
    if (self->shared)
        dispatch_execute_shared(self, backend);
    else
        backend->execute(config, command, self->reply);
    pr_policy_note(config->policy, command, self->reply);
}

/* A record of what changes something, and of each command to a disk that was refused. */
static void dispatch_record(const Dispatch *self, gboolean is_disk)
{
    const PrRecord record = {.command = self->command,
                             .reply = self->reply,
                             .decision = self->decided ? &self->decision : NULL,
                             .reason = self->reason,
                             .backend = self->backend,
                             .time_usec = self->begin_usec ? self->time_usec : g_get_real_time(),
                             .latency_usec =
                                 self->begin_usec ? g_get_monotonic_time() - self->begin_usec : 0};

    if (self->command->opcode == SPC_OUT_OPCODE || (self->reason && is_disk))
        pr_audit_record(self->config->audit, &record);
}

static void dispatch_to_disk(Dispatch *self, int socket, const struct stat *st)
{
    const gboolean is_char = S_ISCHR(st->st_mode);
    PrCommand *command = self->command;
    PrTicket ticket = {.command = command, .socket = socket};

    command->device = pr_device_recall(command->fd, st->st_rdev, is_char);
    /* a command for several paths is several commands: only those of SCSI itself share a gate */
    ticket.shared = command->opcode == SPC_IN_OPCODE && command->device &&
                    command->device->kind == PR_KIND_SCSI;
    if (!pr_gate_enter(&ticket, st->st_rdev, is_char)) {
        if (!command->device)
            command->device = pr_device_none();
        pr_reply_status(self->reply, SPC_STATUS_BUSY);
        self->reason = "an earlier command to the device has not returned";
        dispatch_record(self, TRUE);
        return;
    }
    if (!command->device)
        command->device = pr_device_get(command->fd, st->st_rdev, is_char);
    if (command->device) {
        dispatch_execute(self);
    } else {
        command->device = pr_device_none();
        dispatch_refuse(self, SPC_SENSE_IO_TERMINATED, "the device is not in /sys");
    }
    /* still inside, so that the log has a device's commands in their order */
    dispatch_record(self, TRUE);
    pr_gate_leave(&ticket);
}

static gboolean dispatch_is_disk(int fd, struct stat *ret_st)
{
    return fstat(fd, ret_st) == 0 &&
           (S_ISBLK(ret_st->st_mode) ||
            (S_ISCHR(ret_st->st_mode) && major(ret_st->st_rdev) == PR_SG_MAJOR));
}

void pr_dispatch(const PrConfig *config, int socket, PrCommand *command, PrReply *reply)
{
    const gboolean is_out = command->opcode == SPC_OUT_OPCODE;
    Dispatch self = {.config = config, .command = command, .reply = reply};
    struct stat st;
    gboolean is_disk;

    if (is_out) {
        self.time_usec = g_get_real_time();
        self.begin_usec = g_get_monotonic_time();
        command->writable = (fcntl(command->fd, F_GETFL) & O_ACCMODE) != O_RDONLY;
        pr_out_parse(command);
    }
    is_disk = dispatch_is_disk(command->fd, &st);
    if (is_disk && (!is_out || command->writable)) {
        dispatch_to_disk(&self, socket, &st);
    } else {
        command->device = pr_device_none();
        if (is_out && !command->writable)
            dispatch_refuse(&self, SPC_SENSE_INVALID_OPCODE,
                            "the descriptor is open for reading only");
        else
            dispatch_refuse(&self, SPC_SENSE_IO_TERMINATED, "the descriptor is no disk");
        dispatch_record(&self, is_disk);
    }
    g_free(self.decision.reason);
    g_clear_pointer(&command->device, pr_device_unref);
}

/* The device, where its command may be dealt with at once. NULL: it may not. */
static PrDevice *dispatch_quick_device(const PrCommand *command, const struct stat *st)
{
    PrDevice *device = pr_device_recall(command->fd, st->st_rdev, S_ISCHR(st->st_mode));

    if (device && device->kind == PR_KIND_SCSI && pr_device_is_quick(device))
        return device;
    pr_device_unref(device);
    return NULL;
}

gboolean pr_dispatch_at_once(const PrConfig *config, int socket, PrCommand *command, guint64 batch,
                             PrShared *shared, PrReply *reply)
{
    Dispatch self = {
        .config = config, .command = command, .reply = reply, .shared = shared, .batch = batch};
    PrTicket ticket = {.command = command, .socket = socket, .shared = TRUE};
    struct stat st;

    if (command->opcode != SPC_IN_OPCODE)
        return FALSE;
    *reply = (PrReply){.data = shared->data};
    if (!dispatch_is_disk(command->fd, &st)) {
        dispatch_refuse(&self, SPC_SENSE_IO_TERMINATED, "the descriptor is no disk");
        return TRUE;
    }
    command->device = dispatch_quick_device(command, &st);
    if (!command->device || !pr_gate_try(&ticket, st.st_rdev, FALSE)) {
        g_clear_pointer(&command->device, pr_device_unref);
        return FALSE;
    }
    dispatch_execute(&self);
    dispatch_record(&self, TRUE);
    pr_gate_leave(&ticket);
    g_free(self.decision.reason);
    g_clear_pointer(&command->device, pr_device_unref);
    return TRUE;
}
