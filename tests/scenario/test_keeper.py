# SPDX-License-Identifier: LGPL-2.1-or-later
"""holdfast-keeper: how it begins and ends, and what it keeps."""

import os
import resource
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import native
import pytest
from lock_table import held_locks
from native import is_alive
# pylint: disable-next=unused-import
from vault_rig import (CRASH, facts, fixture_copied, fixture_daemon, fixture_start_daemon, ledger,
                       replace, stored)
from waiting import wait_until

def test_orderly_end(start_daemon, vm, image):
    """SIGTERM to the keeper ends both, with the exit code 0, the locks and the sockets."""
    daemon = start_daemon()
    pid = daemon.daemon_pid
    with daemon.client() as client:
        client.acquire(vm, image)
        assert daemon.stop() == 0
    wait_until(lambda: not is_alive(pid), "the daemon to end")
    assert held_locks(image) == []
    assert not daemon.socket.exists() and not ledger(daemon).exists()
    with daemon.start().client() as client:
        assert client.leases() == []


def test_orderly_end_of_the_daemon(start_daemon):
    """SIGTERM to the daemon itself does the same."""
    daemon = start_daemon()
    os.kill(daemon.daemon_pid, signal.SIGTERM)
    assert daemon.process.wait(native.TIMEOUT) == 0


def test_end_while_no_daemon_is_there(start_daemon, copied, vm, image):
    """The keeper ends as well when it waits to start a daemon again."""
    daemon = start_daemon(binary=copied)
    with daemon.client() as client:
        client.acquire(vm, image)
    replace(copied, "#!/bin/sh\nexit 9\n")
    os.kill(daemon.daemon_pid, signal.SIGKILL)
    wait_until(lambda: "started again in 400 ms" in daemon.log(), "the keeper to pause")
    assert daemon.stop() == 0
    assert held_locks(image) == []


def test_keeper_is_killed(start_daemon, vm, image, new_image):
    """Without its keeper a daemon serves while leases are held, and ends with the last."""
    daemon = start_daemon()
    other = new_image("b")
    with daemon.client() as client:
        client.acquire(vm, image, other)
        daemon.kill()
        assert client.release(vm, other) == 1
        assert held_locks(image) == ["WRITE"]
        wait_until(lambda: client.call("query-status")["vault"]["supervisor"] == "none",
                   "the daemon to know")
        daemon.assert_serves(other, vm)
        time.sleep(1.2)  # it looks every second
        [lease] = client.leases()
        assert lease["disk"] == str(image)
        vm.end()
    wait_until(lambda: not daemon.members(), "the daemon to end")
    assert held_locks(image) == []
    assert "the supervisor" in daemon.log()


def test_idle_time_out(start_daemon, vm, image):
    """-t ends both when nothing is held, also after a crash, and not before."""
    daemon = start_daemon(options=("-t", "3"))
    with daemon.client() as client:
        client.acquire(vm, image)
    daemon.crash()
    time.sleep(4)
    assert daemon.is_running()
    with daemon.client() as client:
        client.release(vm)
    assert daemon.process.wait(native.TIMEOUT) == 0
    wait_until(lambda: not daemon.members(), "both to end")


def in_background(daemon, *options):
    """Run the daemon with -d as a shell does, which reads its output to the end."""
    return subprocess.run(
        [daemon.binary, "-d", "--socket", daemon.socket, "--config", daemon.conf_path,
         "--pid-file", daemon.directory / "pid", *options], stdin=subprocess.DEVNULL,
        capture_output=True, text=True, env=daemon.env, cwd="/", timeout=60, check=False)


def test_background(start_daemon, vm, image):
    """With -d the command returns when it serves, and leaves nothing open behind it."""
    daemon = start_daemon(start=False)
    result = in_background(daemon)
    assert result.returncode == 0, result.stderr
    try:
        keeper = int((daemon.directory / "pid").read_text("ascii"))
        with daemon.client() as client:
            pid = client.greeting["pid"]
            client.acquire(vm, image)
        # a closer has its parent's name for a moment
        wait_until(lambda: sorted(daemon.members()) == sorted([keeper, pid]), "the two to be left")
        for member in (keeper, pid):
            for number in range(3):
                assert os.readlink(f"/proc/{member}/fd/{number}") == "/dev/null"
        os.kill(pid, signal.SIGKILL)
        daemon.wait_next(pid)
        with daemon.client() as client:
            assert len(client.leases()) == 1
        again = in_background(daemon)
        assert again.returncode == 1
        assert "another daemon" in again.stderr
        assert int((daemon.directory / "pid").read_text("ascii")) == keeper
        os.kill(keeper, signal.SIGTERM)
        wait_until(lambda: not daemon.members(), "both to end")
        assert not (daemon.directory / "pid").exists()
        wait_until(lambda: not held_locks(image), "the kernel to drop the lock")
    finally:
        daemon.close()


