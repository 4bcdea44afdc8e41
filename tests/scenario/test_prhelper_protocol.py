# SPDX-License-Identifier: LGPL-2.1-or-later
"""The persistent-reservation helper's protocol, without a SCSI device: stock and ours alike."""

import os
import re
import select
import shutil
import socket
import struct
import threading

import pr_rig
import pr_wire
import pytest
from native import sanitizer
from pr_wire import CHECK_CONDITION, PR_LENGTH_MAX, Closed, cdb_in, cdb_out
from waiting import wait_until

NULL_CDB = bytes(16)


@pytest.fixture(name="helper", params=pr_rig.HELPERS)
def fixture_helper(request, workdir):
    """A helper that serves."""
    reason = pr_rig.missing(request.param)
    if reason:
        pytest.skip(reason)
    with pr_rig.Helper(request.param, workdir) as helper:
        yield helper
        assert helper.end() == 0, helper.text()


@pytest.fixture(name="ours")
def fixture_ours(workdir):
    """Our helper."""
    reason = pr_rig.missing("holdfast")
    if reason:
        pytest.skip(reason)
    with pr_rig.Helper("holdfast", workdir) as helper:
        yield helper
        assert helper.end() == 0, helper.text()


@pytest.fixture(name="null")
def fixture_null():
    """A descriptor that is no disk."""
    null = pr_wire.open_device("/dev/null")
    yield null
    os.close(null)


def at_rest(helper, descriptors, threads):
    """Wait until it has let go of everything; stock keeps the threads of its pool for a while."""
    wait_until(lambda: helper.descriptors() == descriptors, "descriptors to be closed")
    if helper.helper == "holdfast":
        wait_until(lambda: helper.threads() == threads, "threads to end")


# ---- what the protocol does not allow ------------------------------------------------------------

def no_descriptor(client, _null):
    """A request without a descriptor."""
    client.send(cdb_in(0))


def two_descriptors(client, null):
    """One with two."""
    client.send(cdb_in(0), null, null)


def many_descriptors(client, null):
    """One with more than there is room for."""
    client.send(cdb_in(0), *[null] * 100)


def descriptor_twice(client, null):
    """One with a descriptor in each half of its CDB."""
    client.send(cdb_in(0)[:8], null)
    client.send(cdb_in(0)[8:], null)


def wrong_opcode(client, null):
    """TEST UNIT READY."""
    client.send(NULL_CDB, null)


def reserve_six(client, null):
    """RESERVE(6), a reservation of the old kind."""
    client.send(bytes([0x16]) + bytes(15), null)


def in_too_long(client, null):
    """More than an answer may have."""
    client.send(cdb_in(0, PR_LENGTH_MAX + 1), null)


def out_too_long(client, null):
    """More than a request may have."""
    client.send(cdb_out(0, length=PR_LENGTH_MAX + 1), null)


def longest_length(client, null):
    """The largest number that there is room for."""
    client.send(cdb_out(0, length=0xffff), null)


def end_in_cdb(client, null):
    """The end comes inside the CDB."""
    client.send(cdb_in(0)[:7], null)
    client.sock.shutdown(socket.SHUT_WR)


def end_in_parameters(client, null):
    """The end comes inside the parameters."""
    client.send(cdb_out(0), null)
    client.send(bytes(23))
    client.sock.shutdown(socket.SHUT_WR)


def end_before_parameters(client, null):
    """The end comes before the parameters."""
    client.send(cdb_out(0), null)
    client.sock.shutdown(socket.SHUT_WR)


MALFORMED = (no_descriptor, two_descriptors, many_descriptors, descriptor_twice, wrong_opcode, reserve_six,
             in_too_long, out_too_long, longest_length, end_in_cdb, end_in_parameters,
             end_before_parameters)


@pytest.mark.parametrize("malformed", MALFORMED, ids=lambda function: function.__name__)
def test_malformed(helper, null, malformed):
    """The connection is closed at once, without an answer; others are served, nothing leaks."""
    with helper.client() as other:
        other.read(null)
        descriptors, threads = helper.descriptors(), helper.threads()
        with helper.client() as client:
            try:
                malformed(client, null)
            except Closed:
                pass  # before all of it was sent
            with pytest.raises(Closed):
                client.receive(1)
            assert other.read(null).status == CHECK_CONDITION
        at_rest(helper, descriptors, threads)


def end_in_greeting(path):
    """The client says half of its features."""
    with pr_wire.PrClient(path, greet=False) as client:
        assert client.receive(4) == bytes(4)
        client.send(bytes(2))


