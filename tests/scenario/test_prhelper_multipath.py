# SPDX-License-Identifier: LGPL-2.1-or-later
"""The process of the helper that keeps privileges: it outlives that its serving child is killed.

It is asked as the helper asks it (src/prhelper/mpath/protocol.h), about a file that is no device:
what is asked does not matter here. The real thing, on two paths, is tests/cluster/test_pr_multipath.py.
"""

import os
import signal
import socket
import struct
import subprocess
from pathlib import Path

import lock_rig
import pr_rig
import pytest
from closing import Closing
from waiting import DEADLINE, wait_until

PROGRAM = lock_rig.build_dir() / "holdfast-pr-multipath"
REASON = pr_rig.missing("holdfast") or (
    None if os.access(PROGRAM, os.X_OK) else f"{PROGRAM} is not there") or (
    "not root" if os.geteuid() else None)
pytestmark = pytest.mark.skipif(bool(REASON), reason=str(REASON))

MAP, BY_PATHS = 1, 0
READ_KEYS = bytes([0x5e, 0, 0, 0, 0, 0, 0, 0, 255]) + bytes(7)
REQUEST = struct.Struct("=II16sI")
CHECK_CONDITION = 2
INVALID_OPCODE = (5, 0x20, 0)
KILLS = 3


class Privileged(Closing):
    """The process, and the helper's end of its socket; a context manager."""

    def __init__(self):
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # pylint: disable-next=consider-using-with
            self.process = subprocess.Popen([PROGRAM], stdin=theirs, stdout=subprocess.DEVNULL,
                                            stderr=subprocess.PIPE, text=True)

    def close(self):
        """End the process."""
        self.sock.close()
        try:
            self.process.wait(DEADLINE)
        finally:
            self.process.kill()
            self.process.communicate()

    def children(self):
        """The processes that it has started: the one that serves, unless that has just ended."""
        tasks = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(word) for word in tasks.read_text(encoding="ascii").split()]

    def serving(self):
        """The process that serves."""
        wait_until(lambda: len(self.children()) == 1, "one process to serve")
        return self.children()[0]

    def kill(self):
        """End the process that serves; its number, when it is gone."""
        pid = self.serving()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: pid not in self.children(), "the process to end")
        return pid

    def ask(self, cdb=READ_KEYS, parameters=b""):
        """(status, (sense key, code, qualifier)) of a command; None: it was dropped, or the process
        has died of it."""
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        device = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            with mine, theirs:
                socket.send_fds(self.sock, [REQUEST.pack(MAP, BY_PATHS, cdb, 255), parameters],
                                [device, theirs.fileno()])
                theirs.close()
                mine.settimeout(DEADLINE)
                answer = mine.recv(16384)
        finally:
            os.close(device)
        if not answer:
            return None
        sense = answer[4:]
        return struct.unpack("=i", answer[:4])[0], (sense[2] & 0xf, sense[12], sense[13])


def test_it_serves_again_after_it_was_killed():
    """The next command is answered by another process, each time; and all of them end."""
    with Privileged() as privileged:
        assert privileged.ask() == (CHECK_CONDITION, INVALID_OPCODE)
        seen = {privileged.process.pid}
        for _ in range(KILLS):
            pid = privileged.kill()
            assert pid not in seen
            seen.add(pid)
            assert privileged.ask() == (CHECK_CONDITION, INVALID_OPCODE)
        privileged.sock.close()
        assert privileged.process.wait(DEADLINE) == 0
        assert privileged.process.stderr.read().count("ended by SIGKILL") == KILLS


@pytest.mark.parametrize("opcode, length", [(0x00, 255), (0x2a, 255), (0xff, 255), (0x5f, 254)])
def test_other_commands_are_dropped(opcode, length):
    """It carries out reservations and nothing else; a list that is not whole is none."""
    with Privileged() as privileged:
        pid = privileged.serving()
        assert privileged.ask(bytes([opcode]) + READ_KEYS[1:], bytes(length)) is None
        assert privileged.ask() == (CHECK_CONDITION, INVALID_OPCODE)
        assert privileged.serving() == pid, "it has died of it"


def test_it_ends_while_it_pauses():
    """When the helper goes while no process serves, the parent does not stay."""
    with Privileged() as privileged:
        for _ in range(KILLS):
            privileged.kill()
        privileged.sock.close()
        assert privileged.process.wait(DEADLINE) == 0


def test_signals_do_not_end_it():
    """Who ends a whole group of processes means the helper, which ends this one."""
    with Privileged() as privileged:
        assert privileged.ask() == (CHECK_CONDITION, INVALID_OPCODE)  # it is ready for them
        pid = privileged.serving()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            for each in (pid, privileged.process.pid):
                os.kill(each, number)
        assert privileged.ask() == (CHECK_CONDITION, INVALID_OPCODE)
        assert privileged.serving() == pid
        privileged.sock.close()
        assert privileged.process.wait(DEADLINE) == 0
