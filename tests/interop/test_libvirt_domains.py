# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest's life under stock libvirt: its disks are locked exactly while it may write them."""

import signal

import pytest
from libvirt_rig import Disk
from lock_table import held_locks
from waiting import wait_until


def wait_free(*paths):
    """Wait until none of the files is locked."""
    wait_until(lambda: not any(map(held_locks, paths)), f"{paths} to be freed")


@pytest.fixture(name="disk")
def fixture_disk(new_image):
    """A disk for a guest."""
    return Disk(new_image("a"))


@pytest.fixture(name="second")
def fixture_second(new_image):
    """A second disk for the same guest."""
    return Disk(new_image("b"), "sdb")


def test_start_locks_and_destroy_frees(rig, disk, second):
    """All disks of a running guest are locked, none of a destroyed one."""
    rig.start("web", disk, second)
    assert held_locks(disk.path) == held_locks(second.path) == ["WRITE"]
    rig.destroy("web")
    wait_free(disk.path, second.path)


def test_start_of_a_held_disk_is_refused(rig, disk, second):
    """A guest does not start with a disk that somebody holds, and keeps no other disk locked."""
    rig.define("web", disk, second)
    with rig.holding(str(second.path)) as holder:
        rig.assert_refusal(rig.refused("start", "web"), second.path, holder)
        assert rig.state("web") == "shut off"
        wait_free(disk.path)
    rig.ok("start", "web")


def test_kill_frees(rig, disk):
    """The locks of a guest whose process is killed are freed."""
    web = rig.start("web", disk)
    rig.sandbox.kill(web.pid, signal.SIGKILL)
    wait_free(disk.path)
    wait_until(lambda: rig.state("web") == "shut off", "libvirt to see that the guest ended")


def test_other_guests_keep_their_locks(rig, disk, second):
    """The end of one guest leaves another's locks alone."""
    first = rig.start("web", disk)
    rig.start("mail", second)
    rig.sandbox.kill(first.pid, signal.SIGKILL)
    wait_free(disk.path)
    assert held_locks(second.path) == ["WRITE"]
    assert rig.state("mail") == "running"


def test_reset_keeps_the_locks(rig, disk):
    """A guest that is reset goes on with its locks."""
    rig.start("web", disk)
    rig.ok("reset", "web")
    assert held_locks(disk.path) == ["WRITE"]


def test_restart_of_libvirtd_keeps_the_locks(rig, disk):
    """Guests and their locks outlive libvirtd, and the next libvirtd can use them."""
    rig.start("web", disk)
    rig.restart_libvirtd()
    assert rig.state("web") == "running"
    assert held_locks(disk.path) == ["WRITE"]
    rig.ok("suspend", "web")
    assert held_locks(disk.path) == []
    rig.ok("resume", "web")
    assert held_locks(disk.path) == ["WRITE"]


def test_suspend_frees_and_resume_locks(rig, disk, second):
    """A paused guest holds nothing; pausing and resuming can be repeated."""
    rig.start("web", disk, second)
    for _ in range(3):
        rig.ok("suspend", "web")
        assert held_locks(disk.path) == held_locks(second.path) == []
        rig.ok("resume", "web")
        assert held_locks(disk.path) == held_locks(second.path) == ["WRITE"]


def test_end_of_a_paused_guest(rig, disk):
    """A paused guest can be destroyed and started again."""
    rig.start("web", disk)
    rig.ok("suspend", "web")
    rig.destroy("web")
    rig.ok("start", "web")
    assert held_locks(disk.path) == ["WRITE"]


def test_start_paused(rig, disk):
    """A guest that is started paused locks its disks when it is resumed."""
    rig.define("web", disk)
    rig.ok("start", "web", "--paused")
    assert held_locks(disk.path) == []
    rig.ok("resume", "web")
    assert held_locks(disk.path) == ["WRITE"]


def test_resume_is_refused_when_the_disk_was_taken(rig, disk):
    """A guest stays paused while somebody else holds its disk."""
    rig.start("web", disk)
    rig.ok("suspend", "web")
    with rig.holding(str(disk.path)) as holder:
        rig.assert_refusal(rig.refused("resume", "web"), disk.path, holder)
        assert rig.state("web") == "paused"
        assert held_locks(disk.path) == ["WRITE"]
    rig.ok("resume", "web")
    assert held_locks(disk.path) == ["WRITE"]


def test_refused_resume_leaves_nothing_locked(holdfast_rig, disk, second):
    """All disks or none: stock keeps the first one locked, and then refuses it for ever."""
    rig = holdfast_rig
    rig.start("web", disk, second)
    rig.ok("suspend", "web")
    with rig.holding(str(second.path)) as holder:
        rig.assert_refusal(rig.refused("resume", "web"), second.path, holder)
        wait_free(disk.path)
    rig.ok("resume", "web")
    assert held_locks(disk.path) == held_locks(second.path) == ["WRITE"]


def test_save_frees_and_restore_locks(rig, workdir, disk):
    """A saved guest holds nothing, a restored one what it held."""
    rig.start("web", disk)
    rig.ok("save", "web", workdir / "web.save")
    assert held_locks(disk.path) == []
    rig.ok("restore", workdir / "web.save")
    assert held_locks(disk.path) == ["WRITE"]
    assert rig.state("web") == "running"


def test_restore_is_refused_when_the_disk_was_taken(rig, workdir, disk):
    """A guest is not restored while somebody holds its disk; later it is."""
    rig.start("web", disk)
    rig.ok("save", "web", workdir / "web.save")
    with rig.holding(str(disk.path)) as holder:
        error = rig.refused("restore", workdir / "web.save")
        rig.assert_refusal(error, disk.path, holder)
        assert rig.state("web") == "shut off"
    rig.ok("restore", workdir / "web.save")
    assert held_locks(disk.path) == ["WRITE"]


def test_save_of_a_paused_guest(rig, workdir, disk):
    """A guest that is saved paused is restored paused, without locks."""
    rig.start("web", disk)
    rig.ok("suspend", "web")
    rig.ok("save", "web", workdir / "web.save")
    rig.ok("restore", workdir / "web.save")
    assert rig.state("web") == "paused"
    assert held_locks(disk.path) == []
    rig.ok("resume", "web")
    assert held_locks(disk.path) == ["WRITE"]


def test_managed_save(rig, disk):
    """A guest that libvirt saved starts where it was, with its locks."""
    rig.start("web", disk)
    rig.ok("managedsave", "web")
    assert held_locks(disk.path) == []
    rig.ok("start", "web")
    assert held_locks(disk.path) == ["WRITE"]


def test_snapshot_and_commit_move_the_lock(rig, workdir, disk):
    """The lock is on the file that the guest writes: the snapshot's overlay, then the image."""
    rig.start("web", disk)
    overlay = workdir / "overlay"
    rig.ok("snapshot-create-as", "web", "--disk-only", "--no-metadata",
           "--diskspec", f"{disk.target},file={overlay}")
    assert held_locks(overlay) == ["WRITE"]
    assert held_locks(disk.path) == []
    rig.ok("blockcommit", "web", disk.target, "--active", "--pivot", "--wait")
    assert held_locks(disk.path) == ["WRITE"]
    assert held_locks(overlay) == []
