# SPDX-License-Identifier: LGPL-2.1-or-later
"""Stock libvirt with file_lockspace_dir: the lock is on a file named by the path's SHA-256."""

import signal
import stat

import pytest
from libvirt_rig import Disk, path_key
from lock_table import held_locks
from virtlockd_wire import AUTOCREATE, SHARED
from waiting import wait_until


@pytest.fixture(name="rig")
def fixture_rig(lockspace_rig, lockspace_dir):
    """The rig of these tests; no lock file is left behind."""
    yield lockspace_rig
    lockspace_rig.reset()
    wait_gone(lockspace_dir)


@pytest.fixture(name="lock_file")
def fixture_lock_file(lockspace_dir, image):
    """The lock file of the image."""
    return lockspace_dir / path_key(image)


def wait_gone(directory):
    """Wait until there is no file in the directory."""
    wait_until(lambda: not any(directory.iterdir()), f"no file to be left in {directory}")


def test_lock_file_comes_and_goes(rig, lockspace_dir, image, lock_file):
    """A running guest has a lock file that only root can read; the image is not locked."""
    rig.start("web", Disk(image))
    assert list(lockspace_dir.iterdir()) == [lock_file]
    assert stat.S_IMODE(lock_file.stat().st_mode) == 0o600
    assert held_locks(lock_file) == ["WRITE"]
    assert held_locks(image) == []
    rig.destroy("web")
    wait_gone(lockspace_dir)


def test_suspend_removes_the_lock_file(rig, lockspace_dir, image, lock_file):
    """A paused guest has no lock file."""
    rig.start("web", Disk(image))
    rig.ok("suspend", "web")
    assert not any(lockspace_dir.iterdir())
    rig.ok("resume", "web")
    assert held_locks(lock_file) == ["WRITE"]


def test_kill_removes_the_lock_file(rig, lockspace_dir, image):
    """Nor has a guest that was killed."""
    web = rig.start("web", Disk(image))
    rig.sandbox.kill(web.pid, signal.SIGKILL)
    wait_gone(lockspace_dir)


def test_start_is_refused(rig, lockspace_dir, image, lock_file):
    """Who holds the lock file holds the disk; the refusal names him."""
    rig.define("web", Disk(image))
    with rig.holding(lock_file.name, str(lockspace_dir), AUTOCREATE) as holder:
        rig.assert_refusal(rig.refused("start", "web"), lock_file.name, holder)
        assert held_locks(lock_file) == ["WRITE"]
    rig.ok("start", "web")
    assert held_locks(lock_file) == ["WRITE"]


def test_plugging_in_is_refused(rig, lockspace_dir, new_image, image, lock_file):
    """The disk of a running guest cannot be plugged in elsewhere."""
    web = rig.start("web", Disk(image))
    rig.start("mail", Disk(new_image("b")))
    error = rig.attach_refused("mail", Disk(image, "sdb"))
    rig.assert_refusal(error, lock_file.name, web)
    assert len(list(lockspace_dir.iterdir())) == 2


def test_resume_is_refused(rig, lockspace_dir, image, lock_file):
    """A paused guest stays paused while somebody else has made and locked the file."""
    rig.start("web", Disk(image))
    rig.ok("suspend", "web")
    with rig.holding(lock_file.name, str(lockspace_dir), AUTOCREATE) as holder:
        rig.assert_refusal(rig.refused("resume", "web"), lock_file.name, holder)
    rig.ok("resume", "web")
    assert held_locks(lock_file) == ["WRITE"]


def test_shareable_disk(rig, image, lock_file):
    """The lock file of a shared disk stays until the last guest is gone."""
    rig.start("one", Disk(image, shareable=True))
    rig.start("two", Disk(image, shareable=True))
    assert set(held_locks(lock_file)) == {"READ"}
    inode = lock_file.stat().st_ino
    rig.destroy("one")
    wait_until(lambda: held_locks(lock_file) == ["READ"], "one shared lock to be left")
    assert lock_file.stat().st_ino == inode
    rig.destroy("two")
    wait_until(lambda: not lock_file.exists(), "the lock file to be removed")


def test_shareable_disk_is_refused_to_a_writer(rig, lockspace_dir, new_image, image, lock_file):
    """A shared lock file keeps a writer out."""
    rig.start("web", Disk(new_image("b")))
    with rig.holding(lock_file.name, str(lockspace_dir), AUTOCREATE | SHARED) as holder:
        error = rig.attach_refused("web", Disk(image, "sdb"))
        rig.assert_refusal(error, lock_file.name, holder)
