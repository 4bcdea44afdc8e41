# SPDX-License-Identifier: LGPL-2.1-or-later
"""Storage that can be made to hang: a FUSE file system (bindfs) in mounts of a daemon's own, whose
process is stopped.

A test file imports the fixture.
"""

import os
import shutil
import signal
from contextlib import closing, suppress
from pathlib import Path

import pytest
from native import in_mounts, is_alive
from waiting import wait_until

MOUNT = """
setpriv --pdeathsig KILL bindfs -f -o attr_timeout=0,entry_timeout=0,negative_timeout=0 "$1" "$2" &
echo $! >"$3"
until mountpoint --quiet "$2"; do sleep 0.01; done
"""


class SlowStorage:
    """A directory whose file system can be made to hang, as one daemon sees it."""

    def __init__(self, workdir):
        self.real = workdir / "real"
        self.path = workdir / "slow"
        self.pid_file = workdir / "bindfs.pid"
        self.real.mkdir()
        self.path.mkdir()
        self.lane = f"direct:{self.path}"

    def wrapper(self):
        """What the daemon is started by."""
        return in_mounts(MOUNT, self.real, self.path, self.pid_file)

    def disk(self, name):
        """Make a disk; its path for the daemon."""
        (self.real / name).write_bytes(bytes(4096))
        return self.path / name

    def hang(self):
        """From now on nothing is answered."""
        self._kill(signal.SIGSTOP)

    def go_on(self):
        """Answer again, also what has waited."""
        self._kill(signal.SIGCONT)

    def close(self):
        """End it; what waits for it fails."""
        if self.pid_file.exists():
            with suppress(ProcessLookupError):
                self._kill(signal.SIGKILL)
                wait_until(lambda: not is_alive(self._pid()), "the file system to end")
            self.pid_file.unlink()

    def _pid(self):
        return int(self.pid_file.read_text(encoding="ascii"))

    def _kill(self, number):
        # the number may be another process's by now
        command = Path(f"/proc/{self._pid()}/cmdline")
        if command.exists() and str(self.path) in command.read_text(encoding="utf-8"):
            os.kill(self._pid(), number)


def lend(kind, workdir):
    """For a fixture: storage that can hang, of a class of this kind."""
    if os.geteuid():
        pytest.skip("not root")
    for program in ("bindfs", "setpriv", "mountpoint"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("no /dev/fuse")
    with closing(kind(workdir)) as slow:
        yield slow


@pytest.fixture(name="slow")
def fixture_slow(workdir):
    """Storage that can hang."""
    yield from lend(SlowStorage, workdir)
