# SPDX-License-Identifier: LGPL-2.1-or-later
"""A lock file that is removed and made again by another host while it is being locked.

Whoever holds an autocreated lock file removes it when he lets go, just when the next one may have
opened it. A lock on a file that is no longer there is worth nothing: it has to be noticed.
"""

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from native import Refused, Vm

SECONDS = 1.5
# On a busy machine it may take longer until each has won and lost.
SECONDS_MAX = 60

# Another implementation of the same rules, as stock virtlockd has them.
RIVAL = """
import fcntl, os, sys
path = sys.argv[1]
print("ready", flush=True)
while True:
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
        if os.fstat(fd).st_ino == os.stat(path).st_ino:
            os.unlink(path)
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(fd)
"""


@pytest.fixture(name="hosts")
def fixture_hosts(start_daemon, workdir):
    """Two hosts with a directory for lock files in common."""
    return [start_daemon(name, file_lockspace_dir=workdir / "files") for name in ("n1", "n2")]


def assert_holds_what_is_there(directory, lease):
    """Complain unless the file at the path is the one that was locked."""
    status = (directory / lease["key"]).stat()
    assert (f"file:{os.major(status.st_dev)}:{os.minor(status.st_dev)}:{status.st_ino}"
            in lease["claims"])


def is_enough(start, happened):
    """Whether to end what began then: when all has happened that should, or never will."""
    seconds = time.monotonic() - start
    return seconds > SECONDS and (happened or seconds > SECONDS_MAX)


class Host(threading.Thread):
    """Takes something and gives it back, as often as it can; nobody else may have it meanwhile.

    It goes on until all of those that it is one of have won and lost.
    """

    def __init__(self, daemon, vm, disks, leases, inside, all_hosts):
        super().__init__()
        self.all_hosts = all_hosts
        self.daemon, self.vm, self.inside = daemon, vm, inside
        self.disks, self.leases = disks, leases
        self.won = self.lost = 0
        self.error = None

    def run(self):
        try:
            start = time.monotonic()
            with self.daemon.client() as client:
                while not is_enough(start, all(host.won and host.lost or host.error
                                               for host in self.all_hosts)):
                    self.once(client)
        except BaseException as error:  # pylint: disable=broad-exception-caught
            self.error = error

    def once(self, client):
        """Try once."""
        try:
            lease, = client.acquire(self.vm, *self.disks, leases=self.leases)
        except Refused as refusal:
            assert refusal.error_class == "Busy", refusal
            self.lost += 1
            return
        self.inside.append(self.vm.name)
        assert self.inside == [self.vm.name], "two hosts hold one disk"
        directory = Path(lease["lockspace"])
        assert_holds_what_is_there(directory, lease)
        record = f'"name":"{self.vm.name}"'.encode()
        assert record in (directory / lease["key"]).read_bytes(), "the holder left no record"
        self.inside.pop()
        self.won += 1
        client.release(self.vm)


def take_turns(hosts, vms, disks=(), leases=()):
    """Let two hosts take turns at the same thing."""
    inside = []
    threads = []
    threads += [Host(daemon, vm, disks, leases, inside, threads)
                for daemon, vm in zip(hosts, vms)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for thread in threads:
        print(f"{thread.vm.name}: won {thread.won}, lost {thread.lost}")
        if thread.error:
            raise thread.error
        assert thread.won and thread.lost


def test_two_hosts(hosts, vm, other_vm, image, workdir):
    """Two of our daemons take turns at one disk: never both, and no file stays."""
    take_turns(hosts, (vm, other_vm), disks=[image])
    assert list((workdir / "files").iterdir()) == []


def test_two_hosts_at_a_lease(hosts, vm, other_vm, workdir):
    """The same with a file that stays: each holder's record is there while he holds it."""
    (workdir / "k").touch()
    take_turns(hosts, (vm, other_vm), leases=[(workdir, "k")])
    assert (workdir / "k").stat().st_size == 0


def test_another_implementation(hosts, vm, image, workdir):
    """One of our daemons and another program take turns: what is held is what is there."""
    directory = workdir / "files"
    outcomes = {"won": 0, "lost": 0}
    with hosts[0].client() as client:
        key = client.acquire(vm, image)[0]["key"]
        client.release(vm)
        with Vm("rival", argv=[sys.executable, "-c", RIVAL, directory / key],
                stdout=subprocess.PIPE) as rival:
            rival.process.stdout.readline()
            start = time.monotonic()
            while not is_enough(start, all(outcomes.values())):
                try:
                    lease, = client.acquire(vm, image)
                except Refused as refusal:
                    assert refusal.error_class == "Busy", refusal
                    outcomes["lost"] += 1
                    continue
                for _ in range(20):
                    assert_holds_what_is_there(directory, lease)
                outcomes["won"] += 1
                client.release(vm)
    print(outcomes)
    assert all(outcomes.values())


def test_removed_again_and_again(hosts, vm, image, workdir):
    """A program that cleans the directory can keep a disk from being locked, and is blamed for it.

    The daemon gives up after a while instead of trying for ever; afterwards all is well.
    """
    cleaner = RIVAL.replace("fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)", "pass")
    with hosts[0].client() as client:
        key = client.acquire(vm, image)[0]["key"]
        client.release(vm)
        with Vm("cleaner", argv=[sys.executable, "-c", cleaner, workdir / "files" / key],
                stdout=subprocess.PIPE) as process:
            process.process.stdout.readline()
            for _ in range(300):
                try:
                    client.acquire(vm, image)
                    client.release(vm)
                except Refused as refusal:
                    assert refusal.error_class == "StorageError", refusal
                    assert re.search("was removed .* times", refusal.desc)
        client.acquire(vm, image)
        client.release(vm)
    assert list((workdir / "files").iterdir()) == []
