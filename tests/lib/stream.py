# SPDX-License-Identifier: LGPL-2.1-or-later
"""A Unix stream socket from a client's side: connecting, and taking what comes in in pieces."""

import os
import socket


def connect(path, timeout):
    """A socket connected to path, on which nothing takes longer than timeout seconds."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout)
    try:
        sock.connect(os.fspath(path))
    except BaseException:
        sock.close()
        raise
    return sock


class Stream:
    """What comes in on a socket. EOFError says that it has ended too early."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = b""

    def line(self):
        """The next line, without its line feed."""
        while b"\n" not in self.buffer:
            self._receive(65536)
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line

    def take(self, size):
        """The next size bytes; no more than these are received."""
        while len(self.buffer) < size:
            self._receive(size - len(self.buffer))
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    def _receive(self, size):
        part = self.sock.recv(size)
        if not part:
            raise EOFError(f"the daemon closed the connection, {len(self.buffer)} bytes left")
        self.buffer += part
