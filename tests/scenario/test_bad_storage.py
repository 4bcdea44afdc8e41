# SPDX-License-Identifier: LGPL-2.1-or-later
"""Storage that cannot be locked: a clear error each time, no lock, and nothing left behind."""

import errno
import hashlib
import os
import socket
import subprocess
import sys

import pytest
from lock_table import file_system_locks, held_locks
from native import Refused, in_mounts
from virtlockd_wire import AUTOCREATE, SHARED, Code, Domain, RemoteError


def refused(error_class, number, path, call, *args, **kwargs):
    """Make a call that must fail so, with a sentence that names the path and has some advice."""
    with pytest.raises(Refused) as refusal:
        call(*args, **kwargs)
    error = refusal.value
    assert (error.error_class, error.data.get("errno")) == (error_class, number), error
    assert str(path) in error.desc
    advice = error.desc.rpartition("; ")[2] if "; " in error.desc else error.desc.partition(": ")[2]
    assert advice, f"no advice: {error.desc}"
    return error


def refused_rpc(number, path, call, *args):
    """The same over virtlockd's protocol."""
    with pytest.raises(RemoteError) as refusal:
        call(*args)
    error = refusal.value
    assert (error.code, error.domain, error.int1) == (Code.SYSTEM_ERROR, Domain.LOCKSPACE, number)
    assert str(path) in error.message


def listing(directory):
    """All paths below a directory but the daemons' own."""
    return sorted(path for path in directory.rglob("*")
                  if not path.relative_to(directory).parts[0] in ("n1", "files"))


# ---- what is no disk -----------------------------------------------------------------------------


def make_missing(_path):
    """Nothing."""


def make_directory(path):
    """A directory."""
    path.mkdir()


def make_fifo(path):
    """A FIFO, which would keep an opener waiting."""
    os.mkfifo(path)


def make_socket(path):
    """A socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def make_null(path):
    """A character device."""
    path.symlink_to("/dev/null")


def make_dangling(path):
    """A link to nothing."""
    path.symlink_to(path.parent / "none")


def make_loop(path):
    """A link to itself."""
    path.symlink_to(path)


def by_name(cases):
    """Parameters of a test: who makes something, and the errno that it leads to."""
    return [pytest.param(make, number, id=make.__name__.removeprefix("make_"))
            for make, number in cases.items()]


NO_DISKS = {
    make_missing: errno.ENOENT,
    make_directory: errno.EISDIR,
    make_fifo: errno.EINVAL,
    make_socket: errno.EINVAL,
    make_null: errno.EINVAL,
    make_dangling: errno.ENOENT,
    make_loop: errno.ELOOP,
}


@pytest.mark.parametrize("hashed", [False, True], ids=["direct", "hashed"])
@pytest.mark.parametrize("make,number", by_name(NO_DISKS))
def test_no_disk(start_daemon, vm, workdir, make, number, hashed):
    """What is no disk, named as a disk."""
    settings = {"file_lockspace_dir": workdir / "files"} if hashed else {}
    daemon = start_daemon(**settings)
    path = workdir / "disk"
    make(path)
    before = listing(workdir)
    with daemon.client() as client:
        for mode in ("exclusive", "shared", "readonly"):
            error = refused("BadResource", number, path, client.acquire, vm, (path, mode))
            assert error.data["disk"] == str(path)
        refused("BadResource", number, path, client.call, "query-disk", disk=str(path))
        assert client.leases() == []
    if not hashed:
        with daemon.peer() as peer:
            peer.register(vm.pid, vm.name)
            for flags in (0, SHARED, AUTOCREATE):
                refused_rpc(number, path, peer.acquire, str(path), "", flags)
    assert listing(workdir) == before
    assert not hashed or list((workdir / "files").glob("*")) == []


@pytest.mark.parametrize("name,number", [
    ("image/x", errno.ENOTDIR), ("image/", errno.ENOTDIR), ("x" * 300, errno.ENAMETOOLONG),
    ("none/x", errno.ENOENT)], ids=["below a file", "with a slash", "too long", "no directory"])
def test_no_such_path(client, vm, workdir, name, number):
    """Paths that lead nowhere."""
    (workdir / "image").write_bytes(bytes(4096))
    path = f"{workdir}/{name}"
    error = refused("BadResource", number, path, client.acquire, vm, path)
    assert "kernel's log" not in error.desc


def test_long_disk_path(client, vm, workdir):
    """A path that is too long for any file system."""
    path = f"{workdir}{'/x' * 3000}"
    refused("BadResource", errno.ENAMETOOLONG, path, client.acquire, vm, path)


# ---- what is no lock file ------------------------------------------------------------------------


NO_LOCK_FILES = {
    make_directory: errno.EISDIR,
    make_fifo: errno.EINVAL,
    make_socket: errno.ENXIO,  # as open(2) has it
    make_null: errno.ELOOP,
    make_dangling: errno.ELOOP,
    make_loop: errno.ELOOP,
}


def everything(directory):
    """Inode, mode and size of all in a directory."""
    return {path: (path.lstat().st_ino, path.lstat().st_mode, path.lstat().st_size)
            for path in directory.iterdir()}


@pytest.mark.parametrize("make,number", by_name(NO_LOCK_FILES))
def test_no_lock_file(daemon, vm, workdir, make, number):
    """Something else in the place of a manual lease's file."""
    space = workdir / "space"
    space.mkdir()
    path = space / "k"
    make(path)
    before = everything(space)
    with daemon.client() as client, daemon.peer() as peer:
        peer.register(vm.pid, vm.name)
        refused("BadResource", number, path, client.acquire, vm, leases=[(space, "k")])
        for call, flags in ((peer.acquire, 0), (peer.acquire, AUTOCREATE), (peer.acquire, SHARED),
                            (peer.create_resource, 0), (peer.delete_resource, 0)):
            refused_rpc(number, path, call, "k", str(space), flags)
        assert client.leases() == []
    assert everything(space) == before


