# SPDX-License-Identifier: LGPL-2.1-or-later
"""Leases outlive the daemon: its keeper has their descriptors, the ledger has their facts."""

import os
import signal
import subprocess
import time
import uuid as uuids
import zlib

import lock_rig
import native
import pytest
from lock_table import held_locks
from native import Refused, is_alive
from prober import NOTHING, NOTHING_EXCLUSIVE, Prober
# pylint: disable-next=unused-import
from vault_rig import (CRASH, Guest, facts, fixture_copied, fixture_daemon, fixture_start_daemon,
                       ledger, replace, stored)
from virtlockd_wire import AUTOCREATE, SHARED, Code, RemoteError
from waiting import wait_until

HOLDFAST = lock_rig.build_dir() / "holdfast"


@pytest.fixture(name="hold")
def fixture_hold(daemon, start_vm, new_image, lockspace):
    """Takes leases of every kind: hold() gives files and what nobody may get of them."""
    def hold():
        one, two, three = (start_vm(name) for name in ("one", "two", "three"))
        own, both, rpc, twice = map(new_image, ("own", "both", "rpc", "twice"))
        with daemon.client() as client:
            client.acquire(one, own, (both, "shared"), leases=[(lockspace, "k")])
            client.acquire(two, (both, "shared"))
        with daemon.peer() as peer:
            peer.register(three.pid, three.name, uuids.UUID(three.uuid))
            peer.create_lockspace(str(lockspace))
            peer.acquire(str(rpc))
            peer.acquire("made", str(lockspace), AUTOCREATE)
            peer.acquire("joint", str(lockspace), AUTOCREATE | SHARED)
            peer.acquire(str(twice), flags=SHARED)
            peer.acquire(str(twice), flags=SHARED)
        return one, two, three, {
            own: NOTHING, both: NOTHING_EXCLUSIVE, rpc: NOTHING, twice: NOTHING_EXCLUSIVE,
            lockspace / "k": NOTHING, lockspace / "made": NOTHING,
            lockspace / "joint": NOTHING_EXCLUSIVE}
    return hold


@CRASH
def test_next_daemon_has_all(daemon, hold, workdir, start_vm, lockspace, end):
    """After one end of the daemon and another, the next one has every lease, and gives it back."""
    one, two, three, files = hold()
    with daemon.client() as client:
        before = client.leases()
    assert len(before) == 8
    kept = stored(daemon)
    with Prober(workdir, files) as prober:
        for path, level in files.items():
            prober.guard(path, level)
        for _ in range(3):
            end(daemon)
            with daemon.client() as client:
                assert facts(client.leases()) == facts(before)
            prober.wait_round()
        prober.assert_nothing(at_least=10)
    assert all(is_alive(vm.pid) for vm in (one, two, three))
    assert stored(daemon) == kept
    own, both, rpc, twice = list(files)[:4]
    other = start_vm("other")
    with daemon.client() as client, daemon.peer() as peer:
        for disk, holder in ((own, one), (rpc, three)):
            with pytest.raises(Refused) as refusal:
                client.acquire(other, disk)
            [told] = refusal.value.data["holders"]
            assert (told["pid"], told["name"], told["uuid"]) == (
                holder.pid, holder.name, holder.uuid)
        peer.register(three.pid, three.name, uuids.UUID(three.uuid))
        peer.create_lockspace(str(lockspace))
        peer.release("made", str(lockspace))
        peer.release("joint", str(lockspace))
        peer.release(str(rpc))
        peer.release(str(twice))
        assert held_locks(twice) == ["READ"], "it was acquired twice and released once"
        peer.release(str(twice))
        assert os.listdir(lockspace) == ["k"], "what was made for a lock goes with it"
        assert client.release(one) == 3
        assert client.release(two, both) == 1
        assert client.leases() == []
    assert not any(held_locks(path) for path in files if path.exists())
    assert stored(daemon) == 2, "the sockets only"


@CRASH
def test_counted_lock_after_the_end(daemon, vm, image, end):
    """A shareable disk that was acquired twice is free after two releases, whoever counts."""
    def peer_of():
        peer = daemon.peer()
        peer.register(vm.pid, vm.name, uuids.UUID(vm.uuid))
        return peer
    with peer_of() as peer:
        peer.acquire(str(image), flags=SHARED)
    end(daemon)
    with peer_of() as peer:
        peer.acquire(str(image), flags=SHARED)
    end(daemon)
    with peer_of() as peer:
        peer.release(str(image))
    assert held_locks(image) == ["READ"]
    end(daemon)
    with peer_of() as peer:
        peer.release(str(image))
    assert held_locks(image) == []


