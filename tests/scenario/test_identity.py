# SPDX-License-Identifier: LGPL-2.1-or-later
"""One file under two names is one thing: whoever has it under one name has it under the other."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from lock_table import held_locks
from native import Refused, in_mounts
from virtlockd_wire import AUTOCREATE, Code, RemoteError


def path_key(path):
    """The name of a path's lock file in file_lockspace_dir."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()


def assert_busy(client, vm, *disks, leases=()):
    """Complain unless that is refused as held by somebody else."""
    with pytest.raises(Refused) as refusal:
        client.acquire(vm, *disks, leases=leases)
    assert refusal.value.error_class == "Busy", refusal.value
    return refusal.value


def assert_one_thing(daemon, vm, other_vm, names):
    """Complain unless whoever has one of the names (arguments of acquire) has all of them."""
    with daemon.client() as client:
        for first in names:
            for second in names:
                client.acquire(vm, *first.get("disks", ()), leases=first.get("leases", ()))
                error = assert_busy(client, other_vm, *second.get("disks", ()),
                                    leases=second.get("leases", ()))
                assert [holder["name"] for holder in error.data["holders"]] == [vm.name]
                assert client.release(vm) == 1


@pytest.fixture(name="directory")
def fixture_directory(workdir):
    """A directory for disks."""
    path = workdir / "d"
    path.mkdir()
    return path


@pytest.fixture(name="disk")
def fixture_disk(directory):
    """A disk image that starts with something."""
    path = directory / "a"
    path.write_bytes(b"QFI\xfb" + bytes(65536))
    return path


@pytest.fixture(name="names")
def fixture_names(disk, directory):
    """Paths of that disk image: itself, hard link, symlinks to it and its directory, spellings."""
    (directory / "hard").hardlink_to(disk)
    (directory / "soft").symlink_to(disk)
    (directory.parent / "other-d").symlink_to(directory)
    (directory / "e").mkdir()
    return [str(disk), f"{directory}/hard", f"{directory}/soft", f"{directory.parent}/other-d/a",
            f"{directory}/./a", f"{directory}//a", f"{directory}/e/../a"]


def test_paths(daemon, vm, other_vm, names):
    """Hard link, symlink and other spellings of a path, in any order."""
    assert_one_thing(daemon, vm, other_vm, [{"disks": [name]} for name in names])


def test_refusal_tells_the_other_name(client, vm, other_vm, names):
    """Who asks for one name learns under which other name the disk is held."""
    client.acquire(vm, names[0])
    error = assert_busy(client, other_vm, names[1])
    assert error.data["disk"] == names[1]
    assert error.data["holders"][0]["disk"] == names[0]
    assert names[0] in error.desc and names[1] in error.desc


def test_releasing_one_name_keeps_the_other(client, vm, other_vm, disk, names):
    """Sharers under two names: what one gives back the other still has, in the kernel as well."""
    client.acquire(vm, (names[0], "shared"))
    client.acquire(other_vm, (names[1], "shared"))
    assert client.release(other_vm, names[1]) == 1
    assert held_locks(disk) == ["READ"]
    assert_busy(client, other_vm, names[1])
    client.release(vm)
    assert held_locks(disk) == []


def test_refused_name_keeps_the_lock(client, vm, other_vm, disk, names):
    """Looking at a held file under another name must not drop its lock, as with POSIX locks."""
    client.acquire(vm, names[0])
    for name in names[1:]:
        assert_busy(client, other_vm, name)
        client.holders(name)
        assert held_locks(disk) == ["WRITE"]


def test_query_by_other_name(client, vm, names):
    """Who asks for the holder gets the same answer for each name."""
    client.acquire(vm, names[0])
    for name in names:
        state, holders = client.holders(name)
        assert state == "held"
        assert [(holder["name"], holder["source"]) for holder in holders] == [(vm.name, "table")]


def test_default_lockspace_against_directory(daemon, vm, other_vm, disk, directory):
    """A direct disk, and the same file as a lease of its directory."""
    assert_one_thing(daemon, vm, other_vm,
                     [{"disks": [disk]}, {"leases": [(directory, "a")]}])
    assert disk.read_bytes() == b"QFI\xfb" + bytes(65536)


