/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The back end for SCSI: the command goes to the device as it came (SG_IO), and what the device
 * says goes back to the guest as it is, unit attentions included: the guest's nexus is the host's,
 * and its cluster software has to hear that a registration was preempted.
 *
 * How an ioctl's end becomes a status, in this order:
 *
 *   the ioctl failed        ABORTED COMMAND, I/O PROCESS TERMINATED, as from qemu-pr-helper: it is
 *                           no SCSI device, or the helper lacks the right
 *   host_status             the transport's word: the command may not have reached the device
 *   driver_status TIMEOUT   the same as host_status DID_TIME_OUT
 *   status                  the device's, with its sense data
 */
#include <errno.h>
#include <linux/capability.h>
#include <scsi/sg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "prhelper.h"

/* The kernel's time limit for one command, before its error handler begins (the timeline is in
 * gate.h). qemu-pr-helper asks for 1 ms, which the kernel takes as its least, 7 s; arrays may need
 * longer for a PREEMPT AND ABORT, which has to end other hosts' commands first. */
#define PR_SG_TIMEOUT_MSEC 20000
/* For commands of the helper's own account: each initiator has at most a handful of unit attentions
 * queued (SAM-5, 5.14). */
#define PR_SG_ATTEMPTS 8
#define PR_SG_PAUSE_MSEC 20

/* Linux, include/scsi/scsi_status.h: what the transport layer says of a command. */
enum {
    SG_HOST_OK = 0x00,
    SG_HOST_NO_CONNECT = 0x01,
    SG_HOST_BUS_BUSY = 0x02,
    SG_HOST_TIME_OUT = 0x03,
    SG_HOST_BAD_TARGET = 0x04,
    SG_HOST_ABORT = 0x05,
    SG_HOST_RESET = 0x08,
    SG_HOST_SOFT_ERROR = 0x0b,
    SG_HOST_IMM_RETRY = 0x0c,
    SG_HOST_REQUEUE = 0x0d,
    SG_HOST_TRANSPORT_DISRUPTED = 0x0e,
    SG_HOST_TRANSPORT_FAILFAST = 0x0f,
    SG_HOST_TARGET_FAILURE = 0x10,
    SG_HOST_NEXUS_FAILURE = 0x11,
    SG_DRIVER_MASK = 0x0f,
    SG_DRIVER_TIME_OUT = 0x06,
};

static const SpcSense sense_not_responding = {0x05, 0x25, 0x00}; /* logical unit not supported */
static const SpcSense sense_aborted = {0x0b, 0x2f, 0x02}; /* commands cleared by device server */
static const SpcSense sense_reset = {0x06, 0x29, 0x00};
static const SpcSense sense_nexus_lost = {0x06, 0x29, 0x07};

/* Whatever the transport says but "all is well". */
static void sg_reply_host_status(PrReply *reply, unsigned host_status)
{
    switch (host_status) {
    case SG_HOST_NO_CONNECT:
    case SG_HOST_BAD_TARGET:
    case SG_HOST_TRANSPORT_FAILFAST:
        pr_reply_check_condition(reply, sense_not_responding);
        return;
    case SG_HOST_BUS_BUSY:
    case SG_HOST_SOFT_ERROR:
    case SG_HOST_IMM_RETRY:
    case SG_HOST_REQUEUE:
        pr_reply_status(reply, SPC_STATUS_BUSY);
        return;
    case SG_HOST_TIME_OUT:
        pr_reply_check_condition(reply, SPC_SENSE_COMMAND_TIMEOUT);
        return;
    case SG_HOST_ABORT:
        pr_reply_check_condition(reply, sense_aborted);
        return;
    case SG_HOST_RESET:
        pr_reply_check_condition(reply, sense_reset);
        return;
    case SG_HOST_TRANSPORT_DISRUPTED:
        pr_reply_check_condition(reply, sense_nexus_lost);
        return;
    case SG_HOST_TARGET_FAILURE:
        pr_reply_check_condition(reply, SPC_SENSE_TARGET_FAILURE);
        return;
    case SG_HOST_NEXUS_FAILURE:
        pr_reply_status(reply, SPC_STATUS_RESERVATION_CONFLICT);
        return;
    default:
        pr_reply_check_condition(reply, SPC_SENSE_LUN_COMM_FAILURE);
    }
}

