#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""One host of a cluster, in a guest: does by its own helper what it is told, line by line.

usage: pr_agent.py SOCKET DEVICE, with requests (JSON lists) on standard input

Requests: ["out", action, key, service_key, type], ["keys"], ["reservation"], ["write"], ["read"],
["writer"] (writes without a pause from now on), ["fenced"] (how it ended). Each is answered by a
line of JSON. What reads and writes is O_DIRECT, as a guest's disk is.
"""

import json
import mmap
import os
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "lib"))

# pylint: disable=wrong-import-position
import pr_wire

BLOCK = 4096


class Agent:
    """The host's side of the tests."""

    def __init__(self, path, device):
        self.client = pr_wire.PrClient(path)
        self.fd = os.open(device, os.O_RDWR | os.O_DIRECT)
        self.buffer = mmap.mmap(-1, BLOCK)
        self.thread = None
        self.end = None

    def io(self, function, *arguments):
        """0, or the errno with which it failed."""
        try:
            function(self.fd, *arguments)
            return 0
        except OSError as error:
            return error.errno

    def do_write(self):
        """Write a block."""
        return self.io(os.pwritev, [self.buffer], 0)

    def do_read(self):
        """Read a block."""
        return self.io(os.preadv, [self.buffer], 0)

    def do_out(self, action, key, service_key, kind):
        """A command; unit attentions are another's doing, and the guest of a cluster repeats."""
        for _ in range(8):
            answer = self.client.out(self.fd, action, key, service_key, kind)
            if not answer.code.startswith("6/"):
                break
        return [answer.status, answer.code]

    def do_keys(self):
        """All registrations."""
        return self._read(pr_wire.READ_KEYS).keys

    def do_reservation(self):
        """The reservation."""
        return self._read(pr_wire.READ_RESERVATION).reservation

    def _read(self, action):
        for _ in range(8):
            answer = self.client.read(self.fd, action)
            if not answer.code.startswith("6/"):
                break
        assert answer.status == pr_wire.GOOD, answer
        return answer

    def do_writer(self):
        """Write without a pause until that fails."""
        def write():
            writes, code = 0, 0
            while code == 0:
                code = self.do_write()
                writes += code == 0
            self.end = [writes, code, time.monotonic()]
        self.thread = threading.Thread(target=write, daemon=True)
        self.thread.start()
        return 0

    def do_fenced(self):
        """How the writer ended: writes that went well, errno."""
        self.thread.join(120)
        return self.end[:2] if self.end else None


def main():
    """Serve requests until there are none."""
    agent = Agent(*sys.argv[1:])
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps(getattr(agent, f"do_{name}")(*arguments)), flush=True)


if __name__ == "__main__":
    main()
