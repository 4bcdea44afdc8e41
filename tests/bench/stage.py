# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where the bench happens: each daemon in a sandbox of its own, the load generator beside it."""

import json
import os
import re
import resource
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path

import lock_rig
import sandbox
from closing import Closing
from waiting import wait_until

NATIVE_SOCKET = "/run/holdfast/holdfast.sock"
DISKS = "/run/bench"  # below a tmpfs of the sandbox, as is all of this
SPACE = "/run/bench-space"
SLOW = "/run/bench-slow"
DESCRIPTORS = min(65536, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
LIMIT = ("prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}", "--")
DAEMON_NAMES = ("virtlockd", "holdfastd", "holdfast-keeper")
LOAD_TIMEOUT = 120


class LoadError(Exception):
    """The load generator or a daemon did not do what it should."""


class Rig(lock_rig.LockRig):
    """A daemon in a sandbox, with room for many descriptors, and directories for disks."""

    def set_up(self):
        for path in (DISKS, SLOW):
            self.sandbox.path(path).mkdir(mode=0o755)
        self.start_lockd()

    def start_lockd(self):
        """Start the lock daemon and wait until it listens."""
        self.lockd = self.sandbox.spawn(*LIMIT, lock_rig.daemon_binary(self.daemon),
                                        log=self.log("lockd"))
        self.sandbox.wait_socket(self.socket, self.lockd)
        if self.daemon == "holdfast":
            self.sandbox.wait_socket(NATIVE_SOCKET, self.lockd)

    def _command(self, mode, settings):
        socket = NATIVE_SOCKET if mode == "native" else self.socket
        options = [f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
                   for name, value in {"socket": socket, "dir": DISKS, **settings}.items()]
        return [*sandbox.ENTER, f"--target={self.sandbox.init_pid}", "--", *LIMIT,
                str(program("load")), mode, *options]

    def load(self, mode, timeout=LOAD_TIMEOUT, **settings):
        """Run the load generator once; what it has measured."""
        result = subprocess.run(self._command(mode, settings), stdin=subprocess.DEVNULL,
                                capture_output=True, text=True, timeout=timeout, check=False)
        if result.returncode:
            raise LoadError(f"{self.daemon}, {mode}: {result.stderr.strip()}\n{self.logs()}")
        return json.loads(result.stdout)

    @contextmanager
    def locked(self, locks):
        """While this lasts, somebody holds that many locks, who at its end gives them back."""
        command = self._command("hold", {"count": locks})
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as process:
            if not process.stdout.readline():
                raise LoadError(f"{self.daemon} did not grant {locks} locks: "
                                f"{process.stderr.read()}{self.logs()}")
            yield process

    def memory(self):
        """Resident MB of all of the daemon's processes: {"rss": MB, "pss": MB}."""
        total = {"Rss": 0, "Pss": 0}
        for pid in self._processes():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
                name, _, rest = line.partition(":")
                if name in total:
                    total[name] += int(rest.split()[0])
        return {name.lower(): kib / 1024 for name, kib in total.items()}

    def _processes(self):
        space = os.readlink(f"/proc/{self.sandbox.init_pid}/ns/pid")
        for entry in Path("/proc").iterdir():
            try:
                if (entry.name.isdecimal() and os.readlink(entry / "ns/pid") == space
                        and Path(os.readlink(entry / "exe")).name in DAEMON_NAMES):
                    yield int(entry.name)
            except OSError:
                pass  # a kernel thread, or it has just ended

    def daemon_pid(self):
        """The pid, in the sandbox, of the process that serves."""
        for pid in self._processes():
            if Path(os.readlink(f"/proc/{pid}/exe")).name != DAEMON_NAMES[-1]:
                status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
                return int(re.search(r"^NSpid:.*\s(\d+)$", status, re.MULTILINE).group(1))
        raise LoadError(f"{self.daemon} does not run\n{self.logs()}")

    def mount_slow(self, milliseconds, files):
        """Mount storage whose operations take that long at SLOW; the pid of what serves it."""
        log = self.log("slowfs")
        pid = self.sandbox.spawn(program("slowfs"), SLOW, milliseconds, files, log=log)
        wait_until(lambda: log.exists() and log.read_text(encoding="utf-8"), "slowfs to mount")
        if log.read_text(encoding="utf-8") != "ready\n":
            raise LoadError(log.read_text(encoding="utf-8"))
        return pid

    @contextmanager
    def hung(self, pid):
        """While this lasts, the storage that pid serves does not answer."""
        self.sandbox.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            self.sandbox.kill(pid, signal.SIGCONT)


class Stage(Closing):
    """The daemons under test, each started when it is first needed; a context manager."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.rigs = {}
        self.made = 0

    def close(self):
        """End all of them."""
        for rig in self.rigs.values():
            rig.close()

    def rig(self, daemon):
        """The rig that measurements share."""
        if daemon not in self.rigs:
            self.rigs[daemon] = self._make(daemon)
        return self.rigs[daemon]

    @contextmanager
    def fresh(self, daemon):
        """A rig for one measurement, which may leave it in any state."""
        rig = self._make(daemon)
        try:
            yield rig
        finally:
            rig.sandbox.close()

    def _make(self, daemon):
        self.made += 1
        return Rig(daemon, self.directory / f"{daemon}-{self.made}")


def program(name):
    """A program of the bench."""
    return lock_rig.build_dir() / "tests" / "bench" / name