def test_lockspace_needs_no_new_introduction(daemon, vm, lockspace):
    """libvirt names a lockspace once, when it starts: the next daemon knows it all the same."""
    with daemon.peer() as peer:
        peer.register(vm.pid, vm.name, uuids.UUID(vm.uuid))
        peer.create_lockspace(str(lockspace))
        peer.acquire("made", str(lockspace), AUTOCREATE)
    daemon.crash()
    with daemon.peer() as peer:
        peer.register(vm.pid, vm.name, uuids.UUID(vm.uuid))
        peer.acquire("more", str(lockspace), AUTOCREATE)
        peer.release("made", str(lockspace))
        peer.release("more", str(lockspace))
    assert os.listdir(lockspace) == ["k"]
    daemon.crash()
    with daemon.peer() as peer:
        peer.register(vm.pid, vm.name, uuids.UUID(vm.uuid))
        peer.acquire("made", str(lockspace), AUTOCREATE)
        peer.release("made", str(lockspace))


def test_guest_is_left_alone(daemon, start_guest, image):
    """A guest whose connection the dying daemon has closed is not ended, but watched."""
    guest = start_guest(daemon, "web1", [(str(image), "", 0)])
    daemon.crash()
    time.sleep(0.5)  # longer than a holder is given that closes its connection
    assert is_alive(guest.pid)
    with daemon.client() as client:
        assert client.leases()[0]["owner"]["state"] == "running"
        guest.end()
        wait_until(lambda: not client.leases(), "the lease to be released")
    assert held_locks(image) == []


@pytest.mark.parametrize("reaped", [True, False], ids=["reaped", "zombie"])
def test_owner_ends_meanwhile(daemon, vm, other_vm, new_image, lockspace, reaped):
    """What an owner held who ended while no daemon was there is released by the next one."""
    image, theirs = new_image("a"), new_image("b")
    with daemon.client() as client:
        client.acquire(vm, image, leases=[(lockspace, "k")])
        client.acquire(other_vm, theirs)
    with daemon.peer() as peer:
        peer.register(vm.pid, vm.name, uuids.UUID(vm.uuid))
        peer.create_lockspace(str(lockspace))
        peer.acquire("made", str(lockspace), AUTOCREATE)
    daemon.kill_frozen()
    if reaped:
        vm.end()
    else:
        vm.kill_without_reaping()
    assert held_locks(image) == ["WRITE"]
    daemon.thaw()
    with daemon.client() as client:
        wait_until(lambda: len(client.leases()) == 1, "the leases to be released")
        assert client.leases()[0]["owner"]["pid"] == other_vm.pid
        assert held_locks(image) == held_locks(lockspace / "k") == []
        assert held_locks(theirs) == ["WRITE"]
        assert os.listdir(lockspace) == ["k"]
        client.acquire(other_vm, image)


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_lock_file_goes_meanwhile(daemon, vm, image, lockspace, how):
    """A lock file that somebody removed or replaced is no lock any more: that is an alarm."""
    with daemon.client() as client:
        client.acquire(vm, image, leases=[(lockspace, "k")])
    daemon.kill_frozen()
    (lockspace / "k").unlink()
    if how == "replaced":
        (lockspace / "k").touch()
    daemon.thaw()
    with daemon.client() as client:
        wait_until(lambda: len(client.leases()) == 1, "the lost lease to be dropped")
        assert client.leases()[0]["disk"] == str(image)
        assert vm.name in daemon.log() and str(vm.pid) in daemon.log()
        assert "is lost" in daemon.log()
        assert f"lock file 'k' in '{lockspace}' was removed or replaced" in daemon.log()
        assert is_alive(vm.pid)
        if how == "replaced":
            assert held_locks(lockspace / "k") == []
            client.acquire(vm, leases=[(lockspace, "k")])


def damage_torn(path):
    """The last line was only half written."""
    path.write_bytes(path.read_bytes()[:-20])


def damage_garbled(path):
    """A line about the last lease has other bytes."""
    data = bytearray(path.read_bytes())
    data[-10] ^= 0x55
    path.write_bytes(data)


