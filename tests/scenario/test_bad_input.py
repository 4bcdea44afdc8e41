# SPDX-License-Identifier: LGPL-2.1-or-later
"""Any bytes on either socket: that connection gets an error or is closed, everything else goes on.

After each test the daemon still serves on both sockets, and its memory stayed bounded.
"""

import json
import random
import select
import socket
import struct
import threading

import pytest
from lock_table import held_locks
from native import LINE_MAX, Client, Refused, encode, raise_descriptor_limit, sanitizer
from virtlockd_wire import (PROGRAM, VERSION, Frame, Procedure, RemoteError, xdr_string,
                            xdr_uint)
from waiting import wait_until

PROTOCOLS = ("native", "virtlockd")
# What the daemon may keep of all unfinished messages together is 64 MiB.
MEMORY = 160 * 1024 * 1024 * (4 if sanitizer() else 1)
SILENT = 3000
both = pytest.mark.parametrize("protocol", PROTOCOLS)


@pytest.fixture(autouse=True)
def fixture_still_serves(daemon, vm, image):
    """Whatever the test did, the daemon serves, holds no more locks, and is not much larger."""
    daemon.assert_serves(image, vm)
    yield
    assert daemon.is_running(), daemon.log()
    assert daemon.rss() < MEMORY
    daemon.assert_serves(image, vm)
    with daemon.client() as client:
        assert client.leases() == []
        wait_until(lambda: client.call("query-status")["connections"] == 1,
                   "the connections to be gone")
    assert held_locks(image) == []


def drain(sock):
    """All that comes until the daemon closes the connection."""
    received = b""
    try:
        while part := sock.recv(65536):
            received += part
    except ConnectionResetError:
        pass
    return received


def send_what_goes(sock, data):
    """Send until the daemon closes the connection."""
    try:
        sock.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        pass


def send_without_reading(sock, data):
    """Send again and again until the daemon takes no more; how much went."""
    sock.setblocking(False)
    total = 0
    try:
        while total < 256 * 1024 * 1024:
            try:
                total += sock.send(data)
            except BlockingIOError:
                # a daemon that is only slow goes on reading within this time
                if not select.select([], [sock], [], 0.5)[1]:
                    break
    except (BrokenPipeError, ConnectionResetError):
        pass
    sock.setblocking(True)
    return total


def good_frame(vm):
    """A frame that asks for something."""
    return Frame(Procedure.REGISTER, serial=1, payload=bytes(16) + xdr_string(vm.name)
                 + xdr_uint(1) + xdr_uint(vm.pid) + xdr_uint(0)).encode()


def good_message(protocol, vm):
    """A message that is answered, in that protocol."""
    return encode("query-commands", None, 1) if protocol == "native" else good_frame(vm)


# ---- what ends too early -------------------------------------------------------------------------


@both
def test_truncated_messages(daemon, vm, protocol):
    """A message that ends after each of its bytes, and then the connection does."""
    message = good_message(protocol, vm)
    for length in range(len(message)):
        with daemon.raw(protocol) as sock:
            sock.sendall(message[:length])


