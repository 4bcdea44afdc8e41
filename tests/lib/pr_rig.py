# SPDX-License-Identifier: LGPL-2.1-or-later
"""A persistent-reservation helper, stock or ours, at a socket in a test's own directory."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import lock_rig
from pr_wire import PrClient
from waiting import DEADLINE, wait_until

HELPERS = ("stock", "holdfast")
CONFIG = "pr-helper.conf"


def binary(helper):
    """The program: "stock" is QEMU's own, "holdfast" is ours."""
    return {"stock": Path("/usr/bin/qemu-pr-helper"),
            "holdfast": lock_rig.build_dir() / "holdfast-pr-helper"}[helper]


def missing(helper):
    """What is not there to run the helper, in words, or None."""
    if not os.access(binary(helper), os.X_OK):
        return f"{binary(helper)} is not there"
    # it gives up privileges, and fails when it has none
    return "not root" if helper == "stock" and os.geteuid() else None


ACTIVATE = """
import os, sys
number, program = int(sys.argv[1]), sys.argv[2]
for i in range(number):
    os.dup2(int(os.environ["SOCKET"]), 3 + i)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(number))
os.execv(program, sys.argv[2:])
"""


def activate(helper, listener, *arguments, number=1):
    """Start a helper that gets the socket as systemd would hand it over, so many times."""
    # out of the way of 3 and 4, and a number that nobody has, a thread of the test's included
    spare = fcntl.fcntl(listener.fileno(), fcntl.F_DUPFD_CLOEXEC, 50)
    try:
        return subprocess.Popen(
            [sys.executable, "-c", ACTIVATE, str(number), binary(helper), *arguments],
            pass_fds=[spare], env={**os.environ, "SOCKET": str(spare)}, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(spare)


def listens(path, number=1):
    """Whether a socket listens that was made at that path, or so many; one that was moved away
    counts. Found out without a connection, which would count."""
    with open("/proc/net/unix", encoding="ascii", errors="replace") as table:
        return sum(line.split()[3] == "00010000" and line.split()[-1] == str(path)
                   for line in table) >= number


class Helper:
    """A helper that runs in the foreground; a context manager."""

    def __init__(self, helper, directory, *arguments, settings="", name="pr"):
        self.helper = helper
        self.socket = Path(directory) / f"{name}.sock"
        self.log = Path(directory) / f"{name}.log"
        self.config = Path(directory) / CONFIG
        self.config.write_text(settings, encoding="utf-8")
        self.arguments = arguments
        self.process = None
        self.start()

    def command(self):
        """How it is started."""
        own = ("--config", self.config) if self.helper == "holdfast" else ()
        return [binary(self.helper), "-k", self.socket, *own, *self.arguments]

    def start(self):
        """Start it, and wait until it serves."""
        with self.log.open("ab") as log:
            # pylint: disable-next=consider-using-with
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log)
        try:
            wait_until(self.serves, "the helper to serve")
        except BaseException:
            self.end(signal.SIGKILL)
            raise

    def serves(self):
        """Whether it listens; an error at once if it has ended."""
        if self.process.poll() is not None:
            raise ChildProcessError(f"ended with {self.process.returncode}: {self.text()}")
        return listens(self.socket)

    def client(self, **options):
        """A connection."""
        return PrClient(self.socket, **options)

    def text(self):
        """What it has written."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def end(self, number=signal.SIGTERM):
        """End it, wait until it has; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(DEADLINE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.end(signal.SIGKILL)

    # ---- what it costs

    def proc(self, *names):
        """A path below its directory of /proc."""
        return Path(f"/proc/{self.process.pid}", *names)

    def descriptors(self):
        """How many descriptors it has."""
        return len(list(self.proc("fd").iterdir()))

    def threads(self):
        """How many threads it has."""
        return len(list(self.proc("task").iterdir()))

    def status(self, key):
        """A value of its /proc/PID/status."""
        for line in self.proc("status").read_text(encoding="ascii").splitlines():
            if line.startswith(f"{key}:"):
                return line.split(":", 1)[1].strip()
        raise KeyError(key)

    def memory_kb(self):
        """What is resident of memory that is its own (files may be dropped at any time)."""
        return int(self.status("RssAnon").split()[0])