def damage_deleted(path):
    """It is gone."""
    path.unlink()


def damage_empty(path):
    """It is empty."""
    path.write_bytes(b"")


def damage_noise(path):
    """It is something else."""
    path.write_bytes(os.urandom(4096))


def damage_version(path):
    """It is another version's, which this one cannot read."""
    path.write_bytes(path.read_bytes().replace(b"LEDGER 1", b"LEDGER 9", 1))


@pytest.mark.parametrize("damage, left", [
    (damage_torn, 1), (damage_garbled, 1), (damage_deleted, 0), (damage_empty, 0),
    (damage_noise, 0), (damage_version, 0)], ids=lambda value: getattr(value, "__name__", ""))
def test_ledger_is_damaged(daemon, start_vm, new_image, damage, left):
    """Of what cannot be read the locks are let go, and the log tells; the rest is held."""
    one, two = start_vm("one"), start_vm("two")
    disks = new_image("a"), new_image("b")
    with daemon.client() as client:
        client.acquire(one, disks[0])
        client.acquire(two, disks[1])
    daemon.kill_frozen()
    damage(ledger(daemon))
    daemon.thaw()
    with daemon.client() as client:
        assert [lease["disk"] for lease in client.leases()] == [str(disks[0])][:left]
        # the supervisor drops its copies when it has read that it should
        wait_until(lambda: [bool(held_locks(disk)) for disk in disks] == [bool(left), False],
                   "the supervisor to drop what nobody has")
        assert stored(daemon) == 2 + 2 * left
        daemon.assert_serves(disks[1], one)
        client.acquire(two, disks[1])
    assert "descriptors without a lease were dropped" in daemon.log()
    if damage in (damage_garbled, damage_noise, damage_version):
        assert "ledger" in daemon.log()
    daemon.crash()
    with daemon.client() as client:
        assert len(client.leases()) == left + 1


def test_ledger_with_later_lines(daemon, vm, image):
    """Lines and fields of a later version are skipped."""
    with daemon.client() as client:
        client.acquire(vm, image)
        before = client.leases()
    daemon.kill_frozen()
    with ledger(daemon).open("ab") as file:
        file.write(crc_line("weather\tid=7\tsun=1") + crc_line("free\tid=ffff\twhy=none"))
    daemon.thaw()
    with daemon.client() as client:
        assert facts(client.leases()) == facts(before)
    assert "damaged" not in daemon.log()


def crc_line(text):
    """A line of the ledger."""
    return f"{zlib.crc32(text.encode()):08x} {text}\n".encode()


def test_ledger_names_what_is_not_stored(daemon, start_vm, new_image):
    """A lease whose descriptor nobody has is reported as lost."""
    vm, image, other = start_vm("web1"), new_image("a"), new_image("b")
    with daemon.client() as client:
        client.acquire(vm, image)
    line = next(line for line in ledger(daemon).read_text("utf-8").splitlines()
                if "lease" in line.split("\t")[0])
    text = line[9:].replace(str(image), str(other))
    fields = [field if not field.startswith(("id=", "fds=")) else field.split("=")[0] + "=zz"
              for field in text.split("\t")]
    daemon.kill_frozen()
    with ledger(daemon).open("ab") as file:
        file.write(crc_line("\t".join(fields)))
    daemon.thaw()
    with daemon.client() as client:
        assert [lease["disk"] for lease in client.leases()] == [str(image)]
        assert "the lock is lost" in daemon.log() and str(other) in daemon.log()
        client.acquire(vm, other)


def test_stranger_takes_a_lock_that_was_lost(daemon, vm, image):
    """The kernel does not lose locks; what nobody can be told of is not held for ever either."""
    with daemon.client() as client:
        client.acquire(vm, image)
    daemon.kill_frozen()
    ledger(daemon).unlink()
    assert held_locks(image) == ["WRITE"], "as long as the keeper lives"
    daemon.thaw()
    with daemon.client():
        assert held_locks(image) == []


@CRASH
def test_upgrade(start_daemon, copied, vm, image, end):
    """What is at the program's path then is what runs next, with all leases."""
    daemon = start_daemon(binary=copied)
    with daemon.client() as client:
        client.acquire(vm, image)
    real = copied.with_name("real")
    copied.rename(real)
    replace(copied, f'#!/bin/sh\necho "the next version" >&2\nexec {real} "$@"\n')
    end(daemon)
    assert "the next version" in daemon.log()
    with daemon.client() as client:
        assert [lease["disk"] for lease in client.leases()] == [str(image)]
        client.release(vm)


