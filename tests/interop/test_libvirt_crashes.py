# SPDX-License-Identifier: LGPL-2.1-or-later
"""Real guests run through deaths of the lock daemon: theirs is not, and their disks stay locked."""

import os
import signal

import libvirt_rig
import pytest
from libvirt_rig import Disk, path_key
from lock_table import held_locks
from prober import ANYTHING, NOTHING, Prober
from waiting import wait_until

CLIENT_FILES = "client-files"


@pytest.fixture(name="files")
def fixture_files(session_workdir):
    """The directory for lock files of the rig that uses them."""
    return session_workdir / CLIENT_FILES


@pytest.fixture(params=["direct", "lockspace"], name="kept_rig")
def fixture_kept_rig(request, rig_pool, files):
    """Root's libvirtd with our lock daemon under its keeper, locking disks or lock files."""
    conf = f'file_lockspace_dir = "{files}"\n' if request.param == "lockspace" else ""
    for rig in rig_pool.lend(request, libvirt_rig.LibvirtRig, "holdfast", conf):
        rig.locks_files = request.param == "lockspace"
        yield rig


def children(rig):
    """The pids of the daemons that the keeper has, one at most."""
    path = rig.sandbox.path(f"/proc/{rig.lockd}/task/{rig.lockd}/children")
    return [pid for pid in map(int, path.read_text(encoding="ascii").split())
            if name_of(rig, pid) not in ("", "holdfast-closer", "holdfast-keeper")]


def name_of(rig, pid):
    """A process's name, "" if there is none."""
    try:
        return rig.sandbox.path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def crash(rig, number=signal.SIGKILL):
    """End the lock daemon, and wait until the next one serves."""
    [pid] = children(rig)
    rig.sandbox.kill(pid, number)
    wait_until(lambda: children(rig) not in ([], [pid]), "the next daemon to start")
    rig.sandbox.wait_socket(rig.socket, rig.lockd)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR1])
def test_guest_runs_through(kept_rig, files, new_image, workdir, number):
    """Pause, resume, hot plug, unplug, end and start again, each after another lock daemon."""
    rig = kept_rig
    disk, extra = Disk(new_image("a")), Disk(new_image("b"), "sdb")

    def file_of(some):
        return files / path_key(some.path) if rig.locks_files else some.path

    guest = rig.start("web", disk)
    with Prober(workdir, [file_of(disk), file_of(extra)]) as prober:
        prober.guard(file_of(disk), NOTHING)
        for _ in range(3):
            crash(rig, number)
            assert held_locks(file_of(disk)) == ["WRITE"]
        rig.attach("web", extra)
        prober.guard(file_of(extra), NOTHING)
        crash(rig, number)
        rig.start("mail", Disk(new_image("c")))
        rig.assert_refusal(rig.attach_refused("mail", extra),
                           file_of(extra).name if rig.locks_files else extra.path, guest)
        rig.destroy("mail")
        prober.guard(file_of(extra), ANYTHING)
        rig.detach("web", extra)
        assert not file_of(extra).exists() or held_locks(file_of(extra)) == []
        crash(rig, number)
        prober.guard(file_of(disk), ANYTHING)
        rig.ok("suspend", "web")
        assert not file_of(disk).exists() or held_locks(file_of(disk)) == []
        crash(rig, number)
        rig.ok("resume", "web")
        prober.guard(file_of(disk), NOTHING)
        crash(rig, number)
        assert rig.state("web") == "running"
        assert rig.qemu_pid("web") == guest.pid
        prober.assert_nothing(at_least=10)
        prober.guard(file_of(disk), ANYTHING)
        rig.destroy("web")
        wait_until(lambda: not file_of(disk).exists() or not held_locks(file_of(disk)),
                   "the disk to be free")
        rig.ok("start", "web")
        prober.guard(file_of(disk), NOTHING)
        crash(rig, number)
        prober.assert_nothing()
        rig.restart_libvirtd()
        assert rig.state("web") == "running"
        prober.assert_nothing()
        prober.guard(file_of(disk), ANYTHING)
        rig.ok("suspend", "web")
        rig.ok("resume", "web")
        assert held_locks(file_of(disk)) == ["WRITE"]
        rig.destroy("web")
    assert not rig.locks_files or os.listdir(files) == []


def test_guest_ends_meanwhile(kept_rig, files, new_image):
    """A guest that ends after a crash frees its disk, which nobody has to ask for."""
    rig = kept_rig
    disk = Disk(new_image("a"))
    guest = rig.start("web", disk)
    path = files / path_key(disk.path) if rig.locks_files else disk.path
    crash(rig)
    rig.sandbox.kill(guest.pid)
    wait_until(lambda: not path.exists() or not held_locks(path), "the disk to be free")
    wait_until(lambda: rig.state("web") == "shut off", "libvirt to know")
    rig.ok("start", "web")
