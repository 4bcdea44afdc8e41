# SPDX-License-Identifier: LGPL-2.1-or-later
"""Hot plug and unplug under stock libvirt: a disk is locked from plugging in to unplugging."""

import pytest
from libvirt_rig import Disk
from lock_table import held_locks


@pytest.fixture(name="extra")
def fixture_extra(new_image):
    """A disk to plug in."""
    return Disk(new_image("extra"), "sdb")


@pytest.fixture(name="guest")
def fixture_guest(rig, new_image):
    """A running guest with one disk."""
    return rig.start("web", Disk(new_image("a")))


def test_plug_and_unplug(rig, guest, extra):
    """A disk that is plugged in is locked, one that is unplugged is free."""
    for _ in range(2):
        rig.attach(guest.name, extra)
        assert held_locks(extra.path) == ["WRITE"]
        rig.detach(guest.name, extra)
        assert held_locks(extra.path) == []


def test_attach_disk(rig, guest, extra):
    """The same by virsh's short command."""
    rig.ok("attach-disk", guest.name, extra.path, extra.target)
    assert held_locks(extra.path) == ["WRITE"]
    rig.ok("detach-disk", guest.name, extra.target)
    assert held_locks(extra.path) == []


def test_plugged_disk_lives_as_the_others(rig, guest, extra):
    """Pausing, resuming and the guest's end also cover a disk that was plugged in."""
    rig.attach(guest.name, extra)
    rig.ok("suspend", guest.name)
    assert held_locks(extra.path) == []
    rig.ok("resume", guest.name)
    assert held_locks(extra.path) == ["WRITE"]


def test_held_disk_is_refused(rig, guest, extra):
    """A disk that somebody holds cannot be plugged in before he lets go."""
    with rig.holding(str(extra.path)) as holder:
        rig.assert_refusal(rig.attach_refused(guest.name, extra), extra.path, holder)
        assert str(extra.path) not in rig.ok("domblklist", guest.name)
        error = rig.refused("attach-disk", guest.name, extra.path, extra.target)
        rig.assert_refusal(error, extra.path, holder)
    rig.attach(guest.name, extra)
    assert held_locks(extra.path) == ["WRITE"]


def test_disk_of_another_guest_is_refused(rig, guest, extra):
    """The refusal names the guest that holds the disk."""
    mail = rig.start("mail", Disk(extra.path))
    rig.assert_refusal(rig.attach_refused(guest.name, extra), extra.path, mail)
    assert held_locks(extra.path) == ["WRITE"]
    assert rig.state(guest.name) == rig.state("mail") == "running"


def test_lock_is_freed_when_qemu_does_not_take_the_disk(rig, guest, extra):
    """A paused guest has freed its disk for us but not for QEMU: nothing stays locked."""
    rig.start("mail", Disk(extra.path))
    rig.ok("suspend", "mail")
    assert 'Failed to get "write" lock' in rig.attach_refused(guest.name, extra)
    assert held_locks(extra.path) == []
    rig.ok("resume", "mail")
    assert held_locks(extra.path) == ["WRITE"]


def test_shareable_disk_plugged_in_twice(rig, guest, extra):
    """A shareable disk that a guest has twice stays locked until both are unplugged."""
    one = Disk(extra.path, "sdb", shareable=True)
    two = Disk(extra.path, "sdc", shareable=True)
    rig.attach(guest.name, one)
    rig.attach(guest.name, two)
    rig.detach(guest.name, one)
    assert set(held_locks(extra.path)) == {"READ"}
    rig.detach(guest.name, two)
    assert held_locks(extra.path) == []
