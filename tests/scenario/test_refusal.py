# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who is refused learns who holds the disk, where, since when, how, and what to do.

The same facts come as data and as a sentence, over both protocols, from this host and from another.
"""

import fcntl
import os
import re
import uuid as uuids
from pathlib import Path

import pytest
from lock_table import held_locks
from native import Refused, Vm
from virtlockd_wire import Code, Domain, RemoteError

ADVICE = {"exclusive": "shut that VM down first", "shared": "stop all of these first"}


def refusal_of(call, *args, **kwargs):
    """Make a call that must be refused as busy; the error."""
    with pytest.raises(Refused) as refusal:
        call(*args, **kwargs)
    assert refusal.value.error_class == "Busy", refusal.value
    return refusal.value


def assert_sentence(text, subject, vm, host, mode="exclusive"):
    """Complain unless the sentence tells all, once, in one line."""
    assert re.fullmatch(
        rf"(resource busy: )?{re.escape(subject)} is held by VM {vm.name} "
        rf"\(uuid {vm.uuid}, pid {vm.pid}\) on host {host} since "
        rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC in {mode} mode; {ADVICE[mode]}.*", text), text


def test_data(client, vm, other_vm, image):
    """The structured part: what was asked for, and the holder."""
    lease, = client.acquire(vm, image)
    error = refusal_of(client.acquire, other_vm, (image, "shared"))
    holder, = error.data.pop("holders")
    error.data.pop("errno", None)
    assert error.data == {"disk": str(image), "driver": "lockd", "lockspace": "", "key": str(image),
                          "mode": "shared"}
    assert holder == {"disk": str(image), "name": vm.name, "uuid": vm.uuid, "pid": vm.pid,
                      "host": client.greeting["host"], "since": lease["since"],
                      "mode": "exclusive", "source": "table"}


@pytest.mark.parametrize("mode", ["exclusive", "shared"])
def test_sentence(daemon, client, vm, other_vm, image, mode):
    """The sentence, the same over both protocols."""
    client.acquire(vm, (image, mode))
    error = refusal_of(client.acquire, other_vm, image)
    assert_sentence(error.desc, f"disk {image}", vm, daemon.host, mode)
    with daemon.peer() as peer:
        peer.register(other_vm.pid, other_vm.name)
        with pytest.raises(RemoteError) as refusal:
            peer.acquire(str(image))
    assert (refusal.value.code, refusal.value.domain) == (Code.RESOURCE_BUSY, Domain.LOCKSPACE)
    assert refusal.value.message == f"resource busy: {error.desc}"


def test_holder_by_rpc(daemon, client, vm, other_vm, image):
    """The same facts when libvirt's plugin took the lock."""
    with daemon.peer() as peer:
        peer.register(vm.pid, vm.name, uuids.UUID(vm.uuid))
        peer.acquire(str(image))
        error = refusal_of(client.acquire, other_vm, image)
    assert_sentence(error.desc, f"disk {image}", vm, daemon.host)


def test_several_holders(client, start_vm, vm, image):
    """All sharers are in the data, a few in the sentence."""
    sharers = [start_vm(f"vm{number}") for number in range(6)]
    for sharer in sharers:
        client.acquire(sharer, (image, "shared"))
    error = refusal_of(client.acquire, vm, image)
    assert sorted(holder["pid"] for holder in error.data["holders"]) == sorted(
        sharer.pid for sharer in sharers)
    assert "and by 3 more" in error.desc


def test_hostile_names(client, other_vm, image):
    """A name that would paint the terminal is escaped in the sentence."""
    with Vm("\x1b[31mweb\n\u202e1") as vm:
        client.acquire(vm, image)
        error = refusal_of(client.acquire, other_vm, image)
        client.release(vm)
    assert error.data["holders"][0]["name"] == "\x1b[31mweb\n\u202e1"
    assert error.desc.isprintable()
    assert "\\u001b[31mweb\\u000a\\u202e1" in error.desc


def test_oneself(client, vm, image):
    """Who is in his own way is told so, not to shut himself down."""
    client.acquire(vm, (image, "shared"))
    error = refusal_of(client.acquire, vm, image)
    assert "already by this VM itself" in error.desc
    assert "in shared mode" in error.desc
    assert "shut" not in error.desc


def test_unknown_locker(client, vm, image):
    """A lock that some other program has taken: what the kernel tells, and how to find it."""
    with image.open("rb+") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
        error = refusal_of(client.acquire, vm, image)
        holder, = error.data["holders"]
        assert (holder["pid"], holder["source"]) == (os.getpid(), "kernel")
        assert holder["name"] == Path("/proc/self/comm").read_text(encoding="utf-8").strip()
        assert str(os.getpid()) in error.desc
        assert "lslocks" in error.desc
        assert "VM" not in error.desc.split(";")[0]
        assert client.holders(image)[0] == "held"
    client.acquire(vm, image)


