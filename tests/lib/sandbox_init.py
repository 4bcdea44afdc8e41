# SPDX-License-Identifier: LGPL-2.1-or-later
"""The first process in a sandbox: covers the fixed directories, then serves the test's requests.

It runs as process 1 of its own PID namespace, so everything in there ends when it does, and it
ends when the test closes its end of the socket. Requests and answers are JSON, one a packet.
"""

import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys

PACKET_MAX = 128 * 1024


class Init:
    """What process 1 does: mount, start processes, reap them, connect to sockets."""

    def __init__(self, sock):
        self.sock = sock
        self.ended = {}

    def prepare(self, hostname, cover, without):
        """Put an empty directory over each of cover and take away the mounts of without."""
        os.chdir("/")
        socket.sethostname(hostname)
        for path in without:
            subprocess.run(["umount", "--recursive", path], check=False,
                           stderr=subprocess.DEVNULL)
        for path in filter(os.path.isdir, cover):
            subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "sandbox", path], check=True)

    def serve(self):
        """Answer requests until the other end is closed."""
        wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker)
        self.answer({"value": "ready"})
        while True:
            ready, _, _ = select.select([self.sock, wake], [], [])
            if wake in ready:
                os.read(wake, 4096)
                self.reap()
            if self.sock in ready:
                request = self.sock.recv(PACKET_MAX)
                if not request:
                    return
                self.handle(json.loads(request))

    def reap(self):
        """Collect every child that has ended, also those that others left behind."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self.ended[pid] = os.waitstatus_to_exitcode(status)

    def handle(self, request):
        """Do one request and answer with its value, or with the errno it failed with."""
        try:
            value = getattr(self, "do_" + request.pop("do"))(**request)
        except OSError as error:
            self.answer({"errno": error.errno or errno.EIO, "message": str(error)})
            return
        if isinstance(value, socket.socket):
            with value:
                self.answer({"value": None}, [value.fileno()])
        else:
            self.answer({"value": value})

    def answer(self, reply, fds=()):
        """Send one answer, with descriptors."""
        socket.send_fds(self.sock, [json.dumps(reply).encode()], list(fds))

    def do_spawn(self, argv, env, log):
        """Start a process that writes to log; its pid."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        pid = os.posix_spawnp(
            argv[0], argv, env, setsid=True, setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                          (os.POSIX_SPAWN_OPEN, 1, log, flags, 0o644),
                          (os.POSIX_SPAWN_DUP2, 1, 2)])
        self.ended.pop(pid, None)
        return pid

    def do_kill(self, pid, signal_number):
        """Send a signal."""
        os.kill(pid, signal_number)

    def do_exit_code(self, pid):
        """How a child of process 1 has ended, None while it runs."""
        return self.ended.get(pid)

    def do_connect(self, path, uid):
        """A connection to a stream socket, made as the user uid."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        os.seteuid(uid)
        try:
            sock.connect(path)
        except OSError:
            sock.close()
            raise
        finally:
            os.seteuid(0)
        return sock


def main():
    """Become process 1 of a sandbox: argv has the socket's descriptor and the settings."""
    init = Init(socket.socket(fileno=int(sys.argv[1])))
    init.sock.set_inheritable(False)
    init.prepare(**json.loads(sys.argv[2]))
    init.serve()


if __name__ == "__main__":
    main()
