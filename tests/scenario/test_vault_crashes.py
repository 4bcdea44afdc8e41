# SPDX-License-Identifier: LGPL-2.1-or-later
"""kill -9 of the daemon again and again, under random load: nothing is lost, nothing is left.

The environment variables HF_CRASHES and HF_SEED change how often, and what.
"""

import json
import os
import random
import signal
import subprocess
import threading
import time
import uuid as uuids
from contextlib import contextmanager, suppress
from pathlib import Path

import lock_rig
import pytest
from native import Refused, Vm, is_alive, sanitizer
from prober import ANYTHING, NOTHING, NOTHING_EXCLUSIVE, Prober, kernel_lock
# pylint: disable-next=unused-import
from vault_rig import Guest, fixture_start_daemon
from virtlockd_wire import AUTOCREATE, SHARED, Code, RemoteError
from waiting import wait_until

CRASHES = int(os.environ.get("HF_CRASHES", 200))
HOLDFAST = lock_rig.build_dir() / "holdfast"
MAX_VMS = 8


class Load:
    """Fake VMs that lock and unlock disks over both protocols, and what should be held by whom.

    Every method that changes something makes one request and knows its answer. `held` has for each
    file and owner's pid the mode and the count.
    """

    def __init__(self, daemon, prober, disks, space, rng):
        self.daemon = daemon
        self.prober = prober
        self.disks = disks
        self.space = space
        self.rng = rng
        self.vms = {}
        self.held = {}  # (path, pid) -> (mode, count)
        self.started = 0

    def resource(self, path):
        """What the protocols call a file: key and lockspace."""
        return (path.name, str(self.space)) if path.parent == self.space else (str(path), "")

    def mode_of(self, path):
        """How a file is held, None if it is free."""
        return next((mode for (name, _), (mode, _) in self.held.items() if name == path), None)

    def may_have(self, path, pid, mode):
        """Whether a request for the file should be granted."""
        others = [held for (name, who), (held, _) in self.held.items()
                  if name == path and who != pid]
        return not others or (mode == "shared" and set(others) == {"shared"})

    def guard(self, path):
        """Tell the prober how the file is held."""
        self.prober.guard(path, {None: ANYTHING, "shared": NOTHING_EXCLUSIVE,
                                 "exclusive": NOTHING}[self.mode_of(path)])

    def granted(self, path, pid, mode):
        """Note an acknowledged acquire."""
        _, count = self.held.get((path, pid), (mode, 0))
        self.held[path, pid] = (mode, count + 1)
        self.guard(path)

    @contextmanager
    def giving_back(self, *leases):
        """Around a release: before it the prober must know."""
        for lease in leases:
            mode, count = self.held.pop(lease)
            if count > 1:
                self.held[lease] = (mode, count - 1)
        for path, _ in leases:
            self.guard(path)
        yield

    @contextmanager
    def peer(self, vm):
        """libvirt's own connection on a VM's behalf."""
        with self.daemon.peer() as peer:
            peer.register(vm.pid, vm.name, uuids.UUID(vm.uuid))
            peer.create_lockspace(str(self.space))
            yield peer

    def pick(self, count):
        """Some files and modes."""
        return [(path, self.rng.choice(["exclusive", "shared"]))
                for path in self.rng.sample(self.disks, count)]

    def start(self):
        """Start a VM as libvirt does, with disks that are free."""
        wanted = [(path, mode) for path, mode in self.pick(3) if self.may_have(path, 0, mode)]
        self.started += 1
        guest = Guest(self.daemon, f"vm{self.started}", [
            (*self.resource(path), (SHARED if mode == "shared" else 0)
             | (AUTOCREATE if path.parent == self.space else 0)) for path, mode in wanted])
        self.vms[guest.pid] = guest
        for path, mode in wanted:
            self.granted(path, guest.pid, mode)

    def start_quietly(self):
        """Start a VM that holds nothing yet, for the native protocol."""
        self.started += 1
        vm = Vm(f"vm{self.started}")
        self.vms[vm.pid] = vm
        self.acquire(vm)

    def acquire(self, vm=None):
        """Lock one to four files natively, all or nothing."""
        vm = vm or self.rng.choice([*self.vms.values()])
        wanted = [(path, mode) for path, mode in self.pick(self.rng.randint(1, 4))
                  if (path, vm.pid) not in self.held and path.parent != self.space]
        if not wanted:
            return
        possible = all(self.may_have(path, vm.pid, mode) for path, mode in wanted)
        with self.daemon.client() as client:
            try:
                client.acquire(vm, *wanted)
                assert possible, f"{wanted} should have been refused"
            except Refused as refusal:
                assert not possible and refusal.error_class == "Busy", refusal
                return
        for path, mode in wanted:
            self.granted(path, vm.pid, mode)

    def plug(self):
        """Hot plug a disk as libvirt does."""
        vm = self.rng.choice([*self.vms.values()])
        [(path, mode)] = self.pick(1)
        mine, _ = self.held.get((path, vm.pid), (None, 0))
        possible = self.may_have(path, vm.pid, mode) and (
            mine is None or mine == mode == "shared")
        with self.peer(vm) as peer:
            try:
                key, space = self.resource(path)
                peer.acquire(key, space, (SHARED if mode == "shared" else 0)
                             | (AUTOCREATE if space else 0))
                assert possible, f"{path} {mode} should have been refused"
            except RemoteError as error:
                assert not possible and error.code == Code.RESOURCE_BUSY, error
                return
            self.granted(path, vm.pid, mode)

    def unplug(self):
        """Release one file over virtlockd's protocol."""
        if not self.held:
            return
        path, pid = self.rng.choice([*self.held])
        with self.peer(self.vms[pid]) as peer, self.giving_back((path, pid)):
            key, space = self.resource(path)
            peer.release(key, space)

    def release(self):
        """Release all that a VM holds, natively."""
        vm = self.rng.choice([*self.vms.values()])
        mine = [lease for lease in self.held if lease[1] == vm.pid]
        count = len(mine)
        for lease in mine:
            self.held[lease] = (self.held[lease][0], 1)
        with self.daemon.client() as client, self.giving_back(*mine):
            try:
                assert client.release(vm) == count
            except Refused as refusal:
                assert not mine and refusal.error_class == "NotHeld", refusal

    def end(self):
        """End a VM."""
        vm = self.vms.pop(self.rng.choice([*self.vms]))
        mine = [lease for lease in self.held if lease[1] == vm.pid]
        for lease in mine:
            self.held[lease] = (self.held[lease][0], 1)
        with self.giving_back(*mine):
            vm.end()
        if self.rng.random() < 0.5:
            self.settle()

    def settle(self):
        """Wait until the daemon has released what ended VMs held."""
        def settled():
            with suppress(EOFError, ConnectionError), self.daemon.client() as client:
                return {lease["owner"]["pid"] for lease in client.leases()} <= set(self.vms)
            return False
        wait_until(settled, "the leases of ended VMs to be released")

    def step(self):
        """Make one request at random."""
        kinds = [self.start, self.start_quietly] * (len(self.vms) < MAX_VMS)
        if self.vms:
            kinds += [self.acquire, self.plug] * 3 + [self.unplug] * 2 + [self.release]
        if len(self.vms) >= MAX_VMS // 2:
            kinds += [self.end]
        self.rng.choice(kinds)()

    def listed(self):
        """What the daemon lists, of living VMs: as the keys and modes of `held`."""
        with self.daemon.client() as client:
            leases = client.leases()
        return sorted((os.path.join(lease["lockspace"], lease["key"]), lease["owner"]["pid"],
                       lease["mode"]) for lease in leases)

    def check(self):
        """Complain unless exactly what was acknowledged is held, and by living processes."""
        self.settle()
        assert self.listed() == sorted((str(path), pid, mode)
                                       for (path, pid), (mode, _) in self.held.items())
        for path in self.disks:
            expected = {None: None, "shared": "READ", "exclusive": "WRITE"}[self.mode_of(path)]
            assert (kernel_lock(path) if path.exists() else None) == expected, path
        for vm in self.vms.values():
            assert vm.process.poll() is None, f"{vm.name} was ended"


