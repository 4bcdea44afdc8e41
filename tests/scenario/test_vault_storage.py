# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon dies, starts anew or ends while storage hangs on which it holds locks.

To close a file on such storage hangs as well, and so does the end of a process that has one open:
none of that may be noticed by anybody but the callers of that storage.
"""

import os
import signal
import time
import uuid as uuids
from contextlib import suppress
from pathlib import Path

import native
import pytest
from lock_table import device_locks, held_locks
from native import Refused, as_lease, is_alive
from prober import NOTHING, Prober
from slow_storage import SlowStorage, lend
from test_slow_storage import assert_quiet, assert_timed_out
# pylint: disable=unused-import
from vault_rig import fixture_copied, fixture_start_daemon, replace
from virtlockd_wire import AUTOCREATE
from waiting import wait_until

# How long the next daemon, or the end of one, may take. Without the storage it is some 20 ms, and
# some seconds of patience for an orderly end, see engine.c; the storage would take for ever.
SOON_SECONDS = 45
TIMEOUT_MS = 1000

# The upper layer asks the lower one, which is stopped: what it was asked cannot be called back, and
# whoever has asked cannot even be killed.
MOUNT_OF_TWO = """
options=attr_timeout=0,entry_timeout=0,negative_timeout=0
mkdir "$2.below"
setpriv --pdeathsig KILL bindfs -f -o $options "$1" "$2.below" &
echo $! >"$3"
until mountpoint --quiet "$2.below"; do sleep 0.01; done
setpriv --pdeathsig KILL bindfs -f -o $options "$2.below" "$2" &
until mountpoint --quiet "$2"; do sleep 0.01; done
"""


class StuckStorage(SlowStorage):
    """Storage in two layers, of which the lower one hangs."""

    def wrapper(self):
        return native.in_mounts(MOUNT_OF_TWO, self.real, self.path, self.pid_file)


class Watch:
    """How long something takes that must not take for ever."""

    def __init__(self):
        self.start = time.monotonic()

    def assert_soon(self):
        """Complain if it has taken long."""
        assert time.monotonic() - self.start < SOON_SECONDS


@pytest.fixture(name="slow", params=[SlowStorage, StuckStorage])
def fixture_slow(request, workdir):
    """Storage that can hang, in a way that can be interrupted or not."""
    yield from lend(request.param, workdir)


@pytest.fixture(name="daemon")
def fixture_daemon(slow, start_daemon):
    """A daemon under its keeper that has the storage that can hang."""
    try:
        yield start_daemon(wrapper=slow.wrapper())
    finally:
        slow.close()


@pytest.fixture(name="held")
def fixture_held(daemon, slow, vm, image):
    """Leases on healthy storage and on the other, a disk and a lock file; how many locks the latter
    has is what the value tells when it is called."""
    disk = slow.disk("a")
    (slow.real / "k").touch()
    with daemon.client() as client:
        client.acquire(vm, image, disk, leases=[(slow.path, "k")])
    device = os.stat(daemon.path(slow.path)).st_dev
    locks = len(device_locks(device))
    assert locks >= 2
    return lambda: len(device_locks(device)) - locks


def stick(daemon, slow, vm):
    """Have the storage hang, and a request in it; its connection."""
    slow.disk("stuck")
    slow.hang()
    caller = daemon.client()
    caller.send("acquire", owner=vm.owner(), disks=[{"path": slow.path / "stuck"}], timeout=60000)
    wait_until(lambda: caller_waits(daemon, slow), "the request to be under way")
    return caller


def caller_waits(daemon, slow):
    """Whether a request is in the storage."""
    with daemon.client() as client:
        space = client.lockspace(slow.lane)
    return space and space["running"]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGUSR1])
def test_adoption_that_hangs(daemon, held, slow, vm, other_vm, image, workdir, end):
    """The next daemon serves at once; only what concerns the storage that hangs waits."""
    with Prober(workdir, [image]) as prober:
        prober.guard(image, NOTHING)
        slow.hang()
        watch = Watch()
        pid = daemon.daemon_pid
        os.kill(pid, end)
        daemon.wait_next(pid)
        with daemon.client() as client:
            assert len(client.leases()) == 3
            with pytest.raises(Refused) as refusal:
                client.acquire(other_vm, image)
            assert refusal.value.error_class == "Busy"
            prober.assert_nothing()
            prober.guard(image, 0)
            assert client.release(vm, image) == 1
            client.acquire(other_vm, image)
            watch.assert_soon()
            with pytest.raises(Refused) as refusal:
                client.call("release", owner={"pid": vm.pid}, timeout=TIMEOUT_MS,
                            disks=[{"path": str(slow.path / "a")}])
            assert_timed_out(refusal.value, slow.lane)
            assert held() == 0, "what hangs is still locked"
            slow.go_on()
            assert_quiet(client, slow.lane)
            wait_until(lambda: len(client.leases()) == 2, "the release to be over")
            assert client.release(vm, leases=[(slow.path, "k")]) == 1
            client.acquire(other_vm, slow.path / "a", leases=[(slow.path, "k")])
    assert "is lost" not in daemon.log()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGUSR1])
def test_end_while_a_request_hangs(daemon, held, slow, vm, other_vm, image, end):
    """A daemon with a thread in the storage dies or starts anew: the next one has what was held."""
    with stick(daemon, slow, other_vm) as caller:
        watch = Watch()
        pid = daemon.daemon_pid
        os.kill(pid, end)
        daemon.wait_next(pid)
        with pytest.raises((EOFError, ConnectionError)):
            caller.recv()  # who waits for the dead daemon hears of its death
        watch.assert_soon()
    with daemon.client() as client:
        assert len(client.leases()) == 3
        assert client.release(vm, image) == 1
        assert held() == 0
        slow.go_on()
        assert client.release(vm, slow.path / "a", leases=[(slow.path, "k")]) == 2
        assert_quiet(client, slow.lane)
        client.acquire(other_vm, slow.path / "stuck")


def test_several_crashes_while_it_hangs(daemon, held, slow, vm, other_vm, image):
    """Adoptions that never came to an end are no loss for the next daemon."""
    with stick(daemon, slow, other_vm):
        for _ in range(5):
            watch = Watch()
            daemon.crash()
            watch.assert_soon()
            with daemon.client() as client:
                assert len(client.leases()) == 3
            assert held() == 0
    slow.go_on()
    with daemon.client() as client:
        assert client.release(vm, image, slow.path / "a", leases=[(slow.path, "k")]) == 3
    assert not held_locks(image)


def test_owner_ends_while_the_adoption_hangs(daemon, held, slow, vm, other_vm, image):
    """What an owner held elsewhere is free at once, and the rest as soon as it can be."""
    slow.hang()
    daemon.crash()
    vm.kill_without_reaping()
    wait_until(lambda: not held_locks(image), "the healthy disk to be free")
    with daemon.client() as client:
        client.acquire(other_vm, image)
        assert held() == 0
        slow.go_on()
        wait_until(lambda: len(client.leases()) == 1, "the other leases to be released")
        client.acquire(other_vm, slow.path / "a", leases=[(slow.path, "k")])
    assert "is lost" not in daemon.log()


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("crash", [False, True])
def test_orderly_end(daemon, slow, other_vm, image, crash):
    """A daemon that is told to end does so, and healthy locks end with it at once."""
    with stick(daemon, slow, other_vm):
        if crash:
            daemon.crash()
        watch = Watch()
        assert daemon.stop() == 0
        wait_until(lambda: not held_locks(image), "the healthy lock to end")
        watch.assert_soon()


@pytest.mark.usefixtures("held")
def test_keeper_is_killed(daemon, slow, vm, image):
    """The daemon hears of its keeper's death, though the keeper had files on that storage."""
    with daemon.client() as client:
        slow.hang()
        watch = Watch()
        os.kill(daemon.pid, signal.SIGKILL)
        wait_until(lambda: client.call("query-status")["vault"]["supervisor"] == "none",
                   "the daemon to know")
        assert client.release(vm, image) == 1
        watch.assert_soon()


