# SPDX-License-Identifier: LGPL-2.1-or-later
"""A sandbox for daemons that use fixed paths: namespaces of its own, which end as a whole.

The mount namespace has empty directories over the fixed ones (/run, /etc/libvirt, ...), so
several sandboxes run side by side and the host sees nothing of them. The PID namespace ends with
the sandbox, and every process in it. The temporary directory is shared with the host. Who is not
root gets a user namespace in which he is, and in which there is no other user.
"""

import functools
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import virtlockd_wire
from closing import Closing
from waiting import wait_until

INIT = Path(__file__).with_name("sandbox_init.py")
NAMESPACES = ("--mount", "--pid", "--net", "--ipc", "--uts")
UNSHARE = ("unshare", *NAMESPACES, "--propagation", "private", "--fork", "--kill-child",
           "--mount-proc", *(("--user", "--map-root-user") if os.geteuid() else ()))
ENTER = ("nsenter", *NAMESPACES, *(("--user", "--preserve-credentials") if os.geteuid() else ()))
PACKET_MAX = 128 * 1024
COMMAND_TIMEOUT = 60


@functools.cache
def possible():
    """Whether we have the right to make the namespaces."""
    return subprocess.run([*UNSHARE, "true"], stderr=subprocess.DEVNULL,
                          check=False).returncode == 0


class Sandbox(Closing):
    """Namespaces with a first process that starts others; a context manager."""

    def __init__(self, hostname="sandbox", cover=("/run",), without=("/sys/fs/cgroup",)):
        settings = {"hostname": hostname, "cover": cover, "without": without}
        self.hostname = hostname
        self.env = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(COMMAND_TIMEOUT)
        with theirs:
            # pylint: disable-next=consider-using-with
            self.process = subprocess.Popen(
                [*UNSHARE, sys.executable, str(INIT), str(theirs.fileno()), json.dumps(settings)],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        try:
            self._receive()
            children = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
            self.init_pid = int(Path(children).read_text(encoding="ascii"))
        except BaseException:
            self.close()
            raise

    def close(self):
        """End the sandbox with every process in it."""
        self.sock.close()
        try:
            self.process.wait(COMMAND_TIMEOUT)
        finally:
            self.process.kill()
            self.process.wait()

    def _receive(self):
        data, fds, _, _ = socket.recv_fds(self.sock, PACKET_MAX, 1)
        if not data:
            raise EOFError("the sandbox's first process has ended")
        reply = json.loads(data)
        if "errno" in reply:
            raise OSError(reply["errno"], reply["message"])
        return fds[0] if fds else reply["value"]

    def _ask(self, do, **arguments):
        self.sock.send(json.dumps({"do": do, **arguments}).encode())
        return self._receive()

    def path(self, inside):
        """Where the host finds the sandbox's file."""
        return Path(f"/proc/{self.init_pid}/root") / str(inside).lstrip("/")

    def spawn(self, *argv, env=None, user=0, log="/dev/null"):
        """Start a process in the background, its output appended to log; its pid in there."""
        return self._ask("spawn", argv=_as_user(user, argv), env=env or self.env, log=str(log))

    def kill(self, pid, signal_number=signal.SIGKILL):
        """Send a signal to a process of the sandbox."""
        self._ask("kill", pid=pid, signal_number=int(signal_number))

    def exit_code(self, pid):
        """How a spawned process ended: its exit code, -N for signal N, None while it runs."""
        return self._ask("exit_code", pid=pid)

    def wait_exit(self, pid):
        """Wait until a spawned process has ended; its exit code."""
        wait_until(lambda: self.exit_code(pid) is not None, f"end of process {pid}")
        return self.exit_code(pid)

    def terminate(self, pid, signal_number=signal.SIGTERM):
        """Ask a spawned process to end, wait until it has; its exit code."""
        with suppress(ProcessLookupError):
            self.kill(pid, signal_number)
        return self.wait_exit(pid)

    def run(self, *argv, env=None, user=0):
        """Run a command in the sandbox to its end; a CompletedProcess."""
        return subprocess.run(
            [*ENTER, f"--target={self.init_pid}", "--", *_as_user(user, argv)],
            env=env or self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=COMMAND_TIMEOUT, check=False)

    def connect(self, path, uid=0):
        """A client of the lock daemon at path, as a process of the sandbox and of user uid."""
        sock = socket.socket(fileno=self._ask("connect", path=str(path), uid=uid))
        sock.settimeout(COMMAND_TIMEOUT)
        return virtlockd_wire.Client(sock)

    def wait_socket(self, path, pid=None, uid=0):
        """Wait until somebody listens at path; an error at once if the process pid has ended."""
        def listening():
            if pid and self.exit_code(pid) is not None:
                raise ChildProcessError(f"ended with {self.exit_code(pid)}, no {path} yet")
            try:
                self.connect(path, uid).close()
            except (FileNotFoundError, ConnectionRefusedError):
                return False
            return True
        wait_until(listening, f"somebody to listen at {path}")


def _as_user(user, argv):
    """The command line that runs argv as the user with that id."""
    change = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
    return change + [str(arg) for arg in argv]
