# SPDX-License-Identifier: LGPL-2.1-or-later
"""A lock daemon, stock or ours, that may die in a test, and claims that hold for ours alone."""

import os
import signal
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import virtlockd_wire
from lock_rig import LockRig
from lock_table import held_locks
from virtlockd_wire import Code, RemoteError
from waiting import DEADLINE, wait_until

# Ours gets time enough for the slowest machine. What stock has not answered by then it never will;
# what is not stuck answers in milliseconds.
PATIENCE = {"stock": 8, "holdfast": DEADLINE}
ODD_HOLDER = Path(__file__).with_name("odd_holder.py")


class StockIsRight(Exception):
    """Stock virtlockd did not fail where it is known to: the test shows nothing."""


@contextmanager
def fails_on_stock(rig, *errors):
    """What is in this block holds for ours; on stock it has to fail, in one of these ways."""
    if rig.daemon != "stock":
        yield
        return
    try:
        yield
    except errors:
        return
    raise StockIsRight("stock virtlockd passed; so this is no difference between the two")


class MortalRig(LockRig):
    """A lock daemon whose death is no failure of the rig, but perhaps of the test."""

    def close(self):
        """End it: ours in an orderly way, stock as it may be."""
        if self.daemon == "stock":
            self.sandbox.close()
        else:
            super().close()

    def daemon_pid(self):
        """The process that serves; with ours it is a child of the one that was started."""
        if self.daemon == "stock":
            return self.lockd
        path = self.sandbox.path(f"/proc/{self.lockd}/task/{self.lockd}/children")
        for pid in path.read_text(encoding="ascii").split():
            with suppress(FileNotFoundError, ProcessLookupError):
                name = self.sandbox.path(f"/proc/{pid}/comm").read_text(encoding="utf-8")
                if name.strip() not in ("holdfast-closer", "holdfast-keeper"):
                    return int(pid)
        return None

    def image(self):
        """What a process is, so that it differs once another program runs in it."""
        try:
            pid = self.daemon_pid()
            # addresses that the kernel chooses anew for each program
            data = self.sandbox.path(f"/proc/{pid}/auxv").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return (pid, data) if data else None

    def has_ended(self):
        """Whether the process that was started is there no more."""
        return self.sandbox.exit_code(self.lockd) is not None

    def wait_next(self, before):
        """Wait until another program serves than `before`, or none any more."""
        def changed():
            return self.has_ended() or self.image() not in (None, before)
        wait_until(changed, "the daemon to start anew")

    def kill_daemon(self):
        """Kill the daemon, and see that there is one again, which with stock is systemd's work."""
        before = self.image()
        self.sandbox.kill(self.daemon_pid(), signal.SIGKILL)
        if self.daemon == "stock":
            self.sandbox.wait_exit(self.lockd)
            self.start_lockd()
        else:
            self.wait_next(before)
            self.sandbox.wait_socket(self.socket, self.lockd)

    def start_anew(self):
        """SIGUSR1, as systemctl reload sends it; wait until that has happened, well or not."""
        before = self.image()
        self.sandbox.kill(self.lockd, signal.SIGUSR1)
        self.wait_next(before)

    @property
    def patience(self):
        """How many seconds to wait before calling something stuck."""
        return PATIENCE[self.daemon]

    def serves(self):
        """Whether somebody can register."""
        try:
            with self.connect() as client:
                client.sock.settimeout(DEADLINE)
                client.register(1)
        except OSError:  # nobody listens, it was reset, or no answer came
            return False
        except EOFError:
            return False
        return True

    def refuses(self, resource, path="", flags=0):
        """Whether somebody else is refused the resource because it is held."""
        with self.owner("stranger") as (client, _):
            client.sock.settimeout(self.patience)
            try:
                client.acquire(str(resource), path, flags)
            except RemoteError as refusal:
                assert refusal.code == Code.RESOURCE_BUSY, refusal
                return True
            return False

    def assert_protected(self, image):
        """Complain unless the daemon serves, and nobody else gets the image."""
        assert self.serves(), "the daemon does not serve"
        assert held_locks(image) == ["WRITE"], "the kernel's lock is gone"
        assert self.refuses(image), "somebody else got the disk"

    def start_odd_holders(self, kind, images):
        """Processes, one for each image, which hold it as a VM does; see odd_holder.py. The pid of
        the one that is their parent; SIGUSR2 lets them do what they are odd in."""
        pid = self.sandbox.spawn(sys.executable, "-B", ODD_HOLDER, self.socket, kind,
                                 *map(str, images), log=self.log("holders"))
        wait_until(lambda: all(map(held_locks, images)) or self.sandbox.exit_code(pid) is not None,
                   "the holders to hold")
        assert self.sandbox.exit_code(pid) is None, self.logs()
        return pid

    def mount_slow(self, real, path):
        """Mount a file system over `path` that shows `real`; the pid of the process that serves
        it, which hangs it when it is stopped."""
        real.mkdir()
        path.mkdir()
        pid = self.sandbox.spawn(
            "bindfs", "-f", "-o", "attr_timeout=0,entry_timeout=0,negative_timeout=0",
            real, path, log=self.log("bindfs"))
        wait_until(lambda: os.path.ismount(self.sandbox.path(path)), "the file system")
        return pid


def send_only(client, procedure, payload):
    """Make a call without waiting for its reply."""
    client.send_frame(virtlockd_wire.Frame(procedure, serial=next(client.serials),
                                           payload=payload))


def resource_payload(name, path="", flags=0):
    """The payload of a call about a resource."""
    return (virtlockd_wire.xdr_string(path) + virtlockd_wire.xdr_string(str(name))
            + virtlockd_wire.xdr_uint(flags))
