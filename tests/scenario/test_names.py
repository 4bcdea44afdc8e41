# SPDX-License-Identifier: LGPL-2.1-or-later
"""Names that would leave their lockspace directory, and lockspaces that are none."""

import os

import pytest
from lock_table import held_locks
from native import Refused
from virtlockd_wire import AUTOCREATE, Code, RemoteError

OUTSIDE = {
    "dot-dot": "../x",
    "dot-dot-only": "..",
    "dot": ".",
    "empty": "",
    "up-and-down": "sub/../../x",
    "inside-by-dot-dot": "sub/../k",
    "by-dot": "./k",
    "absolute": "/etc/passwd",
    "slash": "/",
    "trailing-slash": "k/",
    "double-slash": "sub//k",
    "deep": "sub/../../../../../../../../etc/passwd",
    "link": "link",
    "link-inside": "inside",
    "through-link": "away/x",
    "through-magic": "self/root/etc/passwd",
}


@pytest.fixture(name="lockspace")
def fixture_lockspace(workdir):
    """A lockspace with a lease file, a directory, and links that lead out."""
    path = workdir / "lockspace"
    (path / "sub").mkdir(parents=True)
    (path / "k").touch()
    (path / "sub/k").touch()
    (workdir / "x").write_bytes(b"outside")
    (path / "link").symlink_to("../x")
    (path / "inside").symlink_to("k")
    (path / "away").symlink_to("..")
    (path / "self").symlink_to("/proc/self")
    return path


def everything(directory):
    """All that is in a directory: paths, sizes, times of change."""
    found = {}
    for root, directories, files in os.walk(directory):
        for name in directories + files:
            status = os.lstat(os.path.join(root, name))
            found[os.path.join(root, name)] = (status.st_ino, status.st_size, status.st_mtime_ns,
                                               status.st_mode)
    return found


@pytest.mark.parametrize("key", OUTSIDE.values(), ids=OUTSIDE)
def test_native(client, vm, lockspace, workdir, key):
    """The native protocol refuses the name; nothing is locked, made or changed."""
    before = everything(workdir / "lockspace"), (workdir / "x").stat()
    with pytest.raises(Refused) as refusal:
        client.acquire(vm, leases=[(lockspace, key)])
    assert refusal.value.error_class == "BadResource", refusal.value
    assert (refusal.value.data["lockspace"], refusal.value.data["key"]) == (str(lockspace), key)
    assert str(lockspace) in refusal.value.desc
    with pytest.raises(Refused) as refusal:
        client.call("query-disk", lease={"lockspace": str(lockspace), "key": key})
    assert refusal.value.error_class == "BadResource"
    assert client.leases() == []
    assert (everything(workdir / "lockspace"), (workdir / "x").stat()) == before
    assert not held_locks(workdir / "x") and not held_locks("/etc/passwd")


@pytest.mark.parametrize("key", OUTSIDE.values(), ids=OUTSIDE)
def test_rpc(daemon, vm, lockspace, workdir, key):
    """virtlockd's protocol refuses it in every call, also where it would make or remove a file."""
    before = everything(workdir / "lockspace"), (workdir / "x").stat()
    path = str(lockspace)
    with daemon.peer() as peer:
        peer.register(vm.pid, vm.name)
        for call, flags in ((peer.acquire, 0), (peer.acquire, AUTOCREATE),
                            (peer.create_resource, 0), (peer.delete_resource, 0)):
            with pytest.raises(RemoteError) as refusal:
                call(key, path, flags)
            assert refusal.value.code == Code.SYSTEM_ERROR, refusal.value
        with pytest.raises(RemoteError):
            peer.release(key, path)
    assert (everything(workdir / "lockspace"), (workdir / "x").stat()) == before


def test_names_inside(client, daemon, vm, lockspace):
    """Odd names that stay inside are names like any other."""
    names = ["sub/k", "..k", "...", "k..", " ", "-", "$(x)", "\u00e4\n\x1b", "a" * 255]
    with daemon.peer() as peer:
        peer.register(vm.pid, vm.name)
        for name in names:
            peer.acquire(name, str(lockspace), AUTOCREATE)
            assert held_locks(lockspace / name) == ["WRITE"]
            peer.release(name, str(lockspace))
            assert not (lockspace / name).exists()
            (lockspace / name).touch()
            client.acquire(vm, leases=[(lockspace, name)])
            assert held_locks(lockspace / name) == ["WRITE"]
            assert client.release(vm) == 1


def test_name_of_any_bytes(daemon, vm, lockspace):
    """Over virtlockd's protocol a name need not be UTF-8; what is told of it is."""
    name = b"\xff\xfe key"
    with daemon.peer() as peer, daemon.client() as client:
        peer.register(vm.pid, b"\xffvm")
        peer.acquire(name, str(lockspace), AUTOCREATE)
        assert (lockspace / os.fsdecode(name)).exists()
        lease, = client.leases()
        assert lease["key"].endswith(" key")
        assert lease["owner"]["name"].endswith("vm")
        peer.release(name, str(lockspace))


@pytest.mark.parametrize("kind", ["missing", "file", "relative", "dangling", "long"])
def test_no_lockspace(daemon, client, vm, workdir, kind):
    """A lockspace that is not there, or is no directory."""
    path = workdir / "space"
    if kind == "file":
        path.touch()
    elif kind == "dangling":
        path.symlink_to(workdir / "none")
    elif kind == "long":
        path = path / ("x" * 300)
    name = "space" if kind == "relative" else str(path)
    with pytest.raises(Refused) as refusal:
        client.acquire(vm, leases=[(name, "k")])
    assert refusal.value.error_class == (
        "InvalidArgument" if kind == "relative" else "BadResource"), refusal.value
    assert name in refusal.value.desc
    with daemon.peer() as peer:
        peer.register(vm.pid, vm.name)
        for call in (peer.acquire, peer.create_resource, peer.delete_resource, peer.release):
            with pytest.raises(RemoteError) as error:
                call("k", name)
            assert error.value.code in (Code.INTERNAL_ERROR, Code.SYSTEM_ERROR)
    assert not client.lockspace(name)
    assert kind in ("file", "dangling") or not path.exists()


def test_symlink_to_a_lockspace(client, vm, other_vm, lockspace, workdir):
    """The lockspace itself may be named by a link: the same lease is the same thing."""
    (workdir / "other").symlink_to(lockspace)
    client.acquire(vm, leases=[(lockspace, "k")])
    with pytest.raises(Refused) as refusal:
        client.acquire(other_vm, leases=[(workdir / "other", "k")])
    assert refusal.value.error_class == "Busy"
    assert vm.name in refusal.value.desc
