# SPDX-License-Identifier: LGPL-2.1-or-later
"""The host's end of a guest's command channel; guest/agent.py is the other end.

One TCP connection is one command. Both sides send frames: a letter, the length in four bytes (big
endian), data. The agent begins with `h` (here I am), since QEMU accepts connections for guests that
are off or frozen too. The caller answers with `r`: the time of day and the words of the command,
separated by NULs; then `i` with standard input, ended by an empty one. The agent sends `o` and `e`
(output, errors) and at last `x`, the exit code. When the caller hangs up, the command is killed.
"""

import socket
import threading
import time
from dataclasses import dataclass, field

from .errors import NoContact
from .guest.agent import receive, send

CONTACT_LIMIT = 90.0    # an idle agent greets within 0.2 s; this is for 20 busy processes on two cores


@dataclass
class Result:
    """How a command ended; code is None if it did not end in time."""

    code: int | None
    out: str
    err: str
    limit: float = 0

    @property
    def text(self):
        """What it wrote, without the last newline."""
        return self.out.rstrip("\n")


@dataclass
class Call:
    """A command that runs in a guest."""

    port: int
    words: list
    stdin: bytes | None = b""       # None: input follows with send_input()
    contact: float = CONTACT_LIMIT
    on_output: object = None        # called with (letter, bytes) instead of gathering them
    code: int | None = None
    lost: bool = False
    gathered: dict = field(default_factory=lambda: {b"o": [], b"e": []})

    def __post_init__(self):
        self.sock = self._connect()
        self.input_lock = threading.Lock()
        words = [f"{time.time():.6f}", *self.words]
        self._send(b"r", "\0".join(words).encode())
        if self.stdin is not None:
            self.send_input(self.stdin)
            if self.stdin:
                self.send_input(b"")

    def _connect(self):
        try:
            sock = socket.create_connection(("127.0.0.1", self.port), self.contact)
        except OSError as error:
            raise NoContact(f"no contact: {error}") from error
        try:
            if receive(sock)[0] != b"h":
                raise NoContact("no contact: that is no agent")
        except (OSError, EOFError) as error:
            sock.close()
            raise NoContact("no contact: the guest's agent does not greet") from error
        return sock

    def _send(self, letter, data):
        try:
            send(self.sock, letter, data)
        except OSError:
            self.lost = True

    def send_input(self, data):
        """Give the command some input; empty bytes end it."""
        with self.input_lock:
            for at in range(0, max(1, len(data)), 65536):
                self._send(b"i", data[at:at + 65536])

    def wait(self, limit):
        """Wait until the command has ended, at most for limit seconds; whether it has."""
        end = time.monotonic() + limit
        while self.code is None and not self.lost:
            left = end - time.monotonic()
            if left <= 0:
                return False
            self.sock.settimeout(left)
            try:
                self._take(*receive(self.sock))
            except TimeoutError:
                return False
            except (OSError, EOFError):
                self.lost = True
        self.close()
        return True

    def _take(self, letter, data):
        if letter == b"x":
            self.code = int(data)
        elif self.on_output:
            self.on_output(letter, data)
        else:
            self.gathered[letter].append(data)

    def text(self, letter):
        """What has come so far on b"o" or b"e"."""
        return b"".join(self.gathered[letter]).decode(errors="replace")

    def result(self, limit=0.0):
        """How it ended."""
        return Result(self.code, self.text(b"o"), self.text(b"e"), limit)

    def close(self):
        """Hang up, which kills the command if it runs."""
        self.sock.close()
