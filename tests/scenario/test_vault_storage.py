# SPDX-License-Identifier: LGPL-2.1-or-later
"""Leases on storage that hangs outlive the daemon as well, and delay nobody else."""

import os
import signal
import time

import native
import pytest
from lock_table import held_locks
from native import Refused, as_lease
from prober import NOTHING, Prober
# pylint: disable=unused-import
from test_slow_storage import END_SECONDS, TIMEOUT_MS, assert_quiet, assert_timed_out, fixture_slow
from vault_rig import fixture_start_daemon
from waiting import wait_until

# How long a healthy disk may be without an answer.
SOON_SECONDS = 3


@pytest.fixture(name="daemon")
def fixture_daemon(slow, start_daemon):
    """A daemon under its keeper that has the storage that can hang."""
    try:
        yield start_daemon(wrapper=slow.wrapper(), request_timeout=1)
    finally:
        slow.close()


@pytest.fixture(name="held")
def fixture_held(daemon, slow, vm, image):
    """Leases on healthy storage and on the other: a disk, and a lock file."""
    disk = slow.disk("a")
    (slow.real / "k").touch()
    with daemon.client() as client:
        client.acquire(vm, image, disk, leases=[(slow.path, "k")])
    return disk


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGUSR1])
def test_adoption_that_hangs(daemon, held, slow, vm, other_vm, image, workdir, end):
    """The next daemon serves at once; only what concerns the storage that hangs waits."""
    with Prober(workdir, [image, slow.real / "a", slow.real / "k"]) as prober:
        for path in prober.paths:
            prober.guard(path, NOTHING)
        slow.hang()
        start = time.monotonic()
        pid = daemon.daemon_pid
        os.kill(pid, end)
        daemon.wait_next(pid)
        with daemon.client() as client:
            assert len(client.leases()) == 3
            with pytest.raises(Refused) as refusal:
                client.acquire(other_vm, image)
            assert refusal.value.error_class == "Busy"
            prober.guard(image, 0)
            assert client.release(vm, image) == 1
            client.acquire(other_vm, image)
            assert time.monotonic() - start < SOON_SECONDS
            with pytest.raises(Refused) as refusal:
                client.call("release", owner={"pid": vm.pid}, disks=[{"path": str(held)}],
                            timeout=TIMEOUT_MS)
            assert_timed_out(refusal.value, slow.lane)
            prober.guard(slow.real / "a", 0)
            slow.go_on()
            assert_quiet(client, slow.lane)
            wait_until(lambda: len(client.leases()) == 2, "the release to be over")
            prober.assert_nothing()
            prober.guard(slow.real / "k", 0)
            assert client.release(vm, leases=[(slow.path, "k")]) == 1
            client.acquire(other_vm, held, leases=[(slow.path, "k")])
    assert "is lost" not in daemon.log()


def test_crash_while_a_request_hangs(daemon, held, slow, vm, other_vm, image):
    """A daemon whose requests hang can be killed, and the next one has what was held."""
    slow.disk("b")
    slow.hang()
    with daemon.client() as caller:
        caller.send("acquire", owner=other_vm.owner(), disks=[{"path": slow.path / "b"}],
                    timeout=20000)
        daemon.assert_serves(daemon.conf_path, other_vm)
        daemon.crash()
    with daemon.client() as client:
        assert len(client.leases()) == 3
        assert client.release(vm, image) == 1
        slow.go_on()
        assert_quiet(client, slow.lane)
        assert client.release(vm, held, leases=[(slow.path, "k")]) == 2
        client.acquire(other_vm, slow.path / "b")


def test_several_crashes_while_it_hangs(daemon, held, slow, vm, image):
    """Adoptions that never came to an end are no loss for the next daemon."""
    slow.hang()
    for _ in range(5):
        daemon.crash()
        with daemon.client() as client:
            assert len(client.leases()) == 3
    slow.go_on()
    with daemon.client() as client:
        assert client.release(vm, image, held, leases=[(slow.path, "k")]) == 3
    assert not held_locks(image)


def test_owner_ends_while_the_adoption_hangs(daemon, held, slow, vm, other_vm, image):
    """What an owner held elsewhere is free at once, and the rest as soon as it can be."""
    slow.hang()
    daemon.crash()
    vm.kill_without_reaping()
    wait_until(lambda: not held_locks(image), "the healthy disk to be free")
    with daemon.client() as client:
        client.acquire(other_vm, image)
        slow.go_on()
        wait_until(lambda: len(client.leases()) == 1, "the other leases to be released")
        client.acquire(other_vm, held, leases=[(slow.path, "k")])
    assert "is lost" not in daemon.log()


def test_end_while_the_adoption_hangs(daemon, held, slow):
    """A daemon that is told to end does so, though it adopts leases on storage that hangs."""
    assert held
    slow.hang()
    daemon.crash()
    start = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - start < END_SECONDS


def test_lease_request(daemon, held, slow, vm):
    """After the adoption the same owner's request finds the lease that it has."""
    assert held
    daemon.crash()
    with daemon.client() as client:
        before = client.leases()
        again = client.call("acquire", owner=vm.owner(),
                            leases=[as_lease(slow.path, "k")])["leases"]
        assert len(again) == 1 and again[0] in before
        assert native.is_alive(vm.pid)
