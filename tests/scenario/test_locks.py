# SPDX-License-Identifier: LGPL-2.1-or-later
"""Taking and giving back: repetition, whole sets, modes, and two who want the same."""

import itertools
import random
import threading

import pytest
from lock_table import held_locks
from native import TIME, Refused, as_disk, as_lease

MODES = ("exclusive", "shared", "readonly")
KERNEL_MODE = {"exclusive": "WRITE", "shared": "READ", "readonly": "READ"}
ROUNDS = 300


def refused(error_class, call, *args, **kwargs):
    """Make a call, which must be refused with that class; the error."""
    with pytest.raises(Refused) as refusal:
        call(*args, **kwargs)
    assert refusal.value.error_class == error_class, refusal.value
    return refusal.value


@pytest.fixture(name="lockspace")
def fixture_lockspace(workdir):
    """A lockspace directory with the lease files k1 and k2."""
    path = workdir / "lockspace"
    path.mkdir()
    for name in ("k1", "k2"):
        (path / name).touch()
    return path


def test_acquire_and_release(client, vm, image):
    """A disk is locked in the kernel from acquire to release, and the lease tells all about it."""
    lease, = client.acquire(vm, image)
    assert held_locks(image) == ["WRITE"]
    assert TIME.fullmatch(lease["since"])
    assert lease["claims"]
    assert {key: lease[key] for key in ("disk", "driver", "lockspace", "key", "mode")} == {
        "disk": str(image), "driver": "lockd", "lockspace": "", "key": str(image),
        "mode": "exclusive"}
    assert lease["owner"] == {
        "name": vm.name, "uuid": vm.uuid, "uri": None, "pid": vm.pid,
        "host": client.greeting["host"], "state": "running"}
    assert client.leases() == [lease]
    assert client.release(vm, image) == 1
    assert held_locks(image) == []
    assert client.leases() == []


def test_manual_lease(client, vm, lockspace):
    """A lease is a file in a directory that has to exist; the file stays."""
    lease, = client.acquire(vm, leases=[(lockspace, "k1")])
    assert (lease["disk"], lease["lockspace"], lease["key"]) == (None, str(lockspace), "k1")
    assert held_locks(lockspace / "k1") == ["WRITE"]
    assert client.release(vm, leases=[(lockspace, "k1")]) == 1
    assert held_locks(lockspace / "k1") == []
    assert (lockspace / "k1").exists()
    assert refused("BadResource", client.acquire, vm, leases=[(lockspace, "none")])
    assert not (lockspace / "none").exists()


def test_repeated_request(client, vm, new_image):
    """The same request again is a success and changes nothing; one release is enough."""
    disks = [new_image("a"), new_image("b")]
    first = client.acquire(vm, *disks)
    assert client.acquire(vm, *disks) == first
    assert client.acquire(vm, *reversed(disks)) == first[::-1]
    assert client.release(vm) == 2
    assert held_locks(disks[0]) == []


def test_repeated_on_another_connection(daemon, client, vm, image):
    """The request can be repeated after a lost connection."""
    first = client.acquire(vm, image)
    client.close()
    assert held_locks(image) == ["WRITE"]
    with daemon.client() as again:
        assert again.acquire(vm, image) == first


def test_same_request_twice_at_once(daemon, vm, image):
    """Two connections that send the same request at the same time both succeed."""
    with daemon.client() as one, daemon.client() as two:
        for _ in range(50):
            requests = [(client, client.send("acquire", owner=vm.owner(), disks=[as_disk(image)]))
                        for client in (one, two)]
            answers = [client.reply(number)["leases"] for client, number in requests]
            assert answers[0] == answers[1]
            assert one.release(vm) == 1


def test_another_mode_is_busy(client, vm, image):
    """What is held in one mode is not held in another."""
    for held, wanted in itertools.permutations(MODES, 2):
        client.acquire(vm, (image, held))
        refused("Busy", client.acquire, vm, (image, wanted))
        assert held_locks(image) == [KERNEL_MODE[held]]
        client.release(vm)


@pytest.fixture(params=["disk", "lease"], name="thing")
def fixture_thing(request, image, lockspace):
    """A disk or a lease: thing(mode) gives the arguments of acquire."""
    def thing(mode):
        if request.param == "disk":
            return {"disks": [(image, mode)]}
        return {"leases": [(lockspace, "k1", mode)]}
    return thing


@pytest.mark.parametrize("held,wanted", itertools.product(MODES, MODES))
def test_modes(client, vm, other_vm, thing, held, wanted):
    """A writer is alone; sharers and readers go together, in any order of release."""
    def acquire(who, mode):
        arguments = thing(mode)
        return client.acquire(who, *arguments.pop("disks", ()), **arguments)

    acquire(vm, held)
    if "exclusive" in (held, wanted):
        refused("Busy", acquire, other_vm, wanted)
        client.release(vm)
    else:
        acquire(other_vm, wanted)
        client.release(vm)
        refused("Busy", acquire, vm, "exclusive")
        client.release(other_vm)
    acquire(other_vm, "exclusive")