# ---- another host --------------------------------------------------------------------------------


@pytest.fixture(name="hosts")
def fixture_hosts(start_daemon, workdir):
    """Two hosts with a directory for lock files in common."""
    return [start_daemon(name, file_lockspace_dir=workdir / "files") for name in ("n1", "n2")]


def test_other_host(hosts, vm, other_vm, image):
    """The holder on another host is told from its record, over both protocols."""
    here, there = hosts
    with here.client() as client, there.client() as other_client, there.peer() as peer:
        lease, = client.acquire(vm, image)
        error = refusal_of(other_client.acquire, other_vm, image)
        assert error.data["holders"] == [
            {"disk": str(image), "name": vm.name, "uuid": vm.uuid, "pid": vm.pid,
             "host": here.host, "since": lease["since"], "mode": "exclusive", "source": "record"}]
        text = error.desc.replace(f" (lease {lease['key']} in lockspace {lease['lockspace']})", "")
        assert_sentence(text, f"disk {image}", vm, here.host)
        peer.register(other_vm.pid, other_vm.name)
        with pytest.raises(RemoteError) as refusal:
            peer.acquire(lease["key"], lease["lockspace"], 2)
        text = refusal.value.message.replace(
            f" (lease {lease['key']} in lockspace {lease['lockspace']})", "")
        assert_sentence(text, f"disk {image}", vm, here.host)


def test_lease_on_other_host(hosts, vm, other_vm, lockspace):
    """The same for a manual lease, whose file is there before and after."""
    here, there = hosts
    with here.client() as client, there.client() as other_client:
        client.acquire(vm, leases=[(lockspace, "k")])
        error = refusal_of(other_client.acquire, other_vm, leases=[(lockspace, "k")])
        assert_sentence(error.desc, f"lease k in lockspace {lockspace}", vm, here.host)
        client.release(vm)
        assert (lockspace / "k").read_bytes().strip(b"\0") == b""
        other_client.acquire(other_vm, leases=[(lockspace, "k")])
        error = refusal_of(client.acquire, vm, leases=[(lockspace, "k")])
        assert error.data["holders"][0]["host"] == there.host


def test_query_from_other_host(hosts, vm, image):
    """Who only asks gets the same answer as who is refused."""
    here, there = hosts
    with here.client() as client, there.client() as other_client:
        assert other_client.holders(image) == ("free", [])
        lease, = client.acquire(vm, image)
        state, (holder,) = other_client.holders(image)
        assert state == "held"
        assert (holder["name"], holder["host"], holder["since"], holder["source"]) == (
            vm.name, here.host, lease["since"], "record")
        answer = other_client.call("query-disk", lease={"lockspace": lease["lockspace"],
                                                        "key": lease["key"]})
        assert answer["holders"] == [holder]
        assert answer["resources"][0]["state"] == "held"


def test_sharers_on_two_hosts(hosts, start_vm, lockspace):
    """Sharers on both hosts are all named to both, and each goes without the others' records."""
    vms = [start_vm(f"vm{number}") for number in range(4)]
    writer = start_vm("writer")
    lease = [(lockspace, "k", "shared")]
    with hosts[0].client() as one, hosts[1].client() as two:
        for number, vm in enumerate(vms):
            (one, two)[number % 2].acquire(vm, leases=lease)
        for gone, vm in enumerate(vms):
            named = {holder["name"] for client in (one, two) for holder in
                     client.call("query-disk", lease={"lockspace": str(lockspace), "key": "k"})[
                         "holders"]}
            assert named == {other.name for other in vms[gone:]}
            refusal_of(one.acquire, writer, leases=[(lockspace, "k")])
            (one, two)[gone % 2].release(vm)
        two.acquire(writer, leases=[(lockspace, "k")])


def test_record_of_a_killed_daemon(hosts, vm, other_vm, lockspace):
    """The record of a killed daemon is not believed, and overwritten by the next holder."""
    here, there = hosts
    with here.client() as client:
        client.acquire(vm, leases=[(lockspace, "k")])
    here.kill()
    assert held_locks(lockspace / "k") == []
    assert b'"name":"web1"' in (lockspace / "k").read_bytes()
    with there.client() as client:
        answer = client.call("query-disk", lease={"lockspace": str(lockspace), "key": "k"})
        assert (answer["state"], answer["holders"]) == ("free", [])
        client.acquire(other_vm, leases=[(lockspace, "k")])
        error = refusal_of(client.acquire, vm, leases=[(lockspace, "k")])
        assert [holder["name"] for holder in error.data["holders"]] == [other_vm.name]
        assert b'"name":"web1"' not in (lockspace / "k").read_bytes()


