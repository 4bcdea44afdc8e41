# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who is let in: the daemon's own user, a group that may look, and nobody else."""

import grp
import json
import os
import shutil
import stat
import subprocess
import sys

import lock_rig
import pytest
from lock_table import held_locks
from native import Refused, encode
from virtlockd_wire import Frame, Procedure

NOBODY = 65534

# Connects, sends its second argument, and prints all that comes back. Needs no file of ours, which
# another user may not be able to read.
PROBE = """
import socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(30)
try:
    sock.connect(sys.argv[1])
except PermissionError:
    sys.exit("no permission to connect")
received = b""
try:
    sock.sendall(bytes.fromhex(sys.argv[2]))
    sock.shutdown(socket.SHUT_WR)
    while part := sock.recv(65536):
        received += part
except (BrokenPipeError, ConnectionResetError):
    pass
sys.stdout.buffer.write(received)
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="not root")


class Prober:
    """A user who connects to a socket."""

    def __init__(self, uid=NOBODY, gid=NOBODY, groups=()):
        self.identity = {"user": uid, "group": gid, "extra_groups": list(groups)}

    def connect(self, path, data=b""):
        """What comes back for data, and what was said about the connection."""
        done = subprocess.run([sys.executable, "-c", PROBE, path, data.hex()], check=False,
                              capture_output=True, timeout=60, cwd="/", **self.identity)
        return done.stdout, done.stderr.decode().strip()

    def talk(self, path, *requests):
        """The greeting and the replies to requests of the native protocol."""
        data, error = self.connect(path, b"".join(requests))
        assert not error, error
        return [json.loads(line) for line in data.splitlines()]


@pytest.fixture(name="group")
def fixture_group():
    """A group that nobody of the tests is in by itself."""
    return next(group for group in grp.getgrall() if group.gr_gid not in (0, NOBODY))


def test_sockets_are_private(daemon):
    """Both sockets are for their owner only, by their permissions already."""
    for path in (daemon.socket, daemon.virtlockd_socket):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert Prober().connect(path) == (b"", "no permission to connect")


def test_another_user(daemon, image, vm):
    """Another user gets no answer on either socket, even where the permissions let him in."""
    frame = Frame(Procedure.CREATE_LOCKSPACE, payload=b"\0\0\0\0").encode()
    for path, data in ((daemon.socket, encode("query-commands")), (daemon.virtlockd_socket, frame)):
        path.chmod(0o666)
        assert Prober().connect(path, data) == (b"", "")
        # to be in root's group, or to have been, is not to be root
        assert Prober(gid=0, groups=[0]).connect(path, data) == (b"", "")
    assert f"uid {NOBODY}" in daemon.log()
    daemon.assert_serves(image, vm)


def test_root_is_let_in(daemon, image, vm):
    """The probe of these tests does get an answer where it should."""
    greeting, reply = Prober(uid=0, gid=0).talk(daemon.socket, encode("query-leases"))
    assert greeting["holdfast"]["access"] == "full"
    assert reply == {"return": {"leases": []}}
    daemon.assert_serves(image, vm)


# ---- a group that may look -----------------------------------------------------------------------


def test_group_may_look(start_daemon, group, vm, other_vm, image):
    """A member of socket_group gets answers to questions, and can change nothing."""
    daemon = start_daemon(socket_group=group.gr_name)
    status = daemon.socket.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o660, group.gr_gid)
    with daemon.client() as client:
        client.acquire(vm, image)
        for member in (Prober(gid=group.gr_gid), Prober(groups=[group.gr_gid])):
            greeting, leases, disk, status, events, acquire, release, unknown = member.talk(
                daemon.socket,
                encode("query-leases"), encode("query-disk", {"disk": image}),
                encode("query-status"), encode("subscribe"),
                encode("acquire", {"owner": other_vm.owner()}),
                encode("release", {"owner": {"pid": vm.pid}}), encode("nonsense"))
            assert greeting["holdfast"]["access"] == "read"
            assert leases["return"]["leases"] == client.leases()
            assert disk["return"]["state"] == "held"
            assert status["return"]["leases"] == 1
            assert events == {"return": {}}
            for reply in (acquire, release):
                assert reply["error"]["class"] == "PermissionDenied"
                assert "socket_group" in reply["error"]["desc"]
            assert unknown["error"]["class"] == "CommandNotFound"
    assert held_locks(image) == ["WRITE"]


def test_others_than_the_group(start_daemon, group):
    """Who is not in the group is not let in, whatever the socket's permissions are."""
    daemon = start_daemon(socket_group=group.gr_name)
    assert Prober().connect(daemon.socket) == (b"", "no permission to connect")
    daemon.socket.chmod(0o666)
    assert Prober().connect(daemon.socket, encode("query-leases")) == (b"", "")


