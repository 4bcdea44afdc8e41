# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run inside a guest with systemd as process 1 and the shipped units: locks outlive the daemon.

The load and the prober are those of scenario/test_vault_crashes.py.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import uuid as uuids
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scenario"))

# pylint: disable=wrong-import-position
import native
import virtlockd_wire
from native import Vm, is_alive
from prober import NOTHING, Prober, kernel_lock
from test_vault_crashes import Load
from waiting import wait_until

CRASHES = int(os.environ.get("HF_CRASHES", "24"))
PATIENCE = 180.0
PROGRAM = Path("/usr/local/sbin/holdfastd")
CONFIG = Path("/etc/holdfast/holdfast.conf")
UNIT = "holdfastd.service"

wait_until.__defaults__ = (PATIENCE,)       # in Load, too: an emulated host is slow


def systemctl(*words, check=True):
    """Call systemctl; what it says."""
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False,
                          timeout=PATIENCE)
    assert not check or done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout.strip()


def show(name, unit=UNIT):
    """A property of a unit."""
    return systemctl("show", "--value", "-p", name, unit)


class Service:
    """The daemon as a service, for Load."""

    socket = "/run/holdfast/holdfast.sock"
    virtlockd_socket = "/run/libvirt/virtlockd-sock"

    def client(self):
        """A connection to the native socket."""
        return native.connect(self.socket, PATIENCE)

    def peer(self):
        """A connection to the virtlockd socket."""
        return virtlockd_wire.connect(self.virtlockd_socket, PATIENCE)

    @property
    def pid(self):
        """The daemon that serves."""
        with self.client() as client:
            return client.greeting["pid"]

    def status(self):
        """What it says about itself."""
        with self.client() as client:
            return client.call("query-status")

    def wait_next(self, old):
        """Wait until another than that with the pid old serves; its pid."""
        def served():
            try:
                pid = self.pid
            except (ConnectionError, EOFError):
                return 0
            return pid if pid != old else 0
        return wait_until(served, "the next daemon to serve", PATIENCE)

    def crash(self):
        """Kill it; the pid of the next one."""
        old = int(show("MainPID"))
        os.kill(old, signal.SIGKILL)
        return self.wait_next(old)

    def restart(self):
        """systemctl restart; the pid of the next one."""
        old = self.pid
        systemctl("restart", UNIT)
        return self.wait_next(old)


@pytest.fixture(name="service")
def fixture_service():
    """The daemon, listening on both sockets."""
    # a restart takes its time here, but what it is given must be enough
    systemctl("start", "holdfastd.socket", "holdfast-virtlockd.socket")
    systemctl("start", UNIT)
    return Service()


@pytest.fixture(name="disks")
def fixture_disks(new_image):
    """Some images."""
    return [new_image(f"d{number}") for number in range(6)]


@pytest.fixture(name="held")
def fixture_held(service, disks, workdir):
    """Three guests hold disks, over both protocols, and the prober tries them; gives a check."""
    vms = [Vm("native"), Vm("virtlockd"), Vm("sharing")]
    with Prober(workdir, disks) as prober:
        with service.client() as client:
            client.acquire(vms[0], disks[0], disks[1])
            client.acquire(vms[2], (disks[4], "shared"))
        with service.peer() as peer:
            peer.register(vms[1].pid, vms[1].name, uuids.UUID(vms[1].uuid))
            peer.acquire(str(disks[2]))
            peer.acquire(str(disks[3]))
            peer.restrict()
            for disk in disks[:4]:
                prober.guard(disk, NOTHING)

            def check():
                with service.client() as client:
                    locks = {(lease["key"], lease["owner"]["pid"]) for lease in client.leases()}
                assert locks == {(str(disks[0]), vms[0].pid), (str(disks[1]), vms[0].pid),
                                 (str(disks[2]), vms[1].pid), (str(disks[3]), vms[1].pid),
                                 (str(disks[4]), vms[2].pid)}
                assert [kernel_lock(disk) for disk in disks] == ["WRITE"] * 4 + ["READ", None]
                assert all(is_alive(vm.pid) for vm in vms)
                prober.assert_nothing()
            yield check
            for disk in disks[:4]:
                prober.guard(disk, 0)
        for vm in vms:
            vm.end()
    wait_until(lambda: not service.status()["leases"], "the leases to be released", PATIENCE)


