# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which of a lock daemon's locks the kernel knows, from /proc/locks.

A lock daemon locks byte 0 of a file and nothing else. The kind of lock (POSIX or open file
description) is the daemon's own business; QEMU's locks are on other bytes.
"""

import os
import re

LINE = re.compile(r"\d+: (?:POSIX|OFDLCK) +\w+ +(READ|WRITE) +\S+ (\w+:\w+:\d+) 0 0")


def held_locks(path):
    """The modes in which byte 0 of path is locked: a list of "READ" and "WRITE"."""
    identity = _identity(path)

    def look():
        with open("/proc/locks", encoding="ascii") as table:
            return [found[1] for found in map(LINE.match, table) if found and found[2] == identity]

    # a table of several pages is read in several steps, between which a line may move and be seen
    # twice or not at all
    seen = look()
    for _ in range(20):
        again = look()
        if again == seen:
            break
        seen = again
    return seen


def file_system_locks(path):
    """The modes of all locks on the file system of path, which may be mounted elsewhere only."""
    return device_locks(os.stat(path).st_dev)


def device_locks(device):
    """The modes of all locks on the file system with that st_dev, which may hang."""
    prefix = f"{os.major(device):02x}:{os.minor(device):02x}:"
    with open("/proc/locks", encoding="ascii") as table:
        lines = [line.split() for line in table]
    return [fields[3] for fields in lines if "->" not in fields and fields[5].startswith(prefix)]


def _identity(path):
    """The device and inode of path as /proc/locks writes them.

    The device is that of the file system, which on overlayfs and btrfs is not st_dev.
    """
    fd = os.open(path, os.O_PATH)
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as info:
            fields = dict(line.split() for line in info if len(line.split()) == 2)
        inode = fields.get("ino:") or os.fstat(fd).st_ino
    finally:
        os.close(fd)
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        device = next(line.split()[2] for line in mounts if line.split()[0] == fields["mnt_id:"])
    major, minor = map(int, device.split(":"))
    return f"{major:02x}:{minor:02x}:{inode}"
