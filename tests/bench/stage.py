# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where the bench happens: each daemon in a sandbox of its own, with the load generator beside it."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

# pylint: disable=wrong-import-position
import lock_rig
import sandbox

NATIVE_SOCKET = "/run/holdfast/holdfast.sock"
DISKS = "/run/bench"  # a tmpfs of the sandbox
DESCRIPTORS = min(65536, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
LIMIT = ("prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}", "--")
PROGRAMS = ("virtlockd", "holdfastd", "holdfast-keeper")
LOAD_TIMEOUT = 120


class LoadError(Exception):
    """The load generator or a daemon did not do what it should."""


class Rig(lock_rig.LockRig):
    """A daemon in a sandbox, with room for many descriptors, and a directory for disks."""

    def set_up(self):
        self.sandbox.path(DISKS).mkdir(mode=0o755)
        self.start_lockd()

    def start_lockd(self):
        """Start the lock daemon and wait until it listens."""
        self.lockd = self.sandbox.spawn(*LIMIT, lock_rig.daemon_binary(self.daemon),
                                        log=self.log("lockd"))
        self.sandbox.wait_socket(self.socket, self.lockd)

    def command(self, program, *arguments):
        """The command line that runs a program in the sandbox."""
        return [*sandbox.ENTER, f"--target={self.sandbox.init_pid}", "--", *LIMIT, str(program),
                *map(str, arguments)]

    def load(self, mode, **settings):
        """Run the load generator once; what it has measured."""
        command = self.command(load_program(), mode, *self._options(mode, settings))
        result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                timeout=LOAD_TIMEOUT, check=False)
        if result.returncode:
            raise LoadError(f"{self.daemon}, {mode}: {result.stderr.strip()}\n{self.logs()}")
        return json.loads(result.stdout)

    def _options(self, mode, settings):
        socket = NATIVE_SOCKET if mode == "native" else self.socket
        for name, value in {"socket": socket, "dir": DISKS, **settings}.items():
            yield f"--{name.replace('_', '-')}={value}"

    def holding(self, locks):
        """A process that takes that many locks, and gives them back when its input is closed."""
        command = self.command(load_program(), "hold", *self._options("hold", {"count": locks}))
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

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
                        and Path(os.readlink(entry / "exe")).name in PROGRAMS):
                    yield int(entry.name)
            except OSError:
                pass  # a kernel thread, or it has just ended


def load_program():
    """The load generator."""
    return lock_rig.build_dir() / "tests" / "bench" / "load"
