# SPDX-License-Identifier: LGPL-2.1-or-later
"""Events, and what the daemon tells of itself."""

from collections import deque

import pytest
from lock_table import held_locks
from native import ERROR_CLASSES, LINE_MAX, PROTOCOL, TIME, Refused, as_disk, sanitizer
from waiting import wait_until

EVENTS = ("LEASE_ACQUIRED", "LEASE_RELEASED", "LEASE_REFUSED", "OWNER_STOPPING", "OWNER_GONE")
COMMANDS = {"acquire": "full", "release": "full", "query-leases": "read", "query-disk": "read",
            "query-status": "read", "query-metrics": "read", "query-drivers": "read",
            "query-commands": "read", "subscribe": "read", "unsubscribe": "read"}

# Requests that a client sends before it reads: far less than any socket takes.
AHEAD = 20


@pytest.fixture(name="events")
def fixture_events(daemon):
    """A connection that has subscribed to all events."""
    with daemon.client() as events:
        assert events.call("subscribe") == {}
        yield events


# ---- events --------------------------------------------------------------------------------------


def test_acquired_and_released(client, events, vm, image):
    """The events carry the lease as acquire returns it, and the time."""
    lease, = client.acquire(vm, image)
    event = events.next_event()
    assert (event["event"], event["data"]) == ("LEASE_ACQUIRED", lease)
    assert TIME.fullmatch(event["timestamp"]) and event["timestamp"] >= lease["since"]
    client.release(vm)
    event = events.next_event()
    assert (event["event"], event["data"]) == ("LEASE_RELEASED", {**lease, "reason": "released"})


def test_refused(client, events, vm, other_vm, image):
    """A refusal's event has the facts of the error, and who asked."""
    client.acquire(vm, image)
    with pytest.raises(Refused) as refusal:
        client.acquire(other_vm, (image, "shared"))
    events.next_event()
    event = events.next_event()
    assert event["event"] == "LEASE_REFUSED"
    data = event["data"]
    assert (data["class"], data["desc"]) == ("Busy", refusal.value.desc)
    assert (data["disk"], data["driver"], data["lockspace"], data["key"], data["mode"]) == (
        str(image), "lockd", "", str(image), "shared")
    assert data["holders"] == refusal.value.data["holders"]
    assert (data["owner"]["pid"], data["owner"]["name"]) == (other_vm.pid, other_vm.name)


def test_refused_for_another_reason(client, events, vm, workdir):
    """A disk that is not there is a refusal as well."""
    with pytest.raises(Refused):
        client.acquire(vm, workdir / "none")
    data = events.next_event()["data"]
    assert (data["class"], data["disk"], data["holders"]) == ("BadResource", str(workdir / "none"),
                                                              [])


def test_events_of_rpc(daemon, events, vm, image):
    """What libvirt does is told as well."""
    with daemon.peer() as peer:
        peer.register(vm.pid, vm.name)
        peer.acquire(str(image))
        peer.release(str(image))
    for name in ("LEASE_ACQUIRED", "LEASE_RELEASED"):
        event = events.next_event()
        assert (event["event"], event["data"]["disk"]) == (name, str(image))


def test_order(client, events, vm, new_image):
    """Events come in the order in which things happened."""
    disks = [str(new_image(str(number))) for number in range(20)]
    expected = []
    for disk in disks:
        client.acquire(vm, disk)
        expected.append(("LEASE_ACQUIRED", disk))
    for disk in disks[::2]:
        client.release(vm, disk)
        expected.append(("LEASE_RELEASED", disk))
    seen = [events.next_event() for _ in expected]
    assert [(event["event"], event["data"]["disk"]) for event in seen] == expected
    times = [event["timestamp"] for event in seen]
    assert times == sorted(times)


def test_one_event_for_each_lease_of_a_set(client, events, vm, other_vm, new_image):
    """A set that is refused has one event; what was taken for a moment has none."""
    disks = [new_image("a"), new_image("b"), new_image("c")]
    client.acquire(vm, disks[2])
    with pytest.raises(Refused):
        client.acquire(other_vm, *disks)
    client.release(vm)
    client.acquire(other_vm, *disks)
    client.acquire(other_vm, *disks)
    client.release(other_vm)
    expected = ["LEASE_ACQUIRED", "LEASE_REFUSED", "LEASE_RELEASED",
                *["LEASE_ACQUIRED"] * 3, *["LEASE_RELEASED"] * 3]
    assert [events.next_event()["event"] for _ in expected] == expected


