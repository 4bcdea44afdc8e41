/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Parts of the persistent-reservation helper: wire, peers' names, devices, confinement. */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "prhelper/confine.h"
#include "prhelper/device.h"
#include "prhelper/peer.h"
#include "prhelper/prhelper.h"
#include "prhelper/wire.h"

/* ---- wire ------------------------------------------------------------------------------ */

static void test_wire_cdb(void)
{
    const uint8_t out[PR_CDB_BYTES] = {0x5f, 0xe4, 0x35, 0, 0, 0xff, 0xff, 0x01, 0x18};
    uint8_t in[PR_CDB_BYTES] = {0x5e, 0x03, 0, 0, 0, 0, 0, 0x20, 0x00};
    PrCommand command;

    g_assert_true(pr_wire_read_cdb(out, &command));
    g_assert_cmpint(command.opcode, ==, SPC_OUT_OPCODE);
    g_assert_cmpint(command.action, ==, SPC_OUT_PREEMPT); /* the high bits are reserved */
    g_assert_cmpint(command.scope, ==, 3);
    g_assert_cmpint(command.type, ==, 5);
    g_assert_cmpint(command.length, ==, 0x118); /* bytes 7 and 8 alone */
    g_assert_cmpuint(pr_wire_parameters(&command), ==, 0x118);
    g_assert_cmpint(command.fd, ==, -1);

    g_assert_true(pr_wire_read_cdb(in, &command));
    g_assert_cmpint(command.action, ==, SPC_IN_FULL_STATUS);
    g_assert_cmpint(command.length, ==, SPC_LIST_MAX);
    g_assert_cmpuint(pr_wire_parameters(&command), ==, 0);
    in[8] = 1; /* one more than there may be */
    g_assert_false(pr_wire_read_cdb(in, &command));
    for (int opcode = 0; opcode < 256; opcode++) {
        in[0] = (uint8_t)opcode;
        in[8] = 0;
        g_assert_cmpint(pr_wire_read_cdb(in, &command), ==, opcode == 0x5e || opcode == 0x5f);
    }
}

static void test_wire_reply(void)
{
    PrReply reply = {.size = 0x0102};
    uint8_t bytes[PR_WIRE_REPLY_BYTES];
    const uint8_t sense[] = {0x70, 0, 0x05, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x26, 0x04};

    pr_wire_write_reply(&reply, bytes);
    g_assert_true(memcmp(bytes, "\0\0\0\0\0\0\1\2", 8) == 0);
    pr_reply_check_condition(&reply, (SpcSense){0x05, 0x26, 0x04});
    pr_wire_write_reply(&reply, bytes);
    g_assert_true(memcmp(bytes, "\0\0\0\2\0\0\0\0", 8) == 0);
    g_assert_true(memcmp(bytes + 8, sense, sizeof(sense)) == 0);
    pr_reply_status(&reply, SPC_STATUS_BUSY);
    pr_wire_write_reply(&reply, bytes);
    g_assert_cmpint(bytes[3], ==, 8);
    for (gsize i = 8; i < sizeof(bytes); i++)
        g_assert_cmpint(bytes[i], ==, 0);
}

/* ---- names of machines ------------------------------------------------------------------ */

static void assert_cmdline(const char *cmdline, gsize len, const char *expected)
{
    g_autofree char *name = pr_peer_vm_of_cmdline(cmdline, len);

    g_assert_cmpstr(name, ==, expected);
}

#define CMDLINE(text) text, sizeof(text) /* with the NUL at the end, as the kernel has it */

static void test_vm_of_cmdline(void)
{
    assert_cmdline(CMDLINE("qemu\0-name\0web1"), "web1");
    assert_cmdline(CMDLINE("qemu\0-name\0guest=web1,debug-threads=on\0-S"), "web1");
    assert_cmdline(CMDLINE("qemu\0--name\0a,,b,process=x"), "a,b");
    assert_cmdline(CMDLINE("qemu\0-name"), NULL);
    assert_cmdline(CMDLINE("qemu\0-name\0"), NULL);
    assert_cmdline(CMDLINE("qemu\0-name\0guest=,x"), NULL);
    assert_cmdline(CMDLINE("qemu\0-name\0\xff"), NULL);
    assert_cmdline(CMDLINE("sleep\0"
                           "9"),
                   NULL);
    assert_cmdline("", 0, NULL);
    /* cut off in the middle of an argument: the reader ends it with a NUL */
    assert_cmdline("qemu\0-name\0we", 13, "we");
}

