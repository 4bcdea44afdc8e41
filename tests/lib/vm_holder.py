# SPDX-License-Identifier: LGPL-2.1-or-later
"""Processes that hold disks as libvirt's VMs do: over a connection of their own."""

import subprocess
import sys
import textwrap
from pathlib import Path

from native import Vm

LIB = Path(__file__).resolve().parent

# A VM as libvirt starts it: it has a connection of its own to the lock daemon, registers for
# itself, and runs on. It closes the connection when it is told to.
HOLDER = textwrap.dedent("""
    import os, signal, sys
    sys.path.insert(0, sys.argv[1])
    import virtlockd_wire
    if sys.argv[3] == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    client = virtlockd_wire.connect(sys.argv[2])
    client.register(os.getpid(), "web1")
    for disk in sys.argv[4:]:
        client.acquire(disk)
    if sys.argv[3] == "twice":
        spare = virtlockd_wire.connect(sys.argv[2])
        spare.register(os.getpid(), "web1")
    print("ready", flush=True)
    sys.stdin.readline()
    client.close()
    print("closed", flush=True)
    while True:
        signal.pause()
""")


class Holder(Vm):
    """A process that holds disks over a connection of its own."""

    def __init__(self, daemon, *disks, kind="plain"):
        super().__init__("web1", argv=[
            sys.executable, "-B", "-c", HOLDER, LIB, daemon.virtlockd_socket, kind,
            *map(str, disks)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.say("ready")

    def say(self, expected):
        """Wait for it to say a word."""
        assert self.process.stdout.readline().strip() == expected

    def lose_connection(self):
        """Let it close its connection."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.say("closed")