@pytest.fixture(name="load")
def fixture_load(start_daemon, workdir, new_image):
    """Random load on a daemon, watched by the prober; its seed is printed."""
    seed = int(os.environ.get("HF_SEED", random.SystemRandom().getrandbits(32)))
    print(f"HF_SEED={seed}")
    daemon = start_daemon()
    space = workdir / "files"
    space.mkdir()
    files = [new_image(f"d{number}") for number in range(10)] + [
        space / f"k{number}" for number in range(5)]
    with Prober(workdir, files) as prober:
        load = Load(daemon, prober, files, space, random.Random(seed))
        try:
            yield load
        finally:
            for vm in load.vms.values():
                vm.end()


@pytest.mark.parametrize("every", [1, 5])
def test_crash_after_each_answer(load, every):
    """The daemon is killed right after it has answered, N times in a row."""
    pid = load.daemon.daemon_pid
    pids = set()
    for number in range(CRASHES // 2):
        for _ in range(every):
            load.step()
        os.kill(pid, signal.SIGKILL)
        pid = load.daemon.wait_next(pid)
        pids.add(pid)
        if number % 4 == 0:
            load.check()
        assert not load.prober.report.exists(), load.prober.report.read_text("utf-8")
    load.check()
    load.prober.assert_nothing(at_least=100)
    print(f"{len(pids)} daemons, {load.started} VMs, {load.prober.rounds()} rounds of the prober")
    while load.vms:
        load.end()
    load.check()
    assert load.listed() == [] and not os.listdir(load.space)
    with load.daemon.client() as client:
        assert client.call("query-status")["vault"]["descriptors"] == 2
    assert "is lost" not in load.daemon.log() and "damaged" not in load.daemon.log()


def test_crash_before_the_answer(load):
    """Killed while a request is under way: the client repeats it, and it is done once."""
    vm = Vm("web1")
    load.vms[vm.pid] = vm
    disks = load.disks[:5]
    pid = load.daemon.daemon_pid

    def repeat(request, *ends):
        """Make a request of which the first answers may be lost; ends: errors that say done."""
        while True:
            try:
                with load.daemon.client() as client:
                    return request(client)
            except (EOFError, ConnectionError):
                continue
            except Refused as refusal:
                assert refusal.error_class in ends, refusal
                return None

    def interrupted(command, **arguments):
        """Send the request and kill the daemon a moment later."""
        nonlocal pid
        with load.daemon.client() as client:
            client.send(command, owner=vm.owner() if command == "acquire" else {"pid": vm.pid},
                        **arguments)
            for _ in range(load.rng.randrange(2000)):
                pass
            os.kill(pid, signal.SIGKILL)
        pid = load.daemon.wait_next(pid)

    for _ in range(CRASHES // 4):
        interrupted("acquire", disks=[{"path": str(disk)} for disk in disks])
        assert len(repeat(lambda client: client.acquire(vm, *disks))) == len(disks)
        for disk in disks:
            load.granted(disk, vm.pid, "exclusive")
            load.held[disk, vm.pid] = ("exclusive", 1)
        load.check()
        with load.giving_back(*((disk, vm.pid) for disk in disks)):
            interrupted("release")
            repeat(lambda client: client.release(vm), "NotHeld")
        load.check()
    load.prober.assert_nothing()


@contextmanager
def crashing(daemon):
    """While this lasts, the daemon is killed again and again, and whatever else its keeper has
    started; but only one that serves, for after the others the keeper pauses ever longer. A request
    is not repeated for ever: in one of a few pauses it has to be answered."""
    ended, kills = threading.Event(), []

    def kill():
        while not kills or not ended.wait(1.0 if sanitizer() else 0.2):
            with suppress(OSError, EOFError):
                with daemon.client():
                    pass  # it serves
                children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children")
                for pid in children.read_text(encoding="ascii").split():
                    os.kill(int(pid), signal.SIGKILL)
                    kills.append(pid)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield
    finally:
        ended.set()
        killer.join()
    assert kills, "nothing was killed"


def command(daemon, *arguments):
    """The holdfast command's CompletedProcess."""
    return subprocess.run([HOLDFAST, "--socket", daemon.socket, *map(str, arguments)],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
                          check=False)


def test_command_repeats(start_daemon, start_vm, new_image):
    """holdfast acquire, locks and release get their answers though daemons die under them."""
    daemon = start_daemon()
    disk = new_image("a")
    vm = start_vm()
    with crashing(daemon):
        for _ in range(20):
            done = command(daemon, "acquire", "--pid", vm.pid, "-d", disk)
            assert done.returncode == 0, done.stderr
            done = command(daemon, "locks", "--json")
            assert done.returncode == 0, done.stderr
            assert str(disk) in done.stdout
            json.loads(done.stdout)
            done = command(daemon, "release", "--all", "--pid", vm.pid)
            assert done.returncode == 0, done.stderr
    assert is_alive(vm.pid)
    wait_until(lambda: not kernel_lock(disk), "the last release to be done")


def test_waiting_command(start_daemon, start_vm, new_image):
    """holdfast run --wait waits through crashes, and gets the disk when it is free."""
    daemon = start_daemon()
    disk = new_image("a")
    vm = start_vm()
    with daemon.client() as client:
        client.acquire(vm, disk)
    with subprocess.Popen([HOLDFAST, "--socket", daemon.socket, "run", "--wait", "120", "-d", disk,
                           "--", "echo", "mine"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as process:
        assert "waiting" in process.stderr.readline()
        for _ in range(5):
            daemon.crash()
            time.sleep(0.2)  # one request is not repeated for ever
            assert process.poll() is None, process.stderr.read()
        vm.end()
        assert process.communicate(timeout=60)[0] == "mine\n"
    assert process.returncode == 0
