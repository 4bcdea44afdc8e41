/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The kernel's reservation ioctls; see kernel-ioctl.h. */
#include "prhelper/mpath/kernel-ioctl.h"

#include <errno.h>
#include <linux/nvme_ioctl.h>
#include <linux/pr.h>
#include <string.h>
#include <sys/ioctl.h>

/* NVMe status codes as nvme_submit_sync_cmd() returns them: type and code in bits 0 to 10. */
#define NVME_STATUS_MASK 0x7ff
#define NVME_INVALID_OPCODE 0x001
#define NVME_INVALID_FIELD 0x002
#define NVME_RESERVATION_CONFLICT 0x083
/* Those of the block layer since 6.3: a path that failed, and how (linux/pr.h there). */
#define BLOCK_PATH_FAILED 0x10000

#define NVME_RESERVATION_REPORT 0x0e
#define REPORT_HEAD 24
#define REPORT_ENTRY 24

/* ---- PERSISTENT RESERVE OUT ------------------------------------------------------------------ */

static void result_sense(PathResult *result, SpcSense sense)
{
    *result = (PathResult){.answered = true, .status = SPC_STATUS_CHECK_CONDITION};
    spc_sense_build(result->sense, sense);
}

static enum pr_type kernel_type(unsigned type)
{
    switch (type) {
    case SPC_WRITE_EXCLUSIVE:
        return PR_WRITE_EXCLUSIVE;
    case SPC_EXCLUSIVE_ACCESS:
        return PR_EXCLUSIVE_ACCESS;
    case SPC_WRITE_EXCLUSIVE_REGISTRANTS:
        return PR_WRITE_EXCLUSIVE_REG_ONLY;
    case SPC_EXCLUSIVE_ACCESS_REGISTRANTS:
        return PR_EXCLUSIVE_ACCESS_REG_ONLY;
    case SPC_WRITE_EXCLUSIVE_ALL:
        return PR_WRITE_EXCLUSIVE_ALL_REGS;
    default:
        return PR_EXCLUSIVE_ACCESS_ALL_REGS;
    }
}

void kernel_ioctl_result(int returned, int error, PathResult *ret_result)
{
    *ret_result = (PathResult){.answered = true, .status = SPC_STATUS_GOOD};
    if (returned == 0)
        return;
    if (returned < 0) {
        if (error == EOPNOTSUPP || error == ENOTTY)
            result_sense(ret_result, SPC_SENSE_INVALID_OPCODE);
        else if (error == EINVAL)
            result_sense(ret_result, SPC_SENSE_INVALID_FIELD_IN_CDB);
        else
            ret_result->answered = false;
        return;
    }
    if (returned >= BLOCK_PATH_FAILED) {
        ret_result->answered = false;
        return;
    }
    /* SCSI's status is in the low byte (280 is 0x118), NVMe's conflict has a number of its own */
    if ((returned & 0xff) == SPC_STATUS_RESERVATION_CONFLICT ||
        (returned & NVME_STATUS_MASK) == NVME_RESERVATION_CONFLICT)
        ret_result->status = SPC_STATUS_RESERVATION_CONFLICT;
    else if ((returned & NVME_STATUS_MASK) == NVME_INVALID_OPCODE)
        result_sense(ret_result, SPC_SENSE_INVALID_OPCODE);
    else if ((returned & NVME_STATUS_MASK) == NVME_INVALID_FIELD)
        result_sense(ret_result, SPC_SENSE_INVALID_FIELD_IN_CDB);
    else
        result_sense(ret_result, SPC_SENSE_TARGET_FAILURE);
}

static int kernel_out(int fd, const SpcOut *out)
{
    struct pr_registration registration = {
        .old_key = out->key,
        .new_key = out->service_key,
        .flags = out->action == SPC_OUT_REGISTER_IGNORE ? PR_FL_IGNORE_KEY : 0,
    };
    struct pr_reservation reservation = {.key = out->key, .type = kernel_type(out->type)};
    struct pr_preempt preempt = {
        .old_key = out->service_key, .new_key = out->key, .type = kernel_type(out->type)};
    struct pr_clear clear = {.key = out->key};

    switch (out->action) {
    case SPC_OUT_REGISTER:
    case SPC_OUT_REGISTER_IGNORE:
        return ioctl(fd, IOC_PR_REGISTER, &registration);
    case SPC_OUT_RESERVE:
        return ioctl(fd, IOC_PR_RESERVE, &reservation);
    case SPC_OUT_RELEASE:
        return ioctl(fd, IOC_PR_RELEASE, &reservation);
    case SPC_OUT_CLEAR:
        return ioctl(fd, IOC_PR_CLEAR, &clear);
    case SPC_OUT_PREEMPT:
        return ioctl(fd, IOC_PR_PREEMPT, &preempt);
    case SPC_OUT_PREEMPT_ABORT:
        return ioctl(fd, IOC_PR_PREEMPT_ABORT, &preempt);
    case SPC_OUT_REGISTER_MOVE:
        break;
    }
    errno = EINVAL;
    return -1;
}

/* ---- PERSISTENT RESERVE IN ------------------------------------------------------------------- */

static uint16_t get_le16(const uint8_t *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}

