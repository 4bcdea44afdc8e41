# SPDX-License-Identifier: LGPL-2.1-or-later
"""As many connections as there are VMs: idle ones cost the others nothing.

Work is measured in processor time, of two daemons in turn: a busy machine makes all of it dearer,
and never cheaper, so that the cheapest of many runs is compared.
"""

import fcntl
import re
import resource
import socket
import sys
import termios
import time
import uuid as uuids
from contextlib import suppress
from pathlib import Path

import pytest
from lock_table import held_locks
from native import Client, Refused, raise_descriptor_limit, sanitizer
from waiting import wait_until

IDLE = 5000
PAIRS = 400
QUESTIONS = 3000
RUNS = 5
RUNS_MAX = 40  # until it is clear that a difference is no accident
# A connection costs some hundred bytes; an address sanitizer keeps far more for each allocation.
MEMORY = IDLE * 4 * 1024 * (8 if sanitizer() else 1)
# With poll(2), whose work grows with its descriptors, it would be twenty times.
GROSSLY = 4


def native_pairs(daemon, vm, image):
    """Acquire and release over the native protocol, many times."""
    with daemon.client() as client:
        for _ in range(PAIRS):
            client.acquire(vm, image)
            client.release(vm)


def rpc_pairs(daemon, vm, image):
    """The same over virtlockd's."""
    with daemon.peer() as peer:
        peer.register(vm.pid, vm.name)
        for _ in range(PAIRS):
            peer.acquire(str(image))
            peer.release(str(image))


def cost(daemon, work, *args):
    """The processor time that the daemon takes for some work."""
    before = daemon.cpu_seconds()
    work(daemon, *args)
    return daemon.cpu_seconds() - before


def compare(work, alone, busy, *args):
    """The processor time of a daemon that is alone and of the other one, each at best."""
    costs = [], []
    for run in range(RUNS_MAX):
        for daemon, its in zip((alone, busy), costs):
            its.append(cost(daemon, work, *args))
        least = min(costs[0]), min(costs[1])
        if run >= RUNS and least[1] < GROSSLY * least[0]:
            break
    return least


@pytest.fixture(name="idle_connections")
def fixture_idle_connections(daemon):
    """Opens connections that then say nothing: idle_connections(protocol, number, vm)."""
    reason = raise_descriptor_limit(IDLE + 500)
    if reason:
        pytest.skip(reason)
    connections = []

    def idle_connections(protocol, number, vm):
        for count in range(number):
            if protocol == "native":
                connections.append(daemon.client())
            else:
                connections.append(daemon.peer())
                connections[-1].register(vm.pid, f"vm{count}", uuids.UUID(vm.uuid))
    try:
        yield idle_connections
    finally:
        for connection in connections:
            connection.close()


@pytest.mark.parametrize("protocol", ["native", "virtlockd"])
def test_many_idle_connections(start_daemon, daemon, idle_connections, vm, other_vm, image,
                               protocol):
    """5,000 idle connections: the work for the others stays the same, and the memory is bounded."""
    alone = start_daemon("alone")
    for work in (native_pairs, rpc_pairs):
        work(daemon, other_vm, image)  # threads are made, memory is had
    memory = daemon.rss()
    idle_connections(protocol, IDLE, vm)
    with daemon.client() as client:
        assert client.call("query-status")["connections"] == IDLE + 1
        costs = [compare(work, alone, daemon, other_vm, image) for work in (native_pairs, rpc_pairs)]
        print(f"{IDLE} idle {protocol} connections: ms of CPU for {PAIRS} pairs "
              f"{[[round(1000 * x, 1) for x in pair] for pair in costs]}, "
              f"{(daemon.rss() - memory) // IDLE} bytes a connection")
        for first, second in costs:
            assert second < GROSSLY * first
        assert daemon.rss() - memory < MEMORY
        client.acquire(other_vm, image)
        assert held_locks(image) == ["WRITE"]


def test_idle_daemon_is_idle(daemon, idle_connections, vm):
    """Nothing wakes a daemon that nobody asks: what it takes is what the questions cost."""
    idle_connections("native", 50, vm)
    with daemon.client() as client:
        before = daemon.cpu_seconds()
        for _ in range(QUESTIONS):
            client.call("query-commands")
        busy = daemon.cpu_seconds() - before
        before, start = daemon.cpu_seconds(), time.monotonic()
        wait_until(lambda: time.monotonic() > start + 0.5, "a moment without questions")
        assert daemon.cpu_seconds() - before < busy / 10


LIMIT = 60


def test_descriptor_limit(start_daemon, start_vm, new_image):
    """At the limit of open files those who are served go on, and newcomers wait for a place."""
    daemon = start_daemon(limits={resource.RLIMIT_NOFILE: LIMIT})
    vm, image = start_vm(), new_image("a")
    waiting = []
    with daemon.client() as client:
        try:
            for _ in range(LIMIT):
                waiting.append(daemon.raw())
            wait_until(lambda: daemon.descriptors() == LIMIT, "the limit to be reached")
            wait_until(lambda: "cannot accept" in daemon.log(), "a warning")
            # it does not spin while it cannot accept anybody
            start, used = time.monotonic(), daemon.cpu_seconds()
            wait_until(lambda: time.monotonic() - start > 0.5, "half a second")
            assert daemon.cpu_seconds() - used < 0.25
            assert client.call("query-commands")
            with pytest.raises(Refused) as refusal:
                client.acquire(vm, image)
            assert refusal.value.error_class in ("StorageError", "Internal")
            assert refusal.value.data["errno"] == 24
            assert "limit" in refusal.value.desc
            assert held_locks(image) == []
            for sock in waiting[:40]:
                sock.close()
            wait_until(lambda: daemon.descriptors() < LIMIT, "places to be free again")
            # the last one that connected has its turn when all before it had
            with Client(waiting[-1]) as last:
                assert last.acquire(vm, image)
                assert last.release(vm) == 1
        finally:
            for sock in waiting:
                sock.close()
    with daemon.client() as client:
        assert client.acquire(vm, image)
        client.release(vm)
    assert daemon.log().count("cannot accept") < 100


def test_table_of_descriptors(daemon):
    """It is large from the start: for a shared one that grows the kernel stops a request for long."""
    most = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 16384)
    status = Path(f"/proc/{daemon.daemon_pid}/status").read_text(encoding="utf-8")
    assert int(re.search(r"^FDSize:\s+(\d+)$", status, re.MULTILINE)[1]) >= most


def test_come_and_go(daemon, vm, image):
    """Connections that come and go leave nothing behind."""
    daemon.assert_serves(image, vm)
    with daemon.client() as client:
        def alone():
            return client.call("query-status")["connections"] == 1
        wait_until(alone, "the first ones to be gone")
        before = daemon.descriptors()
        for _ in range(1000):
            daemon.raw().close()
            daemon.raw("virtlockd").close()
        wait_until(alone, "the others to be gone")
        assert daemon.descriptors() == before
    daemon.assert_serves(image, vm)


@pytest.mark.parametrize("protocol", ["native", "virtlockd"])
def test_out_of_band(daemon, protocol):
    """A byte out of band is no part of any message; it is dropped, not announced for ever."""
    def unread(sock):
        return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    with daemon.raw(protocol) as sock:
        with suppress(OSError):  # a kernel may know none
            sock.send(b"x", socket.MSG_OOB)
        wait_until(lambda: not unread(sock), "it to be dropped")
    with daemon.client() as client:
        client.send_raw(b"\n")
        with suppress(OSError):
            client.sock.send(b"x", socket.MSG_OOB)
        assert client.call("query-commands")
