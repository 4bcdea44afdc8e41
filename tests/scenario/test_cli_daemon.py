# SPDX-License-Identifier: LGPL-2.1-or-later
"""The holdfast command and the daemon together: locks that live exactly as long as they should."""

import json
import os
import queue
import signal
import subprocess
import threading
import time
from contextlib import contextmanager

import lock_rig
import pytest
# pylint: disable=unused-import
from cli_rig import HOLDFAST, UUID, fixture_holdfast, pytestmark, started
from lock_table import held_locks
from waiting import wait_until

HOLDFASTD = lock_rig.build_dir() / "holdfastd"


class Daemon:
    """Our daemon, serving workdir/s without any configuration."""

    def __init__(self, workdir):
        self.workdir = workdir
        self.process = None
        (workdir / "holdfast.conf").write_text('lockd_conf = ""\nhost_name = "n3"\n')

    def start(self):
        """Start it, and wait until it serves."""
        with open(self.workdir / "daemon.log", "a", encoding="utf-8") as log:
            # pylint: disable=consider-using-with
            self.process = subprocess.Popen(
                [HOLDFASTD, "--no-keeper", "--socket", self.workdir / "s", "--config",
                 self.workdir / "holdfast.conf"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        command = [HOLDFAST, "--socket", self.workdir / "s", "--quiet", "status"]
        wait_until(lambda: subprocess.run(command, check=False, capture_output=True).returncode == 0
                   or self.process.poll() is not None, "the daemon to serve")
        assert self.process.poll() is None, (self.workdir / "daemon.log").read_text()

    def stop(self):
        """End it as systemd would."""
        self.process.terminate()
        assert self.process.wait(timeout=60) == 0


@pytest.fixture(name="daemon")
def fixture_daemon(workdir):
    """A daemon for one test."""
    if not os.access(HOLDFASTD, os.X_OK):
        pytest.skip("holdfastd is not built")
    daemon = Daemon(workdir)
    daemon.start()
    try:
        yield daemon
        daemon.stop()
    finally:
        if daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait()
        print((workdir / "daemon.log").read_text())


@contextmanager
def running(*words):
    """holdfast run with these words, and a command that goes on until the end of the block."""
    with started("run", *words, "--", "sh", "-c", "echo; exec sleep 600") as process:
        assert process.stdout.readline() == "\n", process.wait()
        yield process


def wait_free(holdfast, disk):
    """Wait until nobody holds the disk."""
    wait_until(lambda: holdfast("who", "-q", disk).returncode == 0, f"{disk} to be free")


def test_run_holds_and_refuses(holdfast, daemon, image):
    """As long as one runs the other is refused, and told who it is; then it gets its turn."""
    del daemon
    with running("-d", image, "--name", "web1", "--uuid", UUID) as first:
        assert held_locks(image)
        result = holdfast("run", "-d", image, "--name", "web2", "echo", "started")
        assert result.returncode == 75 and not result.stdout
        for fact in (f"disk {image} is held by VM web1", UUID, f"pid {first.pid}", "on host n3",
                     "since ", "in exclusive mode"):
            assert fact in result.stderr
        result = holdfast("--json", "run", "-d", image, "true")
        [named] = json.loads(result.stderr)["error"]["data"]["holders"]
        assert (named["name"], named["uuid"], named["pid"]) == ("web1", UUID, first.pid)
        result = holdfast("who", image)
        assert result.returncode == 75
        assert f"VM web1 (uuid {UUID}, pid {first.pid})" in result.stdout
        [lease] = json.loads(holdfast("--json", "locks").stdout)["leases"]
        assert lease["disk"] == str(image) and lease["owner"]["pid"] == first.pid
        assert str(image) in holdfast("locks", "--pid", first.pid, "--uuid", UUID).stdout
        assert not holdfast("locks", "--pid", os.getpid()).stdout
    wait_free(holdfast, image)
    assert not held_locks(image)
    assert holdfast("run", "-d", image, "echo", "started").stdout == "started\n"


def test_run_wait(holdfast, daemon, image):
    """Waiting ends when the holder does."""
    del daemon
    with running("-d", image, "-n", "web1") as first, started(
            "run", "-d", image, "--wait", "100", "echo", "go", stderr=subprocess.PIPE) as second:
        assert f"waiting up to 100 s for VM web1 (pid {first.pid})" in second.stderr.readline()
        first.send_signal(signal.SIGKILL)
        assert second.communicate(timeout=60)[0] == "go\n"
        assert second.returncode == 0
    wait_free(holdfast, image)


def test_run_modes(holdfast, daemon, image):
    """Sharers and readers go together, a writer with nobody."""
    del daemon
    with running("-d", f"{image},shared"), running("-d", f"{image},ro"):
        assert holdfast("run", "-d", f"{image},ro", "true").returncode == 0
        assert holdfast("run", "-d", image, "true").returncode == 75
        result = holdfast("who", image)
        assert result.returncode == 75 and "readers may join" in result.stdout
        assert len(json.loads(holdfast("locks", "--json").stdout)["leases"]) == 2
    wait_free(holdfast, image)
    with running("-d", image):
        assert holdfast("run", "-d", f"{image},ro", "true").returncode == 75


def test_run_all_or_nothing(holdfast, daemon, new_image):
    """One refusal, and nothing of the request stays."""
    del daemon
    one, two = new_image("one"), new_image("two")
    with running("-d", two):
        assert holdfast("run", "-d", one, "-d", two, "true").returncode == 75
        assert holdfast("who", one).returncode == 0 and not held_locks(one)


def test_run_leaves_child(holdfast, daemon, image):
    """The locks end with the process, not with what it left in the background."""
    del daemon
    result = holdfast("run", "-d", image, "--", "sh", "-c", "sleep 600 >&- 2>&- & echo $!")
    child = int(result.stdout)
    try:
        wait_free(holdfast, image)
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)


def test_run_with_children(holdfast, daemon, image):
    """With --with-children they last until the last one has ended."""
    del daemon
    result = holdfast("run", "--with-children", "-d", image, "--", "sh", "-c",
                      "sleep 600 >&- 2>&- & echo $!")
    child = int(result.stdout)
    try:
        time.sleep(0.5)
        assert holdfast("who", image).returncode == 75 and held_locks(image)
    finally:
        os.kill(child, signal.SIGKILL)
    wait_free(holdfast, image)


def test_lease(holdfast, daemon, workdir):
    """A manual lease, in both spellings, and by a domain."""
    del daemon
    (workdir / "leases" / "area").mkdir(parents=True)
    (workdir / "leases" / "area" / "k").touch()
    (workdir / "d.xml").write_text(
        f"<domain><name>web3</name><devices><lease><lockspace>area</lockspace><key>k</key>"
        f"<target path='{workdir}/leases'/></lease></devices></domain>")
    with running("-l", f"{workdir}/leases/area:k", "-n", "web1"):
        result = holdfast("run", "-l", "leases/area/k", "true")
        assert result.returncode == 75 and "VM web1" in result.stderr
        assert holdfast("who", "--lease", "leases/area:k").returncode == 75
        assert f"{workdir}/leases/area/k" in holdfast("locks").stdout
        assert "VM web1" in holdfast("run", "--domain", "d.xml", "true").stderr
    wait_until(lambda: holdfast("who", "--lease", "leases/area:k").returncode == 0, "the lease")
    assert holdfast("run", "--domain", "d.xml", "true").returncode == 0
    for bad in ("leases/area:..", "leases/area:.", "leases/none:k"):
        assert holdfast("run", "-l", bad, "true").returncode == 1


def test_acquire_release(holdfast, daemon, new_image):
    """For a process that runs already; repeated it is no error; released, or ended, it is free."""
    del daemon
    one, two = new_image("one"), new_image("two")
    with subprocess.Popen(["sleep", "600"]) as owner:
        for _ in range(2):
            result = holdfast("acquire", "-p", owner.pid, "-d", one, "-d", two, "-n", "web1")
            assert result.returncode == 0, result.stderr
            assert f"{one}: exclusive, held by VM web1 (pid {owner.pid})\n" in result.stdout
        assert holdfast("acquire", "-p", os.getpid(), "-d", one).returncode == 75
        assert holdfast("release", "-p", os.getpid(), "-d", one).returncode == 1
        assert holdfast("release", "-p", owner.pid, "-d", one).stdout == "released: 1\n"
        assert holdfast("who", one).returncode == 0
        assert holdfast("release", "-p", owner.pid, "-d", two, "-d", one).returncode == 1
        assert holdfast("who", two).returncode == 75
        owner.kill()
    wait_free(holdfast, two)
    result = holdfast("acquire", "-p", owner.pid, "-d", one)
    assert result.returncode == 1 and str(owner.pid) in result.stderr


@pytest.mark.parametrize("words, complaint", [
    ([], "another daemon runs: it has locked {0}/s.pid; end that one first"),
    (["--pid-file", "/proc/none/pid"],
     "cannot write /proc/none/pid: No such file or directory; see who may write there"),
])
def test_daemon_that_cannot_start(daemon, workdir, words, complaint):
    """What is in a daemon's way is said with what to do."""
    del daemon
    result = subprocess.run([HOLDFASTD, "--no-keeper", "--socket", workdir / "s", *words],
                            check=False, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1 and complaint.format(workdir) in result.stderr


def test_bad_disks(holdfast, daemon, workdir):
    """What is no disk is said so, and the command does not run."""
    del daemon
    os.mkfifo(workdir / "fifo")
    for name in ("none.img", ".", "fifo"):
        result = holdfast("run", "-d", workdir / name, "echo", "started")
        assert (result.returncode, result.stdout) == (1, "")
        assert str(workdir) in result.stderr
        assert "mode" not in result.stderr
    result = holdfast("run", "-d", f"{workdir}/a.img,rw", "echo", "started")
    assert result.returncode == 1
    assert "hint: 'rw' is no mode; there are exclusive, shared and ro" in result.stderr
    assert not holdfast("locks").stdout


class Events:
    """What holdfast watch --json prints."""

    def __init__(self, watch):
        self.lines = queue.Queue()
        threading.Thread(target=self._read, args=(watch.stdout,), daemon=True).start()

    def _read(self, stream):
        for line in stream:
            self.lines.put(json.loads(line))

    def next(self, name):
        """The data of the next event of this name."""
        while (event := self.lines.get(timeout=60))["event"] != name:
            pass
        return event["data"]

    def wait_for_any(self, cause):
        """Make events happen until one arrives: then the watcher has subscribed."""
        wait_until(lambda: cause() and not self.lines.empty(), "an event")


def test_watch(holdfast, daemon, new_image):
    """Each step of a lock's life is an event, and a new daemon's are told, too."""
    image, other = new_image("a"), new_image("b")
    with started("watch", "--json", stderr=subprocess.DEVNULL) as watch:
        events = Events(watch)
        events.wait_for_any(lambda: holdfast("run", "-d", other, "true"))
        with running("-d", image, "-n", "web1") as first:
            while (acquired := events.next("LEASE_ACQUIRED"))["disk"] != str(image):
                pass
            assert acquired["owner"]["pid"] == first.pid
            holdfast("run", "-d", image, "-n", "web2", "true")
            refused = events.next("LEASE_REFUSED")
            assert refused["owner"]["name"] == "web2"
            assert refused["holders"][0]["name"] == "web1"
        while events.next("OWNER_GONE")["name"] != "web1":
            pass
        assert events.next("LEASE_RELEASED")["reason"] == "owner-gone"
        daemon.stop()
        daemon.start()
        assert events.next("EVENTS_LOST") == {"count": None}
        holdfast("acquire", "-p", os.getpid(), "-d", image)
        events.next("LEASE_ACQUIRED")
        holdfast("release", "-p", os.getpid(), "--all")
        assert events.next("LEASE_RELEASED")["reason"] == "released"
    result = holdfast("watch", "--event", "NO_SUCH_EVENT")
    assert result.returncode == 1 and "NO_SUCH_EVENT" in result.stderr


def test_status_and_drivers(holdfast, daemon, image):
    """The daemon tells about itself."""
    with running("-d", image):
        status = json.loads(holdfast("status", "--json").stdout)
        assert (status["leases"], status["owners"], status["host"]) == (1, 1, "n3")
        assert status["pid"] == daemon.process.pid
        text = holdfast("status").stdout
        assert "lockd" in text and "direct:" in text and " ok\n" in text
    names = [line for line in holdfast("drivers").stdout.splitlines() if line.startswith("name=")]
    assert sorted(names) == ["name=lockd", "name=nop"]
    assert "builtin=yes\n" in holdfast("drivers", "nop").stdout
