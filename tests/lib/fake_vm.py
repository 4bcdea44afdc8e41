# SPDX-License-Identifier: LGPL-2.1-or-later
"""A process that holds a disk as a VM does: registered for itself, until it ends.

Arguments: the lock daemon's socket, the VM's name, the disk.
"""

import os
import signal
import sys

import virtlockd_wire


def main():
    """Lock the disk and wait to be killed."""
    path, name, disk = sys.argv[1:]
    with virtlockd_wire.connect(path) as client:
        client.register(os.getpid(), name)
        client.acquire(disk)
        while True:
            signal.pause()


if __name__ == "__main__":
    main()