@both
def test_half_a_message_then_silence(daemon, vm, image, protocol):
    """Half a message keeps nobody waiting but its sender; the other half completes it."""
    message = good_message(protocol, vm)
    with daemon.raw(protocol) as sock:
        if protocol == "native":
            Client(sock)
        sock.sendall(message[:len(message) // 2])
        daemon.assert_serves(image, vm)
        sock.sendall(message[len(message) // 2:])
        assert sock.recv(65536)


@both
def test_one_byte_at_a_time(daemon, vm, protocol):
    """A message may come in any pieces."""
    with daemon.raw(protocol) as sock:
        if protocol == "native":
            Client(sock)
        for byte in good_message(protocol, vm):
            sock.sendall(bytes([byte]))
        assert sock.recv(65536)


@both
def test_half_closed(daemon, vm, protocol):
    """Who sends and closes his side is answered all the same."""
    with daemon.raw(protocol) as sock:
        sock.sendall(good_message(protocol, vm) * 3)
        sock.shutdown(socket.SHUT_WR)
        received = drain(sock)
    if protocol == "native":
        greeting, *replies = map(json.loads, received.splitlines())
        assert "holdfast" in greeting
        assert [reply["id"] for reply in replies] == [1] * 3
    else:
        assert len(received) == 3 * 28


def test_half_closed_while_it_works(daemon, vm, image):
    """The same when the answer takes a moment."""
    for _ in range(50):
        with daemon.raw() as sock:
            sock.sendall(encode("acquire", {"owner": vm.owner(), "disks": [{"path": image}]}, 1)
                         + encode("release", {"owner": {"pid": vm.pid}}, 2))
            sock.shutdown(socket.SHUT_WR)
            replies = [json.loads(line) for line in drain(sock).splitlines()]
        assert [reply.get("id") for reply in replies] == [None, 1, 2]
        assert replies[2]["return"] == {"released": 1}


@both
def test_closed_for_reading(daemon, vm, protocol):
    """Who does not want to read, and sends."""
    for _ in range(20):
        with daemon.raw(protocol) as sock:
            sock.shutdown(socket.SHUT_RD)
            send_what_goes(sock, good_message(protocol, vm) * 100)


@both
def test_half_messages_of_many(daemon, vm, image, protocol):
    """Many that begin long messages and never finish them do not keep others from being served."""
    size = LINE_MAX - 1 if protocol == "native" else 100000
    count = 120 if protocol == "native" else 1000
    assert not raise_descriptor_limit(count + 200)
    start = b"" if protocol == "native" else xdr_uint(131000)
    socks = [daemon.raw(protocol) for _ in range(count)]
    try:
        for sock in socks:
            send_what_goes(sock, start + b"x" * size)
        assert daemon.rss() < MEMORY
        daemon.assert_serves(image, vm)
    finally:
        for sock in socks:
            sock.close()


@both
def test_silence_of_many(daemon, vm, image, protocol):
    """Thousands of connections that say nothing."""
    assert not raise_descriptor_limit(SILENT + 200)
    socks = []
    try:
        for _ in range(SILENT):
            socks.append(daemon.raw(protocol))
        daemon.assert_serves(image, vm)
    finally:
        for sock in socks:
            sock.close()


@both
def test_client_that_never_reads(daemon, vm, image, protocol):
    """Who asks and never reads is not answered without end."""
    with daemon.raw(protocol) as sock:
        send_without_reading(sock, good_message(protocol, vm) * 1000)
        assert daemon.rss() < MEMORY
        daemon.assert_serves(image, vm)


# ---- noise ---------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("round_number", range(8))
def test_noise(daemon, protocol, round_number):
    """10 kB of noise: errors, then or at once the end of the connection."""
    seed = random.randrange(2**32)
    print(f"round {round_number}, seed {seed}")
    noise = random.Random(seed)
    for _ in range(10):
        with daemon.raw(protocol) as sock:
            send_what_goes(sock, noise.randbytes(10000))
            sock.shutdown(socket.SHUT_WR)
            received = drain(sock)
        if protocol == "native":
            for line in received.splitlines()[1:]:
                assert json.loads(line)["error"]["class"] == "InvalidSyntax"


@pytest.mark.parametrize("round_number", range(4))
def test_damaged_frames(daemon, vm, image, round_number):
    """Good frames with some bytes changed: an answer for each, or the end of the connection."""
    seed = random.randrange(2**32)
    print(f"round {round_number}, seed {seed}")
    noise = random.Random(seed)
    resource = xdr_string("") + xdr_string(str(image)) + xdr_uint(0)
    for _ in range(200):
        with daemon.peer() as peer:
            peer.register(vm.pid, vm.name)
            frame = bytearray(Frame(noise.randrange(1, 9), serial=7, payload=resource).encode())
            for _ in range(noise.randrange(1, 4)):
                frame[noise.randrange(len(frame))] = noise.randrange(256)
            send_what_goes(peer.sock, frame)
            peer.sock.shutdown(socket.SHUT_WR)
            drain(peer.sock)
        with daemon.client() as client:
            client.release(vm)


@pytest.mark.parametrize("round_number", range(4))
def test_damaged_lines(daemon, vm, image, round_number):
    """Good lines with some bytes changed: one answer for each line."""
    seed = random.randrange(2**32)
    print(f"round {round_number}, seed {seed}")
    noise = random.Random(seed)
    line = encode("acquire", {"owner": vm.owner(), "disks": [{"path": image, "mode": "shared"}],
                              "leases": [{"lockspace": "/none", "key": "k"}], "timeout": 1000}, 7)
    with daemon.client() as client:
        for _ in range(300):
            damaged = bytearray(line[:-1])
            for _ in range(noise.randrange(1, 4)):
                byte = noise.randrange(256)
                damaged[noise.randrange(len(damaged))] = byte if byte != 10 else 11
            client.send_raw(bytes(damaged) + b"\n")
            answer = client.recv()
            assert ("return" in answer) != ("error" in answer)
        client.release(vm)


# ---- frames of virtlockd's protocol --------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 4, 27, 131201, 0x01000000, 0x7fffffff, 0x80000000,
                                    0xffffffff], ids=hex)
def test_absurd_length(daemon, length):
    """A length that cannot be closes the connection at once, without waiting for more."""
    with daemon.raw("virtlockd") as sock:
        send_what_goes(sock, xdr_uint(length) + bytes(24))
        assert drain(sock) == b""


@pytest.mark.parametrize("header", [
    {"program": 0}, {"program": 0xFFFFFFFF}, {"version": 0}, {"version": 2}, {"procedure": 0},
    {"procedure": 9}, {"procedure": -1}, {"procedure": 2**31 - 1}, {"status": 1}, {"status": -1}],
    ids=str)
def test_wrong_header(daemon, vm, image, header):
    """A header that makes no sense gets an error that repeats it; the next call goes on."""
    with daemon.peer() as peer:
        peer.register(vm.pid, vm.name)
        frame = Frame(**{"procedure": 2, "serial": 77, "payload": xdr_uint(0), **header})
        peer.send_frame(frame)
        reply = peer.recv_frame()
        assert (reply.program, reply.version, reply.procedure, reply.serial, reply.status) == (
            frame.program, frame.version, frame.procedure, 77, 1)
        assert RemoteError.decode(reply.payload).message
        peer.acquire(str(image))
        peer.release(str(image))


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 5, -1, 2**31 - 1])
def test_what_is_no_call(daemon, vm, image, kind):
    """Replies, events and streams from a client are nothing to answer."""
    with daemon.peer() as peer:
        peer.register(vm.pid, vm.name)
        peer.send_frame(Frame(Procedure.ACQUIRE_RESOURCE, type=kind,
                              payload=xdr_string("") + xdr_string(str(image)) + xdr_uint(0)))
        peer.create_lockspace(str(image.parent))
        assert held_locks(image) == []


