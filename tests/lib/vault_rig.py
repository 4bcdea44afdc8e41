# SPDX-License-Identifier: LGPL-2.1-or-later
"""A daemon under its keeper that can be killed, and guests that outlive it.

A test file imports the fixtures that it uses.
"""

import json
import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import lock_rig
import native
import pytest
import virtlockd_wire
from native import Daemon, Vm
from waiting import DEADLINE, wait_until


class KeptDaemon(Daemon):
    """A private holdfastd under holdfast-keeper; `process` is the keeper."""

    def __init__(self, directory, **more):
        super().__init__(directory, **{"options": (), **more})

    def kill_daemon(self, number=signal.SIGKILL):
        """End the daemon, not the keeper, as a crash does; the pid that it had."""
        pid = self.daemon_pid
        os.kill(pid, number)
        return pid

    def crash(self):
        """Kill the daemon and wait until the next one serves; its pid."""
        old = self.kill_daemon()
        return self.wait_next(old)

    def restart(self):
        """Let the daemon start anew in an orderly way; the pid of the next one."""
        old = self.daemon_pid
        self.process.send_signal(signal.SIGUSR1)
        return self.wait_next(old)

    def wait_next(self, old):
        """Wait until another daemon than that with the pid old serves; its pid."""
        def served():
            try:
                with self.client(DEADLINE) as client:
                    pid = client.greeting["pid"]
            except (ConnectionError, EOFError):
                return 0
            return pid if pid != old else 0
        return wait_until(served, "the next daemon to serve")

    def freeze(self):
        """Kill the daemon in a way that the next one is not started before thaw()."""
        self.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: native.process_state(self.pid) == "T", "the keeper to stop")

    def thaw(self):
        """Let the keeper go on."""
        self.process.send_signal(signal.SIGCONT)

    def kill_frozen(self):
        """Kill the daemon so that it stays dead until thaw(); the pid that it had."""
        pid = self.daemon_pid
        self.freeze()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not native.is_alive(pid), "the daemon to be dead")
        return pid

    def members(self):
        """The pids of all processes that were started for this daemon."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                words = path.read_bytes().split(b"\0")
                if os.fsencode(self.socket) in words and b"--config" in words:
                    found.append(int(path.parent.name))
        return [pid for pid in found if native.is_alive(pid)]

    def close(self):
        for pid in self.members():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.process:
            self.thaw()
            self.process.wait(native.TIMEOUT)
        wait_until(lambda: not self.members(), "all processes to end")


class KeptDaemons(native.Daemons):
    """Makes daemons under keepers."""

    def __call__(self, name="n1", *, start=True, **options):
        known = {key: options.pop(key) for key in
                 ("binary", "wrapper", "env", "user", "limits", "options") if key in options}
        daemon = KeptDaemon(self.workdir / name, settings=options, **known)
        self.made.append(daemon)
        return daemon.start() if start else daemon


CRASH = pytest.mark.parametrize("end", [KeptDaemon.crash, KeptDaemon.restart],
                                ids=["crash", "restart"])


def facts(leases):
    """What a next daemon must say about the leases as well."""
    return sorted(json.dumps(lease, sort_keys=True) for lease in leases)


def ledger(daemon):
    """The daemon's ledger."""
    return Path(f"{daemon.socket}.leases")


def stored(daemon):
    """How many descriptors the keeper has for the daemon."""
    with daemon.client() as client:
        return client.call("query-status")["vault"]["descriptors"]


@pytest.fixture(name="start_daemon")
def fixture_start_daemon(workdir):
    """Starts daemons under keepers: start_daemon(name, setting=value, ...)."""
    yield from native.lend(KeptDaemons, workdir, "holdfastd", "holdfast-keeper")


@pytest.fixture(name="daemon")
def fixture_daemon(start_daemon):
    """A daemon under its keeper."""
    return start_daemon(kill_timeout=1)


@pytest.fixture(name="copied")
def fixture_copied(workdir, monkeypatch):
    """The programs in a directory of their own, where they can be replaced."""
    there = workdir / "bin"
    there.mkdir()
    for program in ("holdfastd", "holdfast-keeper", "libholdfast.so.0"):
        shutil.copy2(lock_rig.build_dir() / program, there / program)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(there))
    return there / "holdfastd"


def replace(program, text):
    """Put a shell script in a program's place, as an upgrade does: by renaming."""
    fresh = program.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.chmod(0o755)
    fresh.rename(program)


class Guest(Vm):
    """A process that plays QEMU as libvirt starts it: it registered for itself, and locked its
    disks, over a connection that it never uses again and leaves open."""

    def __init__(self, daemon, name, resources):
        def become():
            client = virtlockd_wire.connect(daemon.virtlockd_socket)
            client.register(os.getpid(), name)
            for key, space, flags in resources:
                if space:
                    client.create_lockspace(space)
                client.acquire(key, space, flags)
            client.restrict()
            client.sock.set_inheritable(True)
            client.sock.detach()
        super().__init__(name, close_fds=False, preexec_fn=become)