static void assert_cgroup(const char *cgroup, const char *expected)
{
    g_autofree char *name = pr_peer_vm_of_cgroup(cgroup);

    g_assert_cmpstr(name, ==, expected);
}

static void test_vm_of_cgroup(void)
{
    assert_cgroup("/machine.slice/machine-qemu\\x2d1\\x2dweb1.scope", "web1");
    assert_cgroup("/machine.slice/machine-qemu\\x2d17\\x2dweb\\x2ddb\\x2e1.scope/libvirt/emulator",
                  "web-db.1");
    assert_cgroup("/machine.slice/machine-qemu\\x2d1\\x2d.scope", NULL);
    assert_cgroup("/machine.slice/machine-qemu\\x2d1.scope", NULL);
    assert_cgroup("/machine.slice/machine-qemu\\x2d1\\x2dx\\xff.scope", NULL);
    assert_cgroup("/machine.slice/machine-qemu\\x2d1\\x2dx\\x2.scope", "x\\x2");
    assert_cgroup("/system.slice/ssh.service", NULL);
    assert_cgroup("", NULL);
}

/* Connects, by a child that ends at once if `ends`; what is known of the peer. Returns the child.
 */
static pid_t read_peer(gboolean ends, PrPeer *ret_peer)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t len = sizeof(address);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), server;
    siginfo_t info;
    pid_t child;

    /* to an abstract name that the kernel chooses */
    g_assert_cmpint(bind(listener, (struct sockaddr *)&address, sizeof(sa_family_t)), ==, 0);
    g_assert_cmpint(listen(listener, 1), ==, 0);
    g_assert_cmpint(getsockname(listener, (struct sockaddr *)&address, &len), ==, 0);
    child = fork();
    if (child == 0) {
        int r = connect(client, (struct sockaddr *)&address, len);

        while (!ends)
            pause();
        _exit(r == 0 ? 0 : 1);
    }
    server = accept(listener, NULL, NULL);
    if (ends) /* it is not collected, so that its number stays its own */
        g_assert_cmpint(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), ==, 0);
    g_assert_cmpint(pr_peer_read(server, ret_peer), ==, 0);
    close(server);
    close(client);
    close(listener);
    return child;
}