def wrong_payloads(vm, image):
    """Payloads that fit no procedure, each with the procedure that it was made for."""
    name = xdr_string(str(image))
    owner = bytes(16) + xdr_string(vm.name) + xdr_uint(1) + xdr_uint(vm.pid) + xdr_uint(0)
    good = {Procedure.REGISTER: owner,
            Procedure.RESTRICT: xdr_uint(0),
            Procedure.NEW: name + xdr_uint(0),
            Procedure.CREATE_LOCKSPACE: name}
    for procedure in (Procedure.CREATE_RESOURCE, Procedure.DELETE_RESOURCE,
                      Procedure.ACQUIRE_RESOURCE, Procedure.RELEASE_RESOURCE):
        good[procedure] = xdr_string("") + name + xdr_uint(0)
    for procedure, payload in good.items():
        yield procedure, b""
        yield procedure, payload + bytes(4)
        yield procedure, payload[:-4]
        yield procedure, payload + b"x"
        yield procedure, xdr_uint(0xffffffff) * 8
        yield procedure, xdr_string(b"a\0b") * 2 + xdr_uint(0)
        yield procedure, xdr_string(b"key\0") * 2 + xdr_uint(0)
        yield procedure, xdr_uint(70000) + bytes(70000) + xdr_uint(0)


