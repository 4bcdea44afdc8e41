# SPDX-License-Identifier: LGPL-2.1-or-later
"""Somebody outside who tries the locks of files without pause, and tells if he ever gets one."""

import fcntl
import json
import os
import struct
import subprocess
import sys
import time

# What the prober must not get.
ANYTHING, NOTHING_EXCLUSIVE, NOTHING = 0, 1, 2
FLOCK = struct.Struct("hhqqi4x")


class Prober:
    """A process that tries the locks of files without pause; a context manager.

    guard(path, NOTHING) says from now on who must not get what. A file that is free is left alone.
    """

    def __init__(self, workdir, paths):
        self.paths = {str(path): number for number, path in enumerate(paths)}
        self.report = workdir / "prober.report"
        self.table = workdir / "prober.table"
        self.table.write_bytes(bytes(8 + len(self.paths)))
        # pylint: disable-next=consider-using-with
        self.process = subprocess.Popen(
            [sys.executable, "-B", __file__, self.table, self.report, json.dumps([*self.paths])],
            stdin=subprocess.DEVNULL)
        self.fd = os.open(self.table, os.O_RDWR)
        self.wait_round()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.fd)

    def guard(self, path, level):
        """Set what nobody may get; with less than before, only when the prober knows."""
        at = 8 + self.paths[str(path)]
        before = os.pread(self.fd, 1, at)[0]
        os.pwrite(self.fd, bytes([level]), at)
        if level < before:
            self.wait_round()

    def rounds(self):
        """How often it has tried all."""
        return int.from_bytes(os.pread(self.fd, 8, 0), "little")

    def wait_round(self):
        """Wait until what was said before is what it does."""
        start = self.rounds()
        end = time.monotonic() + 30
        while self.rounds() < start + 2:
            assert self.process.poll() is None, "the prober has ended"
            assert time.monotonic() < end, "the prober hangs"
            time.sleep(0.0002)

    def assert_nothing(self, at_least=1):
        """Complain if it ever got what it should not, or has not tried."""
        self.wait_round()
        assert not self.report.exists(), self.report.read_text(encoding="utf-8")
        assert self.rounds() >= at_least


def try_lock(path, kind):
    """Whether somebody else could have the lock on byte 0 of a file; it is given back at once."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, FLOCK.pack(kind, os.SEEK_SET, 0, 1, 0))
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(fd)


def kernel_lock(path):
    """How byte 0 of a file is locked, asked of the kernel: "READ", "WRITE" or None.

    Unlike /proc/locks, which may leave out a lock while others come and go, this is certain.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK,
                             FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0))
    finally:
        os.close(fd)
    return {fcntl.F_RDLCK: "READ", fcntl.F_WRLCK: "WRITE"}.get(FLOCK.unpack(answer)[0])


def _probe(table, report, paths):
    """The prober's process."""
    fd = os.open(table, os.O_RDWR)
    rounds = 0
    while True:
        levels = os.pread(fd, len(paths), 8)
        for path, level in zip(paths, levels):
            if level == ANYTHING:
                continue
            kinds = [fcntl.F_WRLCK] + [fcntl.F_RDLCK] * (level == NOTHING)
            for kind in kinds:
                what = ""
                try:
                    if try_lock(path, kind):
                        what = "got " + ("an exclusive" if kind == fcntl.F_WRLCK else "a shared")
                except FileNotFoundError:
                    what = "did not find"
                if what:
                    with open(report, "a", encoding="utf-8") as file:
                        file.write(f"round {rounds}: the prober {what} lock of {path}\n")
        rounds += 1
        os.pwrite(fd, rounds.to_bytes(8, "little"), 0)


if __name__ == "__main__":
    _probe(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
