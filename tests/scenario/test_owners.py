# SPDX-License-Identifier: LGPL-2.1-or-later
"""An owner's life: its leases last as long as its process, and not a moment less."""

import signal
import subprocess
import sys
import uuid as uuids

import pytest
from lock_table import held_locks
from native import Refused, Vm, encode, is_alive
from virtlockd_wire import Code, RemoteError
from vm_holder import Holder
from waiting import wait_until


@pytest.fixture(name="events")
def fixture_events(daemon):
    """A connection that has subscribed to all events."""
    with daemon.client() as events:
        events.call("subscribe")
        yield events


def names_of(events, count):
    """The names of the next events."""
    return [events.next_event()["event"] for _ in range(count)]


def test_process_ends(client, events, vm, other_vm, new_image):
    """When the process has ended its leases are released, and one hears of it."""
    disks = [new_image("a"), new_image("b")]
    client.acquire(vm, *disks)
    assert names_of(events, 2) == ["LEASE_ACQUIRED"] * 2
    vm.end()
    gone = events.next_event()
    assert gone["event"] == "OWNER_GONE"
    assert (gone["data"]["pid"], gone["data"]["name"], gone["data"]["state"]) == (
        vm.pid, vm.name, "gone")
    released = [events.next_event() for _ in disks]
    assert {event["event"] for event in released} == {"LEASE_RELEASED"}
    assert sorted(event["data"]["disk"] for event in released) == sorted(map(str, disks))
    assert {event["data"]["reason"] for event in released} == {"owner-gone"}
    assert not any(map(held_locks, disks))
    client.acquire(other_vm, *disks)


def test_zombie(client, vm, other_vm, image):
    """A process that has ended but was not collected by its parent has ended."""
    client.acquire(vm, image)
    vm.kill_without_reaping()
    client.acquire(other_vm, image)
    assert vm.is_zombie()
    assert [lease["owner"]["pid"] for lease in client.leases()] == [other_vm.pid]


def test_restart_at_once(client, start_vm, image):
    """A VM that was killed and starts again finds its disk free, without waiting for anything."""
    for vm in [start_vm() for _ in range(100)]:
        client.acquire(vm, image)
        vm.kill_without_reaping()
    wait_until(lambda: not held_locks(image), "the last one's lock to be gone")


def test_zombie_cannot_acquire(client, vm, image):
    """A process that has ended cannot take anything."""
    vm.kill_without_reaping()
    with pytest.raises(Refused) as refusal:
        client.acquire(vm, image)
    assert refusal.value.error_class == "NoSuchOwner"
    assert refusal.value.data["pid"] == vm.pid
    assert held_locks(image) == []


@pytest.mark.parametrize("command", ["acquire", "release"])
def test_no_such_process(client, command):
    """A pid that nobody has, or that can't be one."""
    with Vm("gone") as vm:
        pass
    for pid in (vm.pid, 2**22 + 1, 2**31 - 1):
        with pytest.raises(Refused) as refusal:
            client.call(command, owner={"pid": pid})
        assert refusal.value.error_class == "NoSuchOwner"
        assert str(pid) in refusal.value.desc


def test_owner_of_a_thread(client, image):
    """The id of a thread is not the id of a process."""
    script = ("import threading, time\nthread = threading.Thread(target=time.sleep, args=(100,))\n"
              "thread.start()\nprint(thread.native_id, flush=True)")
    with Vm("threads", argv=[sys.executable, "-c", script], stdout=subprocess.PIPE) as vm:
        thread = int(vm.process.stdout.readline())
        with pytest.raises(Refused) as refusal:
            client.call("acquire", owner={"pid": thread}, disks=[{"path": str(image)}])
        assert refusal.value.error_class == "NoSuchOwner"


def test_client_goes_the_lease_stays(daemon, vm, image):
    """The connection that took a lease may close."""
    with daemon.client() as client:
        client.acquire(vm, image)
    with daemon.client() as client:
        assert held_locks(image) == ["WRITE"]
        assert len(client.leases(pid=vm.pid)) == 1


def test_client_goes_during_its_request(daemon, client, vm, other_vm, image):
    """Who asks and does not wait for the answer gets all or nothing, and leaves no half."""
    for _ in range(200):
        with daemon.client() as hasty:
            hasty.send("acquire", owner=vm.owner(), disks=[{"path": str(image)}])
        held = client.leases(pid=vm.pid)
        assert len(held) <= 1
        wait_until(lambda: bool(held_locks(image)) == bool(client.leases(pid=vm.pid)),
                   "the request to be over")
        client.release(vm)
    client.acquire(other_vm, image)


# ---- until the connection is closed --------------------------------------------------------------


def acquire_until_close(client, vm, *disks):
    """Acquire for as long as the process lives or the connection is open."""
    return client.call("acquire", owner=vm.owner(until="connection"),
                       disks=[{"path": str(disk)} for disk in disks])