def test_wrong_payload(daemon, vm, image):
    """Arguments that do not decode get an error; the next call goes on."""
    with daemon.peer() as peer:
        peer.register(vm.pid, vm.name)
        for procedure, payload in wrong_payloads(vm, image):
            with pytest.raises(RemoteError) as refusal:
                peer.call(procedure, payload)
            assert refusal.value.message
            peer.register(vm.pid, vm.name)
        assert held_locks(image) == []


def test_longest_names(daemon, vm, workdir):
    """Names of the greatest length that the protocol allows."""
    name = "x" * 65536
    with daemon.peer() as peer:
        peer.register(vm.pid, name)
        for call, args in ((peer.acquire, ("/" + name[1:],)), (peer.acquire, (name, str(workdir))),
                           (peer.acquire, (name, "/" + name[1:])),
                           (peer.create_lockspace, ("/" + name[1:],))):
            with pytest.raises(RemoteError) as refusal:
                call(*args)
            assert refusal.value.message
        too_long = struct.pack(">IIIiiIi", 28 + 65544, PROGRAM, VERSION, 8, 0, 1, 0) + xdr_uint(
            65537) + bytes(65540)
        peer.send_raw(too_long)
        assert peer.recv_frame().status == 1


def test_many_calls_at_once(daemon, vm, image):
    """Calls need not wait for their replies; those come in order."""
    with daemon.peer() as peer:
        peer.register(vm.pid, vm.name)
        resource = xdr_string("") + xdr_string(str(image)) + xdr_uint(0)
        calls = [Frame(procedure, serial=serial, payload=resource) for serial, procedure in
                 enumerate([Procedure.ACQUIRE_RESOURCE, Procedure.RELEASE_RESOURCE] * 50)]
        for _ in range(10):
            peer.send_raw(b"".join(call.encode() for call in calls))
            for call in calls:
                reply = peer.recv_frame()
                assert (reply.serial, reply.status) == (call.serial, 0)


# ---- lines of the native protocol ----------------------------------------------------------------


BAD_LINES = {
    "no JSON": b"hello",
    "HTTP": b"GET / HTTP/1.1\r",
    "an array": b"[]",
    "a number": b"1",
    "cut off": b'{"execute":"query-leases"',
    "two": b'{"execute":"query-leases"}{"execute":"query-leases"}',
    "overlong UTF-8": b'{"execute":"query-leases","id":"\xc0\xaf"}',
    "bad UTF-8": b'{"execute":"query-leases","id":"\xff"}',
    "surrogate": b'{"execute":"query-leases","id":"\xed\xa0\x80"}',
    "NUL": b'{"execute":"query-leases"}\0',
    "NaN": b'{"execute":"query-leases","id":NaN}',
    "infinity": b'{"execute":"query-leases","id":1e999}',
    "deep": b'{"execute":"query-leases","id":' + b"[" * 40 + b"]" * 40 + b"}",
    "very deep": b'{"execute":"query-leases","id":' + b"[" * 500000 + b"]" * 500000 + b"}",
    "brackets": b"[" * (LINE_MAX - 1),
    "braces": b'{"a":' * ((LINE_MAX - 1) // 5),
    "quotes": b'"' * (LINE_MAX - 1),
    "zeros": bytes(LINE_MAX - 1),
}


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES)
def test_bad_line(daemon, line):
    """A line that is no JSON object is an error, and the next one is answered."""
    with daemon.client() as client:
        client.send_raw(line + b"\n")
        with pytest.raises(Refused) as refusal:
            client.reply(None)
        assert refusal.value.error_class == "InvalidSyntax"
        assert len(refusal.value.desc) < 1000
        assert client.call("query-leases") == {"leases": []}


def test_empty_lines(daemon):
    """Empty lines, as people send them, are nothing."""
    with daemon.client() as client:
        client.send_raw(b"\n\r\n\n" * 1000)
        assert client.call("query-leases") == {"leases": []}


