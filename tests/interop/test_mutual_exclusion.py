# SPDX-License-Identifier: LGPL-2.1-or-later
"""Two lock daemons on two hosts, in every mixture of stock and ours, exclude each other.

The hosts are sandboxes that share a directory: each has its own /run, process ids and name.
"""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from lock_rig import DAEMONS, LockRig, missing
from lock_table import held_locks
from virtlockd_wire import AUTOCREATE, SHARED, Code, Domain, RemoteError
from waiting import DEADLINE, wait_until

ROUNDS = 150


@dataclass(frozen=True)
class Resource:
    """What the two hosts want: the arguments of acquire, and the file that is locked."""

    name: str
    path: str
    flags: int
    file: Path

    def acquire(self, client, mode=0):
        """Lock it, exclusively unless mode says SHARED."""
        client.acquire(self.name, self.path, self.flags | mode)

    def release(self, client):
        """Unlock it."""
        client.release(self.name, self.path)

    def refused(self, client, mode=0):
        """Try to lock it, which must be refused; the error."""
        with pytest.raises(RemoteError) as refusal:
            self.acquire(client, mode)
        assert (refusal.value.code, refusal.value.domain) == (Code.RESOURCE_BUSY, Domain.LOCKSPACE)
        return refusal.value


@pytest.fixture(params=itertools.product(DAEMONS, DAEMONS), ids="-".join, name="hosts")
def fixture_hosts(request, workdir):
    """Two hosts, the first and the second one's daemon being stock or ours."""
    reason = next(filter(None, map(missing, request.param)), None)
    if reason:
        pytest.skip(reason)
    first, second = request.param
    with LockRig(first, workdir / "host-a", "host-a") as here:
        with LockRig(second, workdir / "host-b", "host-b") as there:
            yield here, there


@pytest.fixture(name="direct")
def fixture_direct(new_image):
    """A disk image that is locked itself."""
    image = new_image("disk")
    return Resource(str(image), "", 0, image)


@pytest.fixture(name="indirect")
def fixture_indirect(hosts, workdir):
    """A file in a lockspace directory that is made and removed as needed."""
    lockspace = workdir / "lockspace"
    lockspace.mkdir()
    for host in hosts:
        with host.connect() as client:
            client.create_lockspace(str(lockspace))
    return Resource("key", str(lockspace), AUTOCREATE, lockspace / "key")


@pytest.fixture(params=["direct", "indirect"], name="resource")
def fixture_resource(request):
    """One or the other."""
    return request.getfixturevalue(request.param)


@pytest.fixture(name="clients")
def fixture_clients(hosts):
    """A client on each host, registered for a VM there."""
    with hosts[0].owner("vm-a") as (here, _), hosts[1].owner("vm-b") as (there, _):
        yield here, there


def test_exclusive_excludes_exclusive(clients, resource):
    """One has it, the other one not, then the other way round."""
    for here, there in (clients, reversed(clients)):
        resource.acquire(here)
        resource.refused(there)
        assert held_locks(resource.file) == ["WRITE"]
        resource.release(here)
        resource.acquire(there)
        resource.refused(here)
        resource.release(there)


def test_shared_admits_shared_only(clients, resource):
    """Both can share; neither can have it alone before the other has let go."""
    here, there = clients
    resource.acquire(here, SHARED)
    resource.acquire(there, SHARED)
    assert held_locks(resource.file) == ["READ", "READ"]
    resource.release(here)
    resource.refused(here)
    resource.release(there)
    resource.acquire(here)
    resource.refused(there, SHARED)
    resource.release(here)


def test_refused_shared_can_share_later(clients, resource):
    """The refusal of a sharer leaves nothing behind, here or there."""
    here, there = clients
    resource.acquire(here)
    resource.refused(there, SHARED)
    resource.release(here)
    resource.acquire(here, SHARED)
    resource.acquire(there, SHARED)
    resource.release(there)
    resource.release(here)


def test_dead_owner_frees_for_the_other_host(hosts, direct):
    """When a VM ends, its disk is free for the other host."""
    here, there = hosts
    vm = here.start_vm(direct.name)
    with there.owner() as (client, _):
        direct.refused(client)
        here.sandbox.kill(vm)
        wait_until(lambda: not held_locks(direct.file), "the disk to be freed")
        direct.acquire(client)
        direct.release(client)


def test_file_is_removed_by_the_last_sharer(clients, indirect):
    """The file that one sharer made stays, as the same one, until the last one lets go."""
    for here, there in (clients, reversed(clients)):
        indirect.acquire(here, SHARED)
        indirect.acquire(there, SHARED)
        inode = indirect.file.stat().st_ino
        indirect.release(here)
        assert indirect.file.stat().st_ino == inode
        indirect.refused(here)
        indirect.release(there)
        assert not indirect.file.exists()


def test_refusal_names_the_holder_on_the_other_host(workdir):
    """Ours writes who holds a lock file into it, so that the other host can tell."""
    reason = missing("holdfast")
    if reason:
        pytest.skip(reason)
    lockspace = workdir / "lockspace"
    lockspace.mkdir()
    with LockRig("holdfast", workdir / "host-a", "host-a") as here, \
            LockRig("holdfast", workdir / "host-b", "host-b") as there, \
            there.owner() as (client, _):
        for host in (here, there):
            with host.connect() as maker:
                maker.create_lockspace(str(lockspace))
        for mode in (0, SHARED):
            with here.holding("key", str(lockspace), AUTOCREATE | mode, name="vm-a") as holder:
                with pytest.raises(RemoteError) as refusal:
                    client.acquire("key", str(lockspace), AUTOCREATE)
                assert holder.host == "host-a"
                holder.assert_named(refusal.value.message)


@pytest.mark.parametrize("modes", [(0, 0), (0, SHARED)], ids=["exclusive", "mixed"])
def test_race_for_a_file_that_comes_and_goes(clients, indirect, modes):
    """Both hosts make, lock, unlock and remove the same file as fast as they can.

    Whoever has got the lock must find itself alone, on the file that the name now stands for:
    the daemon that locks a file which the other one has just removed has nothing.
    """
    inside = []
    end = time.monotonic() + 4 * DEADLINE

    def contend(client, mode):
        won = 0
        while won < ROUNDS:
            assert time.monotonic() < end, f"only {won} of {ROUNDS} rounds"
            try:
                indirect.acquire(client, mode)
            except RemoteError as refusal:
                assert refusal.code == Code.RESOURCE_BUSY, refusal
                continue
            inside.append(client)
            # a table that changes while it is read may show a line twice, or for once not at all
            alone, locked = inside == [client], any(held_locks(indirect.file) for _ in range(50))
            inside.remove(client)
            indirect.release(client)
            assert alone and locked
            won += 1

    with ThreadPoolExecutor() as pool:
        for result in [pool.submit(contend, *each) for each in zip(clients, modes)]:
            result.result()
    assert not indirect.file.exists()
