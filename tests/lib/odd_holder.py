# SPDX-License-Identifier: LGPL-2.1-or-later
"""Processes that hold disks as VMs do, and then are a trouble to their lock daemon.

Arguments: the lock daemon's socket, the kind, the disks. Kinds: "stubborn" ignores TERM and closes
its connection when SIGUSR2 comes; "unreaped" is killed then, and its parent does not collect it.
"""

import os
import signal
import sys
import time

import virtlockd_wire


def hold(path, disk, kind, ready):
    """One holder."""
    if kind == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    client = virtlockd_wire.connect(path)
    client.register(os.getpid(), "odd")
    client.acquire(disk)
    os.write(ready, b".")
    signal.sigwait([signal.SIGUSR2])
    client.close()
    while True:
        time.sleep(1000)


def main():
    """Start one holder for each disk, then wait for the word."""
    path, kind, *disks = sys.argv[1:]
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    read, write = os.pipe()
    pids = []
    for disk in disks:
        pid = os.fork()
        if pid == 0:
            hold(path, disk, kind, write)
        pids.append(pid)
        assert os.read(read, 1) == b"."
    signal.sigwait([signal.SIGUSR2])
    for pid in pids:
        os.kill(pid, signal.SIGKILL if kind == "unreaped" else signal.SIGUSR2)
    while True:
        time.sleep(1000)


if __name__ == "__main__":
    main()