def test_until_close_process_first(daemon, client, events, vm, image):
    """The process ends, the connection is still open: the leases stay until it is closed."""
    with daemon.client() as keeper:
        acquire_until_close(keeper, vm, image)
        vm.end()
        assert names_of(events, 2) == ["LEASE_ACQUIRED", "OWNER_GONE"]
        assert held_locks(image) == ["WRITE"]
        lease, = client.leases()
        assert lease["owner"]["state"] == "gone"
    assert events.next_event()["event"] == "LEASE_RELEASED"
    assert held_locks(image) == []


def test_until_close_connection_first(daemon, client, events, vm, image):
    """The connection closes, the process lives: the leases stay, and nobody is ended."""
    with daemon.client() as keeper:
        acquire_until_close(keeper, vm, image)
    assert events.next_event()["event"] == "LEASE_ACQUIRED"
    assert len(client.leases()) == 1
    vm.end()
    assert names_of(events, 2) == ["OWNER_GONE", "LEASE_RELEASED"]
    assert held_locks(image) == []


def test_until_close_in_another_process(daemon, events, vm, start_vm, image):
    """The connection counts as open as long as any process has it."""
    keeper = daemon.client()
    acquire_until_close(keeper, vm, image)
    heir = start_vm("heir", pass_fds=[keeper.sock.fileno()])
    keeper.close()
    vm.end()
    assert names_of(events, 2) == ["LEASE_ACQUIRED", "OWNER_GONE"]
    assert held_locks(image) == ["WRITE"]
    heir.end()
    assert events.next_event()["event"] == "LEASE_RELEASED"
    assert held_locks(image) == []


def test_until_close_refused(daemon, client, vm, other_vm, image):
    """A request of that kind that was refused keeps nothing, whatever is closed first."""
    client.acquire(other_vm, image)
    with daemon.client() as keeper:
        with pytest.raises(Refused):
            acquire_until_close(keeper, vm, image)
        vm.end()
        assert client.leases(pid=vm.pid) == []
    client.release(other_vm)
    assert client.leases() == []
    assert client.call("query-status")["owners"] == 0


def test_until_close_two_connections(daemon, events, vm, new_image):
    """Two connections that keep one owner: the last one counts."""
    disks = [new_image("a"), new_image("b")]
    keepers = [daemon.client() for _ in disks]
    for keeper, disk in zip(keepers, disks):
        acquire_until_close(keeper, vm, disk)
    vm.end()
    assert names_of(events, 3) == ["LEASE_ACQUIRED"] * 2 + ["OWNER_GONE"]
    keepers[0].close()
    assert len(keepers[1].leases()) == 2
    keepers[1].close()
    assert names_of(events, 2) == ["LEASE_RELEASED"] * 2


# ---- a VM that loses its connection --------------------------------------------------------------


def test_holder_is_ended(daemon, client, events, other_vm, image):
    """A VM whose own connection closes is told to end; its disk is free when it has, not before."""
    with Holder(daemon, image) as holder:
        assert events.next_event()["event"] == "LEASE_ACQUIRED"
        holder.lose_connection()
        stopping = events.next_event()
        assert (stopping["event"], stopping["data"]["pid"]) == ("OWNER_STOPPING", holder.pid)
        assert events.next_event()["event"] == "OWNER_GONE"
        assert not is_alive(holder.pid)
        assert events.next_event()["event"] == "LEASE_RELEASED"
        client.acquire(other_vm, image)
        assert holder.process.wait() == -signal.SIGTERM


def test_stubborn_holder_is_killed(start_daemon, other_vm, new_image):
    """A VM that ignores TERM gets KILL; until then its disk stays locked and others are served."""
    image, other_image = new_image("a"), new_image("b")
    daemon = start_daemon("n2", kill_timeout=8)  # enough for all that is asked meanwhile
    with daemon.client() as events, daemon.client() as client, \
            Holder(daemon, image, kind="stubborn") as holder:
        events.call("subscribe")
        holder.lose_connection()
        assert events.next_event()["event"] == "OWNER_STOPPING"
        assert held_locks(image) == ["WRITE"]
        with pytest.raises(Refused) as refusal:
            client.acquire(other_vm, image)
        assert refusal.value.error_class == "Busy"
        assert "being ended" in refusal.value.desc and "try again" in refusal.value.desc
        status = client.call("query-status")
        assert [owner["pid"] for owner in status["owners-stopping"]] == [holder.pid]
        assert [lease["owner"]["state"] for lease in client.leases()] == ["stopping"]
        client.acquire(other_vm, other_image)
        assert names_of(events, 2) == ["LEASE_REFUSED", "LEASE_ACQUIRED"]
        assert names_of(events, 2) == ["OWNER_GONE", "LEASE_RELEASED"]
        assert holder.process.wait() == -signal.SIGKILL
        assert held_locks(image) == []


def test_holder_stopped_by_a_debugger(start_daemon, vm, image):
    """A VM that is stopped does not end on TERM; its lock is not freed before it has ended."""
    daemon = start_daemon("n2", kill_timeout=1)
    with daemon.client() as events, Holder(daemon, image) as holder:
        events.call("subscribe")
        holder.lose_connection()
        holder.process.send_signal(signal.SIGSTOP)
        seen = [events.next_event()["event"] for _ in range(2)]
        assert seen == ["OWNER_STOPPING", "OWNER_GONE"]
        assert not is_alive(holder.pid)
        with daemon.client() as client:
            client.acquire(vm, image)