def test_broken_replacement(start_daemon, copied, vm, image, workdir):
    """A new program that ends at once is not started without pause, and loses nothing."""
    daemon = start_daemon(binary=copied)
    with daemon.client() as client:
        client.acquire(vm, image)
        before = client.leases()
    real, starts = copied.with_name("real"), workdir / "starts"
    copied.rename(real)
    replace(copied, f"#!/bin/sh\necho x >>{starts}\nexit 9\n")
    with Prober(workdir, [image]) as prober:
        prober.guard(image, NOTHING)
        cpu, begin = daemon.cpu_seconds(), time.monotonic()
        os.kill(daemon.daemon_pid, signal.SIGKILL)
        wait_until(lambda: starts.exists() and len(starts.read_text("ascii").split()) >= 4,
                   "four tries")
        assert time.monotonic() - begin >= 0.7, "at 0.0, 0.1, 0.3, 0.7 and 1.5 s"
        assert daemon.cpu_seconds() - cpu < 0.2
        real.rename(copied)
        with daemon.client() as client:
            assert facts(client.leases()) == facts(before)
        prober.assert_nothing(at_least=10)
    assert daemon.log().count("is started again") == len(starts.read_text("ascii").split()) + 1


# ---- clients ----


@pytest.mark.parametrize("protocol", ["native", "virtlockd"])
def test_clients_that_come_meanwhile(daemon, vm, image, protocol):
    """Who connects while no daemon is there is answered by the next one."""
    daemon.kill_frozen()
    socks = [daemon.raw(protocol) for _ in range(20)]
    daemon.thaw()
    clients = [native.Client(sock) if protocol == "native" else native.virtlockd_wire.Client(sock)
               for sock in socks]
    for client in clients:
        with client:
            if protocol == "native":
                client.acquire(vm, image)
                client.release(vm)
            else:
                client.register(vm.pid, vm.name)
                client.acquire(str(image))
                client.release(str(image))


@pytest.mark.parametrize("protocol", ["native", "virtlockd"])
def test_connections_end_with_the_daemon(daemon, vm, protocol):
    """A client of the dead daemon does not wait for ever: its connection ends."""
    with daemon.raw(protocol) as sock:
        # who was not accepted yet would be the next daemon's client
        if protocol == "native":
            sock.recv(4096)
        else:
            peer = native.virtlockd_wire.Client(sock)
            peer.register(vm.pid, vm.name)
        daemon.kill_daemon()
        assert sock.recv(1) == b""
    assert daemon.daemon_pid


def test_rpc_of_an_unknown_lease(daemon, vm, image):
    """Release of what was never held is refused by the next daemon as by the first."""
    daemon.crash()
    with daemon.peer() as peer:
        peer.register(vm.pid, vm.name)
        with pytest.raises(RemoteError) as error:
            peer.release(str(image))
        assert error.value.code == Code.RESOURCE_BUSY


@CRASH
def test_children_left_running(daemon, workdir, image, end):
    """holdfast run --with-children: a child that runs on keeps the lock through a crash."""
    pid_file = workdir / "child"
    result = subprocess.run(
        [HOLDFAST, "--socket", daemon.socket, "run", "--with-children", "-d", image, "--", "sh",
         "-c", f"sleep infinity >/dev/null 2>&1 & echo $! >{pid_file}"], check=False, timeout=30)
    assert result.returncode == 0
    child = int(pid_file.read_text("ascii"))
    try:
        assert held_locks(image) == ["WRITE"]
        end(daemon)
        with daemon.client() as client:
            assert [lease["disk"] for lease in client.leases()] == [str(image)]
        assert held_locks(image) == ["WRITE"]
    finally:
        os.kill(child, signal.SIGKILL)
    wait_until(lambda: not held_locks(image), "the lock to be released")


@pytest.fixture(name="start_guest")
def fixture_start_guest():
    """Starts guests: start_guest(daemon, name, resources)."""
    running = []

    def start_guest(*arguments):
        running.append(Guest(*arguments))
        return running[-1]
    try:
        yield start_guest
    finally:
        for guest in running:
            guest.end()
