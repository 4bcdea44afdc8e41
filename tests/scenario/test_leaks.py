# SPDX-License-Identifier: LGPL-2.1-or-later
"""Nothing is lost over 10,000 acquisitions and refusals: no memory, no descriptor.

The daemon runs under valgrind; one that was built with a sanitizer runs by itself, as that looks
for leaks already.
"""

import os
import re
import shutil
import socket
import struct
import subprocess
import threading
from pathlib import Path

import pytest
from native import Refused, as_disk, as_lease, sanitizer
from virtlockd_wire import AUTOCREATE, SHARED, Frame, Procedure, xdr_string, xdr_uint
from waiting import wait_until

ROUNDS = 1250  # of 2 acquisitions and 2 refusals over each of the protocols
BATCH = 25     # rounds that are sent at once, as valgrind makes each turn of the loop slow
VALGRIND = ("valgrind", "--leak-check=full", "--show-leak-kinds=definite,indirect",
            "--errors-for-leak-kinds=definite,indirect", "--error-exitcode=99", "--track-fds=yes",
            "--num-callers=30")


SHIM = Path(__file__).with_name("valgrind-shim.c")


class PidfdHelper(threading.Thread):
    """Opens pidfds for the daemon: valgrind does not know how to, see valgrind-shim.c."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()

    def run(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            with sock:
                pid, = struct.unpack("i", sock.recv(4))
                try:
                    pidfd = os.pidfd_open(pid)
                except OSError as error:
                    sock.send(struct.pack("i", error.errno))
                    continue
                socket.send_fds(sock, [struct.pack("i", 0)], [pidfd])
                os.close(pidfd)

    def close(self):
        """End it."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@pytest.fixture(name="valgrind")