def assert_not_ended(daemon, holder, disk, act):
    """Complain if act() makes the daemon end a holder.

    Another one loses its connection afterwards: had both to be ended, it would be second.
    """
    with daemon.client() as events, Holder(daemon, disk) as witness:
        events.call("subscribe", events=["OWNER_STOPPING"])
        act()
        witness.lose_connection()
        assert events.next_event()["data"]["pid"] == witness.pid
        assert is_alive(holder.pid)


def test_holder_gives_back_first(daemon, client, new_image):
    """A VM that was given back all its disks is not ended when its connection closes."""
    disks = [new_image("a"), new_image("b")]
    with Holder(daemon, disks[0]) as holder:
        with daemon.peer() as libvirtd:
            libvirtd.register(holder.pid, "web1")
            libvirtd.release(str(disks[0]))
        assert_not_ended(daemon, holder, disks[1], holder.lose_connection)
        assert client.leases(pid=holder.pid) == []


def test_holder_has_another_connection(daemon, client, new_image):
    """A VM that still has a connection of its own is not ended when another one closes."""
    disks = [new_image("a"), new_image("b")]
    with Holder(daemon, disks[0], kind="twice") as holder:
        assert_not_ended(daemon, holder, disks[1], holder.lose_connection)
        assert client.leases(pid=holder.pid)
        assert held_locks(disks[0]) == ["WRITE"]


def test_refused_set_of_a_connection(daemon, client, vm, other_vm, new_image):
    """libvirt takes disk by disk and closes when one is refused: what it took is given back."""
    disks = [new_image("a"), new_image("b")]
    client.acquire(other_vm, disks[1])
    with daemon.peer() as libvirtd:
        libvirtd.register(vm.pid, vm.name)
        libvirtd.acquire(str(disks[0]))
        with pytest.raises(RemoteError) as refusal:
            libvirtd.acquire(str(disks[1]))
        assert refusal.value.code == Code.RESOURCE_BUSY
        assert held_locks(disks[0]) == ["WRITE"]
    wait_until(lambda: not client.leases(pid=vm.pid), "the first disk to be given back")
    assert held_locks(disks[0]) == []
    assert is_alive(vm.pid)


def test_refused_hot_plug(daemon, client, vm, other_vm, new_image):
    """A disk that is refused to a running VM takes none of its other disks away."""
    disks = [new_image("a"), new_image("b")]
    client.acquire(other_vm, disks[1])
    with daemon.peer() as libvirtd:
        libvirtd.register(vm.pid, vm.name)
        libvirtd.acquire(str(disks[0]))
    with daemon.peer() as libvirtd:
        libvirtd.register(vm.pid, vm.name)
        with pytest.raises(RemoteError):
            libvirtd.acquire(str(disks[1]))
    with daemon.peer() as later:
        later.register(vm.pid, vm.name)
        assert held_locks(disks[0]) == ["WRITE"]
        later.release(str(disks[0]))


def test_rpc_owner_without_process(daemon, client, other_vm, image):
    """An owner of pid 0, as libvirt may have before a VM is started: only its uuid counts."""
    uuid = uuids.uuid4()
    with daemon.peer() as peer, daemon.peer() as same, daemon.peer() as another:
        peer.register(0, "web1", uuid)
        peer.acquire(str(image))
        lease, = client.leases()
        assert (lease["owner"]["pid"], lease["owner"]["uuid"]) == (None, str(uuid))
        another.register(0, "web1")
        with pytest.raises(RemoteError):
            another.release(str(image))
        with pytest.raises(Refused):
            client.acquire(other_vm, image)
        same.register(0, "web1", uuid)
        same.release(str(image))
    assert held_locks(image) == []


def test_two_protocols_one_owner(daemon, client, vm, image):
    """A process is the same owner over either protocol."""
    with daemon.peer() as peer:
        peer.register(vm.pid, vm.name, uuids.UUID(vm.uuid))
        client.acquire(vm, image)
        peer.release(str(image))
        peer.acquire(str(image))
        assert client.acquire(vm, image)[0]["owner"]["pid"] == vm.pid
        assert client.release(vm) == 1


def test_end_of_daemon_frees_nothing_early(start_daemon, vm, image):
    """A daemon that is told to end while leases are held ends well, and says what that means."""
    daemon = start_daemon("n2")
    with daemon.client() as client:
        client.acquire(vm, image)
    assert daemon.stop() == 0
    assert "while 1 leases are held" in daemon.log()
    assert is_alive(vm.pid)


def test_event_before_next_reply(daemon, vm, image):
    """A request that is sent after an owner's end was seen does not meet its leases any more."""
    with daemon.client() as client:
        client.call("subscribe", events=["LEASE_RELEASED"])
        client.acquire(vm, image)
        vm.end()
        client.next_event()
        client.send_raw(encode("query-leases", None, "x"))
        assert client.recv() == {"return": {"leases": []}, "id": "x"}