def test_many_sharers(client, start_vm, image, lockspace):
    """Sharers come and go; the last one's release makes it free."""
    vms = [start_vm(f"vm{number}") for number in range(8)]
    leases = [(lockspace, "k1", "shared")]
    for vm in vms:
        client.acquire(vm, (image, "shared"), leases=leases)
    for vm in vms:
        refused("Busy", client.acquire, vm, image)
        assert client.release(vm) == 2
    client.acquire(vms[0], image, leases=[(lockspace, "k1")])


@pytest.mark.parametrize("missing", [0, 1, 2, 3])
def test_whole_set_or_nothing(client, vm, other_vm, new_image, lockspace, missing):
    """Where one of a set is busy nothing is taken, wherever it stands in the set."""
    disks = [new_image("a"), new_image("b"), new_image("c")]
    leases = [(lockspace, "k1")]
    if missing < 3:
        client.acquire(other_vm, disks[missing])
    else:
        client.acquire(other_vm, leases=leases)
    refused("Busy", client.acquire, vm, *disks, leases=leases)
    assert client.leases(pid=vm.pid) == []
    locked = [bool(held_locks(path)) for path in (*disks, lockspace / "k1")]
    assert locked == [number == missing for number in range(4)]
    client.release(other_vm)
    assert len(client.acquire(vm, *disks, leases=leases)) == 4


def test_failure_takes_nothing(client, vm, new_image, workdir):
    """The same when one of a set is not there."""
    disks = [new_image("a"), workdir / "none", new_image("b")]
    error = refused("BadResource", client.acquire, vm, *disks)
    assert error.data["disk"] == str(disks[1])
    assert held_locks(disks[0]) == held_locks(disks[2]) == []


def test_refusal_keeps_what_was_held(client, vm, other_vm, new_image):
    """A refused request gives back only what it has taken itself."""
    disks = [new_image("a"), new_image("b"), new_image("c")]
    client.acquire(vm, disks[0])
    client.acquire(other_vm, disks[2])
    refused("Busy", client.acquire, vm, *disks)
    assert held_locks(disks[0]) == ["WRITE"]
    assert held_locks(disks[1]) == []
    assert [lease["disk"] for lease in client.leases(pid=vm.pid)] == [str(disks[0])]


def test_set_in_several_lockspaces(start_daemon, vm, other_vm, new_image, workdir, lockspace):
    """A set over lock files of paths, two directories of leases and direct disks is one set."""
    second = workdir / "second"
    second.mkdir()
    (second / "k").touch()
    daemon = start_daemon(file_lockspace_dir=workdir / "files")
    disks = [new_image("a"), new_image("b")]
    leases = [(lockspace, "k1"), (second, "k")]
    with daemon.client() as client:
        client.acquire(other_vm, leases=[(second, "k")])
        refused("Busy", client.acquire, vm, *disks, leases=leases)
        assert client.leases(pid=vm.pid) == []
        assert list((workdir / "files").iterdir()) == []
        assert held_locks(lockspace / "k1") == []
        client.release(other_vm)
        assert len(client.acquire(vm, *disks, leases=leases)) == 4
        assert len(list((workdir / "files").iterdir())) == 2
        assert client.release(vm) == 4
        assert list((workdir / "files").iterdir()) == []


def test_named_twice(client, vm, image, lockspace):
    """A disk or a lease that is named twice in one request is a mistake."""
    error = refused("InvalidArgument", client.acquire, vm, image, image)
    assert str(image) in error.desc
    refused("InvalidArgument", client.acquire, vm,
            leases=[(lockspace, "k1"), (lockspace, "k2"), (lockspace, "k1")])
    assert held_locks(image) == held_locks(lockspace / "k1") == []


def test_no_disks(client, vm):
    """A VM without disks may start."""
    assert client.acquire(vm) == []
    assert client.leases() == []


def test_release_what_is_not_held(client, vm, other_vm, new_image):
    """A release with something that is not held releases nothing."""
    disks = [new_image("a"), new_image("b")]
    client.acquire(vm, disks[0])
    for who, named in ((vm, disks), (vm, disks[::-1]), (other_vm, disks[:1])):
        error = refused("NotHeld", client.release, who, *named)
        assert error.data["disk"] in map(str, disks)
        assert held_locks(disks[0]) == ["WRITE"]
    assert client.release(vm, disks[0]) == 1
    error = refused("NotHeld", client.release, vm, leases=[("/none", "k")])
    assert (error.data["lockspace"], error.data["key"]) == ("/none", "k")


