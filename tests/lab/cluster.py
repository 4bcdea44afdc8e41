# SPDX-License-Identifier: LGPL-2.1-or-later
"""A lab: started, joined, and ended."""

import contextlib
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import boot, services
from .errors import LabError
from .host import RUN_LIMIT, Host
from .plan import Plan

PREFIX = "lab-"
KEEPER_LIMIT = 60.0     # for Python to start and to listen; 0.3 s on an idle host


class KeeperClient:
    """Asks a lab's keeper to do things; keeper.py is the other end."""

    def __init__(self, path):
        self.path = str(path)

    def ask(self, what, **arguments):
        """Have something done; what the keeper answers."""
        with socket.socket(socket.AF_UNIX) as sock, sock.makefile("rb") as answers:
            try:
                sock.connect(self.path)
                sock.sendall(json.dumps({"do": what, **arguments}).encode() + b"\n")
                line = answers.readline()
            except OSError as error:
                raise LabError(f"the lab's keeper is gone: {error}") from error
        if not line:
            raise LabError("the lab's keeper went away")
        answer = json.loads(line)
        if "error" in answer:
            raise LabError(answer["error"])
        return answer["return"]


class Lab:
    """A running lab: a context manager, with its hosts as h1, h2, …

    Options are those of plan.Plan. detached: it outlives this process (the command line's way).
    """

    def __init__(self, hosts=1, *, detached=False, boot_now=True, **options):
        reason = boot.missing()
        if reason:
            raise LabError(reason)
        options.setdefault("build", os.environ.get("HF_BUILD") or str(boot.TREE / "build"))
        if not os.path.isdir(options["build"]):
            options["build"] = str(boot.TREE)
        directory = tempfile.mkdtemp(prefix=PREFIX, dir="/tmp")
        self.lifeline = None
        try:
            self._join(Plan(directory, hosts, **options))
            self.plan.write()
            self._start_keeper(detached)
            if boot_now:
                self.power_on()
        except BaseException:
            self.close(failed=self.lifeline is not None)
            shutil.rmtree(directory, ignore_errors=self.lifeline is None)
            raise

    @classmethod
    def join(cls, directory):
        """The lab that runs in a directory."""
        lab = cls.__new__(cls)
        lab.lifeline = None
        lab._join(Plan.load(directory))
        return lab

    def _join(self, plan):
        self.plan = plan
        self.directory = plan.directory
        self.keeper = KeeperClient(plan.path("keeper"))
        self.hosts = [Host(self.keeper, plan, name) for name in plan.names]

    def _start_keeper(self, detached):
        with self.plan.path("keeper.log").open("ab") as log:
            # pylint: disable-next=consider-using-with
            self.lifeline = subprocess.Popen(
                [sys.executable, "-B", "-m", "lab.keeper", self.directory], cwd=boot.TREE / "tests",
                stdin=subprocess.DEVNULL if detached else subprocess.PIPE, stdout=log, stderr=log,
                start_new_session=True)
        end = time.monotonic() + KEEPER_LIMIT
        while True:
            with contextlib.suppress(LabError):
                self.keeper.ask("status")
                return
            if self.lifeline.poll() is not None or time.monotonic() > end:
                raise LabError("the lab's keeper did not start:\n"
                               + self.plan.path("keeper.log").read_text("utf-8"))
            time.sleep(0.02)

    def __getattr__(self, name):
        for host in self.__dict__.get("hosts", ()):
            if host.name == name:
                return host
        raise AttributeError(f"a lab has no {name!r}")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.close(failed=kind not in (None, KeyboardInterrupt, SystemExit))

    def power_on(self):
        """Boot all hosts, at once."""
        self.each(lambda host: host.power_on())

    def each(self, action, hosts=None):
        """Do something to several hosts at once; the results."""
        hosts = self.hosts if hosts is None else hosts
        with ThreadPoolExecutor(max(1, len(hosts))) as pool:
            return list(pool.map(action, hosts))

    def run(self, command, timeout=RUN_LIMIT):
        """Run a command on every host that has power; the Results by the hosts' names."""
        hosts = [host for host in self.hosts if host.on]
        results = self.each(lambda host: host.run(command, timeout, check=False), hosts)
        return {host.name: result for host, result in zip(hosts, results)}

    def events(self):
        """What happened so far, a line each: time, host, what."""
        return self.plan.path("events.log").read_text("utf-8")

    def close(self, failed=False):
        """End all. failed: the consoles and logs are kept, and their place is printed."""
        if failed:
            with contextlib.suppress(LabError):
                self.each(Host.collect)
        pidfd = None
        with contextlib.suppress(LabError, ProcessLookupError):
            pidfd = os.pidfd_open(self.keeper.ask("status")["keeper"]["pid"])
            self.keeper.ask("down", keep_logs=failed)
        if self.lifeline:
            if self.lifeline.stdin:
                self.lifeline.stdin.close()
            self.lifeline.wait(KEEPER_LIMIT)
        if pidfd is not None:
            select.select([pidfd], [], [], KEEPER_LIMIT)
            os.close(pidfd)
        if failed:
            print(f"lab: consoles and logs are kept in {self.directory}", file=sys.stderr)

    # ---- services, in services.py and guest/

    def nfs(self, **options):
        """One host serves NFSv4.2 to the others; see services.nfs."""
        return services.nfs(self, **options)

    def iscsi(self, **options):
        """One host serves an iSCSI LUN to the others; see services.iscsi."""
        return services.iscsi(self, **options)


def running():
    """The directories of the labs that run on this host, oldest first."""
    found = []
    for path in Path("/tmp").glob(PREFIX + "*/keeper"):
        with contextlib.suppress(LabError, OSError):
            KeeperClient(path).ask("status")
            found.append(path.parent)
    return sorted(found, key=lambda path: (path / "plan.json").stat().st_mtime)
