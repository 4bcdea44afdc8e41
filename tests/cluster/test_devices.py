# SPDX-License-Identifier: LGPL-2.1-or-later
"""Real block devices that two hosts share: one disk is one resource by all its names, on both hosts.

h1 has the lockspace directories, and the keeper; h2 sees them by NFS, and has systemd and so the
unit's sandbox, in which the devices have to be asked for their identifiers.
"""

import pytest
from lab.fixtures import lab_for
from node import BUSY, PATIENCE, Node

pytestmark = pytest.mark.xdist_group("devices")

SPACES = "/mnt/nfs"


@pytest.fixture(scope="module", name="lab")
def fixture_lab(request):
    """Two hosts with two disks in common."""
    with lab_for(request, hosts=2, systemd=["h2"], nvme=True) as lab:
        lab.nfs()
        lab.h1.run(f"mkdir -p {SPACES} && mount --bind /srv/lab/export {SPACES}")
        lab.h1.udev()
        yield lab


@pytest.fixture(scope="module", name="nodes")
def fixture_nodes(lab):
    """The daemons on both hosts."""
    spaces = {f"{kind}_lockspace_dir": f"{SPACES}/{kind}" for kind in ("scsi", "lvm")}
    lab.h1.run(["mkdir", "-p", *spaces.values()])
    return [Node(host, **spaces) for host in lab.hosts]


@pytest.fixture(autouse=True)
def fixture_clean(nodes):
    """Nothing is held when a test has ended."""
    yield
    for node in nodes:
        node.reset()


def link_to(host, device, pattern):
    """A name of a device in /dev/disk/by-id."""
    found = host.out(f"for link in /dev/disk/by-id/{pattern}; do "
                     f"[ $(readlink -f $link) = {device} ] && echo $link; done; true").split()
    assert found, f"{device} has no {pattern} on {host}:\n{host.out('ls -l /dev/disk/by-id')}"
    return found[0]


def assert_one_disk(nodes, names, lock_file):
    """Complain unless all names, on both hosts, stand for one disk with that lock file."""
    for node, other, held in ((*nodes, names[0]), (*nodes[::-1], names[1])):
        vm, second, elsewhere = node.start_vm("web1"), node.start_vm("db1"), other.start_vm("web9")
        assert vm.acquire(held).code == 0
        assert node.host.run(["test", "-e", lock_file]).code == 0
        for name in names:
            refused = second.acquire(name)
            assert refused.code == BUSY and f"pid {vm.pid}" in refused.err, refused
            refused = elsewhere.acquire(name)
            assert refused.code == BUSY, refused
            for fact in ("web1", f"pid {vm.pid}", f"on host {node.host}"):
                assert fact in refused.err, refused.err
        assert vm.release(held).code == 0
        assert elsewhere.acquire(held, wait=60).code == 0
        for one in nodes:
            one.reset()


def test_scsi_disk(lab, nodes):
    """/dev/sda and its name in by-id, by the identifier that the disk reports."""
    names = ["/dev/sda", link_to(lab.h1, "/dev/sda", "wwn-*")]
    assert link_to(lab.h2, "/dev/sda", "wwn-*") == names[1]
    assert_one_disk(nodes, names, f"{SPACES}/scsi/{lab.h1.out('/lib/udev/scsi_id -g /dev/sda')}")


def test_scsi_disk_that_cannot_be_identified(lab, nodes):
    """Nobody knows what it is: it is refused, not locked as another thing than on other hosts."""
    lab.h1.write("/tmp/scsi_id", "#!/bin/sh\nkill -9 $$\n", mode="755")
    vm, elsewhere = nodes[0].start_vm("web1"), nodes[1].start_vm("web9")
    assert elsewhere.acquire("/dev/sda").code == 0
    lab.h1.run("mount --bind /tmp/scsi_id /lib/udev/scsi_id")
    try:
        refused = vm.acquire("/dev/sda")
    finally:
        lab.h1.run("umount /lib/udev/scsi_id")
    assert refused.code == 1 and "/dev/sda" in refused.err and "SCSI identifier" in refused.err, refused
    assert vm.acquire("/dev/sda").code == BUSY


def test_nvme_namespace(lab, nodes):
    """The same by what the kernel says of an NVMe namespace."""
    names = ["/dev/nvme0n1", link_to(lab.h1, "/dev/nvme0n1", "nvme-*")]
    assert_one_disk(nodes, names, f"{SPACES}/scsi/{lab.h1.out('cat /sys/block/nvme0n1/wwid')}")


def test_logical_volume(lab, nodes):
    """A volume is its UUID, whatever it is called."""
    lab.h1.run("vgcreate --yes pool /dev/sda && lvcreate --yes -n disk1 -L 8M pool", PATIENCE)
    uuid = lab.h1.out("lvs --noheadings -o lv_uuid pool/disk1").strip()
    lab.h2.run("vgchange -ay pool", PATIENCE)
    for host in lab.hosts:
        host.wait_for("test -b /dev/pool/disk1", PATIENCE)
    assert_one_disk(nodes, ["/dev/pool/disk1", "/dev/mapper/pool-disk1"], f"{SPACES}/lvm/{uuid}")

    node, other = nodes
    vm, second, elsewhere = node.start_vm("web1"), node.start_vm("db1"), other.start_vm("web9")
    assert vm.acquire("/dev/pool/disk1").code == 0
    lab.h1.run("lvrename pool disk1 renamed", PATIENCE)
    assert second.acquire("/dev/pool/renamed").code == BUSY
    assert elsewhere.acquire("/dev/pool/disk1").code == BUSY, "h2 knows only the old name"