@pytest.mark.parametrize("wanted", [["LEASE_RELEASED"], ["OWNER_GONE", "LEASE_REFUSED"],
                                    list(EVENTS)], ids=len)
def test_filter(daemon, client, start_vm, image, wanted):
    """Only those that were asked for."""
    vm, other_vm, last = start_vm(), start_vm(), start_vm()
    with daemon.client() as events, daemon.client() as every:
        events.call("subscribe", events=wanted)
        every.call("subscribe", events=["LEASE_ACQUIRED"])
        client.acquire(vm, image)
        with pytest.raises(Refused):
            client.acquire(other_vm, image)
        vm.end()
        wait_until(lambda: not held_locks(image), "the disk to be free")
        client.acquire(last, image)
        happened = ["LEASE_ACQUIRED", "LEASE_REFUSED", "OWNER_GONE", "LEASE_RELEASED",
                    "LEASE_ACQUIRED"]
        expected = [name for name in happened if name in wanted]
        assert [events.next_event()["event"] for _ in expected] == expected
        events.call("query-commands")
        assert not events.events
        assert [every.next_event()["event"] for _ in range(2)] == ["LEASE_ACQUIRED"] * 2


def test_no_events(daemon, client, vm, image):
    """An empty filter is none of them, and unsubscribe ends them; a new filter replaces the old."""
    with daemon.client() as events:
        def happen():
            client.acquire(vm, image)
            client.release(vm)
            events.call("query-commands")
            return [events.next_event()["event"] for _ in list(events.events)]

        assert happen() == []
        events.call("subscribe", events=[])
        assert happen() == []
        events.call("subscribe", events=["LEASE_ACQUIRED"])
        assert happen() == ["LEASE_ACQUIRED"]
        events.call("subscribe", events=["LEASE_RELEASED"])
        assert happen() == ["LEASE_RELEASED"]
        events.call("subscribe")
        assert happen() == ["LEASE_ACQUIRED", "LEASE_RELEASED"]
        assert events.call("unsubscribe") == {}
        assert happen() == []
        assert events.call("unsubscribe") == {}


def test_unknown_event(client, vm, image):
    """A name that no event has is a mistake, and changes nothing."""
    client.call("subscribe", events=["LEASE_ACQUIRED"])
    with pytest.raises(Refused) as refusal:
        client.call("subscribe", events=["LEASE_RELEASED", "LEASE_STOLEN"])
    assert refusal.value.error_class == "InvalidArgument"
    assert refusal.value.data["argument"] == "events"
    assert "'LEASE_STOLEN'; there are LEASE_ACQUIRED, LEASE_RELEASED, " in refusal.value.desc
    client.acquire(vm, image)
    client.release(vm)
    assert [event["event"] for event in client.events] == ["LEASE_ACQUIRED"]


def test_events_never_inside_a_reply(client, vm, image):
    """Who subscribes and works on one connection gets whole lines, events before their reply.

    Requests are sent some ahead: how many fit before somebody must read is the host's affair.
    """
    client.call("subscribe")
    numbers = deque()
    for count in range(200):
        numbers.append(client.send("release", owner={"pid": vm.pid}) if count % 2 else
                       client.send("acquire", owner=vm.owner(), disks=[as_disk(image)]))
        if len(numbers) == AHEAD:
            client.reply(numbers.popleft())
            assert len(client.events) == count + 2 - AHEAD
    for number in numbers:
        client.reply(number)
    assert len(client.events) == 200