@pytest.mark.parametrize("size", [LINE_MAX, LINE_MAX + 1, 8 * LINE_MAX])
def test_too_long_line(daemon, size):
    """A line that is too long is an error, and the end of the connection."""
    with daemon.client() as client:
        sender = threading.Thread(target=send_what_goes, args=(client.sock, b"x" * size))
        sender.start()
        with pytest.raises(Refused) as refusal:
            client.reply(None)
        assert refusal.value.error_class == "InvalidSyntax"
        with pytest.raises((EOFError, ConnectionResetError)):
            client.recv()
        sender.join()


HUGE = {
    "disks": lambda vm: {"owner": vm.owner(), "disks": [
        {"path": f"/{number}"} for number in range(48000)]},
    "same disks": lambda vm: {"owner": vm.owner(), "disks": [{"path": "/none"}] * 48000},
    "leases": lambda vm: {"owner": vm.owner(), "leases": [
        {"lockspace": f"/{number}", "key": "k"} for number in range(24000)]},
    "lockspaces": lambda vm: {"owner": vm.owner(), "leases": [
        {"lockspace": "/none", "key": f"{number}"} for number in range(24000)]},
    "members": lambda vm: {f"{number}": number for number in range(60000)},
    "strings": lambda vm: {"owner": {"pid": vm.pid, "name": "x" * 1000000}, "disks": [
        {"path": "/none"}]},
}


@pytest.mark.parametrize("command", ["acquire", "release"])
@pytest.mark.parametrize("kind", HUGE)
def test_huge_request(daemon, vm, command, kind):
    """A request of nearly 1 MiB is answered, and does not keep others waiting meanwhile."""
    arguments = HUGE[kind](vm)
    if command == "release":
        arguments = {**arguments, "owner": {"pid": vm.pid}}
    line = encode(command, arguments, 1)
    assert len(line) < LINE_MAX
    with daemon.client() as client, daemon.client() as other:
        used = daemon.cpu_seconds()
        client.send_raw(line)
        assert other.call("query-commands")
        with pytest.raises(Refused) as refusal:
            client.reply(1)
        assert refusal.value.error_class in (
            "BadResource", "InvalidArgument", "NotHeld", "Timeout"), refusal.value
        assert len(refusal.value.desc) < 10000
        assert daemon.cpu_seconds() - used < (2 if not sanitizer() else 20)


def test_huge_filter(daemon):
    """A filter with very many names of events."""
    with daemon.client() as client:
        with pytest.raises(Refused) as refusal:
            client.call("subscribe", events=["x"] * 100000)
        assert refusal.value.error_class == "InvalidArgument"
        client.call("subscribe", events=["LEASE_ACQUIRED"] * 40000)


def test_many_lockspaces(daemon):
    """Asking for lockspaces that do not exist leaves neither lanes nor threads behind."""
    with daemon.client() as client:
        before = daemon.rss()
        for number in range(2000):
            with pytest.raises(Refused):
                client.call("query-disk", lease={"lockspace": f"/none/{number}", "key": "k"})
        assert daemon.threads() < 50
        assert daemon.rss() - before < 16 * 1024 * 1024 * (4 if sanitizer() else 1)
        assert len(client.call("query-status")["lockspaces"]) < 10


def test_many_lockspaces_by_rpc(daemon, vm):
    """The same over virtlockd's protocol, with long names."""
    with daemon.peer() as peer, daemon.client() as client:
        peer.register(vm.pid, vm.name)
        before = daemon.rss()
        for number in range(2000):
            with pytest.raises(RemoteError):
                peer.acquire("k", f"/{number}" + 4000 * "x")
        assert daemon.threads() < 50
        assert daemon.rss() - before < 16 * 1024 * 1024 * (4 if sanitizer() else 1)
        assert len(client.call("query-status")["lockspaces"]) < 10


def test_other_protocol(daemon, vm):
    """Each protocol spoken to the other one's socket."""
    with daemon.raw("virtlockd") as sock:
        send_what_goes(sock, encode("query-leases"))
        assert drain(sock) == b""
    with daemon.client() as client:
        client.send_raw(good_frame(vm) + b"\n")
        with pytest.raises(Refused) as refusal:
            client.reply(None)
        assert refusal.value.error_class == "InvalidSyntax"