@pytest.mark.parametrize("make,number", by_name(NO_LOCK_FILES))
def test_no_lock_file_of_a_path(start_daemon, vm, image, workdir, make, number):
    """The same in the place of a disk's lock file."""
    files = workdir / "files"
    files.mkdir()
    path = files / hashlib.sha256(os.fsencode(image)).hexdigest()
    make(path)
    before = everything(files)
    daemon = start_daemon(file_lockspace_dir=files)
    with daemon.client() as client:
        error = refused("BadResource", number, path, client.acquire, vm, image)
        assert error.data["disk"] == str(image)
        assert client.leases() == []
    assert everything(files) == before
    assert held_locks(image) == []


def test_lockspace_directory_is_made(start_daemon, vm, other_vm, image, new_image, workdir):
    """The directory for lock files is made when needed, for root only, but not its parents."""
    daemon = start_daemon("n1", file_lockspace_dir=workdir / "files")
    with daemon.client() as client:
        client.acquire(vm, image)
    assert (workdir / "files").stat().st_mode & 0o7777 == 0o700
    other_image = new_image("other")
    daemon = start_daemon("n2", file_lockspace_dir=workdir / "none" / "files")
    with daemon.client() as client:
        client.acquire(other_vm, other_image)
    assert (workdir / "none" / "files").stat().st_mode & 0o7777 == 0o700


def test_lock_file_removed_while_held(start_daemon, vm, other_vm, image, workdir):
    """Somebody removes a lock file and makes another one: that is not ours to remove."""
    daemon = start_daemon(file_lockspace_dir=workdir / "files")
    with daemon.client() as client:
        lease, = client.acquire(vm, image)
        path = workdir / "files" / lease["key"]
        path.unlink()
        path.write_bytes(b"somebody else's")
        client.release(vm)
        assert path.read_bytes() == b"somebody else's"
        client.acquire(other_vm, image)


def test_disk_removed_while_held(client, vm, image):
    """A disk image that is removed while it is held is released without trouble."""
    client.acquire(vm, image)
    image.unlink()
    assert client.release(vm) == 1
    refused("BadResource", errno.ENOENT, image, client.acquire, vm, image)


# ---- file systems that are read-only or full -----------------------------------------------------


@pytest.fixture(name="mounted")
def fixture_mounted(start_daemon, workdir):
    """Starts a daemon that alone sees a small file system: mounted(script, **settings).

    "$1" is where it is mounted; the daemon, and the directory as the daemon names it.
    """
    if os.geteuid():
        pytest.skip("not root")
    directory = workdir / "small"
    directory.mkdir()

    def mounted(script, **settings):
        script = 'mount -t tmpfs -o size=64k,mode=755 small "$1"\n' + script
        return start_daemon(wrapper=in_mounts(script, directory), **settings), directory
    return mounted


READ_ONLY = 'truncate -s 4k "$1/disk"; touch "$1/k"; mount -o remount,ro "$1"'


def test_read_only_disk(mounted, vm):
    """A disk on a read-only file system may be read, and shared; a writer is told why not."""
    daemon, directory = mounted(READ_ONLY)
    disk = directory / "disk"
    with daemon.client() as client, daemon.peer() as peer:
        error = refused("StorageError", errno.EROFS, disk, client.acquire, vm, disk)
        assert "readonly" in error.desc
        peer.register(vm.pid, vm.name)
        refused_rpc(errno.EROFS, disk, peer.acquire, str(disk))
        assert file_system_locks(daemon.path(directory)) == []
        for mode in ("readonly", "shared"):
            client.acquire(vm, (disk, mode))
            assert file_system_locks(daemon.path(directory)) == ["READ"]
            client.release(vm)


