# SPDX-License-Identifier: LGPL-2.1-or-later
"""A lock daemon that speaks virtlockd's RPC, stock or ours, in a sandbox of its own."""

import os
import re
import shutil
import sys
import uuid as uuids
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import sandbox
from closing import Closing
from lock_table import held_locks
from virtlockd_wire import SHARED
from waiting import wait_until

DAEMONS = ("stock", "holdfast")
REPOSITORY = Path(__file__).resolve().parents[2]
SEARCH_PATH = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
FAKE_VM = Path(__file__).with_name("fake_vm.py")
SOCKET = "/run/libvirt/virtlockd-sock"


def build_dir():
    """Where our programs are built."""
    return Path(os.environ.get("HF_BUILD") or REPOSITORY / "build").resolve()


def daemon_binary(daemon):
    """The program of a lock daemon: "stock" is libvirt's own, "holdfast" is ours."""
    return {"stock": Path("/usr/sbin/virtlockd"), "holdfast": build_dir() / "virtlockd"}[daemon]


def missing(daemon, *programs, root=False):
    """What of the lock daemon, the programs and our rights is not there, in words, or None."""
    if not os.access(daemon_binary(daemon), os.X_OK):
        return ("$HF_BUILD/virtlockd is not built" if daemon == "holdfast" else
                "virtlockd is not installed")
    for program in (*programs, "unshare", "nsenter", "setpriv"):
        if not shutil.which(program, path=SEARCH_PATH):
            return f"{program} is not installed"
    if not sandbox.possible():
        return "no right to make namespaces"
    return "not root" if root and os.geteuid() else None


@contextmanager
def lend(kind, daemon, directory, **options):
    """For a fixture or a test: a rig of this kind, or a skip that names what is missing."""
    reason = missing(daemon)
    if reason:
        pytest.skip(reason)
    with kind(daemon, directory, **options) as rig:
        yield rig


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, as a refusal should tell it."""

    name: str
    uuid: uuids.UUID
    pid: int
    host: str
    mode: str = "exclusive"

    def assert_named(self, text):
        """Complain unless text tells all about this holder."""
        for fact in (self.name, str(self.uuid), self.host, "since", self.mode):
            assert fact in text, f"no {fact!r} in the refusal: {text}"
        assert re.search(rf"\b{self.pid}\b", text), f"no pid {self.pid} in the refusal: {text}"


class LockRig(Closing):
    """A lock daemon in a sandbox; a context manager."""

    cover = ("/run", "/etc/libvirt", "/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt")
    uid = 0
    socket = SOCKET

    def __init__(self, daemon, directory, hostname=None, arguments=()):
        self.daemon = daemon
        self.arguments = arguments
        self.directory = Path(directory)
        self.directory.mkdir()
        self.lockd = None
        self.sandbox = sandbox.Sandbox(hostname or f"host-{daemon}", self.cover)
        try:
            self.set_up()
        except BaseException:
            self.sandbox.close()
            raise

    def set_up(self):
        """Bring up what belongs to the rig."""
        self.start_lockd()

    def start_lockd(self):
        """Start the lock daemon and wait until it listens."""
        self.lockd = self.sandbox.spawn(daemon_binary(self.daemon), *self.arguments,
                                        log=self.log("lockd"))
        self.sandbox.wait_socket(self.socket, self.lockd)

    def close(self):
        """Stop the lock daemon, which must end well; then end whatever is left."""
        try:
            if self.lockd:
                code = self.sandbox.terminate(self.lockd)
                assert code == 0, f"the lock daemon ended with {code}:\n{self.logs()}"
        finally:
            self.sandbox.close()

    def log(self, name):
        """The path of a daemon's log."""
        return self.directory / f"{name}.log"

    def logs(self):
        """The ends of the daemons' logs, without libvirtd's complaints about network cards."""
        ends = []
        for path in sorted(self.directory.glob("*.log")):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            ends += [f"--- {path.name}", *[line for line in lines if "ethtool" not in line][-50:]]
        return "\n".join(ends)

    def connect(self):
        """A client of the lock daemon."""
        return self.sandbox.connect(self.socket, self.uid)

    @contextmanager
    def owner(self, name="other-vm"):
        """A client registered for a live process; gives the client and the Holder it can be."""
        pid = self.sandbox.spawn("sleep", "infinity")
        with self.connect() as client:
            uuid = client.register(pid, name)
            try:
                yield client, Holder(name, uuid, pid, self.sandbox.hostname)
            finally:
                self.sandbox.terminate(pid)

    @contextmanager
    def holding(self, resource, path="", flags=0, name="other-vm"):
        """While this lasts, somebody with a live process holds the resource; the Holder."""
        with self.owner(name) as (client, holder):
            client.acquire(resource, path, flags)
            mode = "shared" if flags & SHARED else "exclusive"
            try:
                yield Holder(name, holder.uuid, holder.pid, holder.host, mode)
            finally:
                client.release(resource, path)

    def start_vm(self, disk, name="other-vm"):
        """Start a process that holds a disk as long as it lives; its pid."""
        pid = self.sandbox.spawn(sys.executable, "-B", FAKE_VM, self.socket, name, disk,
                                 user=self.uid, log=self.log(name))
        wait_until(lambda: held_locks(disk) or self.sandbox.exit_code(pid) is not None,
                   f"{name} to lock {disk}")
        assert self.sandbox.exit_code(pid) is None, self.logs()
        return pid

    def assert_refusal(self, text, resource, holder):
        """Complain unless text, from virsh or the RPC, says that holder holds the resource."""
        assert "resource busy" in text
        assert str(resource) in text
        if self.daemon == "holdfast":
            holder.assert_named(text)
        else:
            assert "is locked" in text
