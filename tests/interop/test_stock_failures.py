# SPDX-License-Identifier: LGPL-2.1-or-later
"""How stock virtlockd loses locks or hangs, each way once: it does, and ours does not.

Each test's claim stands in a block of fails_on_stock(), which passes only if the claim holds for
ours and fails, in the way it names, for stock. What is outside such a block holds for both.
"""

import fcntl
import os
import shutil
import signal
import struct
import termios
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest
from lock_rig import lend
from lock_table import held_locks
from native import raise_descriptor_limit
from stock_rig import MortalRig, StockIsRight, fails_on_stock, resource_payload, send_only
from virtlockd_wire import Code, Frame, Procedure, RemoteError, xdr_string, xdr_uint
from waiting import wait_until

IDLE_CONNECTIONS = 800
PAIRS = 500


@pytest.fixture(name="rig")
def fixture_rig(lock_daemon, workdir):
    """A lock daemon."""
    with lend(MortalRig, lock_daemon, workdir / "rig") as rig:
        yield rig


@pytest.fixture(name="slow")
def fixture_slow(rig, workdir):
    """A file system in the daemon's mounts that can hang: (directory, pid to be stopped)."""
    if os.geteuid():
        pytest.skip("not root")
    if not shutil.which("bindfs"):
        pytest.skip("bindfs is not installed")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("no /dev/fuse")
    pid = rig.mount_slow(workdir / "real", workdir / "slow")
    (workdir / "real" / "disk").write_bytes(bytes(4096))
    yield workdir / "slow", pid
    rig.sandbox.kill(pid, signal.SIGCONT)


def name_itself(image):
    """The disk under the very same name."""
    return str(image), ""


def name_in_lockspace(image):
    """The disk in a lockspace that is its directory."""
    return image.name, str(image.parent)


def name_hard_link(image):
    """The disk under a second name of its inode."""
    link = image.with_name("hard.img")
    os.link(image, link)
    return str(link), ""


def name_symlink(image):
    """The disk behind a link."""
    link = image.with_name("soft.img")
    link.symlink_to(image)
    return str(link), ""


def name_with_dot(image):
    """The disk's path with a step that goes nowhere."""
    return f"{image.parent}/./{image.name}", ""


@pytest.fixture(name="alias", params=[name_in_lockspace, name_hard_link, name_symlink,
                                      name_with_dot])
def fixture_alias(request, image):
    """A second name of the disk, as (name, lockspace)."""
    return request.param(image)


@pytest.fixture(name="second")
def fixture_second(rig, image, alias):
    """Another client that knows the alias's lockspace, while a first one holds the disk."""
    with rig.owner("first") as (first, _), rig.owner("second") as (second, _):
        first.acquire(str(image))
        if alias[1]:
            second.create_lockspace(alias[1])
        yield second


def is_refused(client, name, path=""):
    """Try to lock something; whether it is held by somebody else."""
    try:
        client.acquire(name, path)
    except RemoteError as refusal:
        assert refusal.code == Code.RESOURCE_BUSY, refusal
        return True
    return False


def test_claims():
    """A claim that holds for stock as well is found out; so is one that does not hold for ours."""
    stock, ours = SimpleNamespace(daemon="stock"), SimpleNamespace(daemon="holdfast")
    with pytest.raises(StockIsRight), fails_on_stock(stock, AssertionError):
        pass
    with pytest.raises(TimeoutError), fails_on_stock(stock, AssertionError):
        raise TimeoutError("in another way")
    with pytest.raises(AssertionError), fails_on_stock(ours, AssertionError):
        raise AssertionError("ours is wrong")


# ---- one file under two names --------------------------------------------------------------------

def test_one_name(rig, image):
    """Under one name both daemons see that it is one disk."""
    with rig.owner("first") as (first, _), rig.owner("second") as (second, _):
        first.acquire(str(image))
        assert is_refused(second, *name_itself(image))
        assert held_locks(image) == ["WRITE"]


def test_two_names(rig, second, alias):
    """A disk that is held under one name is not granted under another."""
    with fails_on_stock(rig, AssertionError):
        assert is_refused(second, *alias), "granted twice"


def test_two_names_released(rig, second, alias, image):
    """Whatever happens under a second name, the first holder's lock stays."""
    if not is_refused(second, *alias):
        second.release(*alias)
    with fails_on_stock(rig, AssertionError):
        assert held_locks(image) == ["WRITE"], "the first holder's lock is gone"


# ---- death and new beginning ---------------------------------------------------------------------

def test_killed(rig, image):
    """Locks outlive a daemon that is killed, and the next daemon knows of them."""
    rig.start_vm(image)
    rig.kill_daemon()
    with fails_on_stock(rig, AssertionError):
        assert held_locks(image) == ["WRITE"], "the kernel's lock is gone"


def test_killed_and_granted_again(rig, image):
    """The daemon that follows does not grant to somebody else what a living VM holds."""
    rig.start_vm(image)
    rig.kill_daemon()
    assert rig.serves()
    with fails_on_stock(rig, AssertionError):
        assert rig.refuses(image), "granted again while the first VM lives"


