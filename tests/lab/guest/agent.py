# SPDX-License-Identifier: LGPL-2.1-or-later
"""A lab guest's agent: runs the commands that come over the management network.

wire.py has the protocol. Each connection gets a process of its own, so that a command that hangs
for ever costs nothing but itself. Imports are few: in an emulated guest each costs time.
"""

import os
import select
import signal
import socket
import struct
import time

ADDRESS = ("10.0.2.15", 77)
HEAD = struct.Struct("!cI")
CLOCK_IS_SET = "/run/lab/clock"


def exactly(sock, size):
    """Read that many bytes; EOFError if there are less."""
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def receive(sock):
    """One frame: its letter and data."""
    letter, size = HEAD.unpack(exactly(sock, HEAD.size))
    return letter, exactly(sock, size)


def send(sock, letter, data=b""):
    """Send a frame."""
    sock.sendall(HEAD.pack(letter, len(data)) + data)


def set_clock(now):
    """Take over the caller's time, once: the emulated clock is only good to a second."""
    if not os.path.exists(CLOCK_IS_SET):
        time.clock_settime(time.CLOCK_REALTIME, float(now))
        os.close(os.open(CLOCK_IS_SET, os.O_CREAT, 0o644))


def start(words):
    """Start a command; its pid and our ends of its standard input, output and errors."""
    pipes = [os.pipe() for _ in range(3)]
    theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            os.chdir("/")
            for number, fd in enumerate(theirs):
                os.dup2(fd, number)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.execvp(words[0], words)
        except OSError as error:
            os.write(2, f"{words[0]}: {error.strerror}\n".encode())
        finally:
            os._exit(127)
    for fd in theirs:
        os.close(fd)
    return pid, pipes[0][1], pipes[1][0], pipes[2][0]


def feed(stdin, data):
    """Pass input on; nothing is the end of it. Gives the descriptor that is to be used next."""
    if stdin >= 0 and data:
        try:
            while data:
                data = data[os.write(stdin, data):]
        except BrokenPipeError:
            pass
    elif stdin >= 0:
        os.close(stdin)
        stdin = -1
    return stdin


def relay(sock, pid, stdin, out, err):
    """Carry data to and fro until the command has ended and all is said; its exit code."""
    letters = {out: b"o", err: b"e"}
    ended = os.pidfd_open(pid)
    while True:
        ready = select.select([*letters, sock, ended], [], [])[0]
        for fd in [fd for fd in ready if fd in letters]:
            data = os.read(fd, 65536)
            if data:
                send(sock, letters[fd], data)
            else:
                del letters[fd]
        if sock in ready:
            stdin = feed(stdin, receive(sock)[1])
        elif ended in ready and not any(fd in letters for fd in ready):
            # what it left behind in the background may have the pipes open, and lives on
            code = os.waitpid(pid, 0)[1]
            return os.waitstatus_to_exitcode(code)


def serve(sock):
    """Do what one connection wants."""
    send(sock, b"h")
    now, *words = receive(sock)[1].decode().split("\0")
    set_clock(now)
    pid, stdin, out, err = start(words)
    try:
        code = relay(sock, pid, stdin, out, err)
        send(sock, b"x", str(code if code >= 0 else 128 - code).encode())
    except (OSError, EOFError):
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def main():
    """Listen for ever."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(ADDRESS)
    listener.listen(64)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        sock = listener.accept()[0]
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                serve(sock)
            except (OSError, EOFError, ValueError):
                pass
            finally:
                os._exit(0)
        sock.close()


if __name__ == "__main__":
    main()