def test_default_lockspace_against_directory_by_rpc(daemon, vm, other_vm, disk, directory):
    """The same over virtlockd's protocol, and across both protocols."""
    names = [(str(disk), ""), ("a", str(directory))]
    with daemon.client() as client, daemon.peer() as one, daemon.peer() as two:
        one.register(vm.pid, vm.name)
        two.register(other_vm.pid, other_vm.name)
        for first in names:
            one.acquire(*first)
            for second in names:
                with pytest.raises(RemoteError) as refusal:
                    two.acquire(*second)
                assert refusal.value.code == Code.RESOURCE_BUSY
                assert vm.name in refusal.value.message
            assert_busy(client, other_vm, disk)
            assert_busy(client, other_vm, leases=[(directory, "a")])
            one.release(*first)
            assert held_locks(disk) == []
        for first in ({"disks": (disk,)}, {"leases": [(directory, "a")]}):
            client.acquire(vm, *first.get("disks", ()), leases=first.get("leases", ()))
            for second in names:
                with pytest.raises(RemoteError) as refusal:
                    two.acquire(*second)
                assert refusal.value.code == Code.RESOURCE_BUSY
            assert held_locks(disk) == ["WRITE"]
            client.release(vm)


@pytest.mark.parametrize("second", ["hard", "soft", "dot", "lease"])
def test_two_names_in_one_request(client, vm, disk, directory, names, second):
    """A VM that names one file twice without knowing is refused at once, and told so."""
    asked = {"hard": {"disks": (names[1],)}, "soft": {"disks": (names[2],)},
             "dot": {"disks": (names[4],)}, "lease": {"leases": [(directory, "a")]}}[second]
    with pytest.raises(Refused) as refusal:
        client.acquire(vm, disk, *asked.get("disks", ()), leases=asked.get("leases", ()),
                       timeout=20000)
    assert refusal.value.error_class in ("Busy", "InvalidArgument"), refusal.value
    assert str(disk) in refusal.value.desc
    assert "lslocks" not in refusal.value.desc
    assert "somebody" not in refusal.value.desc
    assert client.leases() == []
    assert held_locks(disk) == []


def test_two_shared_names_in_one_request(client, vm, disk, names):
    """Shared, that is no mistake: both are held, the file is locked until both are given back."""
    client.acquire(vm, (names[0], "shared"), (names[1], "shared"))
    client.release(vm, names[0])
    assert held_locks(disk) == ["READ"]
    client.release(vm, names[1])
    assert held_locks(disk) == []


# ---- lock files named by the path's hash ---------------------------------------------------------


@pytest.fixture(name="files")
def fixture_files(workdir):
    """The directory for lock files, which the daemon makes."""
    return workdir / "files"


def test_lock_file_of_a_path(start_daemon, vm, disk, files):
    """The lock file has stock's name, is there while the disk is held, and tells the disk."""
    daemon = start_daemon(file_lockspace_dir=files)
    with daemon.client() as client:
        lease, = client.acquire(vm, disk)
        assert (lease["lockspace"], lease["key"]) == (str(files), path_key(disk))
        assert [path.name for path in files.iterdir()] == [path_key(disk)]
        assert held_locks(files / path_key(disk)) == ["WRITE"]
        assert (files / path_key(disk)).stat().st_mode & 0o7777 == 0o600
        assert held_locks(disk) == []
        client.release(vm)
        assert list(files.iterdir()) == []


def test_two_names_on_one_host(start_daemon, vm, other_vm, names, files):
    """On one host all names of a disk exclude each other, though their hashes differ."""
    daemon = start_daemon(file_lockspace_dir=files)
    assert_one_thing(daemon, vm, other_vm, [{"disks": [name]} for name in names])