def test_slow_reader(daemon, client, vm, new_image):
    """A subscriber that does not read is cut off; nobody else notices, memory stays bounded."""
    disks = [new_image(str(number)) for number in range(50)]
    with daemon.client() as slow, daemon.client() as reader:
        slow.call("subscribe")
        reader.call("subscribe")
        before = daemon.rss()
        rounds = 0
        while client.call("query-status")["connections"] == 3:
            rounds += 1
            assert rounds < 200, "the slow reader is kept for ever"
            client.acquire(vm, *disks)
            client.release(vm)
            for _ in range(2 * len(disks)):
                reader.next_event()
        assert daemon.rss() - before < 16 * 1024 * 1024
        with pytest.raises((EOFError, ConnectionResetError)):
            while True:
                slow.next_event()
        assert len(client.acquire(vm, *disks)) == 50
        assert reader.next_event()["event"] == "LEASE_ACQUIRED"


def test_reader_that_lags(daemon, client, start_vm, image):
    """A subscriber that is always a bit behind is kept, and what it has read is not."""
    vm = start_vm("x" * 20000)
    with daemon.client() as lagging:
        lagging.call("subscribe", events=["LEASE_ACQUIRED"])
        before = daemon.rss()
        behind = 40  # of events of 20 kB: more than the socket holds, less than is allowed
        for count in range(3000):
            client.acquire(vm, image)
            client.release(vm)
            if count >= behind:
                lagging.next_event()
        assert daemon.rss() - before < 16 * 1024 * 1024 * (4 if sanitizer() else 1)
        for _ in range(behind):
            lagging.next_event()
        lagging.call("query-commands")


def test_subscriber_goes(daemon, client, vm, image):
    """Subscribers may come and go at any time."""
    for _ in range(50):
        with daemon.client() as one, daemon.client() as two:
            one.call("subscribe")
            two.call("subscribe")
            client.acquire(vm, image)
        client.release(vm)


# ---- what the daemon tells of itself -------------------------------------------------------------


def test_greeting(daemon, client):
    """The greeting has the versions, the host, the pid and what one may do."""
    greeting = client.greeting
    assert greeting.pop("version")
    assert greeting == {"protocol": PROTOCOL, "host": daemon.host, "pid": daemon.pid,
                        "access": "full"}


def test_commands(client):
    """Every command is listed, and every one that is listed is known."""
    commands = client.call("query-commands")["commands"]
    assert {command["name"]: command["access"] for command in commands} == COMMANDS
    for name in COMMANDS:
        try:
            client.call(name, nonsense=1)
        except Refused as refusal:
            assert refusal.error_class == "InvalidArgument"
            assert refusal.data["argument"] == "nonsense"
        else:
            pytest.fail(f"{name} drops an argument that it does not know")


def test_unknown_command(client):
    """A command that is not known."""
    for name in ("aquire", "", "Acquire", "query_leases", "x" * 10000):
        with pytest.raises(Refused) as refusal:
            client.call(name)
        assert refusal.value.error_class == "CommandNotFound"
        assert refusal.value.error_class in ERROR_CLASSES
        assert len(refusal.value.desc) < 1000
    assert client.call("query-commands")


def test_status(daemon, client, vm, other_vm, new_image, workdir):
    """The daemon, its sockets, its lockspaces and what they hold."""
    lockspace = workdir / "lockspace"
    lockspace.mkdir()
    (lockspace / "k").touch()
    status = client.call("query-status")
    assert (status["connections"], status["owners"], status["leases"]) == (1, 0, 0)
    client.acquire(vm, new_image("a"), leases=[(lockspace, "k")])
    client.acquire(other_vm, new_image("b"))
    status = client.call("query-status")
    assert (status["version"], status["host"], status["pid"], status["protocol"]) == (
        client.greeting["version"], daemon.host, daemon.pid, PROTOCOL)
    assert TIME.fullmatch(status["since"])
    assert sorted((entry["protocol"], entry["path"]) for entry in status["sockets"]) == [
        ("native", str(daemon.socket)), ("virtlockd", str(daemon.virtlockd_socket))]
    assert (status["owners"], status["leases"], status["owners-stopping"]) == (2, 3, [])
    spaces = {space["name"]: space for space in status["lockspaces"]}
    assert spaces[str(lockspace)]["leases"] == 1
    direct, = (space for name, space in spaces.items() if name.startswith("direct:"))
    assert direct["leases"] == 2
    for space in spaces.values():
        assert (space["driver"], space["health"], space["queued"]) == ("lockd", "ok", 0)