def test_read_only_lockspace(mounted, vm, image, workdir):
    """Lock files on a read-only file system cannot be made or written to."""
    daemon, directory = mounted(READ_ONLY, file_lockspace_dir=workdir / "small")
    with daemon.client() as client, daemon.peer() as peer:
        error = refused("StorageError", errno.EROFS, directory, client.acquire, vm, image)
        assert error.data["disk"] == str(image)
        refused("StorageError", errno.EROFS, directory / "k", client.acquire, vm,
                leases=[(directory, "k")])
        peer.register(vm.pid, vm.name)
        refused_rpc(errno.EROFS, directory / "new", peer.acquire, "new", str(directory), AUTOCREATE)
        refused_rpc(errno.EROFS, directory / "new", peer.create_resource, "new", str(directory))
        refused_rpc(errno.EROFS, directory / "k", peer.delete_resource, "k", str(directory))
        assert file_system_locks(daemon.path(directory)) == []
        assert sorted(os.listdir(daemon.path(directory))) == ["disk", "k"]


def test_read_only_parent_of_a_lockspace(mounted, vm, image, workdir):
    """The directory for lock files cannot be made."""
    daemon, directory = mounted(READ_ONLY, file_lockspace_dir=workdir / "small/files")
    with daemon.client() as client:
        refused("StorageError", errno.EROFS, directory / "files", client.acquire, vm, image)


FULL = 'truncate -s 4k "$1/disk"; touch "$1/k"; dd if=/dev/zero of="$1/fill" 2>/dev/null || true'


def test_full_file_system(mounted, vm, image, workdir):
    """No room for the record of a holder: no lock, no file left, and a sentence that says so."""
    daemon, directory = mounted(FULL, file_lockspace_dir=workdir / "small")
    inside = daemon.path(directory)
    with daemon.client() as client, daemon.peer() as peer:
        for mode in ("exclusive", "shared"):
            error = refused("StorageError", errno.ENOSPC, directory, client.acquire, vm,
                            (image, mode))
            assert error.data["disk"] == str(image)
            assert "make room" in error.desc
            refused("StorageError", errno.ENOSPC, directory / "k", client.acquire, vm,
                    leases=[(directory, "k", mode)])
        peer.register(vm.pid, vm.name)
        refused_rpc(errno.ENOSPC, directory / "new", peer.acquire, "new", str(directory),
                    AUTOCREATE)
        assert client.leases() == []
        assert file_system_locks(inside) == []
        assert sorted(os.listdir(inside)) == ["disk", "fill", "k"]
        assert (inside / "k").stat().st_size == 0
        (inside / "fill").unlink()
        client.acquire(vm, image, leases=[(directory, "k")])
        assert client.release(vm) == 2


def test_full_of_files(mounted, vm, image, workdir):
    """No room for another file."""
    daemon, directory = mounted('mount -o remount,nr_inodes=3 "$1"; touch "$1/x" "$1/y"',
                                file_lockspace_dir=workdir / "small")
    with daemon.client() as client:
        error = refused("StorageError", errno.ENOSPC, directory, client.acquire, vm, image)
        assert "make room" in error.desc
        assert sorted(os.listdir(daemon.path(directory))) == ["x", "y"]


def test_disk_on_a_full_file_system(mounted, vm):
    """To lock a disk itself takes no room."""
    daemon, directory = mounted(FULL)
    with daemon.client() as client:
        client.acquire(vm, directory / "disk")
        assert file_system_locks(daemon.path(directory)) == ["WRITE"]


def test_whole_set_with_bad_storage(mounted, vm, image):
    """One disk of a set on bad storage: nothing is taken on the good one."""
    daemon, directory = mounted(READ_ONLY)
    with daemon.client() as client:
        for disks in ((image, directory / "disk"), (directory / "disk", image)):
            refused("StorageError", errno.EROFS, directory / "disk", client.acquire, vm, *disks)
            assert held_locks(image) == []
            assert client.leases() == []


# Holds a lease on a file, as an NFS server does for a client, until it is told that somebody wants it.
HOLD_LEASE = """
import fcntl, os, signal, sys, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("leased", flush=True)
signal.sigwait([signal.SIGIO])
time.sleep(0.3)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
print("given back", flush=True)
signal.pause()
"""


@pytest.mark.parametrize("lockspace", [False, True])
def test_file_that_another_process_has_a_lease_on(start_daemon, vm, image, workdir, lockspace):
    """A lease of the kernel's (F_SETLEASE) is given back when somebody asks: that is waited for."""
    space = workdir / "space"
    space.mkdir()
    (space / "k").touch()
    daemon = start_daemon()
    with subprocess.Popen([sys.executable, "-B", "-c", HOLD_LEASE, space / "k" if lockspace else image],
                          stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "leased\n"
            with daemon.client() as client:
                if lockspace:
                    client.acquire(vm, leases=[(space, "k")])
                else:
                    client.acquire(vm, image)
                assert holder.stdout.readline() == "given back\n"
                assert client.release(vm) == 1
        finally:
            holder.kill()
