# SPDX-License-Identifier: LGPL-2.1-or-later
"""Disks on NFS: who holds them is known to all hosts; a server that hangs delays its own callers alone.

h1 is the server, h2 a host where holdfast-keeper keeps the locks, h3 one where systemd does.
"""

import time

import pytest
from lab.fixtures import lab_for
from node import BUSY, PATIENCE, Node
from waiting import wait_until

pytestmark = pytest.mark.xdist_group("nfs")

LEASE = 15              # of the server, seconds
REQUEST_TIMEOUT = 6     # of the daemon, seconds
NFS = "/mnt/nfs"
SPACE = f"{NFS}/locks"
# Without its own storage's answer a caller has REQUEST_TIMEOUT; others need less than 1 s. The guests'
# server never answers while it is cut off, so that anything below PATIENCE shows that nobody waits for it.
SOON = 150.0
ENDED_SOON = 80.0
RECOVERED = 420.0       # what an NFS client may need after a boot of its server, beside busy cores


@pytest.fixture(scope="module", name="lab")
def fixture_lab(request):
    """A server and two hosts."""
    with lab_for(request, hosts=3, systemd=["h3"]) as lab:
        lab.nfs(lease=LEASE)
        yield lab


@pytest.fixture(scope="module", name="nodes")
def fixture_nodes(lab):
    """The daemons on both hosts."""
    lab.h2.run(f"mkdir -p {SPACE}")
    settings = {"request_timeout": REQUEST_TIMEOUT}
    return {"keeper": Node(lab.h2, **settings), "systemd": Node(lab.h3, **settings)}


@pytest.fixture(autouse=True)
def fixture_healed(lab, nodes):
    """However a test ends, all hosts are on, the server answers, and nothing is held any more."""
    yield
    heal(lab, nodes)
    for node in nodes.values():
        if node.host.on:
            node.reset()


def heal(lab, nodes):
    """Bring the server back, and wait until all hosts have noticed."""
    lab.h1.heal()
    for node in nodes.values():
        if node.host.on:
            node.host.wait_for(["ls", NFS], RECOVERED)
            wait_until(lambda node=node: not node.unwell(), f"{node.host} to find all well", PATIENCE)


def answer(vm, disk):
    """What a VM hears in the end, when the NFS client has recovered."""
    end = time.monotonic() + RECOVERED
    while True:
        result = vm.acquire(disk)
        if result.code != 1 or "did not answer in time" not in result.err or time.monotonic() > end:
            return result.code


def assert_refused(result):
    """Complain unless the caller heard in time what does not answer."""
    assert result.code == 1, result
    assert f"lockspace direct:{NFS} did not answer in time" in result.err, result.err


@pytest.mark.parametrize("supervisor", ["keeper", "systemd"])
def test_hung_server_delays_its_own_callers_alone(lab, nodes, supervisor):
    """Acquire and release on local disks go on; on NFS they fail in time; then all goes on."""
    node, other = nodes[supervisor], nodes["systemd" if supervisor == "keeper" else "keeper"]
    held, free, local, spare = (f"{NFS}/{supervisor}-held", f"{NFS}/{supervisor}-free",
                                f"/srv/{supervisor}-local", f"/srv/{supervisor}-spare")
    for disk in (held, free, local, spare):
        node.new_disk(disk)
    vm, second, third = node.start_vm("web1"), node.start_vm("db1"), node.start_vm("app1")
    assert vm.acquire(held, local).code == 0

    lab.h1.partition()
    acquiring = second.start_acquire(free)
    for _ in range(3):
        assert third.acquire(spare, timeout=SOON).code == 0
        assert third.release(spare, timeout=SOON).code == 0
    assert_refused(acquiring.wait(SOON, check=False))
    assert_refused(vm.release(held, timeout=SOON))
    node.wait_until_unwell(f"direct:{NFS}")
    assert vm.release(local, timeout=SOON).code == 0

    heal(lab, nodes)
    # what was given up has been carried out or undone; and what goes on is known across hosts
    assert answer(second, free) == 0
    assert answer(second, held) == 0
    elsewhere = other.start_vm("web9")
    assert answer(elsewhere, held) == BUSY
    assert all(one.alive() for one in (vm, second, third, elsewhere))


@pytest.mark.parametrize("supervisor", ["keeper", "systemd"])
def test_daemon_killed_while_its_server_hangs(lab, nodes, supervisor):
    """The next daemon serves local disks at once, knows all leases, and keeps those on NFS."""
    node, other = nodes[supervisor], nodes["systemd" if supervisor == "keeper" else "keeper"]
    held, free = f"{NFS}/{supervisor}-kept", f"{NFS}/{supervisor}-asked-for"
    local, spare = f"/srv/{supervisor}-kept", f"/srv/{supervisor}-other"
    for disk in (held, free, local, spare):
        node.new_disk(disk)
    vm, second = node.start_vm("web1"), node.start_vm("db1")
    assert vm.acquire(held, local).code == 0

    lab.h1.partition()
    asking = second.start_acquire(free)
    node.wait_until_unwell(f"direct:{NFS}")
    node.wait_next(node.kill_daemon(), SOON)
    assert node.locks() == {held: vm.pid, local: vm.pid}
    assert second.acquire(local, timeout=SOON).code == BUSY
    assert second.acquire(spare, timeout=SOON).code == 0
    assert second.release(spare, timeout=SOON).code == 0
    assert_refused(asking.wait(SOON, check=False))      # it has repeated its request

    heal(lab, nodes)
    assert answer(second, held) == BUSY
    elsewhere = other.start_vm("web9")
    assert answer(elsewhere, held) == BUSY
    assert vm.alive()
    assert vm.release(held).code == 0
    assert elsewhere.acquire(held, wait=60).code == 0


def test_server_that_loses_power_keeps_the_locks(lab, nodes):
    """It boots, its clients reclaim their locks within its grace period; nobody else gets one."""
    node, other = nodes["keeper"], nodes["systemd"]
    disk = f"{NFS}/reclaimed"
    node.new_disk(disk)
    vm, elsewhere = node.start_vm("web1"), other.start_vm("web9")
    assert vm.acquire(disk).code == 0
    lab.h1.power_cut()
    lab.h1.power_on()
    lab.nfs(lease=LEASE, clients=[])
    other.host.wait_for(["ls", NFS], RECOVERED)
    assert answer(elsewhere, disk) == BUSY
    assert node.locks() == {disk: vm.pid}
    assert vm.release(disk).code == 0
    assert elsewhere.acquire(disk, wait=60).code == 0


@pytest.mark.parametrize("supervisor", ["keeper", "systemd"])
def test_end_while_the_server_hangs(lab, nodes, supervisor):
    """The daemon is ended for good, with locks on NFS and local ones: that takes no answer."""
    node = nodes[supervisor]
    held, local = f"{NFS}/{supervisor}-ended", f"/srv/{supervisor}-ended"
    for disk in (held, local):
        node.new_disk(disk)
    vm, second = node.start_vm("web1"), node.start_vm("db1")
    assert vm.acquire(held, local).code == 0

    lab.h1.partition()
    node.stop(ENDED_SOON)
    node.start()
    assert node.locks() == {}
    assert second.acquire(local, timeout=SOON).code == 0

    heal(lab, nodes)
    assert answer(second, held) == 0