def test_release_all(client, vm, other_vm, new_image, lockspace):
    """A release that names nothing gives back all that the owner has, and nobody else's."""
    disks = [new_image("a"), new_image("b")]
    client.acquire(vm, disks[0], leases=[(lockspace, "k1")])
    client.acquire(other_vm, disks[1])
    assert client.release(vm) == 2
    assert client.release(vm) == 0
    assert held_locks(disks[1]) == ["WRITE"]


def test_release_of_an_empty_list(client, vm, image):
    """A release whose list is empty releases nothing: a program's mistake must not free all."""
    client.acquire(vm, image)
    assert client.call("release", owner={"pid": vm.pid}, disks=[]) == {"released": 0}
    assert held_locks(image) == ["WRITE"]


def test_replies_in_order(client, vm, new_image):
    """Requests that are sent at once are answered one after the other, in their order."""
    sent = []
    for number in range(20):
        disk = as_disk(new_image(str(number)))
        sent += [client.send("acquire", owner=vm.owner(), disks=[disk]),
                 client.send("query-leases"),
                 client.send("release", owner={"pid": vm.pid}, disks=[disk]),
                 client.send("query-leases")]
    answers = [client.reply(number) for number in sent]
    for acquired, held, released, nothing in zip(*[iter(answers)] * 4):
        assert held == acquired
        assert released == {"released": 1}
        assert nothing == {"leases": []}


def test_filters(client, vm, other_vm, new_image):
    """query-leases can be limited to an owner, by pid or uuid in any case."""
    disks = [new_image("a"), new_image("b")]
    for who, disk in zip((vm, other_vm), disks):
        client.acquire(who, disk)
    for filters in ({"pid": vm.pid}, {"uuid": vm.uuid}, {"uuid": vm.uuid.upper()}):
        assert [lease["disk"] for lease in client.leases(**filters)] == [str(disks[0])]
    assert client.leases(pid=vm.pid, uuid=other_vm.uuid) == []
    assert len(client.leases()) == 2


class Contender(threading.Thread):
    """A client that asks for a set when the starting shot comes."""

    def __init__(self, daemon, vm, start, disks, leases):
        super().__init__()
        self.daemon, self.vm, self.start_line = daemon, vm, start
        self.disks, self.leases = disks, leases
        self.won = None

    def run(self):
        with self.daemon.client() as client:
            request = {"owner": self.vm.owner(), "disks": [as_disk(disk) for disk in self.disks],
                       "leases": [as_lease(*lease) for lease in self.leases]}
            self.start_line.wait()
            try:
                client.call("acquire", **request)
                self.won = True
            except Refused as refusal:
                assert refusal.error_class == "Busy", refusal
                self.won = False


def compete(contenders):
    """Let contenders run; those that have won."""
    for contender in contenders:
        contender.start()
    for contender in contenders:
        contender.join()
    assert None not in [contender.won for contender in contenders]
    return [contender for contender in contenders if contender.won]


def test_two_who_want_the_same(start_daemon, vm, other_vm, new_image, lockspace, workdir):
    """Of two requests for the same things at the same time exactly one wins, in any order."""
    daemon = start_daemon(file_lockspace_dir=workdir / "files")
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    order = random.Random(seed)
    disks = [new_image(str(number)) for number in range(4)]
    leases = [(lockspace, "k1"), (lockspace, "k2")]
    winners = set()
    with daemon.client() as client:
        for _ in range(ROUNDS):
            start = threading.Barrier(2)
            contenders = [Contender(daemon, who, start, order.sample(disks, 4),
                                    order.sample(leases, 2)) for who in (vm, other_vm)]
            winner, = compete(contenders)
            winners.add(winner.vm.name)
            assert len(client.leases()) == 6
            assert client.release(winner.vm) == 6
            assert list((workdir / "files").iterdir()) == []
    print(f"won at least once: {sorted(winners)}")


def test_overlapping_sets(start_daemon, start_vm, new_image, workdir):
    """Of several requests for overlapping sets one wins at least, and no two that overlap."""
    daemon = start_daemon()
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    order = random.Random(seed)
    disks = [new_image(str(number)) for number in range(5)]
    vms = [start_vm(f"vm{number}") for number in range(4)]
    with daemon.client() as client:
        for _ in range(ROUNDS):
            start = threading.Barrier(len(vms))
            winners = compete([Contender(daemon, who, start, order.sample(disks, 3), ())
                               for who in vms])
            assert len(winners) == 1  # any two sets of three out of five overlap
            assert sorted(lease["disk"] for lease in client.leases()) == sorted(
                map(str, winners[0].disks))
            assert client.release(winners[0].vm) == 3
            assert not any(map(held_locks, disks))
    assert len(list(workdir.iterdir())) == len(disks) + 1