/* What /proc says of a process that has ended is perhaps another one's. */
static void test_peer(void)
{
    g_autofree char *own = NULL;
    gboolean unified;

    g_assert_true(g_file_get_contents("/proc/self/cgroup", &own, NULL, NULL));
    unified = g_str_has_prefix(own, "0::") || strstr(own, "\n0::");
    for (int ends = 0; ends < 2; ends++) {
        PrPeer peer;
        pid_t child = read_peer(ends, &peer);

        g_assert_cmpint(peer.pid, ==, child);
        g_assert_cmpuint(peer.uid, ==, getuid());
        g_assert_true((peer.cgroup != NULL) == (unified && !ends));
        pr_peer_clear(&peer);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
}

/* ---- devices ------------------------------------------------------------------------------ */

static void make(const char *root, const char *path, const char *text)
{
    g_autofree char *full = g_build_filename(root, path, NULL);
    g_autofree char *dir = g_path_get_dirname(full);

    g_assert_cmpint(g_mkdir_with_parents(dir, 0755), ==, 0);
    g_assert_true(g_file_set_contents(full, text, -1, NULL));
}

static void make_link(const char *root, const char *path, const char *target)
{
    g_autofree char *full = g_build_filename(root, path, NULL);
    g_autofree char *dir = g_path_get_dirname(full);

    g_assert_cmpint(g_mkdir_with_parents(dir, 0755), ==, 0);
    g_assert_cmpint(symlink(target, full), ==, 0);
}

static void make_sys(const char *root)
{
    make(root, "devices/lun/block/sda/device/wwid", "naa.6001405aaaa   \n");
    make(root, "devices/lun/block/sda/device/scsi_level", "7\n");
    make(root, "devices/lun/block/sda/sda1/partition", "1\n");
    make_link(root, "dev/block/8:0", "../../devices/lun/block/sda");
    make_link(root, "dev/block/8:1", "../../devices/lun/block/sda/sda1");
    make(root, "devices/virtual/block/dm-0/dm/uuid", "mpath-36001405aaaa\n");
    make_link(root, "devices/virtual/block/dm-0/slaves/sda", "../../../../lun/block/sda");
    make_link(root, "dev/block/254:0", "../../devices/virtual/block/dm-0");
    make(root, "devices/virtual/block/dm-1/dm/uuid", "part1-mpath-36001405aaaa\n");
    make_link(root, "devices/virtual/block/dm-1/slaves/dm-0", "../../dm-0");
    make_link(root, "dev/block/254:1", "../../devices/virtual/block/dm-1");
    make(root, "devices/virtual/block/dm-2/dm/uuid", "LVM-xyz\n");
    make_link(root, "devices/virtual/block/dm-2/slaves/sda1", "../../../../lun/block/sda/sda1");
    make_link(root, "dev/block/254:2", "../../devices/virtual/block/dm-2");
    make(root, "devices/virtual/block/md0/md/level", "raid1\n");
    make_link(root, "devices/virtual/block/md0/slaves/sda", "../../../../lun/block/sda");
    make_link(root, "dev/block/9:0", "../../devices/virtual/block/md0");
    make(root, "devices/pci/nvme/nvme0/nvme0n1/wwid", "eui.0025385b71b07e2a\n");
    make_link(root, "dev/block/259:0", "../../devices/pci/nvme/nvme0/nvme0n1");
    make(root, "devices/virtual/block/loop0/loop/x", "");
    make_link(root, "dev/block/7:0", "../../devices/virtual/block/loop0");
    make(root, "devices/lun/scsi_generic/sg0/device/wwid", "naa.6001405aaaa\n");
    make_link(root, "dev/char/21:0", "../../devices/lun/scsi_generic/sg0");
    /* a slave of itself: nothing that the kernel makes, and no reason to hang */
    make(root, "devices/virtual/block/dm-9/dm/uuid", "\n");
    make_link(root, "devices/virtual/block/dm-9/slaves/dm-9", "../../dm-9");
    make_link(root, "dev/block/254:9", "../../devices/virtual/block/dm-9");
}

static void assert_device(unsigned number, unsigned minor_number, gboolean is_char, PrKind kind,
                          const char *name, const char *wwid)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    PrDevice *device = pr_device_get(fd, makedev(number, minor_number), is_char);

    g_assert_nonnull(device);
    g_assert_cmpstr(pr_kind_name(device->kind), ==, pr_kind_name(kind));
    g_assert_cmpstr(device->name, ==, name);
    g_assert_cmpstr(device->wwid, ==, wwid);
    pr_device_unref(device);
    close(fd);
}

static void remove_tree(const char *root)
{
    g_autofree char *command = g_strdup_printf("rm -rf '%s'", root);

    g_assert_true(g_spawn_command_line_sync(command, NULL, NULL, NULL, NULL));
}

static void test_devices(void)
{
    g_autofree char *root = g_dir_make_tmp("hf-sys-XXXXXX", NULL);

    make_sys(root);
    pr_device_set_root(root);
    assert_device(8, 0, FALSE, PR_KIND_SCSI, "sda", "naa.6001405aaaa");
    assert_device(8, 1, FALSE, PR_KIND_PARTITION, "sda1", "naa.6001405aaaa");
    assert_device(254, 0, FALSE, PR_KIND_MULTIPATH, "dm-0", "naa.6001405aaaa");
    assert_device(254, 1, FALSE, PR_KIND_PARTITION, "dm-1", "naa.6001405aaaa");
    assert_device(254, 2, FALSE, PR_KIND_STACKED, "dm-2", "naa.6001405aaaa");
    assert_device(9, 0, FALSE, PR_KIND_STACKED, "md0", "naa.6001405aaaa");
    assert_device(259, 0, FALSE, PR_KIND_NVME, "nvme0n1", "eui.0025385b71b07e2a");
    assert_device(7, 0, FALSE, PR_KIND_OTHER, "loop0", "");
    assert_device(21, 0, TRUE, PR_KIND_SG, "sg0", "naa.6001405aaaa");
    assert_device(254, 9, FALSE, PR_KIND_STACKED, "dm-9", "");
    g_assert_null(pr_device_get(-1, makedev(8, 16), FALSE)); /* not in /sys */
    g_assert_null(pr_device_recall(-1, makedev(8, 0), FALSE));
    pr_device_set_root("/sys");
    remove_tree(root);
}

