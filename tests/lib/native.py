# SPDX-License-Identifier: LGPL-2.1-or-later
"""Our daemon in a temporary directory, and a small client of its native protocol.

Every call goes through Client.call(), which gives back what the daemon returned or raises Refused
with its error. For bad input, send_raw() sends any bytes and recv() reads what comes back.
"""

import functools
import json
import os
import re
import resource
import signal
import subprocess
import time
import uuid as uuids
from collections import deque
from contextlib import suppress
from pathlib import Path

import lock_rig
import pytest
import stream
import virtlockd_wire
from closing import Closing
from waiting import wait_until

PROTOCOL = 1
TIMEOUT = 60
LINE_MAX = 1024 * 1024
ERROR_CLASSES = ("InvalidSyntax", "CommandNotFound", "InvalidArgument", "PermissionDenied", "Busy",
                 "NotHeld", "NoSuchOwner", "LeaseRequired", "BadResource", "StorageError",
                 "Timeout", "Internal")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
# For a build with a sanitizer: less memory that is kept after it was freed, as it would be measured
# as well; and no memory of GLib's own, whose hand-over between threads it cannot see.
SANITIZER_ENV = {"ASAN_OPTIONS": "quarantine_size_mb=4:" + os.environ.get("ASAN_OPTIONS", ""),
                 "G_SLICE": "always-malloc"}


class Refused(Exception):
    """The error that the daemon answered with."""

    def __init__(self, error):
        super().__init__(f"{error['class']}: {error['desc']}")
        self.error_class = error["class"]
        self.desc = error["desc"]
        self.data = error["data"]


class Client(Closing):
    """One connection to the native socket; a context manager."""

    def __init__(self, sock):
        self.sock = sock
        self.stream = stream.Stream(sock)
        self.events = deque()
        self.last_id = 0
        try:
            self.greeting = self.recv()["holdfast"]
        except BaseException:
            sock.close()
            raise

    def close(self):
        """Close the connection."""
        self.sock.close()

    def send_raw(self, data):
        """Send any bytes."""
        self.sock.sendall(data)

    def send(self, command, **arguments):
        """Send a request without waiting for the reply; its id."""
        self.last_id += 1
        self.send_raw(encode(command, arguments, self.last_id))
        return self.last_id

    def recv(self):
        """The next message of the daemon; EOFError when it closed the connection instead."""
        return json.loads(self.stream.line().decode(), parse_constant=_no_constant)

    def reply(self, request_id):
        """The reply to a request, after any events, which are kept."""
        while True:
            message = self.recv()
            if "event" not in message:
                break
            self.events.append(message)
        if message.get("id") != request_id:
            raise ValueError(f"not the reply to request {request_id}: {message}")
        if "error" in message:
            raise Refused(message["error"])
        return message["return"]

    def call(self, command, **arguments):
        """Make a request and give back what the daemon returns."""
        return self.reply(self.send(command, **arguments))

    def next_event(self):
        """The next event that was subscribed to."""
        if self.events:
            return self.events.popleft()
        message = self.recv()
        if "event" not in message:
            raise ValueError(f"not an event: {message}")
        return message

    def acquire(self, vm, *disks, leases=(), timeout=None):
        """Acquire disks (paths, or pairs of path and mode) and leases (space, key[, mode])."""
        arguments = {"owner": vm.owner()}
        if disks:
            arguments["disks"] = [as_disk(disk) for disk in disks]
        if leases:
            arguments["leases"] = [as_lease(*lease) for lease in leases]
        if timeout:
            arguments["timeout"] = timeout
        return self.call("acquire", **arguments)["leases"]

    def release(self, vm, *disks, leases=()):
        """Release disks and leases, or all of the owner's if none is named; how many."""
        arguments = {"owner": {"pid": vm.pid}}
        if disks:
            arguments["disks"] = [{"path": str(disk)} for disk in disks]
        if leases:
            arguments["leases"] = [as_lease(*lease) for lease in leases]
        return self.call("release", **arguments)["released"]

    def leases(self, **filters):
        """The leases that the daemon knows."""
        return self.call("query-leases", **filters)["leases"]

    def holders(self, disk):
        """The state of a disk, and its holders."""
        answer = self.call("query-disk", disk=str(disk))
        return answer["state"], answer["holders"]

    def lockspace(self, name):
        """What query-status says about a lockspace, None if it does not know it."""
        spaces = self.call("query-status")["lockspaces"]
        return next((space for space in spaces if space["name"] == str(name)), None)


def _no_constant(name):
    raise ValueError(f"{name} is not JSON")


