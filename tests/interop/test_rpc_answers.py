# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the lock daemon answers to each call of the RPC: the codes that libvirt's plugin sees."""

import errno

import pytest
from lock_rig import LockRig, lend
from lock_table import held_locks
from virtlockd_wire import (AUTOCREATE, SHARED, STATUS_ERROR, TYPE_REPLY, Code, Domain, Frame,
                            Procedure, RemoteError, xdr_uint)

UNKNOWN_FLAG = 0x40


@pytest.fixture(name="rig")
def fixture_rig(lock_daemon, workdir):
    """A lock daemon."""
    with lend(LockRig, lock_daemon, workdir / "rig") as rig:
        yield rig


@pytest.fixture(name="client")
def fixture_client(rig):
    """A client that is registered."""
    with rig.owner() as (client, _):
        yield client


@pytest.fixture(name="stranger")
def fixture_stranger(rig):
    """A client that is not registered."""
    with rig.connect() as client:
        yield client


@pytest.fixture(name="image")
def fixture_image(new_image):
    """The path of a disk image."""
    return str(new_image("a"))


@pytest.fixture(name="lockspace")
def fixture_lockspace(client, workdir):
    """A lockspace directory."""
    client.create_lockspace(str(workdir / "lockspace"))
    return workdir / "lockspace"


def refused(code, domain, call, *args, **kwargs):
    """Make a call, which must be answered with that error; the error."""
    with pytest.raises(RemoteError) as answer:
        call(*args, **kwargs)
    assert (answer.value.code, answer.value.domain) == (code, domain), answer.value
    assert answer.value.message
    assert answer.value.level == 2
    return answer.value


def all_calls(client, path):
    """Every call but REGISTER and CREATE_LOCKSPACE."""
    yield client.restrict, ()
    yield client.new, (path,)
    for call in (client.create_resource, client.delete_resource, client.acquire, client.release):
        yield call, ("key", path)


def test_unregistered(stranger, workdir):
    """Before REGISTER nothing else is possible, and an id of 0 does not count."""
    for call, args in all_calls(stranger, str(workdir)):
        refused(Code.OPERATION_INVALID, Domain.RPC, call, *args)
    refused(Code.OPERATION_INVALID, Domain.RPC, stranger.register, 1, ident=0)


def test_lockspace_needs_no_registration(stranger, workdir):
    """CREATE_LOCKSPACE is libvirtd's own, once at its start; repeating it is fine."""
    for _ in range(2):
        stranger.create_lockspace(str(workdir / "lockspace"))
    assert (workdir / "lockspace").is_dir()


def test_restricted(client, lockspace):
    """After RESTRICT nothing is possible any more."""
    client.restrict()
    for call, args in all_calls(client, str(lockspace)):
        refused(Code.OPERATION_DENIED, Domain.RPC, call, *args)
    refused(Code.OPERATION_DENIED, Domain.RPC, client.register, 1)
    refused(Code.OPERATION_DENIED, Domain.RPC, client.create_lockspace, str(lockspace))


def test_unknown_flags(client, lockspace):
    """A flag that is not known is an invalid argument, in every call."""
    invalid = (Code.INVALID_ARG, Domain.RPC)
    refused(*invalid, client.register, 1, flags=UNKNOWN_FLAG)
    refused(*invalid, client.restrict, flags=UNKNOWN_FLAG)
    refused(*invalid, client.new, str(lockspace / "new"), flags=UNKNOWN_FLAG)
    for call in (client.create_resource, client.delete_resource, client.acquire, client.release):
        refused(*invalid, call, "key", str(lockspace), flags=UNKNOWN_FLAG)


def test_register_again(client, image):
    """The later owner counts."""
    client.register(0, "")
    client.register(1, "another")
    client.acquire(image)
    client.release(image)


def test_new(client, workdir):
    """NEW makes a lockspace that does not exist."""
    path = workdir / "lockspace"
    client.new(str(path))
    assert path.is_dir()
    refused(Code.INTERNAL_ERROR, Domain.RPC, client.new, str(path))
    refused(Code.OPERATION_INVALID, Domain.RPC, client.new, "")


def test_lockspace_that_is_a_file(client, image):
    """A file is no lockspace."""
    refused(Code.INTERNAL_ERROR, Domain.LOCKSPACE, client.create_lockspace, image)


def test_unknown_lockspace(client, workdir):
    """A lockspace that does not exist."""
    path = str(workdir / "none")
    for call in (client.create_resource, client.delete_resource, client.acquire, client.release):
        refused(Code.INTERNAL_ERROR, Domain.RPC, call, "key", path)


