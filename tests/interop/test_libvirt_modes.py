# SPDX-License-Identifier: LGPL-2.1-or-later
"""Shareable and readonly disks and manual leases under stock libvirt."""

import pytest
from libvirt_rig import Disk, Lease
from lock_table import held_locks
from virtlockd_wire import SHARED
from waiting import wait_until


@pytest.fixture(name="image")
def fixture_image(new_image):
    """A disk image that several guests want."""
    return new_image("common")


@pytest.fixture(name="lease")
def fixture_lease(rig, workdir):
    """A lease whose file exists, in a lockspace that the daemon knows.

    Libvirt makes neither, and stock's daemon wants to be told of the lockspace.
    """
    lease = Lease(workdir, "leases", "key")
    with rig.connect() as client:
        client.create_lockspace(lease.path.parent)
    lease.path.touch()
    return lease


def test_shareable_disk_of_two_guests(rig, image):
    """Two guests share a disk, which is free when both are gone."""
    rig.start("one", Disk(image, shareable=True))
    assert held_locks(image) == ["READ"]
    rig.start("two", Disk(image, shareable=True))
    rig.destroy("one")
    wait_until(lambda: held_locks(image) == ["READ"], "one shared lock to be left")
    rig.destroy("two")
    wait_until(lambda: not held_locks(image), "the disk to be freed")


def test_shared_disk_is_refused_to_a_writer(rig, new_image, image):
    """A disk that a guest shares cannot become another's own; sharing it is fine."""
    rig.start("other", Disk(new_image("a")))
    with rig.holding(str(image), flags=SHARED) as holder:
        error = rig.attach_refused("other", Disk(image, "sdb"))
        rig.assert_refusal(error, image, holder)
        rig.attach("other", Disk(image, "sdb", shareable=True))


def test_own_disk_is_refused_to_a_sharer(rig, new_image, image):
    """A disk that one guest has for itself cannot be shared by another."""
    owner = rig.start("owner", Disk(image))
    rig.start("other", Disk(new_image("a")))
    error = rig.attach_refused("other", Disk(image, "sdb", shareable=True))
    rig.assert_refusal(error, image, owner)


def test_start_with_shareable_disk_is_refused(rig, image):
    """The same when the sharer is started."""
    rig.define("web", Disk(image, shareable=True))
    with rig.holding(str(image)) as holder:
        rig.assert_refusal(rig.refused("start", "web"), image, holder)
    rig.ok("start", "web")


def test_readonly_disk_is_not_locked(rig, new_image, image):
    """A readonly disk is not locked, and does not care who holds it."""
    with rig.holding(str(image)):
        rig.start("web", Disk(new_image("a")), Disk(image, "sdb", readonly=True))
    assert held_locks(image) == []


def test_lease_is_locked_while_the_guest_runs(rig, new_image, lease):
    """A lease lives as a disk does."""
    rig.start("web", Disk(new_image("a")), lease)
    assert held_locks(lease.path) == ["WRITE"]
    rig.ok("suspend", "web")
    assert held_locks(lease.path) == []
    rig.ok("resume", "web")
    assert held_locks(lease.path) == ["WRITE"]
    rig.destroy("web")
    wait_until(lambda: not held_locks(lease.path), "the lease to be freed")
    assert lease.path.exists()


def test_lease_of_another_guest_is_refused(rig, new_image, lease):
    """Two guests that have only a lease in common: the second names the first, frees all."""
    mine, other = new_image("a"), new_image("b")
    first = rig.start("first", Disk(mine), lease)
    rig.define("second", Disk(other), lease)
    rig.assert_refusal(rig.refused("start", "second"), lease.key, first)
    assert rig.state("second") == "shut off"
    assert held_locks(other) == []
    assert held_locks(mine) == held_locks(lease.path) == ["WRITE"]
    rig.destroy("first")
    rig.ok("start", "second")


def test_lease_plugged_in(rig, new_image, lease):
    """A lease can be plugged in and out."""
    rig.start("web", Disk(new_image("a")))
    with rig.holding(lease.key, str(lease.path.parent)) as holder:
        rig.assert_refusal(rig.attach_refused("web", lease), lease.key, holder)
    rig.attach("web", lease)
    assert held_locks(lease.path) == ["WRITE"]
    rig.detach("web", lease)
    assert held_locks(lease.path) == []


def test_lease_without_a_file_is_refused(rig, new_image, lease):
    """A lease's file must exist: the guest does not start, nothing is made."""
    lease.path.unlink()
    rig.define("web", Disk(new_image("a")), lease)
    assert str(lease.path) in rig.refused("start", "web")
    assert not lease.path.exists()