def encode(command, arguments=None, request_id=None):
    """The bytes of a request."""
    request = {"execute": command}
    if arguments:
        request["arguments"] = arguments
    if request_id is not None:
        request["id"] = request_id
    return json.dumps(request, default=str).encode() + b"\n"


def as_disk(disk):
    """A disk of a request, from its path or from path and mode."""
    if isinstance(disk, tuple):
        return {"path": str(disk[0]), "mode": disk[1]}
    return {"path": str(disk)}


def as_lease(space, key, mode=None):
    """A lease of a request."""
    return {"lockspace": str(space), "key": str(key), **({"mode": mode} if mode else {})}


def connect(path, timeout=TIMEOUT):
    """A Client connected to the daemon that listens at path."""
    return Client(stream.connect(path, timeout))


class Vm:
    """A process that can own leases; a context manager that ends it."""

    def __init__(self, name, uuid=None, argv=("sleep", "infinity"), **options):
        self.name = name
        self.uuid = str(uuid or uuids.uuid4())
        options.setdefault("stdin", subprocess.DEVNULL)
        # pylint: disable-next=consider-using-with
        self.process = subprocess.Popen(argv, **options)
        self.pid = self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def owner(self, **more):
        """Who it is, for a request."""
        return {"pid": self.pid, "name": self.name, "uuid": self.uuid, **more}

    def end(self, signal_number=signal.SIGKILL):
        """End it and collect it."""
        self.process.send_signal(signal_number)
        self.process.wait()
        for pipe in filter(None, (self.process.stdin, self.process.stdout)):
            pipe.close()

    def kill_without_reaping(self):
        """End it and leave it as a zombie."""
        os.kill(self.pid, signal.SIGKILL)
        wait_until(self.is_zombie, f"process {self.pid} to be a zombie")

    def is_zombie(self):
        """Whether it has ended and was not collected."""
        return process_state(self.pid) == "Z"