def test_two_names_on_two_hosts(start_daemon, vm, other_vm, names, files):
    """Hosts that share the directory and spell the path differently exclude each other.

    But for hard links, which no host can tell from the path.
    """
    here = start_daemon("n1", file_lockspace_dir=files)
    there = start_daemon("n2", file_lockspace_dir=files)
    spellings = [name for name in names if not name.endswith("/hard")]
    with here.client() as client, there.client() as other_client:
        for first in spellings:
            client.acquire(vm, first)
            for second in spellings:
                error = assert_busy(other_client, other_vm, second)
                holder, = error.data["holders"]
                assert (holder["name"], holder["host"], holder["source"]) == (
                    vm.name, here.host, "record")
            client.release(vm)
        assert list(files.iterdir()) == []


def test_hash_and_lock_by_rpc(start_daemon, vm, other_vm, disk, files):
    """What libvirt's plugin locks by the hash is what the path means over the native protocol."""
    daemon = start_daemon(file_lockspace_dir=files)
    with daemon.client() as client, daemon.peer() as peer:
        peer.create_lockspace(str(files))
        peer.register(other_vm.pid, other_vm.name)
        peer.acquire(path_key(disk), str(files), AUTOCREATE)
        error = assert_busy(client, vm, disk)
        assert error.data["holders"][0]["name"] == other_vm.name
        peer.release(path_key(disk), str(files))
        client.acquire(vm, disk)
        with pytest.raises(RemoteError) as refusal:
            peer.acquire(path_key(disk), str(files), AUTOCREATE)
        assert refusal.value.code == Code.RESOURCE_BUSY
        assert str(disk) in refusal.value.message


# ---- block devices -------------------------------------------------------------------------------


@pytest.fixture(name="new_loop")
def fixture_new_loop(workdir):
    """Makes loop devices: new_loop() gives the path of one."""
    if not os.access("/dev/loop-control", os.R_OK | os.W_OK) or not shutil.which("losetup"):
        pytest.skip("no /dev/loop-control or no losetup")
    made = []

    def new_loop():
        image = workdir / f"loop{len(made)}.img"
        with image.open("xb") as file:
            file.truncate(1024 * 1024)
        found = subprocess.run(["losetup", "--find", "--show", image], check=True,
                               capture_output=True, text=True)
        made.append(found.stdout.strip())
        return made[-1]
    try:
        yield new_loop
    finally:
        for device in made:
            subprocess.run(["losetup", "--detach", device], check=True)


@pytest.fixture(name="device")
def fixture_device(new_loop):
    """A block device."""
    return new_loop()


def test_block_device(client, vm, device):
    """A block device is locked itself."""
    lease, = client.acquire(vm, device)
    assert held_locks(device) == ["WRITE"]
    assert lease["claims"] == ["block:7:" + device.removeprefix("/dev/loop")]
    client.release(vm)
    assert held_locks(device) == []


def test_block_device_under_two_paths(start_daemon, vm, other_vm, device, directory):
    """A device, a symlink as in /dev/disk/by-id, and another node of the same device."""
    daemon = start_daemon(wrapper=in_mounts('mount -t tmpfs -o dev nodes "$1"', directory))
    by_id, node = directory / "scsi-3600", directory / "node"
    daemon.path(by_id).symlink_to(device)
    os.mknod(daemon.path(node), os.stat(device).st_mode, os.stat(device).st_rdev)
    assert_one_thing(daemon, vm, other_vm,
                     [{"disks": [path]} for path in (device, str(by_id), str(node))])


def test_block_devices_are_told_apart(client, vm, other_vm, new_loop):
    """Another device is another disk."""
    client.acquire(vm, new_loop())
    client.acquire(other_vm, new_loop())


def test_two_block_devices_in_one_request(client, vm, other_vm, new_loop, disk):
    """Several devices and a file in one set, again and again."""
    devices = [new_loop() for _ in range(3)]
    for _ in range(20):
        assert len(client.acquire(vm, disk, *devices)) == 4
        assert_busy(client, other_vm, *devices, disk)
        assert client.release(vm) == 4


def test_block_device_and_image_file(client, vm, other_vm, device):
    """The file behind a loop device is another thing: a lock of it is not the device's."""
    backing = Path(f"/sys/block/{Path(device).name}/loop/backing_file")
    client.acquire(vm, device)
    client.acquire(other_vm, backing.read_text(encoding="utf-8").strip())