def end_at_once(path):
    """The client says nothing at all."""
    pr_wire.PrClient(path, greet=False).close()


@pytest.mark.parametrize("begin", [end_in_greeting, end_at_once], ids=lambda f: f.__name__)
def test_short_greeting(helper, null, begin):
    """A connection that ends before its first request is forgotten."""
    with helper.client() as other:
        other.read(null)
        descriptors, threads = helper.descriptors(), helper.threads()
        begin(helper.socket)
        assert other.read(null).status == CHECK_CONDITION
        at_rest(helper, descriptors, threads)


def test_unknown_features(helper):
    """We announce none, and a client that announces any is not one that we know."""
    with helper.client(greet=False) as client:
        assert client.receive(4) == bytes(4)
        client.send(struct.pack(">I", 1))
        with pytest.raises(Closed):
            client.receive(1)


def test_descriptor_in_greeting(helper, null):
    """A descriptor that comes with the greeting belongs to no request."""
    with helper.client(greet=False) as client:
        client.receive(4)
        client.send(bytes(4), null)
        client.send(cdb_in(0))
        with pytest.raises(Closed):
            client.receive(1)


def test_descriptor_with_parameters(helper, null):
    """One that comes with the parameters is of no use, and does no harm."""
    with helper.client() as client:
        client.send(cdb_out(0), null)
        client.send(bytes(24), null)
        assert client.answer().code == "b/00/06"
        descriptors = helper.descriptors()
        client.send(cdb_out(0), null)
        client.send(bytes(24), *[null] * 5)
        assert client.answer().code == "b/00/06"
        wait_until(lambda: helper.descriptors() <= descriptors, "descriptors to be closed")


# ---- requests that take their time ---------------------------------------------------------------

def test_half_greeting(helper, null):
    """A client that has said half of its features is waited for, while others are served."""
    with helper.client(greet=False) as slow, helper.client() as other:
        slow.receive(4)
        slow.send(bytes(2))
        for _ in range(20):
            assert other.read(null).status == CHECK_CONDITION
        slow.send(bytes(2))
        assert slow.read(null).status == CHECK_CONDITION


@pytest.mark.parametrize("length", [1, 15, 16, 39])
def test_half_request(helper, null, length):
    """Half a request waits for its rest, while others are served; then it is answered."""
    request = cdb_out(0) + bytes(24)
    with helper.client() as slow, helper.client() as other:
        slow.send(request[:length], null)
        for _ in range(20):
            assert other.read(null).status == CHECK_CONDITION
        slow.send(request[length:])
        assert slow.answer().status == CHECK_CONDITION


def test_byte_by_byte(helper, null):
    """A request may come in as many pieces as it has bytes, the descriptor with any of them."""
    with helper.client() as client:
        data = cdb_out(0) + bytes(24)
        for i, byte in enumerate(data):
            client.send(bytes([byte]), *([null] if i == 9 else []))
        assert client.answer().status == CHECK_CONDITION


def test_requests_at_once(helper, null):
    """Requests that are sent without waiting are answered one after the other."""
    with helper.client() as client:
        for _ in range(50):
            client.send(cdb_in(0), null)
        for _ in range(50):
            assert client.answer().code == "b/00/06"


# ---- descriptors ---------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["null", "file", "directory", "pipe", "socket"])
def test_no_disk(helper, workdir, kind):
    """What is no disk gets ABORTED COMMAND, I/O PROCESS TERMINATED."""
    (workdir / "file").touch()
    ends = socket.socketpair()
    device = {"null": lambda: os.open("/dev/null", os.O_RDWR),
              "file": lambda: os.open(workdir / "file", os.O_RDWR),
              "directory": lambda: os.open(workdir, os.O_RDONLY),
              "pipe": lambda: os.open(f"/proc/self/fd/{pipe[0]}", os.O_RDWR),
              "socket": lambda: os.dup(ends[0].fileno())}
    pipe = os.pipe()
    fd = device[kind]()
    try:
        with helper.client() as client:
            answer = client.read(fd)
            assert (answer.status, answer.code, answer.data) == (CHECK_CONDITION, "b/00/06", b"")
            assert answer.sense[:1] == b"\x70" and answer.sense[7] == 10
            if kind != "directory":
                assert client.out(fd, pr_wire.REGISTER).code == "b/00/06"
    finally:
        for number in (fd, *pipe):
            os.close(number)
        for end in ends:
            end.close()


