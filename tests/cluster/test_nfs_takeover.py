# SPDX-License-Identifier: LGPL-2.1-or-later
"""Two hosts and a lockspace directory on NFS: who holds, and what frees it when that host is gone.

The hosts are none that other tests have used: one of them loses power for good, and a server that
has had to boot may not forget a client for its whole grace period.
"""

import time

import pytest
from node import BUSY, PATIENCE
# pylint: disable-next=unused-import
from test_nfs import LEASE, REQUEST_TIMEOUT, SPACE, fixture_lab, fixture_nodes

pytestmark = pytest.mark.xdist_group("nfs-takeover")


def test_another_host_is_told_who_holds(lab, nodes):
    """A lockspace directory on NFS: the refusal names the holder's VM and host; its death frees the disk."""
    disk = "/srv/same-path"
    settings = {"file_lockspace_dir": SPACE, "request_timeout": REQUEST_TIMEOUT}
    for node in nodes.values():
        node.new_disk(disk)
        node.reconfigure(**settings)
    vm, elsewhere = nodes["keeper"].start_vm("web1"), nodes["systemd"].start_vm("web9")
    assert vm.acquire(disk).code == 0
    refused = elsewhere.acquire(disk)
    assert refused.code == BUSY
    for fact in ("web1", f"pid {vm.pid}", "on host h2", "since"):
        assert fact in refused.err, refused.err
    lab.h2.power_cut()
    begin = time.monotonic()
    assert elsewhere.acquire(disk, wait=LEASE * 10, timeout=LEASE * 10 + PATIENCE).code == 0
    print(f"the disk was free {time.monotonic() - begin:.0f} s after its holder's host lost power")
    assert nodes["systemd"].locks() == {disk: elsewhere.pid}
