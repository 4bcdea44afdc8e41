# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the lab's hosts serve each other: NFS, an iSCSI LUN, two paths to it, a LUN that gets stuck."""

import pytest
from lab import services
from lab.fixtures import lab_for

pytestmark = pytest.mark.xdist_group("lab-storage")

PATIENCE = 180.0
HANGS = 5.0     # no other command of these tests takes so long in D state
READ_KEYS = "sg_persist --in --read-keys --no-inquiry"
WRITE = "dd if=/dev/zero bs=4096 count=1 oflag=direct"
TRY_LOCK = "import fcntl; fcntl.lockf(open('/mnt/nfs/disk', 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
KEEP_LOCK = ("import fcntl, time; file = open('/mnt/nfs/disk', 'w'); fcntl.lockf(file, fcntl.LOCK_EX);"
             "open('/run/locked', 'w').close(); time.sleep(7777)")


@pytest.fixture(scope="module", name="lab")
def fixture_lab(request):
    """A storage and two hosts."""
    with lab_for(request, hosts=3) as lab:
        yield lab


def persist(host, lun, action, key="0", service_key="0"):
    """A persistent reservation command (write exclusive, registrants only); its exit code."""
    return host.run(f"sg_persist --out --{action} --param-rk={key} --param-sark={service_key} "
                    f"--prout-type=5 {lun}", PATIENCE, check=False).code


def test_nfs_locks_hold_across_hosts(lab):
    """One host's lock is refused to the other, until it is given back."""
    lab.nfs()
    holder = lab.h2.start(["python3", "-c", KEEP_LOCK])
    lab.h2.wait_for("test -e /run/locked", PATIENCE)
    assert "BlockingIOError" in lab.h3.run(["python3", "-c", TRY_LOCK], check=False).err
    holder.kill()
    lab.h3.wait_for(["python3", "-c", TRY_LOCK], PATIENCE)


def test_two_hosts_share_an_iscsi_lun(lab):
    """What one writes the other reads; a reservation of one stops the other's writes."""
    lun = lab.iscsi()
    lab.h2.run(f"dd of={lun} bs=4096 conv=sync oflag=direct", stdin="by h2")
    assert lab.h3.run(f"dd if={lun} bs=4096 count=1 iflag=direct | head -c 5").out == "by h2"
    assert persist(lab.h2, lun, "register", service_key="0xa2") == 0
    assert persist(lab.h2, lun, "reserve", key="0xa2") == 0
    assert "0xa2" in lab.h3.run(f"{READ_KEYS} {lun}").out
    lab.h2.run(f"{WRITE} of={lun}")
    assert lab.h3.run(f"{WRITE} of={lun}", check=False).code == 1
    assert persist(lab.h2, lun, "clear", key="0xa2") == 0
    lab.h3.run(f"{WRITE} of={lun}")


def test_preempt_and_abort_fences_over_iscsi(lab):
    """It returns, and the one that it was for cannot write any more."""
    lun = lab.iscsi()
    for host, key in ((lab.h2, "0xb2"), (lab.h3, "0xb3")):
        assert persist(host, lun, "register", service_key=key) == 0
    assert persist(lab.h2, lun, "reserve", key="0xb2") == 0
    assert persist(lab.h3, lun, "preempt-abort", key="0xb3", service_key="0xb2") == 0
    assert lab.h2.run(f"{WRITE} of={lun}", check=False).code == 1
    lab.h3.run(f"{WRITE} of={lun}")
    assert persist(lab.h3, lun, "clear", key="0xb3") == 0


def test_a_path_appears_dies_returns_and_leaves(lab):
    """The map goes on with what is left of it."""
    lun = lab.iscsi(clients=[lab.h3], multipath=True)
    assert len(lab.h3.paths()) == 1
    assert lab.iscsi(clients=[lab.h3], paths=2, multipath=True) == lun
    lab.h3.wait_paths(2, PATIENCE)
    lab.h3.partition(lan=1)
    lab.h3.wait_paths(1, PATIENCE)
    lab.h3.run(f"{WRITE} of={lun}", PATIENCE)
    lab.h3.heal(lan=1)
    lab.h3.wait_paths(2, PATIENCE)
    lab.h3.partition(lan=0)
    lab.h3.wait_paths(1, PATIENCE)
    lab.h3.run(f"{WRITE} of={lun}", PATIENCE)
    lab.h3.heal(lan=0)
    lab.h3.wait_paths(2, PATIENCE)
    services.iscsi_logout(lab.h3, 2)
    lab.h3.wait_for("test $(multipathd show paths raw format %d | wc -l) = 1", PATIENCE)
    assert len(lab.h3.iscsi_disks()) == 1


def test_a_command_on_the_loopback_lun_never_returns(lab):
    """PREEMPT AND ABORT over tcm_loop is LIO's deadlock; other hosts have nothing to do with it."""
    lun = lab.h3.tcm_loop()
    assert persist(lab.h3, lun, "register", service_key="0xc3") == 0
    assert persist(lab.h3, lun, "reserve", key="0xc3") == 0
    stuck = lab.h3.start(f"sg_persist --out --preempt-abort --param-rk=0xc3 --param-sark=0xc3 "
                         f"--prout-type=5 {lun}")
    assert not stuck.ended(within=HANGS)
    assert lab.h3.out("ps -o stat= -C sg_persist").startswith("D")
    lab.h3.power_cut()      # nothing else ends it