def process_state(pid):
    """The letter of a process's state, "" when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return stat.rpartition(")")[2].split()[0]


def is_alive(pid):
    """Whether there is such a process, and it has not ended."""
    return process_state(pid) not in ("", "Z", "X")


def as_conf(settings):
    """Settings as the text of a holdfast.conf."""
    def as_value(value):
        if isinstance(value, (list, tuple)):
            return "[" + ", ".join(map(as_value, value)) + "]"
        return str(value) if isinstance(value, int) else f'"{value}"'
    return "".join(f"{key} = {as_value(value)}\n" for key, value in settings.items())


class Daemon:
    """A private holdfastd: its files are in a directory of its own, the host's are not read."""

    def __init__(self, directory, *, binary=None, wrapper=(), env=None, user=None, limits=None,
                 settings=None, options=("--no-keeper",)):
        self.directory = Path(directory)
        self.directory.mkdir(exist_ok=True)
        self.socket = self.directory / "s"
        self.virtlockd_socket = self.directory / "v"
        self.log_path = self.directory / "log"
        self.host = f"host-{self.directory.name}"
        self.binary = binary or lock_rig.build_dir() / "holdfastd"
        self.wrapper = wrapper
        self.env = {**os.environ, "LC_ALL": "C", "TZ": "UTC",
                    **(SANITIZER_ENV if sanitizer() else {}), **(env or {})}
        self.user = user
        self.limits = limits or {}
        self.options = options
        self.process = None
        conf = {"lockd_conf": "", "host_name": self.host, "log_level": 2,
                "virtlockd_socket": self.virtlockd_socket, **(settings or {})}
        self.conf_path = self.directory / "conf"
        self.conf_path.write_text(as_conf(conf), encoding="utf-8")
        if user is not None:
            os.chown(self.directory, user, user)

    def launch(self):
        """Start it without waiting."""
        def set_limits():
            for name, value in self.limits.items():
                resource.setrlimit(name, (value, value))
        identity = {}
        if self.user is not None:
            identity = {"user": self.user, "group": self.user, "extra_groups": []}
        with self.log_path.open("ab") as log:
            # pylint: disable-next=consider-using-with,subprocess-popen-preexec-fn
            self.process = subprocess.Popen(
                [*self.wrapper, self.binary, "--socket", self.socket, "--config", self.conf_path,
                 *self.options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env, cwd="/",
                preexec_fn=set_limits if self.limits else None, **identity)

    def start(self):
        """Start it and wait until it serves."""
        self.launch()
        wait_until(self._serves, "the daemon to serve")
        return self

    def _serves(self):
        assert self.process.poll() is None, f"the daemon ended:\n{self.log()}"
        try:
            stream.connect(self.socket, TIMEOUT).close()
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True

    @property
    def pid(self):
        """Its process."""
        return self.process.pid

    @property
    def daemon_pid(self):
        """The process that serves: under a keeper another one than that which was started."""
        with self.client() as client:
            return client.greeting["pid"]

    def is_running(self):
        """Whether it was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    def stop(self):
        """End it as systemd does; its exit code."""
        self.process.terminate()
        return self.process.wait(TIMEOUT)

    def kill(self):
        """End it as a crash does."""
        self.process.kill()
        self.process.wait()

    def close(self):
        """Make sure that nothing is left of it."""
        if self.is_running():
            self.kill()

    def log(self):
        """What it has logged."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def client(self, timeout=TIMEOUT):
        """A connection to the native socket."""
        return connect(self.socket, timeout)

    def peer(self, timeout=TIMEOUT):
        """A connection to the virtlockd socket."""
        return virtlockd_wire.connect(self.virtlockd_socket, timeout)

    def raw(self, protocol="native", timeout=TIMEOUT):
        """A plain socket connected to the native or the virtlockd socket."""
        return stream.connect(self.socket if protocol == "native" else self.virtlockd_socket,
                              timeout)

    def path(self, inside):
        """Where a file is that the daemon sees in mounts of its own."""
        return Path(f"/proc/{self.pid}/root") / str(inside).lstrip("/")

    def rss(self):
        """Its resident memory in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        return int(re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)[1]) * 1024

    def threads(self):
        """The number of its threads."""
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def descriptors(self):
        """The number of its open files."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def cpu_seconds(self):
        """The processor time that it has used so far, all threads together."""
        return time.clock_gettime(~self.pid << 3 | 2)  # CPUCLOCK_SCHED of a process, see time(7)

    def assert_serves(self, image, vm):
        """Complain unless a disk can be locked and unlocked over both protocols."""
        with self.client() as client:
            client.acquire(vm, image)
            assert client.release(vm, image) == 1
        with self.peer() as peer:
            peer.register(vm.pid, vm.name, uuids.UUID(vm.uuid))
            peer.acquire(str(image))
            peer.release(str(image))


class Daemons:
    """Makes private daemons for one test, and sees that they end well."""

    def __init__(self, workdir):
        self.workdir = workdir
        self.made = []

    def __call__(self, name="n1", *, start=True, **options):
        """A new daemon; keyword arguments that Daemon does not know are settings."""
        known = {key: options.pop(key) for key in
                 ("binary", "wrapper", "env", "user", "limits", "options") if key in options}
        daemon = Daemon(self.workdir / name, settings=options, **known)
        self.made.append(daemon)
        return daemon.start() if start else daemon

    def finish(self):
        """End those that still run, as systemd does: each must end with code 0."""
        for daemon in filter(Daemon.is_running, self.made):
            code = daemon.stop()
            assert code == 0, f"the daemon ended with {code}"

    def close(self):
        """Make sure that nothing is left."""
        for daemon in self.made:
            with suppress(ProcessLookupError):
                daemon.close()

    def logs(self):
        """What all of them have logged, the ends of it."""
        return "\n".join(f"--- {daemon.log_path}\n{daemon.log()[-8000:]}" for daemon in self.made
                         if daemon.log_path.exists())


def lend(kind, workdir, *programs):
    """For a fixture: daemons of a kind that needs these programs of ours."""
    for program in programs:
        if not os.access(lock_rig.build_dir() / program, os.X_OK):
            pytest.skip(f"{program} is not built")
    daemons = kind(workdir)
    try:
        yield daemons
        daemons.finish()
    finally:
        print(daemons.logs())
        daemons.close()


@functools.cache
def sanitizer():
    """The name of the sanitizer that the daemon was built with, or ""."""
    program = (lock_rig.build_dir() / "holdfastd").read_bytes()
    return next((name for name in ("asan", "tsan") if f"__{name}_init".encode() in program), "")


def raise_descriptor_limit(needed):
    """Allow this process so many open files; what is missing in words, or None."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if needed <= soft:
        return None
    if needed > hard:
        return f"the limit of open files is {hard}, {needed} are needed"
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    return None


def in_mounts(script, *argv):
    """A wrapper for Daemon: run the shell script in mounts of its own first, "$1" being argv."""
    shell = f"set -e\n{script}\nshift {len(argv)}\nexec \"$@\""
    return ("unshare", "--mount", "--propagation=private", "sh", "-c", shell, "sh",
            *map(str, argv))