def test_create_and_delete(client, lockspace):
    """The file of a resource can be made and removed, repeatedly, while nobody holds it."""
    path, key = str(lockspace), lockspace / "key"
    client.create_resource("key", path)
    client.create_resource("key", path)
    assert key.stat().st_mode & 0o777 == 0o600
    client.acquire("key", path)
    refused(Code.RESOURCE_BUSY, Domain.LOCKSPACE, client.create_resource, "key", path)
    refused(Code.RESOURCE_BUSY, Domain.LOCKSPACE, client.delete_resource, "key", path)
    client.release("key", path)
    assert key.exists()
    client.delete_resource("key", path)
    assert not key.exists()
    client.delete_resource("key", path)


def test_missing_file(client, lockspace, workdir):
    """Without AUTOCREATE a missing file is a system error."""
    for name, path in (("key", str(lockspace)), (str(workdir / "none"), "")):
        error = refused(Code.SYSTEM_ERROR, Domain.LOCKSPACE, client.acquire, name, path)
        assert error.int1 == errno.ENOENT


def test_directory(client, workdir):
    """A directory is no disk."""
    error = refused(Code.SYSTEM_ERROR, Domain.LOCKSPACE, client.acquire, str(workdir))
    assert error.int1 == errno.EISDIR


def test_autocreate(client, lockspace):
    """AUTOCREATE makes the file, and the release removes it, even one that was there before."""
    path, key = str(lockspace), lockspace / "key"
    for _ in range(2):
        client.acquire("key", path, AUTOCREATE)
        assert held_locks(key) == ["WRITE"]
        client.release("key", path)
        assert not key.exists()
        key.touch()


def test_shared_counts(client, image):
    """A shared lock is counted: two releases for two acquires, then there is nothing."""
    client.acquire(image, flags=SHARED)
    client.acquire(image, flags=SHARED)
    assert held_locks(image) == ["READ"]
    refused(Code.RESOURCE_BUSY, Domain.LOCKSPACE, client.acquire, image)
    client.release(image)
    assert held_locks(image) == ["READ"]
    client.release(image)
    assert held_locks(image) == []
    refused(Code.RESOURCE_BUSY, Domain.LOCKSPACE, client.release, image)


def test_busy(rig, client, image):
    """Another owner is refused, and told who holds it; so is its release."""
    with rig.holding(image) as holder:
        for mode in (0, SHARED):
            error = refused(Code.RESOURCE_BUSY, Domain.LOCKSPACE, client.acquire, image,
                            flags=mode)
            rig.assert_refusal(error.message, image, holder)
        refused(Code.INTERNAL_ERROR, Domain.LOCKSPACE, client.release, image)
        assert held_locks(image) == ["WRITE"]


def test_connection_of_another_process_changes_nothing(rig, image):
    """What was locked for another process stays when the connection ends."""
    with rig.owner() as (client, holder):
        client.acquire(image)
        client.close()
        with rig.connect() as again:
            again.register(holder.pid, holder.name, holder.uuid)
            assert held_locks(image) == ["WRITE"]
            again.release(image)
        assert held_locks(image) == []


@pytest.mark.parametrize("frame", [
    Frame(Procedure.RESTRICT, program=1),
    Frame(Procedure.RESTRICT, version=2),
    Frame(0),
    Frame(99),
    Frame(-1),
    Frame(Procedure.REGISTER, payload=b"abcd"),
    Frame(Procedure.RESTRICT, payload=xdr_uint(0), status=STATUS_ERROR),
], ids=["program", "version", "procedure-0", "procedure-99", "procedure-negative", "payload",
        "status"])
def test_protocol_errors(client, image, frame):
    """A call that makes no sense gets an error with its own header, and the next one goes on."""
    client.send_frame(frame)
    reply = client.recv_frame()
    assert (reply.type, reply.status) == (TYPE_REPLY, STATUS_ERROR)
    assert (reply.program, reply.version, reply.procedure, reply.serial) == \
        (frame.program, frame.version, frame.procedure, frame.serial)
    error = RemoteError.decode(reply.payload)
    assert (error.code, error.domain) == (Code.RPC, Domain.RPC)
    client.acquire(image)
    client.release(image)


def test_no_reply_to_what_is_no_call(client, image):
    """Replies and events from a client are ignored."""
    for kind in (TYPE_REPLY, 2):
        client.send_frame(Frame(Procedure.RESTRICT, type=kind, payload=xdr_uint(0)))
    client.acquire(image)
    client.release(image)


@pytest.mark.parametrize("length", [0, 4, 27, 64 * 1024 * 1024, 0xFFFFFFFF])
def test_impossible_length(rig, stranger, image, length):
    """A length that cannot be closes the connection; everybody else goes on."""
    stranger.send_raw(xdr_uint(length) + bytes(64))
    with pytest.raises((EOFError, ConnectionResetError)):
        stranger.recv_frame()
    with rig.holding(image):
        assert held_locks(image) == ["WRITE"]