def fixture_valgrind(workdir):
    """The command that watches over the daemon, with its log; nothing with a sanitizer."""
    if sanitizer():
        yield ()
        return
    for program in ("valgrind", "cc"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    shim = workdir / "shim.so"
    subprocess.run(["cc", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o",
                    shim, SHIM], check=True)
    helper = PidfdHelper(workdir / "pidfd")
    helper.start()
    try:
        yield ("env", f"LD_PRELOAD={shim}", f"HF_PIDFD_HELPER={workdir}/pidfd", *VALGRIND,
               f"--log-file={workdir}/valgrind.log")
    finally:
        helper.close()


def resource_call(procedure, name, path="", flags=0):
    """A frame that names a resource."""
    return Frame(procedure, payload=xdr_string(path) + xdr_string(str(name))
                 + xdr_uint(flags)).encode()


def rpc_rounds(peer, name, path, flags, held):
    """Acquire and release, and be refused what is held, many times; (granted, refused)."""
    calls = [resource_call(Procedure.ACQUIRE_RESOURCE, name, path, flags),
             resource_call(Procedure.ACQUIRE_RESOURCE, held),
             resource_call(Procedure.RELEASE_RESOURCE, name, path),
             resource_call(Procedure.ACQUIRE_RESOURCE, name + "/none", path)]
    outcomes = []
    for _ in range(ROUNDS // BATCH):
        peer.send_raw(b"".join(calls) * BATCH)
        outcomes += [peer.recv_frame().status for _ in range(len(calls) * BATCH)]
    assert outcomes == [0, 1, 0, 1] * ROUNDS
    return ROUNDS, 2 * ROUNDS


def native_rounds(client, vm, asked, held):
    """The same over the native protocol."""
    requests = [("acquire", {"owner": vm.owner(), **asked}),
                ("acquire", {"owner": vm.owner(), "disks": [as_disk(held)]}),
                ("release", {"owner": {"pid": vm.pid}}),
                ("acquire", {"owner": vm.owner(), "disks": [as_disk("/none")]})]
    classes = [None, "Busy", None, "BadResource"]
    for _ in range(ROUNDS // BATCH):
        sent = [(client.send(command, **arguments), expected) for _ in range(BATCH)
                for (command, arguments), expected in zip(requests, classes)]
        for number, expected in sent:
            try:
                client.reply(number)
                assert expected is None
            except Refused as refusal:
                assert refusal.error_class == expected, refusal
    return ROUNDS, 2 * ROUNDS


def one_of_each(daemon, client, vm, image, lockspace):
    """What is not part of the rounds: questions, events, errors, a VM that goes."""
    client.call("subscribe")
    client.holders(image)
    for command in ("query-status", "query-drivers", "query-commands", "unsubscribe"):
        client.call(command)
    for line in (b"nonsense\n", b'{"execute":"x","id":[1,{"a":null}]}\n',
                 b'{"execute":"acquire","arguments":{"owner":{"pid":0,"name":"x"}}}\n'):
        client.send_raw(line)
        assert client.recv()["error"]
    with daemon.client() as keeper:
        keeper.call("acquire", owner=vm.owner(until="connection"), disks=[as_disk(image)])
    client.acquire(vm, leases=[(lockspace, "k", "shared")])
    with daemon.raw() as half:
        half.sendall(b'{"execute":')
    vm.end()
    with daemon.peer() as peer:
        peer.send_raw(b"\0\0\0\x40half")


def test_no_leak(start_daemon, valgrind, start_vm, new_image, workdir):
    """10,000 acquisitions and refusals, over both protocols, direct and by lock files."""
    daemon = start_daemon(wrapper=valgrind)
    vm, holder = start_vm(), start_vm("holder")
    image, held, other = new_image("a"), new_image("held"), new_image("b")
    lockspace = workdir / "space"
    lockspace.mkdir()
    (lockspace / "k").touch()
    granted = refused = 0
    with daemon.client() as client, daemon.peer() as peer:
        peer.register(vm.pid, vm.name)
        client.acquire(holder, (held, "readonly"))
        peer.create_lockspace(str(lockspace))
        for yes, no in (
                native_rounds(client, vm, {"disks": [as_disk(image), as_disk((other, "shared"))],
                                           "leases": [as_lease(lockspace, "k")]}, held),
                native_rounds(client, vm, {"leases": [as_lease(lockspace, "k", "shared")]}, held),
                rpc_rounds(peer, str(image), "", SHARED, held),
                rpc_rounds(peer, "auto", str(lockspace), AUTOCREATE, held)):
            granted, refused = granted + yes, refused + no
        assert granted + refused >= 10000, (granted, refused)
        one_of_each(daemon, client, start_vm("last"), image, lockspace)
        client.release(holder)
        wait_until(lambda: client.leases() == [], "the last lease to be released")
    assert daemon.stop() == 0, (workdir / "valgrind.log").read_text(encoding="utf-8")
    if valgrind:
        assert_nothing_left(workdir / "valgrind.log")


def assert_nothing_left(path):
    """Complain about descriptors that are open at the end and were not handed down."""
    report = path.read_text(encoding="utf-8")
    print(report)
    assert re.search(r"ERROR SUMMARY: 0 errors", report)
    opened = re.findall(r"Open [a-zA-Z_ ]* (\d+):?.*\n((?:==\d+==    .*\n)*)", report)
    assert opened, "valgrind did not tell of descriptors"
    assert [number for number, where in opened
            if "inherited from parent" not in where and int(number) > 2] == []


def test_no_leak_of_descriptors(daemon, client, vm, other_vm, new_image):
    """The daemon's open files are as many after its work as before."""
    disks = [new_image(str(number)) for number in range(50)]
    client.acquire(vm, disks[0])
    client.release(vm)
    before = daemon.descriptors()
    for _ in range(20):
        client.acquire(vm, *disks)
        assert daemon.descriptors() >= before + len(disks)
        with pytest.raises(Refused):
            client.acquire(other_vm, *reversed(disks))
        client.release(vm)
    assert daemon.descriptors() == before