def test_connections_while_it_hangs(daemon, held, slow, other_vm):
    """Clients of the dead daemon that wait for nothing hear of its death as well."""
    with stick(daemon, slow, other_vm), daemon.client() as client:
        watch = Watch()
        daemon.crash()
        with pytest.raises((EOFError, ConnectionError)):
            client.recv()
        watch.assert_soon()
    assert held() == 0


def test_program_that_ends_at_once(start_daemon, slow, copied, vm, image, workdir):
    """A next daemon that fails at its start hangs in its end as well, and does not matter either."""
    daemon = start_daemon(binary=copied, wrapper=slow.wrapper())
    try:
        disk = slow.disk("a")
        with daemon.client() as client:
            client.acquire(vm, image, disk)
        real, starts = copied.with_name("real"), workdir / "starts"
        copied.rename(real)
        replace(copied, f"#!/bin/sh\necho x >>{starts}\nexit 9\n")
        slow.hang()
        os.kill(daemon.daemon_pid, signal.SIGKILL)
        wait_until(lambda: starts.exists() and len(starts.read_text("ascii")) >= 6, "three tries")
        real.rename(copied)
        with daemon.client() as client:
            assert len(client.leases()) == 2
            assert client.release(vm, image) == 1
            slow.go_on()
            assert client.release(vm, disk) == 1
    finally:
        slow.close()


