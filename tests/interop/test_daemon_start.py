# SPDX-License-Identifier: LGPL-2.1-or-later
"""The ways a lock daemon is started and ended: options, systemd's socket activation, users."""

import os

import pytest
from lock_rig import SOCKET, LockRig, daemon_binary, missing
from lock_table import held_locks
from sandbox import Sandbox
from waiting import wait_until


# Seconds: time enough to connect to a daemon that has just started, on a busy machine.
IDLE = "4"


@pytest.fixture(name="binary")
def fixture_binary(lock_daemon):
    """The lock daemon's program."""
    reason = missing(lock_daemon, "systemd-socket-activate")
    if reason:
        pytest.skip(reason)
    return daemon_binary(lock_daemon)


@pytest.fixture(name="sandbox")
def fixture_sandbox():
    """A sandbox with nothing in it."""
    with Sandbox(cover=LockRig.cover) as sandbox:
        sandbox.path("/run/libvirt").mkdir()
        yield sandbox


def exercise(sandbox, image):
    """Lock and unlock an image through the daemon."""
    with sandbox.connect(SOCKET) as client:
        client.register(1)
        client.acquire(image)
        assert held_locks(image) == ["WRITE"]
        client.release(image)
        assert held_locks(image) == []


def test_socket_activation(binary, sandbox, workdir, new_image):
    """The first connection starts the daemon on systemd's socket, which it leaves in place."""
    pid = sandbox.spawn("systemd-socket-activate", "-l", SOCKET, "--fdname=virtlockd.socket",
                        binary, log=workdir / "log")
    sandbox.wait_socket(SOCKET, pid)  # there is a moment in which it is there and nobody listens
    inode = sandbox.path(SOCKET).stat().st_ino
    exercise(sandbox, new_image("a"))
    exercise(sandbox, new_image("b"))
    assert sandbox.path(SOCKET).stat().st_ino == inode
    assert sandbox.terminate(pid) == 0


def test_options(binary, sandbox, workdir, new_image):
    """-d goes to the background once it serves, -p says who that is, -f what to read."""
    conf, pid_file = workdir / "conf", workdir / "pid"
    conf.write_text("max_clients = 100\nlog_level = 3\n", encoding="utf-8")
    started = sandbox.run(binary, "-v", "-d", "-f", conf, "-p", pid_file, "-t", "0")
    assert started.returncode == 0, started.stderr
    exercise(sandbox, new_image("a"))
    assert sandbox.terminate(int(pid_file.read_text(encoding="ascii"))) == 0


def test_long_options(binary, sandbox, workdir, new_image):
    """The same options by their long names."""
    conf, pid_file = workdir / "conf", workdir / "pid"
    conf.write_text("max_clients = 100\n", encoding="utf-8")
    started = sandbox.run(binary, "--verbose", "--daemon", "--config", conf,
                          "--pid-file", pid_file, "--timeout", "100")
    assert started.returncode == 0, started.stderr
    exercise(sandbox, new_image("a"))
    assert sandbox.terminate(int(pid_file.read_text(encoding="ascii"))) == 0


@pytest.mark.parametrize("option", ["-h", "--help", "-V", "--version"])
def test_information(binary, sandbox, option):
    """Help and version are told and end well."""
    told = sandbox.run(binary, option)
    assert told.returncode == 0
    assert "virtlockd" in told.stdout + told.stderr


@pytest.mark.parametrize("arguments", [["--no-such-option"], ["-t", "soon"]])
def test_wrong_options(binary, sandbox, arguments):
    """What cannot be understood is refused."""
    told = sandbox.run(binary, *arguments)
    assert told.returncode != 0
    assert told.stderr


def test_wrong_configuration(binary, sandbox, workdir):
    """A configuration that cannot be read keeps the daemon from starting."""
    (workdir / "conf").write_text("max_clients = \n", encoding="utf-8")
    told = sandbox.run(binary, "-f", workdir / "conf")
    assert told.returncode != 0
    assert "conf" in told.stderr


def test_second_daemon(binary, sandbox, workdir, new_image):
    """A second daemon does not start and leaves the first one alone."""
    pid = sandbox.spawn(binary, log=workdir / "log")
    sandbox.wait_socket(SOCKET, pid)
    assert sandbox.run(binary).returncode != 0
    exercise(sandbox, new_image("a"))
    assert sandbox.terminate(pid) == 0


def test_timeout(binary, sandbox, workdir):
    """A daemon without work ends by itself after -t seconds."""
    pid = sandbox.spawn(binary, "-t", IDLE, log=workdir / "log")
    sandbox.wait_socket(SOCKET, pid)
    assert sandbox.wait_exit(pid) == 0


def test_timeout_waits_for_the_last_connection(binary, sandbox, workdir, new_image):
    """A connection keeps the daemon there."""
    pid = sandbox.spawn(binary, "-t", IDLE, log=workdir / "log")
    sandbox.wait_socket(SOCKET, pid)
    with sandbox.connect(SOCKET) as client:
        with pytest.raises(TimeoutError):
            wait_until(lambda: sandbox.exit_code(pid) is not None, "its end", deadline=6)
        client.register(1)
        client.acquire(new_image("a"))
        client.release(workdir / "a.img")
    assert sandbox.wait_exit(pid) == 0


def test_timeout_waits_for_locks(sandbox, workdir, new_image):
    """So does a lock without a connection, which stock forgets."""
    reason = missing("holdfast")
    if reason:
        pytest.skip(reason)
    image = new_image("a")
    pid = sandbox.spawn(daemon_binary("holdfast"), "-t", IDLE, log=workdir / "log")
    sandbox.wait_socket(SOCKET, pid)
    owner = sandbox.spawn("sleep", "infinity")
    with sandbox.connect(SOCKET) as client:
        client.register(owner)
        client.acquire(image)
    with pytest.raises(TimeoutError):
        wait_until(lambda: sandbox.exit_code(pid) is not None, "its end", deadline=6)
    assert held_locks(image) == ["WRITE"]
    sandbox.kill(owner)
    assert sandbox.wait_exit(pid) == 0


def test_root_serves_root_only(binary, sandbox, workdir):
    """A plain user cannot lock through root's daemon."""
    if os.geteuid():
        pytest.skip("not root")
    pid = sandbox.spawn(binary, log=workdir / "log")
    sandbox.wait_socket(SOCKET, pid)
    with pytest.raises((OSError, EOFError)):
        with sandbox.connect(SOCKET, uid=65534) as client:
            client.register(1)
    assert sandbox.terminate(pid) == 0