static uint64_t get_le64(const uint8_t *at)
{
    uint64_t value = 0;

    for (int i = 7; i >= 0; i--)
        value = value << 8 | at[i];
    return value;
}

/* Writes as much of an answer as there is room for. */
typedef struct Answer {
    uint8_t *data;
    size_t size, len;
} Answer;

static void answer_append(Answer *answer, const uint8_t *bytes, size_t len)
{
    if (answer->len < answer->size) {
        size_t room = answer->size - answer->len;

        memcpy(answer->data + answer->len, bytes, len < room ? len : room);
    }
    answer->len += len;
}

/* The numbers of NVMe's types (figure 402) are those of SPC without the holes. */
static uint8_t report_type(uint8_t type)
{
    static const uint8_t types[] = {0,
                                    SPC_WRITE_EXCLUSIVE,
                                    SPC_EXCLUSIVE_ACCESS,
                                    SPC_WRITE_EXCLUSIVE_REGISTRANTS,
                                    SPC_EXCLUSIVE_ACCESS_REGISTRANTS,
                                    SPC_WRITE_EXCLUSIVE_ALL,
                                    SPC_EXCLUSIVE_ACCESS_ALL};

    return type < sizeof(types) ? types[type] : 0;
}

static void report_entry(SpcInAction action, const uint8_t *entry, uint8_t type, Answer *answer)
{
    bool holder = (entry[2] & 0x01) != 0;
    uint8_t bytes[24] = {0};

    spc_put64(bytes, get_le64(entry + 16));
    if (action == SPC_IN_KEYS) {
        answer_append(answer, bytes, 8);
    } else if (action == SPC_IN_FULL_STATUS) {
        bytes[12] = holder;
        bytes[13] = holder ? type : 0;
        spc_put16(bytes + 18, get_le16(entry)); /* the controller's id in place of a port's */
        answer_append(answer, bytes, 24);
    } else if (holder && answer->len == 8) {
        /* READ RESERVATION has one, and key 0 where all registrants hold it */
        if (spc_type_all_registrants(type))
            memset(bytes, 0, 8);
        bytes[13] = type;
        answer_append(answer, bytes, 16);
    }
}

size_t kernel_ioctl_report(SpcInAction action, const uint8_t *report, size_t len, uint8_t *data,
                           size_t size)
{
    uint8_t head[8] = {0}, type;
    Answer answer = {.data = data, .size = size};
    size_t count;

    if (len < REPORT_HEAD ||
        (action != SPC_IN_KEYS && action != SPC_IN_RESERVATION && action != SPC_IN_FULL_STATUS))
        return 0;
    count = get_le16(report + 5);
    type = report_type(report[4]);
    if (count > (len - REPORT_HEAD) / REPORT_ENTRY)
        return 0;
    spc_put32(head,
              (uint32_t)(report[0] | report[1] << 8 | report[2] << 16) | (uint32_t)report[3] << 24);
    answer_append(&answer, head, sizeof(head));
    for (size_t i = 0; i < count; i++) {
        const uint8_t *entry = report + REPORT_HEAD + i * REPORT_ENTRY;

        if (action != SPC_IN_RESERVATION || type != 0)
            report_entry(action, entry, type, &answer);
    }
    if (size >= 8)
        spc_put32(data + 4, (uint32_t)(answer.len - 8));
    return answer.len;
}

static void kernel_in(int fd, SpcInAction action, uint8_t *data, size_t size, size_t *ret_len,
                      PathResult *result)
{
    uint8_t report[4096] = {0};
    struct nvme_passthru_cmd command = {
        .opcode = NVME_RESERVATION_REPORT,
        .addr = (uint64_t)(uintptr_t)report,
        .data_len = sizeof(report),
        .cdw10 = sizeof(report) / 4 - 1, /* in words, from 0 */
        .timeout_ms = 8000,
    };
    int nsid = ioctl(fd, NVME_IOCTL_ID);
    int returned;

    if (nsid <= 0) {
        result_sense(result, SPC_SENSE_INVALID_OPCODE);
        return;
    }
    command.nsid = (uint32_t)nsid;
    returned = ioctl(fd, NVME_IOCTL_IO_CMD, &command);
    kernel_ioctl_result(returned, errno, result);
    if (!result->answered || result->status != SPC_STATUS_GOOD)
        return;
    *ret_len = kernel_ioctl_report(action, report, sizeof(report), data, size);
    if (*ret_len == 0)
        result_sense(result, SPC_SENSE_INVALID_FIELD_IN_CDB);
    else if (*ret_len > size)
        *ret_len = size;
}

void kernel_ioctl_command(int fd, const uint8_t cdb[16], bool in, uint8_t *data, size_t size,
                          size_t *ret_len, PathResult *result)
{
    SpcOut out;
    SpcOutFault fault;
    int returned;

    *ret_len = 0;
    if (in) {
        kernel_in(fd, (SpcInAction)(cdb[1] & 0x1f), data, size, ret_len, result);
        return;
    }
    if (spc_out_parse(cdb, data, size, &out, &fault) < 0) {
        result_sense(result, fault.sense);
        return;
    }
    if (out.others) {
        result_sense(result, SPC_SENSE_INVALID_FIELD_IN_PARAMETERS);
        return;
    }
    returned = kernel_out(fd, &out);
    kernel_ioctl_result(returned, errno, result);
}