def test_drivers(client):
    """Those built in, and which of them is for disks."""
    drivers = {driver["name"]: driver for driver in client.call("query-drivers")["drivers"]}
    assert set(drivers) == {"lockd", "nop"}
    assert drivers["lockd"]["default"] and not drivers["nop"]["default"]
    for driver in drivers.values():
        assert driver["builtin"] and driver["path"] is None
        assert driver["description"] and driver["version"] == client.greeting["version"]
        assert "shared" in driver["capabilities"]


def test_query_disk(client, vm, image, workdir):
    """The states of a disk: free, held, and held by those who share."""
    def state():
        answer = client.call("query-disk", disk=str(image))
        assert answer["disk"] == str(image)
        resource, = answer["resources"]
        assert (resource["driver"], resource["lockspace"], resource["key"]) == (
            "lockd", "", str(image))
        return answer["state"], resource["state"], len(answer["holders"])

    assert state() == ("free", "free", 0)
    client.acquire(vm, image)
    assert state() == ("held", "held", 1)
    client.release(vm)
    for mode in ("shared", "readonly"):
        client.acquire(vm, (image, mode))
        assert state() == ("shared", "held", 1)
        client.release(vm)
    assert state() == ("free", "free", 0)
    with pytest.raises(Refused) as refusal:
        client.call("query-disk", disk=str(workdir / "none"))
    assert refusal.value.error_class == "BadResource"


def test_query_disk_takes_nothing(client, vm, image):
    """Asking does not lock: it can be done by many at any time."""
    numbers = [client.send("query-disk", disk=str(image)) for _ in range(200)]
    for number in numbers:
        assert client.reply(number)["state"] == "free"
    assert held_locks(image) == []
    client.acquire(vm, image)


# ---- leases are required -------------------------------------------------------------------------


def test_lease_required(start_daemon, vm, image, workdir):
    """Without automatic leases writable disks need a manual one; they are locked beside it."""
    (workdir / "k").touch()
    daemon = start_daemon(auto_disk_leases=0)
    lease = [(workdir, "k")]
    with daemon.client() as client:
        with pytest.raises(Refused) as refusal:
            client.acquire(vm, image)
        assert refusal.value.error_class == "LeaseRequired"
        assert "require_lease_for_disks" in refusal.value.desc
        held = client.acquire(vm, image, leases=lease)
        assert sorted(entry["key"] for entry in held) == sorted([str(image), "k"])
        assert held_locks(image) == ["WRITE"]
        assert client.release(vm) == 2
        assert len(client.acquire(vm, (image, "readonly"))) == 1
        client.release(vm)
        assert client.acquire(vm) == []
        assert client.leases() == []


def test_lease_not_required(start_daemon, vm, image):
    """With both off, a disk that somebody names is locked all the same."""
    daemon = start_daemon(auto_disk_leases=0, require_lease_for_disks=0)
    with daemon.client() as client:
        assert len(client.acquire(vm, image)) == 1
        assert held_locks(image) == ["WRITE"]


def test_lease_required_although_automatic(start_daemon, vm, image):
    """With both on, the disks' own leases are enough."""
    daemon = start_daemon(auto_disk_leases=1, require_lease_for_disks=1)
    with daemon.client() as client:
        assert len(client.acquire(vm, image)) == 1


# ---- the limits of a request ---------------------------------------------------------------------


def test_longest_request(client, vm, new_image):
    """A line of nearly 1 MiB is answered, a longer one is not read to its end."""
    image = new_image("a")
    request = {"owner": vm.owner(), "disks": [as_disk(image)]}
    request["owner"]["name"] = "x" * (LINE_MAX - 1000)
    lease, = client.call("acquire", **request)["leases"]
    assert len(lease["owner"]["name"]) == LINE_MAX - 1000


def test_large_set(client, start_vm, new_image):
    """A VM with a thousand disks."""
    vm = start_vm()
    disks = [new_image(str(number)) for number in range(1000)]
    assert len(client.acquire(vm, *disks)) == 1000
    assert all(map(held_locks, disks[::100]))
    assert client.release(vm) == 1000
    assert not any(map(held_locks, disks[::100]))
