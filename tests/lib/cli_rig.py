# SPDX-License-Identifier: LGPL-2.1-or-later
"""The holdfast command for tests: fixtures that run it in front of a daemon that only pretends.

A test file imports the fixtures that it uses, and `pytestmark`.
"""

import os
import subprocess
from contextlib import contextmanager

import lock_rig
import pytest
from fake_holdfastd import SINCE, FakeDaemon

HOLDFAST = lock_rig.build_dir() / "holdfast"
UUID = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"

pytestmark = pytest.mark.skipif(not os.access(HOLDFAST, os.X_OK), reason="holdfast is not built")


@pytest.fixture(name="daemon")
def fixture_daemon(workdir):
    """A fake daemon at workdir/s."""
    daemon = FakeDaemon(workdir / "s")
    try:
        yield daemon
    finally:
        daemon.close()


@pytest.fixture(name="holdfast")
def fixture_holdfast(workdir, monkeypatch):
    """Runs the command to its end: holdfast(*arguments) gives its CompletedProcess."""
    monkeypatch.setenv("HOLDFAST_SOCKET", str(workdir / "s"))
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def holdfast(*arguments, **kwargs):
        kwargs = {"cwd": workdir, "stdin": subprocess.DEVNULL, "capture_output": True,
                  "text": True, "timeout": 60, **kwargs}
        return subprocess.run([HOLDFAST, *map(str, arguments)], check=False, **kwargs)
    return holdfast


@contextmanager
def started(*arguments, **kwargs):
    """The command while it runs; it ends with the block."""
    kwargs = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "text": True, **kwargs}
    with subprocess.Popen([HOLDFAST, *map(str, arguments)], **kwargs) as process:
        try:
            yield process
        finally:
            process.kill()


def held(daemon, disk="/srv/a.img", name="web1", pid=4711, **owner):
    """Enter a lease that somebody else has, in the place of whose it was."""
    lease = {"disk": disk, "driver": "fake", "lockspace": "", "key": disk, "mode": "exclusive",
             "since": SINCE, "claims": [],
             "owner": {"name": name, "uuid": None, "uri": None, "pid": pid, "host": "n3",
                       "state": "running", **owner}}
    # at once: who waits for the disk never sees it free
    daemon.leases = [other for other in daemon.leases if other["key"] != disk] + [lease]
    return lease