def test_group_is_not_for_libvirt(start_daemon, group):
    """virtlockd's protocol can only change things: the group is not let in there."""
    daemon = start_daemon(socket_group=group.gr_name)
    member = Prober(gid=group.gr_gid, groups=[group.gr_gid])
    assert member.connect(daemon.virtlockd_socket) == (b"", "no permission to connect")
    daemon.virtlockd_socket.chmod(0o666)
    frame = Frame(Procedure.CREATE_LOCKSPACE, payload=b"\0\0\0\0").encode()
    assert member.connect(daemon.virtlockd_socket, frame) == (b"", "")


def test_unknown_group(start_daemon):
    """A group that does not exist keeps the daemon from starting: it would be the wrong one."""
    daemon = start_daemon(start=False, socket_group="no-such-group")
    daemon.launch()
    assert daemon.process.wait(30) == 1
    assert "no-such-group" in daemon.log()
    assert not daemon.socket.exists()


# ---- a user's own daemon -------------------------------------------------------------------------


@pytest.fixture(name="session_daemon")
def fixture_session_daemon(start_daemon, workdir):
    """The daemon as nobody's own. It is copied, as the build may be out of that user's reach."""
    directory = workdir / "bin"
    directory.mkdir()
    for name in ("holdfastd", "libholdfast.so.0"):
        shutil.copy(lock_rig.build_dir() / name, directory)
    return start_daemon("session", user=NOBODY, binary=directory / "holdfastd")


@pytest.fixture(name="session_vm")
def fixture_session_vm(start_vm):
    """A process of nobody's."""
    return start_vm("mine", user=NOBODY, group=NOBODY, extra_groups=[])


def to_acquire(vm, *disks):
    """A request."""
    return encode("acquire", {"owner": vm.owner(), "disks": [{"path": disk} for disk in disks]})


def test_session(session_daemon, session_vm, new_image):
    """A user's daemon locks his disks for his processes."""
    image = new_image("a", uid=NOBODY)
    greeting, reply = Prober().talk(session_daemon.socket, to_acquire(session_vm, image))
    assert greeting["holdfast"]["access"] == "full"
    assert reply["return"]["leases"][0]["disk"] == str(image)
    assert held_locks(image) == ["WRITE"]
    assert Prober().talk(session_daemon.socket, encode(
        "release", {"owner": {"pid": session_vm.pid}}))[1] == {"return": {"released": 1}}


def test_session_is_for_its_user_only(session_daemon):
    """Nobody else is served, not even root."""
    for path in (session_daemon.socket, session_daemon.virtlockd_socket):
        assert Prober(uid=0, gid=0).connect(path, encode("query-leases")) == (b"", "")
        path.chmod(0o666)
        assert Prober(uid=1).connect(path, encode("query-leases")) == (b"", "")


def test_session_refuses_processes_of_others(session_daemon, vm, new_image):
    """A user's daemon cannot watch over somebody else's process, and says so."""
    image = new_image("a", uid=NOBODY)
    _, reply = Prober().talk(session_daemon.socket, to_acquire(vm, image))
    assert reply["error"]["class"] == "PermissionDenied"
    assert reply["error"]["data"]["pid"] == vm.pid
    assert "uid 0" in reply["error"]["desc"]
    assert held_locks(image) == []


def test_session_without_permission(session_daemon, session_vm, new_image):
    """A disk that the user may not write to: a clear error, and no lock."""
    image = new_image("a")
    for mode in (0o600, 0o644):
        image.chmod(mode)
        _, reply = Prober().talk(session_daemon.socket, to_acquire(session_vm, image))
        assert reply["error"]["class"] == "BadResource"
        assert reply["error"]["data"]["errno"] == 13
        assert str(image) in reply["error"]["desc"]
        assert "owner, mode" in reply["error"]["desc"]
        assert held_locks(image) == []
    _, reply = Prober().talk(session_daemon.socket, encode("acquire", {
        "owner": session_vm.owner(), "disks": [{"path": image, "mode": "readonly"}]}))
    assert reply["return"]["leases"][0]["mode"] == "readonly"


def test_session_without_permission_for_the_lockspace(session_daemon, session_vm, workdir):
    """A directory that the user may not enter or write to."""
    lockspace = workdir / "space"
    lockspace.mkdir(mode=0o700)
    (lockspace / "k").touch()
    request = encode("acquire", {"owner": session_vm.owner(),
                                 "leases": [{"lockspace": lockspace, "key": "k"}]})
    for mode in (0o700, 0o755):
        lockspace.chmod(mode)
        _, reply = Prober().talk(session_daemon.socket, request)
        assert reply["error"]["class"] == "BadResource"
        assert reply["error"]["data"]["errno"] == 13
        assert str(lockspace) in reply["error"]["desc"]


def test_root_may_lock_for_anybody(client, session_vm, image):
    """Root's daemon takes any process as an owner."""
    client.acquire(session_vm, image)
    session_vm.kill_without_reaping()
    with pytest.raises(Refused) as refusal:
        client.acquire(session_vm, image)
    assert refusal.value.error_class == "NoSuchOwner"