static void sg_reply(PrReply *reply, const struct sg_io_hdr *io, uint16_t length)
{
    uint32_t done = io->resid > 0 ? length - MIN(length, (uint32_t)io->resid) : length;

    /* With sense data the device has spoken, whatever the layers above made of it. */
    if (io->status == SPC_STATUS_CHECK_CONDITION && io->sb_len_wr > 0) {
        reply->status = SPC_STATUS_CHECK_CONDITION; /* the kernel has written into reply->sense */
    } else if (io->status == SPC_STATUS_RESERVATION_CONFLICT) {
        pr_reply_status(reply, SPC_STATUS_RESERVATION_CONFLICT);
    } else if (io->host_status != SG_HOST_OK) {
        sg_reply_host_status(reply, io->host_status);
    } else if ((io->driver_status & SG_DRIVER_MASK) == SG_DRIVER_TIME_OUT) {
        pr_reply_check_condition(reply, SPC_SENSE_COMMAND_TIMEOUT);
    } else if (io->status == SPC_STATUS_CHECK_CONDITION) {
        /* a device that does not say why: QEMU would take the zeros for "no error" */
        pr_reply_check_condition(reply, SPC_SENSE_IO_TERMINATED);
    } else {
        pr_reply_status(reply, io->status);
        if (io->status == SPC_STATUS_GOOD && io->dxfer_direction == SG_DXFER_FROM_DEV)
            reply->size = done;
    }
}

static void sg_execute_once(int fd, const uint8_t cdb[PR_CDB_BYTES], const uint8_t *parameters,
                            uint16_t length, PrReply *reply)
{
    struct sg_io_hdr io = {
        .interface_id = 'S',
        .cmd_len = PR_CDB_BYTES,
        .cmdp = (unsigned char *)cdb,
        .mx_sb_len = SPC_SENSE_SIZE,
        .sbp = reply->sense,
        .dxfer_direction = SG_DXFER_NONE,
        .timeout = PR_SG_TIMEOUT_MSEC,
    };

    memset(reply->sense, 0, sizeof(reply->sense));
    reply->size = 0;
    if (length > 0) {
        io.dxfer_len = length;
        io.dxfer_direction = parameters ? SG_DXFER_TO_DEV : SG_DXFER_FROM_DEV;
        io.dxferp = parameters ? (void *)parameters : reply->data;
    }
    if (ioctl(fd, SG_IO, &io) < 0)
        pr_reply_check_condition(reply, SPC_SENSE_IO_TERMINATED);
    else
        sg_reply(reply, &io, length);
}

/* Nothing was done, and the same command may well succeed when it is sent again. */
static gboolean sg_is_transient(const PrReply *reply)
{
    return reply->status == SPC_STATUS_BUSY || reply->status == SPC_STATUS_TASK_SET_FULL ||
           (reply->status == SPC_STATUS_CHECK_CONDITION &&
            pr_sense_read(reply->sense, SPC_SENSE_SIZE).key == 0x06);
}

void pr_sg_execute(int fd, const uint8_t cdb[PR_CDB_BYTES], const uint8_t *parameters,
                   uint16_t length, gboolean retry_attention, PrReply *reply)
{
    static const struct timespec pause = {.tv_nsec = PR_SG_PAUSE_MSEC * 1000000};

    sg_execute_once(fd, cdb, parameters, length, reply);
    for (int i = 1; retry_attention && i < PR_SG_ATTEMPTS && sg_is_transient(reply); i++) {
        if (reply->status != SPC_STATUS_CHECK_CONDITION)
            nanosleep(&pause, NULL);
        sg_execute_once(fd, cdb, parameters, length, reply);
    }
}

/* The default: whatever no other back end has taken. For what is no SCSI device the kernel refuses
 * the ioctl, or pr_dispatch() has done so before. */
static gboolean sg_takes(const PrConfig *config, const PrDevice *device)
{
    (void)config;
    (void)device;
    return TRUE;
}

static void sg_execute(const PrConfig *config, const PrCommand *command, PrReply *reply)
{
    const uint8_t *parameters = command->opcode == SPC_OUT_OPCODE ? command->data : NULL;

    (void)config;
    pr_sg_execute(command->fd, command->cdb, parameters, command->length, FALSE, reply);
}

const PrBackend pr_backend_sg_io = {
    .name = "sg-io",
    .takes = sg_takes,
    .execute = sg_execute,
    .capabilities = UINT64_C(1) << CAP_SYS_RAWIO,
};