def test_start_anew(rig, image):
    """SIGUSR1 with nothing special about: both daemons keep the lock."""
    with rig.owner() as (client, _):
        client.acquire(str(image))
        rig.start_anew()
        rig.assert_protected(image)


def test_start_anew_unregistered(rig, image):
    """The same while somebody is connected who has not registered."""
    with rig.owner() as (client, _), rig.connect() as stranger:
        client.acquire(str(image))
        stranger.create_lockspace(str(image.parent))
        rig.start_anew()
        with fails_on_stock(rig, AssertionError):
            rig.assert_protected(image)


def test_start_anew_odd_name(rig, image):
    """The same with a VM whose name is not UTF-8."""
    with rig.owner(b"caf\xe9") as (client, _):
        client.acquire(str(image))
        rig.start_anew()
        with fails_on_stock(rig, AssertionError):
            rig.assert_protected(image)


def test_start_anew_large(rig, image):
    """The same with much to remember, more than 10 MiB in stock's state."""
    clients = []
    try:
        with rig.owner() as (client, holder):
            client.acquire(str(image))
            for number in range(200):
                clients.append(rig.connect())
                clients[-1].register(holder.pid, f"{number:05}" * 12000)
            rig.start_anew()
            with fails_on_stock(rig, AssertionError):
                rig.assert_protected(image)
    finally:
        for each in clients:
            each.close()


def test_start_anew_again_and_again(rig, image):
    """The same with more signals while the first is still being dealt with."""
    with rig.owner() as (client, _):
        client.acquire(str(image))
        for _ in range(300):
            with suppress(ProcessLookupError):
                rig.sandbox.kill(rig.lockd, signal.SIGUSR1)
            time.sleep(0.002)
        with fails_on_stock(rig, AssertionError):
            wait_until(lambda: rig.has_ended() or rig.serves(), "the daemon to serve again")
            rig.assert_protected(image)


def unread(client):
    """How much of what a client has sent was not read yet."""
    return struct.unpack("i", fcntl.ioctl(client.sock, termios.TIOCOUTQ, bytes(4)))[0]


def test_start_anew_half_a_call(rig):
    """A client that was in the middle of sending gets its answer, or hears that there is none."""
    # what follows the first half reads as the length of a frame that never comes
    payload = xdr_uint(4096) * 4 + xdr_string("web1") + xdr_uint(1) * 2 + xdr_uint(0)
    frame = Frame(Procedure.REGISTER, serial=1, payload=payload).encode()
    half = len(frame) - len(payload)
    with rig.connect() as client:
        client.sock.settimeout(rig.patience)
        client.register(1)
        client.send_raw(frame[:half])
        wait_until(lambda: unread(client) == 0, "the daemon to read the first half")
        rig.start_anew()
        assert rig.serves()
        with fails_on_stock(rig, TimeoutError):
            with suppress(EOFError, ConnectionError):
                client.send_raw(frame[half:])
                client.recv_frame()


def test_start_anew_busy(rig, slow, new_image):
    """Clients that have asked something of a busy daemon get their answers, or hear at once that
    there are none."""
    directory, pid = slow
    with rig.owner("first") as (first, _), rig.owner("second") as (second, _):
        first.sock.settimeout(rig.patience)
        second.sock.settimeout(rig.patience)
        rig.sandbox.kill(pid, signal.SIGSTOP)
        send_only(first, Procedure.ACQUIRE_RESOURCE, resource_payload(directory / "disk"))
        wait_until(lambda: unread(first) == 0, "the daemon to be busy")
        before = rig.image()
        send_only(second, Procedure.ACQUIRE_RESOURCE, resource_payload(new_image("other")))
        rig.sandbox.kill(rig.lockd, signal.SIGUSR1)
        rig.sandbox.kill(pid, signal.SIGCONT)
        rig.wait_next(before)
        assert rig.serves()
        with suppress(EOFError, ConnectionError):
            first.recv_frame()
        with fails_on_stock(rig, TimeoutError):
            with suppress(EOFError, ConnectionError):
                second.recv_frame()


# ---- an impossible lockspace ---------------------------------------------------------------------

IMPOSSIBLE = "/proc/no/such/place"


def test_impossible_lockspace(rig):
    """A lockspace that cannot be made is an error."""
    with rig.owner() as (client, _):
        with fails_on_stock(rig, AssertionError):
            try:
                client.new(IMPOSSIBLE)
                told = None
            except RemoteError as error:
                told = error
            assert told and IMPOSSIBLE in told.message


def test_impossible_lockspace_and_a_holder_that_leaves(rig, image):
    """Nor does it do any harm later."""
    with rig.owner() as (client, _):
        with suppress(RemoteError):
            client.new(IMPOSSIBLE)
        vm = rig.start_vm(image)
        rig.sandbox.kill(vm)
        wait_until(lambda: not held_locks(image), "the disk to be free")
        with fails_on_stock(rig, AssertionError):
            assert rig.serves(), "the daemon has crashed"


