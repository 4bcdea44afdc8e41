# SPDX-License-Identifier: LGPL-2.1-or-later
"""A client of the persistent-reservation helper's protocol, as QEMU is one."""

import os
import socket
import struct
from dataclasses import dataclass

import stream
from closing import Closing

GOOD, CHECK_CONDITION, BUSY, RESERVATION_CONFLICT = 0x00, 0x02, 0x08, 0x18
READ_KEYS, READ_RESERVATION, REPORT_CAPABILITIES, READ_FULL_STATUS = range(4)
(REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, REGISTER_AND_IGNORE,
 REGISTER_AND_MOVE) = range(8)
WRITE_EXCLUSIVE, EXCLUSIVE_ACCESS = 1, 3
WRITE_EXCLUSIVE_REGISTRANTS, EXCLUSIVE_ACCESS_REGISTRANTS = 5, 6
WRITE_EXCLUSIVE_ALL, EXCLUSIVE_ACCESS_ALL = 7, 8
TIMEOUT = 60
PR_LENGTH_MAX = 8192


@dataclass(frozen=True)
class Answer:
    """What the helper says to a command."""

    status: int
    sense: bytes
    data: bytes

    @property
    def code(self):
        """Sense key, code and qualifier as text: "b/00/06"; "" without sense data."""
        if not any(self.sense):
            return ""
        return f"{self.sense[2] & 0xf:x}/{self.sense[12]:02x}/{self.sense[13]:02x}"

    @property
    def keys(self):
        """The registrations in the answer to READ KEYS."""
        length = struct.unpack(">I", self.data[4:8])[0]
        return list(struct.unpack(f">{length // 8}Q", self.data[8:8 + length]))

    @property
    def generation(self):
        """PRgeneration of READ KEYS, READ RESERVATION or READ FULL STATUS."""
        return struct.unpack(">I", self.data[:4])[0]

    @property
    def reservation(self):
        """(key, type) in the answer to READ RESERVATION; None when there is none."""
        if struct.unpack(">I", self.data[4:8])[0] == 0:
            return None
        return struct.unpack(">Q", self.data[8:16])[0], self.data[21] & 0xf


def cdb_in(action, length=8192):
    """PERSISTENT RESERVE IN."""
    return struct.pack(">BB5xHx6x", 0x5e, action, length)


def cdb_out(action, kind=0, length=24):
    """PERSISTENT RESERVE OUT."""
    return struct.pack(">BBB4xHx6x", 0x5f, action, kind, length)


def parameters(key=0, service_key=0, flags=0):
    """The parameter list of every PERSISTENT RESERVE OUT but REGISTER AND MOVE."""
    return struct.pack(">QQ4xB3x", key, service_key, flags)


class Closed(Exception):
    """The helper has closed the connection."""


class PrClient(Closing):
    """One connection to a helper; a context manager."""

    def __init__(self, path, timeout=TIMEOUT, greet=True):
        self.sock = stream.connect(path, timeout)
        self.stream = stream.Stream(self.sock)
        try:
            if greet:
                self.features = self.receive(4)
                self.sock.sendall(bytes(4))
        except BaseException:
            self.sock.close()
            raise

    def close(self):
        """End the connection, whatever is under way."""
        self.sock.close()

    def receive(self, length):
        """Exactly so many bytes."""
        try:
            return self.stream.take(length)
        except (EOFError, ConnectionResetError) as error:
            raise Closed(f"closed before {length} bytes had come") from error

    def send(self, data, *fds):
        """Bytes with descriptors; the helper may have closed the connection already."""
        try:
            if fds:
                socket.send_fds(self.sock, [data], fds)
            else:
                self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed(str(error)) from error

    def answer(self):
        """The next answer."""
        status, size, sense = struct.unpack(">ii96s", self.receive(104))
        return Answer(status, sense, self.receive(size))

    def command(self, device, cdb, data=b""):
        """Send a command for the open device, wait for its answer."""
        self.send(cdb, device)
        if data:
            self.send(data)
        return self.answer()

    def read(self, device, action=READ_KEYS, length=8192):
        """PERSISTENT RESERVE IN."""
        return self.command(device, cdb_in(action, length))

    def out(self, device, action, key=0, service_key=0, kind=0, flags=0):
        """PERSISTENT RESERVE OUT."""
        return self.command(device, cdb_out(action, kind), parameters(key, service_key, flags))


def open_device(path, flags=os.O_RDWR):
    """A descriptor of a device, as QEMU opens it."""
    return os.open(path, flags | os.O_CLOEXEC)