def test_read_only_descriptor(helper):
    """PERSISTENT RESERVE OUT needs a descriptor that may write: ILLEGAL REQUEST, invalid opcode."""
    fd = pr_wire.open_device("/dev/null", os.O_RDONLY)
    try:
        with helper.client() as client:
            answer = client.out(fd, pr_wire.REGISTER)
            assert (answer.status, answer.code) == (CHECK_CONDITION, "5/20/00")
            assert client.read(fd).code == "b/00/06"
    finally:
        os.close(fd)


@pytest.mark.parametrize("length", [0, 10, 24, PR_LENGTH_MAX])
def test_lengths(helper, null, length):
    """Lists of any allowed length are for the device to judge: here there is none."""
    with helper.client() as client:
        assert client.read(null, length=length).code == "b/00/06"
        assert client.command(null, cdb_out(0, length=length), bytes(length)).code == "b/00/06"


# ---- many ----------------------------------------------------------------------------------------

def test_abrupt_disconnects(ours, null):
    """1,000 clients that go away in the middle of something leave nothing behind."""
    beginnings = [b"", bytes(3), bytes(4), bytes(4) + cdb_in(0)[:5], bytes(4) + cdb_in(0),
                  bytes(4) + cdb_out(0), bytes(4) + cdb_out(0) + bytes(11),
                  bytes(4) + cdb_out(0) + bytes(24)]

    def hit_and_run(number):
        for i in range(number):
            # the C library keeps the stacks of as many threads as there were at once
            if i % 5 == 0:
                wait_until(lambda: ours.threads() <= threads_at_rest + 10, "threads to end")
            with ours.client(greet=False) as client:
                data = beginnings[i % len(beginnings)]
                if data:
                    client.send(data, null)
    with ours.client() as client:
        client.read(null)
        threads_at_rest = ours.threads() - 1  # a sanitizer has one of its own, once there are any
        hit_and_run(200)  # what is allocated once is allocated now
        with ours.client() as last:
            last.read(null)  # when it is answered, all before it have been accepted
        # no connection but this one
        wait_until(lambda: ours.threads() == threads_at_rest + 1, "threads to end")
        descriptors = ours.descriptors()
        memory = ours.memory_kb()
        threads = [threading.Thread(target=hit_and_run, args=(250,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.read(null).status == CHECK_CONDITION
        at_rest(ours, descriptors, threads_at_rest + 1)
        if not sanitizer():  # these keep what is freed
            # a page of each of 1,000 connections would be 4,000
            assert ours.memory_kb() < memory + 2000


class TracedHelper(pr_rig.Helper):
    """Our helper, and what it closes."""

    def command(self):
        # -D: the tracer is a child, so that signals reach the helper
        return ["strace", "-D", "-f", "-e", "trace=close", "-o", self.trace(), *super().command()]

    def trace(self):
        """Where each close() is written down."""
        return self.socket.with_name("trace")

    def closes(self):
        """What was written down, when the helper has ended."""
        # short numbers of processes are padded
        exited = re.compile(rf"^{self.process.pid} +\+\+\+ exited", re.MULTILINE)
        wait_until(lambda: exited.search(self.trace().read_text()), "the tracer")
        return self.trace().read_text()


def test_reset_in_a_request(workdir, null, monkeypatch):
    """Who leaves an answer unread, and goes in the middle of a request, has his connection reset.

    What came with the request is closed once: a second time, its number may be another thread's.
    """
    reason = pr_rig.missing("holdfast") or (
        None if shutil.which("strace") else "strace is not installed")
    if reason:
        pytest.skip(reason)
    # a search for leaks is not possible under strace
    monkeypatch.setenv("ASAN_OPTIONS", f"{os.environ.get('ASAN_OPTIONS', '')}:detect_leaks=0")
    with TracedHelper("holdfast", workdir) as helper:
        for _ in range(5):
            with helper.client() as leaving:
                leaving.send(cdb_in(0), null)
                leaving.send(cdb_out(0), null)
                wait_until(lambda sock=leaving.sock: select.select([sock], [], [], 0)[0], "an answer")
            with helper.client() as other:
                assert other.read(null).code == "b/00/06"
        assert helper.end() == 0
        closes = helper.closes()
    assert closes.count("close(") > 10
    assert [line for line in closes.splitlines() if "EBADF" in line] == []


def test_many_connections(ours, null):
    """64 at once are served, and the memory of the helper stays small."""
    clients = [ours.client() for _ in range(64)]
    try:
        for _ in range(5):
            for client in clients:
                client.send(cdb_in(0), null)
            for client in clients:
                assert client.answer().status == CHECK_CONDITION
        if not sanitizer():
            # The goal is 5 MB in all, of which libraries, which all processes share, are some 3.
            assert ours.memory_kb() < 2048
    finally:
        for client in clients:
            client.close()