@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
@pytest.mark.parametrize("fault", ["config", "socket"])
def test_failure_at_the_start(start_daemon, background, fault):
    """A daemon that cannot start says why, and its keeper ends with it."""
    daemon = start_daemon(start=False)
    if fault == "config":
        daemon.conf_path.write_text("no_such_setting = 1\n", encoding="utf-8")
        expected = "no_such_setting"
    else:
        daemon.socket.mkdir()
        expected = str(daemon.socket)
    options = ["--socket", daemon.socket, "--config", daemon.conf_path]
    result = subprocess.run([daemon.binary, *["-d"] * background, *options],
                            stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd="/",
                            env=daemon.env, timeout=60, check=False)
    assert result.returncode == 1
    assert expected in result.stderr
    wait_until(lambda: not daemon.members(), "those who close files to end")


def may_protect():
    """Whether this process may ask to be the last to be killed when memory is short."""
    return subprocess.run(["sh", "-c", "echo -900 2>/dev/null >/proc/self/oom_score_adj"],
                          stderr=subprocess.DEVNULL, check=False).returncode == 0


def test_keeper_is_confined(daemon):
    """The keeper has few descriptors, a filter for system calls, and is the last to be killed."""
    status = Path(f"/proc/{daemon.pid}/status").read_text("ascii")
    assert "Seccomp:\t2" in status
    if may_protect():
        assert Path(f"/proc/{daemon.pid}/oom_score_adj").read_text("ascii") == "-900\n"
    if not native.sanitizer():
        assert daemon.rss() < 8 * 1024 * 1024
        assert daemon.threads() == 1


def test_descriptors_do_not_pile_up(daemon, vm, new_image):
    """Neither keeper nor daemon has more descriptors after many leases and crashes."""
    disks = [new_image(f"d{number}") for number in range(20)]
    counts = []
    for _ in range(4):
        with daemon.client() as client:
            for disk in disks:
                client.acquire(vm, disk)
        daemon.crash()
        with daemon.client() as client:
            assert client.release(vm) == len(disks)
        pid = daemon.crash()
        daemon.wait_next(0)

        def count(pid=pid):
            return daemon.descriptors(), len(os.listdir(f"/proc/{pid}/fd"))
        if not counts:
            wait_until(lambda: count() == count(), "the connections to be closed")
            counts.append(count())
        # a connection that was just closed may still be there; and a closer has a pipe if it was
        # needed so far
        wait_until(lambda: all(now <= first + 2 for now, first in zip(count(), counts[0])),
                   "as many descriptors as in the beginning")
    assert ledger(daemon).stat().st_size < 1000


def keeper_has(daemon, path):
    """Whether the keeper has the file open."""
    found = set()
    for entry in Path(f"/proc/{daemon.pid}/fd").iterdir():
        with suppress(OSError):
            found.add(os.readlink(entry))
    return str(path) in found


def test_keeper_without_room(daemon, vm, new_image):
    """A lock that the keeper has no room for is named, and no orderly restart loses it; the next
    ones survive again once there is room."""
    disks = [new_image(name) for name in "abc"]
    limit = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    with daemon.client() as client:
        client.acquire(vm, disks[0])
        wait_until(lambda: keeper_has(daemon, disks[0]), "the keeper to have read all")
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (16, limit[1]))
        client.acquire(vm, disks[1])
        wait_until(lambda: "was not kept by the supervisor" in daemon.log(), "it to be told")
        assert f"the lock of {disks[1]}, held by VM {vm.name}" in daemon.log()
        daemon.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: "some leases would be lost" in daemon.log(), "the signal to be ignored")
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, limit)
        assert client.release(vm, disks[1]) == 1
        client.acquire(vm, disks[1], disks[2])
    daemon.restart()
    with daemon.client() as client:
        assert len(client.leases()) == len(disks)
        assert client.release(vm) == len(disks)
    daemon.crash()
    assert "is lost" not in daemon.log()


@CRASH
def test_many_of_one_request(daemon, vm, new_image, end):
    """Of many disks of one request, the next daemon has each with the descriptor that is its own."""
    disks = [new_image(f"d{number}") for number in range(150)]
    with daemon.client() as client:
        before = client.acquire(vm, *disks)
    assert stored(daemon) == len(disks) + 3, "the sockets and the process, too"
    end(daemon)
    with daemon.client() as client:
        assert facts(client.leases()) == facts(before)
        assert client.release(vm, *disks[::3]) == 50
        for index, disk in enumerate(disks):
            assert held_locks(disk) == (["WRITE"] if index % 3 else [])
        assert client.release(vm) == 100
        assert not any(held_locks(disk) for disk in disks)
    assert stored(daemon) == 2, "the sockets only"
