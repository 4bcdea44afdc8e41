/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the kernel's reservation ioctls return, as answers to SCSI commands. Calls none of them. */
#include <errno.h>
#include <glib.h>

#include "prhelper/mpath/kernel-ioctl.h"

#define GOOD SPC_STATUS_GOOD
#define CONFLICT SPC_STATUS_RESERVATION_CONFLICT
#define CHECK SPC_STATUS_CHECK_CONDITION

static void test_kernel_results(void)
{
    static const struct {
        int returned, error;
        gboolean answered;
        guint status, asc;
    } cases[] = {
        {0, 0, TRUE, GOOD, 0},
        {280, 0, TRUE, CONFLICT, 0},    /* sd: 0x118 */
        {0x18, 0, TRUE, CONFLICT, 0},   /* since Linux 6.3 */
        {0x83, 0, TRUE, CONFLICT, 0},   /* NVMe */
        {0x4083, 0, TRUE, CONFLICT, 0}, /* with "do not retry" */
        {16385, 0, TRUE, CHECK, 0x20},  /* NVMe, invalid opcode */
        {24577, 0, TRUE, CHECK, 0x20},
        {2, 0, TRUE, CHECK, 0x24},
        {65536, 0, FALSE, 0, 0}, /* no path */
        {-1, EOPNOTSUPP, TRUE, CHECK, 0x20},
        {-1, EINVAL, TRUE, CHECK, 0x24},
        {-1, EIO, FALSE, 0, 0},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        PathResult result;
        SpcSense sense;

        kernel_ioctl_result(cases[i].returned, cases[i].error, &result);
        g_assert_cmpint(result.answered, ==, cases[i].answered);
        if (!result.answered)
            continue;
        g_assert_cmpuint(result.status, ==, cases[i].status);
        spc_sense_read(result.sense, SPC_SENSE_SIZE, &sense);
        g_assert_cmphex(result.status == CHECK ? sense.asc : 0, ==, cases[i].asc);
    }
}

static void test_kernel_report(void)
{
    guint8 report[24 + 48] = {[0] = 7, [4] = 3, [5] = 2};
    guint8 data[256];
    SpcKeys keys;
    SpcReservation reservation;
    SpcFullStatus status;
    SpcRegistration registration;
    gsize len;

    report[24] = 1;
    report[24 + 16] = 0xa;
    report[48] = 2;
    report[48 + 2] = 1; /* holds it */
    report[48 + 16] = 0xb;
    len = kernel_ioctl_report(SPC_IN_KEYS, report, sizeof(report), data, sizeof(data));
    g_assert_cmpint(spc_in_parse_keys(data, len, &keys), ==, 0);
    g_assert_cmpuint(keys.count, ==, 2);
    g_assert_cmphex(spc_keys_at(&keys, 1), ==, 0xb);
    g_assert_cmpuint(keys.generation, ==, 7);
    len = kernel_ioctl_report(SPC_IN_RESERVATION, report, sizeof(report), data, sizeof(data));
    g_assert_cmpint(spc_in_parse_reservation(data, len, &reservation), ==, 0);
    g_assert_true(reservation.held);
    g_assert_cmphex(reservation.key, ==, 0xb);
    g_assert_cmpuint(reservation.type, ==, SPC_WRITE_EXCLUSIVE_REGISTRANTS);
    len = kernel_ioctl_report(SPC_IN_FULL_STATUS, report, sizeof(report), data, sizeof(data));
    g_assert_cmpint(spc_in_parse_full_status(data, len, &status), ==, 0);
    g_assert_cmpint(spc_full_status_next(&status, &registration), ==, 1);
    g_assert_cmpint(spc_full_status_next(&status, &registration), ==, 1);
    g_assert_true(registration.holder);
    g_assert_cmpuint(registration.target_port, ==, 2);
    g_assert_cmpint(spc_full_status_next(&status, &registration), ==, 0);
    report[4] = 0;
    len = kernel_ioctl_report(SPC_IN_RESERVATION, report, sizeof(report), data, sizeof(data));
    g_assert_cmpint(spc_in_parse_reservation(data, len, &reservation), ==, 0);
    g_assert_false(reservation.held);
    report[5] = 3; /* more than there are */
    g_assert_cmpuint(kernel_ioctl_report(SPC_IN_KEYS, report, sizeof(report), data, 8), ==, 0);
    g_assert_cmpuint(kernel_ioctl_report(SPC_IN_KEYS, report, 10, data, 8), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/pr-kernel/results", test_kernel_results);
    g_test_add_func("/pr-kernel/report", test_kernel_report);
    return g_test_run();
}