def name_of(pid):
    """A process's name, "" if there is none."""
    try:
        return Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def closers(pid):
    """The processes that close files for that one."""
    found = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):  # any thread may be the main thread
        with suppress(OSError):
            found.update(path.read_text("ascii").split())
    return {int(child) for child in found if name_of(child) == "holdfast-closer"}


def test_closers_are_replaced(daemon, held, slow, vm, image, new_image):
    """Who ends the processes that close files gets others, and loses nothing."""
    other = new_image("b")
    for pid in (daemon.pid, daemon.daemon_pid):
        for _ in range(3):
            with daemon.client() as client:
                client.acquire(vm, other)
                client.release(vm, other)
            before = wait_until(lambda pid=pid: closers(pid), "them to be there")
            for closer in before:
                with suppress(ProcessLookupError):
                    os.kill(closer, signal.SIGKILL)
            wait_until(lambda pid=pid, before=before: closers(pid) - before, "others to be there")
    slow.hang()
    daemon.crash()
    with daemon.client() as client:
        assert client.release(vm, image) == 1
    assert held() == 0


@pytest.mark.usefixtures("held")
def test_closers_end(daemon, slow):
    """Nothing is left when the storage answers."""
    mount = os.readlink(f"/proc/{daemon.pid}/ns/mnt")

    def mine():
        return [path.parent.name for path in Path("/proc").glob("[0-9]*/ns")
                if name_of(path.parent.name) == "holdfast-closer" and in_mounts(path / "mnt")]

    def in_mounts(path):
        try:
            return os.readlink(path) == mount
        except OSError:
            return False
    slow.hang()
    daemon.crash()
    assert mine()
    assert daemon.stop() == 0
    slow.close()
    wait_until(lambda: not mine(), "them to end")


def test_rpc_release(daemon, slow, vm):
    """libvirt may give back a lock file whose lockspace the next daemon has not opened yet."""
    def register(peer):
        peer.register(vm.pid, vm.name, uuids.UUID(vm.uuid))
    with daemon.peer() as peer:
        register(peer)
        peer.create_lockspace(str(slow.path))
        peer.acquire("made", str(slow.path), AUTOCREATE)
    slow.hang()
    daemon.crash()
    with daemon.peer() as peer:
        register(peer)
        peer.sock.settimeout(1)
        with pytest.raises(TimeoutError):  # it waits, and is not refused
            peer.release("made", str(slow.path))
        slow.go_on()
    with daemon.client() as client:
        wait_until(lambda: not client.leases(), "the release to be over")
    wait_until(lambda: os.listdir(slow.real) == [], "the file to go, of which the keeper has a copy")


def test_lease_request(daemon, held, slow, vm):
    """After the adoption the same owner's request finds the lease that it has."""
    daemon.crash()
    with daemon.client() as client:
        before = client.leases()
        again = client.call("acquire", owner=vm.owner(),
                            leases=[as_lease(slow.path, "k")])["leases"]
        assert len(again) == 1 and again[0] in before
        assert is_alive(vm.pid)
    assert held() == 0