/* ---- confinement -------------------------------------------------------------------------- */

/* In a child: whether each of these is refused. */
static int confined(void)
{
    const PrIdentity same = {.uid = geteuid(), .gid = getegid()};
    char *const argv[] = {(char *)"true", NULL};
    gboolean active = FALSE;
    char *error = NULL;
    int fds[2];

    if (!pr_confine_privileges(&same, 0, &error) ||
        !pr_confine_files(NULL, 0, NULL, &active, &error) || !pr_confine_calls(&error))
        return 1;
    execv("/bin/true", argv);
    if (errno != EPERM)
        return 2;
    if (PR_CONFINE_LOOSELY)
        return 0;
    if (socket(AF_INET, SOCK_STREAM, 0) >= 0 || errno != EPERM)
        return 3;
    if (fork() >= 0)
        return 4;
    if (ioctl(0, TIOCGWINSZ, &fds) == 0 || errno != EPERM)
        return 5;
    if (active && (open("/etc/passwd", O_RDONLY) >= 0 || errno != EACCES))
        return 6;
    if (open("/proc/self/stat", O_RDONLY) < 0)
        return 7;
    return setresuid(1, 1, 1) == 0 ? 8 : 0;
}

static void test_confinement(void)
{
    int status = -1;
    pid_t child = fork();

    g_assert_cmpint(child, >=, 0);
    if (child == 0)
        _exit(confined());
    g_assert_cmpint(waitpid(child, &status, 0), ==, child);
    g_assert_true(WIFEXITED(status));
    g_assert_cmpint(WEXITSTATUS(status), ==, 0);
}

static void test_identity(void)
{
    PrIdentity identity;
    char *error = NULL;

    g_assert_true(pr_confine_identity(NULL, NULL, &identity, &error));
    g_assert_false(identity.change_uid || identity.change_gid);
    g_assert_true(pr_confine_identity("root", NULL, &identity, &error));
    g_assert_true(identity.change_uid && identity.change_gid && identity.uid == 0);
    g_assert_true(pr_confine_identity("4294967294", "7", &identity, &error));
    g_assert_cmpuint(identity.uid, ==, 4294967294U);
    g_assert_cmpuint(identity.gid, ==, 7);
    /* -1 would mean "as it is" */
    g_assert_false(pr_confine_identity("4294967295", NULL, &identity, &error));
    g_assert_nonnull(strstr(error, "4294967295"));
    g_clear_pointer(&error, g_free);
    g_assert_false(pr_confine_identity("", NULL, &identity, &error));
    g_clear_pointer(&error, g_free);
    g_assert_false(pr_confine_identity(NULL, "-1", &identity, &error));
    g_clear_pointer(&error, g_free);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/prhelper/confinement", test_confinement); /* forks: before threads */
    g_test_add_func("/prhelper/identity", test_identity);
    g_test_add_func("/prhelper/wire/cdb", test_wire_cdb);
    g_test_add_func("/prhelper/wire/reply", test_wire_reply);
    g_test_add_func("/prhelper/peer/cmdline", test_vm_of_cmdline);
    g_test_add_func("/prhelper/peer/cgroup", test_vm_of_cgroup);
    g_test_add_func("/prhelper/peer", test_peer); /* forks as well */
    g_test_add_func("/prhelper/devices", test_devices);
    return g_test_run();
}
