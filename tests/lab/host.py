# SPDX-License-Identifier: LGPL-2.1-or-later
"""One host of a lab, and what can be done to it."""

import shlex
import time

from . import boot, qemu, services
from .errors import CommandFailed, LabError, NoContact
from .wire import CONTACT_LIMIT, Call

RUN_LIMIT = 120.0       # a command's time, unless it is told; most take less than 1 s
BOOT_LIMIT = 400.0      # 6 s alone, with systemd 13 s; 200 s beside 20 busy processes on two cores
RESET_LIMIT = 60.0      # for QEMU to be started again
NO_LIMIT = {"id": "shared0", "bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0}
LANS = (0, 1)


class Running:
    """A command in a guest that has been started and not waited for."""

    def __init__(self, host, command, call):
        self.host = host
        self.command = command
        self.call = call

    def ended(self, within=0.0):
        """Whether it has ended, or does so within that many seconds."""
        return self.call.wait(within) if self.call.code is None else True

    def wait(self, timeout=RUN_LIMIT, check=True):
        """Wait for its end; its Result. CommandFailed if it failed or took too long."""
        self.ended(timeout)
        result = self.call.result(timeout)
        if self.call.lost and result.code is None:
            raise NoContact(f"{self.host}: lost contact during {self.command!r}")
        if check and result.code != 0:
            raise CommandFailed(self.host, self.command, result)
        return result

    @property
    def out(self):
        """What it has written so far."""
        self.ended()
        return self.call.text(b"o")

    @property
    def over(self):
        """Whether nothing more is to be heard of it."""
        return self.call.sock.fileno() < 0

    def kill(self):
        """Kill it."""
        self.call.close()


class Host:
    """A host of a lab: h1, h2, …"""

    def __init__(self, keeper, plan, name):
        self.keeper = keeper
        self.plan = plan
        self.name = name
        self.number = int(name[1:])
        self.address = f"192.168.77.{self.number}"
        self.started = []       # a Running that nobody refers to would hang up

    def __str__(self):
        return self.name

    # ---- commands

    def start(self, command, stdin=b"", contact=CONTACT_LIMIT, on_output=None):
        """Start a command (a string for bash, or a list of words); gives a Running."""
        words = ["bash", "-c", command] if isinstance(command, str) else [str(w) for w in command]
        port = self.status()["port"]
        if not port:
            raise NoContact(f"{self} is off")
        try:
            running = Running(self, command, Call(port, words, stdin, contact, on_output))
        except NoContact as error:
            raise NoContact(f"{self}: {error}") from None
        self.started = [one for one in self.started if not one.over] + [running]
        return running

    def run(self, command, timeout=RUN_LIMIT, check=True, stdin=""):
        """Run a command to its end; its Result (.out, .err, .code, .text)."""
        running = self.start(command, stdin.encode() if isinstance(stdin, str) else stdin)
        try:
            return running.wait(timeout, check)
        finally:
            running.kill()

    def out(self, command, timeout=RUN_LIMIT):
        """What a command writes, without the last newline."""
        return self.run(command, timeout).text

    def wait_for(self, command, timeout=RUN_LIMIT):
        """Repeat a command until it succeeds; its Result."""
        end = time.monotonic() + timeout
        while True:
            result = self.run(command, max(1.0, end - time.monotonic()), check=False)
            if result.code == 0:
                return result
            if time.monotonic() > end:
                result.limit = timeout
                raise CommandFailed(self, command, result)
            time.sleep(0.1)

    def script(self, name, *arguments, timeout=RUN_LIMIT):
        """Run one of the lab's own scripts in guest/."""
        return self.run(["bash", boot.GUEST / name, *arguments], timeout)

    def write(self, path, text, mode="644"):
        """Write a file."""
        path = shlex.quote(str(path))
        self.run(f"mkdir -p $(dirname {path}) && cat >{path} && chmod {mode} {path}", stdin=text)

    def read(self, path):
        """A file's contents."""
        return self.run(["cat", path]).out

    # ---- power

    def status(self):
        """on, port, boots, pid of its QEMU."""
        return self.keeper.ask("status")[self.name]

    @property
    def on(self):
        """Whether it has power."""
        return self.status()["on"]

    @property
    def boots(self):
        """How often it has been booted."""
        return self.status()["boots"]

    def power_cut(self):
        """Take its power: QEMU is killed, nothing is flushed."""
        self.keeper.ask("power-cut", host=self.name)

    def power_on(self, wait=True):
        """Boot it (again)."""
        self.keeper.ask("power-on", host=self.name)
        if wait:
            self.wait_up()

    def reboot(self):
        """Press the reset button, and wait until it is up again."""
        before = self.boots
        self.qmp("system_reset")
        end = time.monotonic() + RESET_LIMIT
        while self.boots == before:
            if time.monotonic() > end:
                raise LabError(f"{self} does not start again; see {self.plan.path('events.log')}")
            time.sleep(0.02)
        self.wait_up()

    def wait_up(self, timeout=BOOT_LIMIT):
        """Wait until it answers."""
        end = time.monotonic() + timeout
        while True:
            try:
                if self.start(["true"], contact=10).wait(10, check=False).code == 0:
                    return
            except NoContact:
                pass
            if time.monotonic() > end:
                raise NoContact(f"{self} did not boot within {timeout:g} s; its console:\n"
                                + "\n".join(self.console().splitlines()[-20:]))
            time.sleep(0.1)

    def freeze(self, stall=False):
        """Stop it; its own clock stands still, too. stall: it does not, and jumps at thaw()."""
        self.event("freeze" + " (stall)" * stall)
        if stall:
            self.keeper.ask("signal", host=self.name, number=19)
        else:
            self.qmp("stop")

    def thaw(self):
        """Undo freeze()."""
        self.event("thaw")
        self.keeper.ask("signal", host=self.name, number=18)
        self.qmp("cont")

    # ---- network

    def partition(self, lan=None, carrier=False):
        """Cut it off: nothing passes any more. carrier: and the NIC sees it. lan: 0 or 1 only."""
        self.event(f"partition{'' if lan is None else f' lan{lan}'}{' with carrier' * carrier}")
        self._link(lan, False, carrier)

    def heal(self, lan=None):
        """Undo partition()."""
        self._link(lan, True, True)
        self.event(f"heal{'' if lan is None else f' lan{lan}'}")

    def _link(self, lan, up, carrier):
        for number in LANS if lan is None else (lan,):
            if up or not carrier:
                self.qmp("set_link", name=f"wire{number}", up=up)
            if up or carrier:
                self.qmp("set_link", name=f"lan{number}", up=up)

    # ---- the shared disk

    def storage_cut(self, how="hang"):
        """Break the shared disk for this host: hang (no answer), error (EIO) or unplug."""
        match how:
            case "hang":
                self._throttle()
            case "error":
                # reads and writes; a flush that fails could not be healed
                faults = [{"event": "none", "errno": 5, "once": False, "iotype": kind}
                          for kind in ("read", "write")]
                self.qmp("blockdev-add", driver="blkdebug", image="shared-file",
                         **{"node-name": "broken", "inject-error": faults})
                self.qmp("blockdev-reopen", options=[qemu.shared_node("broken")])
            case "unplug":
                self.qmp("device_del", id="shared0")
            case _:
                raise LabError(f"storage can be cut by hang, error or unplug, not {how!r}")
        self.event(f"storage cut: {how}")

    def _throttle(self):
        """One byte a second. A throttle lets the first request pass, so that has to be ours."""
        self.qmp("stop")
        self.qmp("block_set_io_throttle", **{**NO_LIMIT, "bps": 1})
        self.qmp("human-monitor-command", **{"command-line": 'qemu-io -d shared0 "read 0 64k"'})
        self.qmp("cont")

    def storage_heal(self):
        """Undo storage_cut(); what hung is then carried out."""
        if any(node["node-name"] == "broken" for node in self.qmp("query-named-block-nodes")):
            self.qmp("blockdev-reopen", options=[qemu.shared_node()])
            self.qmp("blockdev-del", **{"node-name": "broken"})
        if not any(one["name"] == "shared0" for one in self.qmp("qom-list", path="/machine/peripheral")):
            self.qmp("device_add", **qemu.shared_device(self.plan))
        self.qmp("block_set_io_throttle", **NO_LIMIT)
        self.event("storage healed")

    # ---- services, in services.py and guest/

    def udev(self):
        """Have udev, and so /dev/disk/by-id."""
        services.udev(self)

    def tcm_loop(self, nexus=1):
        """A LUN of its own by LIO's loopback; its path. PREEMPT AND ABORT on it never returns."""
        return services.tcm_loop(self, nexus)

    def iscsi_disks(self):
        """Its iSCSI disks, one a path, such as ["sdb", "sdc"]."""
        return services.iscsi_disks(self)

    def paths(self):
        """Its paths as multipathd sees them: {"sdb": "active ready", "sdc": "failed faulty"}."""
        return services.paths(self)

    def wait_paths(self, active, timeout=RUN_LIMIT):
        """Wait until exactly that many paths are active; what paths() says."""
        end = time.monotonic() + timeout
        while True:
            found = self.paths()
            if sum(state == "active ready" for state in found.values()) == active:
                return found
            if time.monotonic() > end:
                raise LabError(f"{self} does not have {active} active paths but {found}")
            time.sleep(0.2)

    def install(self, build=None):
        """Install a build (the lab's) with its units."""
        services.install(self.plan.directory, self, build)

    # ---- what else

    def qmp(self, command, **arguments):
        """Have its QEMU do something; what QEMU says."""
        return self.keeper.ask("qmp", host=self.name, command=command, arguments=arguments)

    def event(self, text):
        """Write down what is done to it."""
        self.keeper.ask("event", host=self.name, text=text)

    def console(self):
        """What it has written on its console, in all its boots."""
        try:
            return self.plan.path(self.name, "console").read_text("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def collect(self):
        """Write what a guest can tell about itself into the lab's directory, if it still answers."""
        try:
            text = self.start(["bash", boot.GUEST / "collect.sh"], contact=20).wait(60, check=False)
        except LabError as error:
            text = None
            self.event(f"cannot tell about itself: {error}")
        if text:
            self.plan.path(self.name, "state").write_text(text.out + text.err, encoding="utf-8")