def test_stale_record_beside_a_foreign_lock(hosts, vm, other_vm, lockspace):
    """What a killed daemon left does not get the blame for a lock of somebody else."""
    here, there = hosts
    with here.client() as client:
        client.acquire(vm, leases=[(lockspace, "k")])
    here.kill()
    with (lockspace / "k").open("rb+") as file, there.client() as client:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
        error = refusal_of(client.acquire, other_vm, leases=[(lockspace, "k")])
        assert [holder["source"] for holder in error.data["holders"]] == ["kernel"]
        assert vm.name not in error.desc


def test_lock_file_left_by_a_killed_daemon(hosts, vm, other_vm, image):
    """An autocreated lock file that was left behind is taken over and removed at the end."""
    here, there = hosts
    with here.client() as client:
        lease, = client.acquire(vm, image)
    here.kill()
    files = image.parent / "files"
    assert (files / lease["key"]).exists()
    with there.client() as client:
        client.acquire(other_vm, image)
        client.release(other_vm)
    assert list(files.iterdir()) == []


@pytest.mark.parametrize("damage", ["garbage", "torn", "digest", "version"])
def test_damaged_record(hosts, vm, other_vm, lockspace, damage):
    """A record that cannot be read does not keep anybody from being refused."""
    here, there = hosts
    with here.client() as client, there.client() as other_client:
        client.acquire(vm, leases=[(lockspace, "k")])
        data = bytearray((lockspace / "k").read_bytes())
        start = data.index(b"HOLDFAST RECORD")
        if damage == "garbage":
            data[start:] = os.urandom(len(data) - start)
        elif damage == "torn":
            data[start + 100:] = bytes(len(data) - start - 100)
        elif damage == "digest":
            data[start + 18:start + 22] = b"zzzz"
        else:
            data[start + 16:start + 17] = b"2"
        with (lockspace / "k").open("rb+") as file:
            file.write(data)
        error = refusal_of(other_client.acquire, other_vm, leases=[(lockspace, "k")])
        assert [holder["source"] for holder in error.data["holders"]] == ["kernel"]
        refusal_of(client.acquire, other_vm, leases=[(lockspace, "k")])
        client.release(vm)
        other_client.acquire(other_vm, leases=[(lockspace, "k")])


# ---- a file that is not ours to write to ---------------------------------------------------------


IMAGES = {
    "qcow2": b"QFI\xfb\0\0\0\3" + bytes(65528),
    "raw": b"\xeb\x63\x90" + bytes(65533),
    "text": b"#!/bin/sh\n",
    "one byte": b"x",
    "zeros": bytes(4096),
    "nearly ours": b"HOLDFAST LOCK FILE 2\n" + bytes(2027),
    "cut off": b"HOLDFAST LOCK FILE 1\n",
}


@pytest.mark.parametrize("kind", IMAGES)
def test_image_in_a_lockspace(start_daemon, vm, other_vm, lockspace, kind):
    """Somebody may call a directory of disk images a lockspace: not a byte in them changes."""
    daemon = start_daemon()
    image = lockspace / "disk.img"
    image.write_bytes(IMAGES[kind])
    before = image.stat()
    with daemon.client() as client, daemon.peer() as peer:
        for mode in ("exclusive", "shared", "readonly"):
            client.acquire(vm, leases=[(lockspace, "disk.img", mode)])
            refusal_of(client.acquire, other_vm, leases=[(lockspace, "disk.img")])
            assert image.read_bytes() == IMAGES[kind]
            client.release(vm)
            assert image.read_bytes() == IMAGES[kind]
        peer.register(vm.pid, vm.name)
        for flags in (0, 1):
            peer.acquire("disk.img", str(lockspace), flags)
            peer.release("disk.img", str(lockspace))
        peer.create_resource("disk.img", str(lockspace))
    assert image.read_bytes() == IMAGES[kind]
    after = image.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (
        before.st_size, before.st_mtime_ns, before.st_ino)


def test_direct_disk_is_never_written(daemon, vm, other_vm, image):
    """A disk that is locked itself is not written to either, even an empty one."""
    image.write_bytes(b"")
    before = image.stat()
    with daemon.client() as client, daemon.peer() as peer:
        client.acquire(vm, image)
        refusal_of(client.acquire, other_vm, image)
        client.release(vm)
        peer.register(vm.pid, vm.name)
        peer.acquire(str(image))
        peer.release(str(image))
    assert image.stat().st_mtime_ns == before.st_mtime_ns
    assert image.stat().st_size == 0