# ---- one that keeps all waiting ------------------------------------------------------------------

# Each of these keeps stock busy for 3 s, one after the other.
HOLDERS = 4
WATCH_SECONDS = 8
ENOUGH_SECONDS = 5


@pytest.mark.parametrize("kind", ["stubborn", "unreaped"])
def test_holders_that_do_not_go(rig, new_image, kind):
    """A holder that ignores TERM, or that is dead but not collected, delays nobody else."""
    images = [new_image(f"held{number}") for number in range(HOLDERS)]
    image = new_image("other")
    parent = rig.start_odd_holders(kind, images)
    with rig.owner() as (client, _):
        rig.sandbox.kill(parent, signal.SIGUSR2)
        end = time.monotonic() + WATCH_SECONDS
        waited = 0
        while time.monotonic() < end:
            start = time.monotonic()
            client.acquire(str(image))
            client.release(str(image))
            took = time.monotonic() - start
            waited += took if took > 1 else 0
        with fails_on_stock(rig, AssertionError):
            assert waited < ENOUGH_SECONDS, f"others waited {waited:.1f} s"
    rig.sandbox.kill(parent)


@pytest.mark.parametrize("procedure", [Procedure.ACQUIRE_RESOURCE, Procedure.RELEASE_RESOURCE],
                         ids=["acquire", "release"])
def test_file_system_that_hangs(rig, slow, image, procedure):
    """Storage that hangs delays those who want something of it, and nobody else."""
    directory, pid = slow
    disk = directory / "disk"
    with rig.owner("waits") as (waiting, _), rig.owner("other") as (other, _):
        if procedure == Procedure.RELEASE_RESOURCE:
            waiting.acquire(str(disk))
        other.sock.settimeout(rig.patience)
        rig.sandbox.kill(pid, signal.SIGSTOP)
        send_only(waiting, procedure, resource_payload(disk))
        with fails_on_stock(rig, TimeoutError):
            for _ in range(3):
                other.acquire(str(image))
                other.release(str(image))
        rig.sandbox.kill(pid, signal.SIGCONT)
        assert waiting.recv_frame().procedure == procedure


# ---- locks without a connection ------------------------------------------------------------------

def test_idle_time_out(workdir, lock_daemon, image):
    """With -t the daemon does not end while something is locked, connection or not."""
    with lend(MortalRig, lock_daemon, workdir / "rig", arguments=("-t", "3")) as rig:
        owner = rig.sandbox.spawn("sleep", "infinity")
        with rig.connect() as client:
            client.register(owner)
            client.acquire(str(image))
        with fails_on_stock(rig, AssertionError):
            with suppress(TimeoutError):
                wait_until(rig.has_ended, "the daemon's end", deadline=8)
            assert not rig.has_ended() and held_locks(image) == ["WRITE"]
        rig.sandbox.kill(owner)


def test_owner_of_a_passing_connection(rig, image):
    """What libvirt locks for a VM that runs (hot plug, resume) is free when the VM has ended."""
    owner = rig.sandbox.spawn("sleep", "infinity")
    with rig.connect() as client:
        client.register(owner)
        client.acquire(str(image))
    assert held_locks(image) == ["WRITE"]
    rig.sandbox.terminate(owner)
    with fails_on_stock(rig, TimeoutError):
        wait_until(lambda: not held_locks(image), "the disk to be free", deadline=rig.patience)


# ---- cost ----------------------------------------------------------------------------------------

def processor_seconds(rig):
    """What the daemon has used so far, its threads included."""
    tasks = rig.sandbox.path(f"/proc/{rig.daemon_pid()}/task").iterdir()
    return sum(int((task / "schedstat").read_text(encoding="ascii").split()[0])
               for task in tasks) / 1e9


def cost_of_pairs(rig, client, image):
    """The processor time for so many pairs of acquire and release."""
    before = processor_seconds(rig)
    for _ in range(PAIRS):
        client.acquire(str(image))
        client.release(str(image))
    return processor_seconds(rig) - before


def test_idle_connections(rig, image):
    """A request costs no more because others are connected who ask nothing."""
    reason = raise_descriptor_limit(IDLE_CONNECTIONS + 200)
    if reason:
        pytest.skip(reason)
    idle = []
    try:
        with rig.owner() as (client, _):
            cost_of_pairs(rig, client, image)  # threads are made, memory is had
            alone = cost_of_pairs(rig, client, image)
            idle += [rig.connect() for _ in range(IDLE_CONNECTIONS)]
            assert rig.serves()
            beside = cost_of_pairs(rig, client, image)
        with fails_on_stock(rig, AssertionError):
            # stock: 20 times and more
            assert beside < 6 * alone, f"{beside:.3f} s instead of {alone:.3f} s"
    finally:
        for each in idle:
            each.close()
