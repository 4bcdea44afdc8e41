# SPDX-License-Identifier: LGPL-2.1-or-later
"""A host of the lab that runs our daemon, and processes that play virtual machines there."""

import json
import shlex
import time
from dataclasses import dataclass

from native import as_conf
from waiting import wait_until

PATIENCE = 180.0    # for what takes some seconds on an idle machine
BUSY = 75


@dataclass
class Vm:
    """A process on a node that can hold locks."""

    node: object
    name: str
    pid: int

    def acquire(self, *disks, wait=0, timeout=PATIENCE):
        """Lock disks; the command's Result (code 0 held, 75 busy)."""
        return self.start_acquire(*disks, wait=wait).wait(timeout, check=False)

    def start_acquire(self, *disks, wait=0):
        """The same, not waited for."""
        more = ["--name", self.name, "--wait", str(wait)]
        return self.node.host.start(self._words("acquire", *disks) + more)

    def release(self, *disks, timeout=PATIENCE):
        """Unlock disks; the command's Result."""
        return self.start_release(*disks).wait(timeout, check=False)

    def start_release(self, *disks):
        """The same, not waited for."""
        return self.node.host.start(self._words("release", *disks))

    def _words(self, verb, *disks):
        words = [self.node.command, verb, "--pid", str(self.pid)]
        for disk in disks:
            words += ["--disk", str(disk)]
        return words

    def alive(self):
        """Whether it lives."""
        return self.node.host.run(["kill", "-0", str(self.pid)], check=False).code == 0

    def end(self):
        """Kill it."""
        self.node.host.run(["kill", "-9", str(self.pid)], check=False)


class Node:
    """The daemon on a host of the lab: as a service where systemd is, else under its keeper."""

    def __init__(self, host, **settings):
        self.host = host
        self.vms = []
        self.systemd = host.name in host.plan.systemd
        if self.systemd:
            host.install()      # has a configuration in it
        self.configure(**settings)
        self.command = "/usr/local/bin/holdfast" if self.systemd else f"{host.plan.build}/holdfast"
        if self.systemd:
            host.run("systemctl enable --now holdfastd.socket", PATIENCE)
        self.start()

    def start(self):
        """Start the daemon, and wait until it serves."""
        if self.systemd:
            self.host.run("systemctl start holdfastd.service", PATIENCE)
        else:
            self.host.start(f"exec {shlex.quote(self.host.plan.build)}/holdfastd"
                            " --config /etc/holdfast/holdfast.conf >>/tmp/holdfastd.log 2>&1")
        self.host.wait_for([self.command, "status"], PATIENCE)

    def stop(self, timeout):
        """End the daemon for good; it must have ended in that time."""
        if self.systemd:
            self.host.run("systemctl stop holdfastd.service", timeout)
        else:
            self.host.run("kill $(cat /run/holdfast/holdfast.sock.pid)")
            self.host.wait_for("! pgrep -x 'holdfastd|holdfast-keeper'", timeout)

    def unwell(self):
        """The lockspaces that do not answer."""
        return [space["name"] for space in self.status()["lockspaces"] if space["health"] != "ok"]

    def wait_until_unwell(self, lockspace):
        """Wait until that lockspace, and no other, is said not to answer."""
        wait_until(lambda: lockspace in self.unwell(), f"{lockspace} to hang", PATIENCE)
        assert self.unwell() == [lockspace]

    def configure(self, **settings):
        """Write its configuration."""
        text = as_conf({"lockd_conf": "", "log_level": 2, **settings})
        self.host.write("/etc/holdfast/holdfast.conf", text)

    def reconfigure(self, **settings):
        """Restart it in an orderly way with another configuration."""
        self.configure(**settings)
        pid = self.status()["pid"]
        self.host.run("systemctl restart holdfastd" if self.systemd else f"kill -USR1 {pid}", PATIENCE)
        self.wait_next(pid)

    def call(self, *words, timeout=PATIENCE):
        """What a verb reports, from its JSON."""
        return json.loads(self.host.run([self.command, *words, "--json"], timeout).out)

    def status(self):
        """What the daemon says about itself."""
        return self.call("status")

    def locks(self):
        """The names of disks that are held, with their holders' pids."""
        return {lease["disk"]: lease["owner"]["pid"] for lease in self.call("locks")["leases"]}

    def start_vm(self, name):
        """Start a process that can hold locks."""
        vm = Vm(self, name, int(self.host.out("setsid sleep infinity >/dev/null 2>&1 & echo $!")))
        self.vms.append(vm)
        return vm

    def reset(self):
        """End all VMs and wait until nothing is held."""
        while self.vms:
            self.vms.pop().end()
        end = time.monotonic() + PATIENCE
        while self.call("locks")["leases"]:
            assert time.monotonic() < end, f"still held on {self.host}: {self.locks()}"
            time.sleep(0.2)

    def new_disk(self, path):
        """Make a disk image of 1 MiB."""
        path = shlex.quote(str(path))
        self.host.run(f"mkdir -p $(dirname {path}) && truncate -s 1M {path}", PATIENCE)

    def kill_daemon(self):
        """kill -9 of the daemon, not of its supervisor; the pid that it had."""
        pid = self.status()["pid"]
        self.host.run(["kill", "-9", str(pid)])
        return pid

    def wait_next(self, old, timeout=PATIENCE):
        """Wait until another daemon than that with the pid old serves; the seconds that it took."""
        begin = time.monotonic()
        other = f'import json, sys; sys.exit(json.load(sys.stdin)["pid"] == {old})'
        self.host.wait_for(f"{shlex.quote(self.command)} status --json 2>/dev/null | "
                           f"python3 -ISc {shlex.quote(other)}", timeout)
        return time.monotonic() - begin
