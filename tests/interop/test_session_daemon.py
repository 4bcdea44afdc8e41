# SPDX-License-Identifier: LGPL-2.1-or-later
"""A plain user's libvirt, which starts the lock daemon for itself by VIRTLOCKD_PATH."""

import os
import signal

import pytest
from libvirt_rig import Disk
from lock_table import held_locks
from waiting import wait_until


@pytest.fixture(name="rig")
def fixture_rig(session_rig):
    """The rig of these tests."""
    return session_rig


@pytest.fixture(name="disk")
def fixture_disk(rig, new_image):
    """A disk of the user's."""
    return Disk(new_image("a", rig.uid))


def test_libvirt_starts_the_daemon(rig, disk):
    """The first guest's start brings up the daemon, as the user's own process."""
    rig.start("web", disk)
    assert held_locks(disk.path) == ["WRITE"]
    process = rig.sandbox.path(f"/proc/{rig.lockd_pid()}")
    assert os.stat(process).st_uid == rig.uid
    assert (process / "cmdline").read_bytes().split(b"\0")[-2:] == [b"--timeout=120", b""]
    rig.destroy("web")
    wait_until(lambda: not held_locks(disk.path), "the disk to be freed")


def test_daemon_is_started_again(rig, disk):
    """When the daemon has ended, the next guest's start brings up another one."""
    rig.start("web", disk)
    rig.destroy("web")
    wait_until(lambda: not held_locks(disk.path), "the disk to be freed")
    first = rig.lockd_pid()
    assert rig.sandbox.terminate(first) == 0
    rig.ok("start", "web")
    assert rig.lockd_pid() != first
    assert held_locks(disk.path) == ["WRITE"]


def test_pause_save_and_kill(rig, disk, workdir):
    """A session's guest goes through the same life as root's."""
    rig.start("web", disk)
    rig.ok("suspend", "web")
    assert held_locks(disk.path) == []
    rig.ok("resume", "web")
    rig.ok("save", "web", rig.home / "web.save")
    assert held_locks(disk.path) == []
    rig.ok("restore", rig.home / "web.save")
    assert held_locks(disk.path) == ["WRITE"]
    rig.sandbox.kill(rig.qemu_pid("web"), signal.SIGKILL)
    wait_until(lambda: not held_locks(disk.path), "the disk to be freed")
    assert workdir.exists()


def test_refusal(rig, disk, new_image):
    """A disk that somebody holds is refused, and the refusal names him."""
    rig.start("web", disk)
    extra = Disk(new_image("extra", rig.uid), "sdb")
    with rig.holding(str(extra.path)) as holder:
        rig.assert_refusal(rig.attach_refused("web", extra), extra.path, holder)
    rig.attach("web", extra)
    assert held_locks(extra.path) == ["WRITE"]


def test_another_user_is_not_served(rig, disk):
    """Not even root can lock through a user's daemon."""
    rig.start("web", disk)
    with pytest.raises((OSError, EOFError)):
        with rig.sandbox.connect(rig.socket, uid=0) as client:
            client.register(1)
