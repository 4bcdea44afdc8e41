# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run inside a guest with systemd as process 1: the reservation helper's shipped units.

The socket is enabled, the LUN is HF_LUN. What the guests of test_prhelper_program.py do to a helper
that is restarted they do to the service.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scenario"))

# pylint: disable=wrong-import-position
import pr_wire
from pr_wire import CLEAR, GOOD, REGISTER_AND_IGNORE, RESERVE, PrClient
from test_prhelper_program import all_progress, guests
from waiting import wait_until

LUN = os.environ["HF_LUN"]
PATIENCE = 180.0
SOCKET, SOCKET_UNIT = "/run/qemu-pr-helper.sock", "holdfast-pr-helper.socket"
UNIT = "holdfast-pr-helper.service"
CONFIG = Path("/etc/holdfast/holdfast.conf")
KEY = 0x5d
RAW_IO, ADMIN = 1 << 17, 1 << 21

wait_until.__defaults__ = (PATIENCE,)  # in guests(), too: an emulated host is slow


def systemctl(*words, check=True):
    """Call systemctl; what it says."""
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False,
                          timeout=PATIENCE)
    assert not check or done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout.strip()


def show(name):
    """A property of the service."""
    return systemctl("show", "--value", "-p", name, UNIT)


def holdfast(*words):
    """What the command prints with --json, an object a line."""
    done = subprocess.run(["/usr/local/bin/holdfast", "--json", *words], capture_output=True, text=True,
                          check=True, timeout=PATIENCE)
    return [json.loads(line) for line in done.stdout.splitlines()]


def status(pid, name):
    """A line of /proc/PID/status."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return line.split(":")[1].strip()
    raise KeyError(name)


@pytest.fixture(name="stopped", autouse=True)
def fixture_stopped():
    """The socket listens, and nobody serves it yet."""
    systemctl("stop", UNIT)
    systemctl("start", SOCKET_UNIT)
    assert show("ActiveState") == "inactive"


@pytest.fixture(name="lun")
def fixture_lun():
    """The LUN, open as by QEMU; no registration is left on it."""
    fd = pr_wire.open_device(LUN)
    yield fd
    with PrClient(SOCKET, PATIENCE) as client:
        assert client.out(fd, REGISTER_AND_IGNORE, 0, KEY).status == GOOD
        assert client.out(fd, CLEAR, KEY).status == GOOD
    os.close(fd)


@contextmanager
def settings(text):
    """This configuration for the block's time."""
    before = CONFIG.read_text(encoding="utf-8")
    CONFIG.write_text(text, encoding="utf-8")
    try:
        yield
    finally:
        CONFIG.write_text(before, encoding="utf-8")


def test_first_command_starts_it(lun):
    """A guest's command starts the service, is carried out, and is in the journal."""
    with PrClient(SOCKET, PATIENCE) as client:
        assert client.out(lun, REGISTER_AND_IGNORE, 0, KEY).status == GOOD
        assert client.out(lun, RESERVE, KEY, kind=5).status == GOOD
        assert client.read(lun).keys == [KEY]
    assert show("ActiveState") == "active"
    assert os.readlink("/etc/systemd/system/qemu-pr-helper.socket").endswith(f"/{SOCKET_UNIT}")

    def written():
        found = [(record["action"], record.get("key"), record["result"])
                 for record in holdfast("pr", "log", "--since", "today")]
        return found[-2:] == [("REGISTER AND IGNORE EXISTING KEY", "0x0", "GOOD"),
                              ("RESERVE", f"{KEY:#x}", "GOOD")]
    wait_until(written, "the records to be in the journal")
    device = holdfast("pr", "status", LUN)[0]["devices"][0]
    assert device["reservation"]["key"] == f"{KEY:#x}"
    journal = subprocess.run(["journalctl", "-u", UNIT, "-o", "cat"], capture_output=True, text=True,
                             check=True).stdout
    assert "serving systemd's socket" in journal


def test_sandbox():
    """What the unit takes away is away, and with it a command still works (see above)."""
    systemctl("start", UNIT)
    pid = show("MainPID")
    workers = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    assert workers
    for process, allowed in ((pid, RAW_IO), (workers[0], RAW_IO | ADMIN)):
        assert status(process, "NoNewPrivs") == "1" and status(process, "Seccomp") == "2"
        assert int(status(process, "CapEff"), 16) & ~allowed == 0
        root = Path(f"/proc/{process}/root")
        assert os.statvfs(root / "usr").f_flag & os.ST_RDONLY
        assert not any((root / "root").iterdir()) and not any((root / "tmp").iterdir())
    exposure = subprocess.run(["systemd-analyze", "security", "--no-pager", UNIT], capture_output=True,
                              text=True, check=True).stdout.splitlines()[-1]
    print(exposure)
    assert float(exposure.rpartition(": ")[2].split()[0]) < 2.5


def test_restarts_with_guests():
    """systemctl restart: no guest sees an error. A crash: the next command is answered."""
    with guests(SOCKET) as running:
        for _ in range(3):
            all_progress(running)
            systemctl("restart", UNIT)
        all_progress(running)
    for _ in range(8):  # more often than systemd bears by default
        pid = int(show("MainPID"))
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda old=pid: int(show("MainPID")) not in (0, old), "the next helper")
    with guests(SOCKET) as running:
        all_progress(running)


def test_mistake_in_the_configuration(lun):
    """The journal says which; when it is mended, the service runs, and guests have waited."""
    with settings('pr_rules = [ "device=* colour=blue" ]\n'):
        systemctl("start", UNIT, check=False)
        wait_until(lambda: int(show("NRestarts")) >= 7, "some vain starts")
        assert show("ActiveState") == "activating"
    with PrClient(SOCKET, PATIENCE) as client:
        assert client.read(lun).status == GOOD
    journal = subprocess.run(["journalctl", "-u", UNIT, "-o", "cat"], capture_output=True, text=True,
                             check=True).stdout
    assert "colour" in journal