def test_crashes_and_restarts_under_load(service, disks, workdir):
    """Killed right after an answer, or restarted, N times in a row: no lock is lost, no VM killed."""
    seed = int(os.environ.get("HF_SEED", random.SystemRandom().getrandbits(32)))
    print(f"HF_SEED={seed}")
    rng = random.Random(seed)
    space = workdir / "files"
    space.mkdir()
    files = disks + [space / f"k{number}" for number in range(3)]
    with Prober(workdir, files) as prober:
        load = Load(service, prober, files, space, rng)
        try:
            pid = service.pid
            for number in range(CRASHES):
                for _ in range(rng.randint(1, 3)):
                    load.step()
                if rng.random() < 0.8:
                    os.kill(pid, signal.SIGKILL)
                    pid = service.wait_next(pid)
                else:
                    pid = service.restart()
                if number % 4 == 3:
                    load.check()
            load.check()
            prober.assert_nothing(at_least=100)
            print(f"{load.started} VMs, {prober.rounds()} rounds of the prober")
            while load.vms:
                load.end()
            load.check()
            assert load.listed() == []
        finally:
            for vm in load.vms.values():
                vm.end()


@contextmanager
def installed(version):
    """While this lasts, the program says that it is another version."""
    before = PROGRAM.with_name("before")
    ours = Service().status()["version"]
    shutil.move(PROGRAM, before)
    try:
        assert len(version) == len(ours) and version != ours
        # as a package manager does: a new file under the old name
        PROGRAM.write_bytes(before.read_bytes().replace(ours.encode(), version.encode()))
        PROGRAM.chmod(0o755)
        yield
    finally:
        shutil.move(before, PROGRAM)


def test_upgrade_and_back(service, held):
    """The next version takes over, by restart and by crash, and hands back to this one."""
    ours = service.status()["version"]
    with installed("9.9.9"):
        service.restart()
        assert service.status()["version"] == "9.9.9"
        held()
        service.crash()
        assert service.status()["version"] == "9.9.9"
        held()
    service.restart()
    assert service.status()["version"] == ours
    held()


def test_broken_configuration(service, held):
    """A daemon that refuses to start leaves the locks where they are until it is mended."""
    text = CONFIG.read_text(encoding="utf-8")
    old = service.pid
    try:
        CONFIG.write_text("log_level = [ what\n", encoding="utf-8")
        systemctl("restart", UNIT, check=False)
        wait_until(lambda: int(show("NRestarts")) >= 3, "some vain starts", PATIENCE)
        assert show("ActiveState") == "activating"
    finally:
        CONFIG.write_text(text, encoding="utf-8")
    service.wait_next(old)
    held()


def test_repeated_crashes_do_not_end_it(service, held):
    """systemd never gives up: it would drop the locks."""
    for _ in range(8):
        service.crash()
    held()
    assert show("ActiveState") == "active"


def test_socket_activation_of_virtlockds_socket(service, disks):
    """Stock libvirt's first word starts the daemon, which is then ours."""
    assert os.readlink("/etc/systemd/system/virtlockd.socket").endswith("/holdfast-virtlockd.socket")
    systemctl("stop", UNIT)
    assert show("ActiveState") == "inactive"
    vm = Vm("web1")
    try:
        with service.peer() as peer:
            peer.register(vm.pid, vm.name, uuids.UUID(vm.uuid))
            peer.acquire(str(disks[0]))
            assert kernel_lock(disks[0]) == "WRITE"
            peer.release(str(disks[0]))
        assert show("ActiveState") == "active"
        with service.client() as client:
            client.acquire(vm, disks[1])
    finally:
        vm.end()
    wait_until(lambda: not kernel_lock(disks[1]), "its release", PATIENCE)
