# SPDX-License-Identifier: LGPL-2.1-or-later
"""Storage that hangs delays its own callers, who are told so in time; everybody else proceeds.

See tests/lib/slow_storage.py for how it hangs.
"""

import time

import pytest
from lock_table import held_locks
from native import TIME, Refused, as_lease
# pylint: disable-next=unused-import
from slow_storage import fixture_slow
from virtlockd_wire import RemoteError
from waiting import wait_until

# Enough for what does not hang, on a busy machine.
TIMEOUT_MS = 1000
REQUEST_TIMEOUT = 3
# Once it is told to, with its storage hanging: some seconds of patience, see engine.c.
END_SECONDS = 45
OPERATION_TIMEOUT = 68


@pytest.fixture(name="daemon")
def fixture_daemon(slow, start_daemon):
    """A daemon that has that storage, and little patience with clients that give none."""
    try:
        yield start_daemon(wrapper=slow.wrapper(), request_timeout=REQUEST_TIMEOUT)
    finally:
        slow.close()


def assert_timed_out(error, lockspace):
    """Complain unless the error names what is slow."""
    assert error.error_class == "Timeout", error
    assert error.data["lockspace"] == str(lockspace)
    assert error.data["operation"] and TIME.fullmatch(error.data["since"])
    assert str(lockspace) in error.desc
    assert error.data["operation"] in error.desc


def assert_quiet(client, name):
    """Wait until nothing is under way in a lockspace any more."""
    def quiet():
        space = client.lockspace(name)
        return not space or (space["queued"], space["running"]) == (0, 0)
    wait_until(quiet, f"{name} to be quiet")


def health(client, name):
    """How a lockspace is; None if there is nothing to do in it."""
    space = client.lockspace(name)
    return space and space["health"]


def test_healthy(client, slow, vm, other_vm):
    """While it does not hang, it is storage like any other."""
    disk = slow.disk("a")
    client.acquire(vm, disk)
    with pytest.raises(Refused) as refusal:
        client.acquire(other_vm, disk)
    assert refusal.value.error_class == "Busy"
    assert client.lockspace(slow.lane)["health"] == "ok"
    client.release(vm)
    client.acquire(other_vm, disk)


def test_disk_that_hangs(daemon, client, slow, vm, image):
    """The caller is told in time; meanwhile others are served; what comes late is undone."""
    disk = slow.disk("a")
    slow.hang()
    with daemon.client() as caller:
        start = time.monotonic()
        number = caller.send("acquire", owner=vm.owner(), disks=[{"path": disk}],
                             timeout=TIMEOUT_MS)
        daemon.assert_serves(image, vm)
        assert client.call("query-leases") == {"leases": []}
        with pytest.raises(Refused) as refusal:
            caller.reply(number)
        assert TIMEOUT_MS / 1000 <= time.monotonic() - start < END_SECONDS
        assert_timed_out(refusal.value, slow.lane)
        daemon.assert_serves(image, vm)
    slow.go_on()
    assert_quiet(client, slow.lane)
    assert client.leases() == []
    assert held_locks(slow.real / "a") == []
    client.acquire(vm, disk)


def test_status_while_it_hangs(client, slow, vm):
    """query-status names what is slow, at which operation, and since when."""
    disk = slow.disk("a")
    slow.hang()
    with pytest.raises(Refused):
        client.acquire(vm, disk, timeout=TIMEOUT_MS)
    wait_until(lambda: health(client, slow.lane) != "ok", "it to be called slow")
    space = client.lockspace(slow.lane)
    assert space["health"] in ("slow", "stuck")
    assert (space["operation"], space["running"]) == ("acquire", 1)
    assert TIME.fullmatch(space["since"])
    assert all(other["health"] == "ok" for other in client.call("query-status")["lockspaces"]
               if other["name"] != slow.lane)
    slow.go_on()
    wait_until(lambda: health(client, slow.lane) in ("ok", None), "it to be well again")


@pytest.mark.parametrize("kind", ["lease", "hashed", "lookup"])
def test_lockspace_that_hangs(slow, start_daemon, vm, new_image, workdir, kind):
    """A directory of leases, one for lock files, and a disk whose identity is looked up."""
    (slow.real / "k").touch()
    files = {"lease": None, "hashed": slow.path, "lookup": workdir / "files"}[kind]
    daemon = start_daemon(wrapper=slow.wrapper(),
                          **({"file_lockspace_dir": files} if files else {}))
    disk = slow.disk("a") if kind == "lookup" else new_image("b")
    with daemon.client() as client:
        slow.hang()
        with pytest.raises(Refused) as refusal:
            if kind == "lease":
                client.acquire(vm, leases=[(slow.path, "k")], timeout=TIMEOUT_MS)
            else:
                client.acquire(vm, disk, timeout=TIMEOUT_MS)
        assert_timed_out(refusal.value, slow.lane if kind == "lookup" else slow.path)
        slow.go_on()
        assert_quiet(client, slow.path)
        assert client.leases() == []
        assert (slow.real / "k").stat().st_size == 0
        if kind == "lease":
            client.acquire(vm, leases=[(slow.path, "k")])
        else:
            client.acquire(vm, disk)
        client.release(vm)
    slow.close()


def test_set_with_a_disk_that_hangs(client, slow, vm, other_vm, image):
    """One disk of a set hangs: what was taken elsewhere is given back at once."""
    disk = slow.disk("a")
    slow.hang()
    with pytest.raises(Refused) as refusal:
        client.acquire(vm, image, disk, timeout=TIMEOUT_MS)
    assert_timed_out(refusal.value, slow.lane)
    slow.go_on()
    assert_quiet(client, slow.lane)
    client.acquire(other_vm, image, disk)


def test_others_take_the_healthy_disk(daemon, client, slow, vm, other_vm, image):
    """While a set waits for a disk that hangs, its healthy disk is somebody's: his who waits."""
    disk = slow.disk("a")
    slow.hang()
    with daemon.client() as caller:
        number = caller.send("acquire", owner=vm.owner(), disks=[{"path": image}, {"path": disk}],
                             timeout=TIMEOUT_MS)
        with pytest.raises(Refused):
            caller.reply(number)
    wait_until(lambda: not held_locks(image), "the healthy disk to be free")
    client.acquire(other_vm, image)
    slow.go_on()


def test_many_callers(daemon, slow, vm, start_vm, image):
    """More callers than the lockspace has threads: all are told in time, nobody else is delayed."""
    disks = [slow.disk(str(number)) for number in range(40)]
    vms = [start_vm(f"vm{number}") for number in range(len(disks))]
    slow.hang()
    callers = [daemon.client() for _ in disks]
    numbers = [caller.send("acquire", owner=who.owner(), disks=[{"path": disk}], timeout=TIMEOUT_MS)
               for caller, who, disk in zip(callers, vms, disks)]
    for _ in range(20):
        daemon.assert_serves(image, vm)
    for caller, number in zip(callers, numbers):
        with pytest.raises(Refused) as refusal:
            caller.reply(number)
        assert_timed_out(refusal.value, slow.lane)
        caller.close()
    assert daemon.threads() < 30
    slow.go_on()
    with daemon.client() as client:
        assert_quiet(client, slow.lane)
        assert client.leases() == []
        for who, disk in zip(vms, disks):
            client.acquire(who, disk)


def test_query_that_hangs(client, slow):
    """Who asks for the holder is told in time as well."""
    disk = slow.disk("a")
    slow.hang()
    with pytest.raises(Refused) as refusal:
        client.call("query-disk", disk=str(disk), timeout=TIMEOUT_MS)
    assert_timed_out(refusal.value, slow.lane)


def test_rpc_that_hangs(daemon, client, slow, vm, image):
    """libvirt is told after request_timeout, and its next call is answered."""
    disk = slow.disk("a")
    slow.hang()
    with daemon.peer() as peer:
        peer.register(vm.pid, vm.name)
        for call in (peer.acquire, lambda name: peer.create_resource("k", str(slow.path))):
            with pytest.raises(RemoteError) as refusal:
                call(str(disk))
            assert refusal.value.code == OPERATION_TIMEOUT
            assert str(slow.path) in refusal.value.message
        peer.acquire(str(image))
        slow.go_on()
        assert_quiet(client, slow.lane)
        assert [lease["disk"] for lease in client.leases()] == [str(image)]
        peer.release(str(image))


@pytest.mark.parametrize("protocol", ["native", "virtlockd"])
def test_release_that_hangs(daemon, client, slow, vm, other_vm, image, protocol):
    """A release that hangs is told in time; the disk is nobody else's until it is over."""
    disk = slow.disk("a")
    client.acquire(vm, disk)
    slow.hang()
    if protocol == "native":
        with pytest.raises(Refused) as refusal:
            client.call("release", owner={"pid": vm.pid}, timeout=TIMEOUT_MS)
        assert_timed_out(refusal.value, slow.lane)
    else:
        with daemon.peer() as peer:
            peer.register(vm.pid, vm.name)
            with pytest.raises(RemoteError) as remote:
                peer.release(str(disk))
            assert remote.value.code == OPERATION_TIMEOUT
    daemon.assert_serves(image, vm)
    with pytest.raises(Refused) as refusal:
        client.acquire(other_vm, disk, timeout=TIMEOUT_MS)
    assert refusal.value.error_class in ("Timeout", "Busy")
    slow.go_on()
    assert_quiet(client, slow.lane)
    wait_until(lambda: client.leases() == [], "the release to be over")
    client.acquire(other_vm, disk)


def test_owner_ends_while_it_hangs(daemon, client, slow, vm, other_vm, image):
    """An owner that ends while its request waits gets nothing later."""
    disk = slow.disk("a")
    slow.hang()
    with daemon.client() as caller:
        number = caller.send("acquire", owner=vm.owner(), disks=[{"path": disk}], timeout=20000)
        daemon.assert_serves(image, other_vm)
        vm.kill_without_reaping()
        daemon.assert_serves(image, other_vm)
        slow.go_on()
        with pytest.raises(Refused) as refusal:
            caller.reply(number)
        assert refusal.value.error_class == "NoSuchOwner"
    assert_quiet(client, slow.lane)
    assert client.leases() == []
    client.acquire(other_vm, disk)


def test_owner_ends_with_leases_that_hang(client, slow, vm, other_vm, image):
    """An owner ends whose disks are on storage that hangs: his other disks are free at once."""
    disk = slow.disk("a")
    client.acquire(vm, disk)
    client.acquire(vm, image)
    slow.hang()
    vm.kill_without_reaping()
    wait_until(lambda: not held_locks(image), "the healthy disk to be free")
    client.acquire(other_vm, image, timeout=20000)
    slow.go_on()
    client.acquire(other_vm, disk, timeout=20000)


@pytest.mark.parametrize("protocol", ["native", "virtlockd"])
def test_caller_goes_while_it_hangs(daemon, client, slow, vm, other_vm, image, protocol):
    """A caller that goes while its request waits: what comes later is undone."""
    disk = slow.disk("a")
    slow.hang()
    if protocol == "native":
        with daemon.client() as caller:
            caller.send("acquire", owner=vm.owner(), disks=[{"path": disk}], timeout=20000)
            daemon.assert_serves(image, other_vm)
    else:
        with daemon.peer() as peer:
            peer.register(vm.pid, vm.name)
            peer.sock.settimeout(0.2)
            with pytest.raises(TimeoutError):
                peer.acquire(str(disk))
    daemon.assert_serves(image, other_vm)
    slow.go_on()
    assert_quiet(client, slow.lane)
    assert client.leases() == []
    client.acquire(other_vm, disk)


def test_daemon_ends_while_it_hangs(daemon, slow, vm):
    """A daemon that is told to end does so, though its storage hangs."""
    disk = slow.disk("a")
    slow.hang()
    with daemon.client() as caller:
        caller.send("acquire", owner=vm.owner(), disks=[{"path": disk}], timeout=60000)
        wait_until(lambda: daemon.threads() > 1, "the request to be under way")
        start = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - start < END_SECONDS


def test_storage_that_fails(client, slow, vm, image):
    """Storage that goes away while a request waits: an error that says so, and no lease."""
    disk = slow.disk("a")
    client.acquire(vm, image)
    slow.hang()
    number = client.send("acquire", owner=vm.owner(), disks=[{"path": disk}], timeout=20000,
                         leases=[as_lease(slow.path, "k")])
    slow.close()
    with pytest.raises(Refused) as refusal:
        client.reply(number)
    assert refusal.value.error_class in ("BadResource", "StorageError"), refusal.value
    assert str(slow.path) in refusal.value.desc
    assert [lease["disk"] for lease in client.leases()] == [str(image)]


# ---- locks that looked quick -------------------------------------------------------------------

def make_quick(daemon, image, vm):
    """A lane whose locks have been quick is one whose next lock the main thread takes itself."""
    for _ in range(20):
        daemon.assert_serves(image, vm)


def make_link(slow, image, name="a"):
    """A disk that is found where nothing ever hangs, and leads to where it does."""
    link = image.with_name(f"link-{name}")
    link.symlink_to(slow.disk(name))
    return link


@pytest.mark.parametrize("rounds", [1, 5])
def test_link_out_of_a_quick_place(daemon, client, slow, vm, other_vm, start_vm, image, rounds):
    """What the main thread itself runs into hangs as well, and again others do not notice."""
    for number in range(rounds):
        link = make_link(slow, image, str(number))
        slow.hang()
        make_quick(daemon, image, vm)
        with daemon.client() as caller:
            request = caller.send("acquire", owner=other_vm.owner(), disks=[{"path": link}],
                                  timeout=TIMEOUT_MS)
            for _ in range(5):
                daemon.assert_serves(image, vm)
            with pytest.raises(Refused) as refusal:
                caller.reply(request)
        assert refusal.value.error_class == "Timeout"
        slow.go_on()
        wait_until(lambda: not held_locks(slow.real / str(number)), "the late lock to be undone")
        assert client.leases() == []
        who = start_vm(f"late{number}")
        client.acquire(who, link)
        client.release(who)


def test_many_links_out_of_a_quick_place(daemon, client, slow, vm, start_vm, image):
    """Many at once cost threads, but a bounded number, and no answer."""
    links = [make_link(slow, image, str(number)) for number in range(40)]
    vms = [start_vm(f"vm{number}") for number in range(len(links))]
    make_quick(daemon, image, vm)
    slow.hang()
    callers = [daemon.client() for _ in links]
    requests = [caller.send("acquire", owner=who.owner(), disks=[{"path": link}],
                            timeout=TIMEOUT_MS)
                for caller, who, link in zip(callers, vms, links)]
    for caller, request in zip(callers, requests):
        with pytest.raises(Refused):
            caller.reply(request)
        caller.close()
    assert daemon.threads() < 30
    slow.go_on()
    wait_until(lambda: not any(held_locks(slow.real / str(number)) for number in range(40)),
               "the late locks to be undone")
    daemon.assert_serves(image, vm)
    assert client.leases() == []


def test_release_that_hangs_in_a_quick_place(daemon, client, slow, vm, other_vm, image):
    """The same for a release."""
    link = make_link(slow, image)
    client.acquire(other_vm, link)
    make_quick(daemon, image, vm)
    slow.hang()
    with pytest.raises(Refused) as refusal:
        client.call("release", owner={"pid": other_vm.pid}, timeout=TIMEOUT_MS)
    assert refusal.value.error_class == "Timeout"
    slow.go_on()
    wait_until(lambda: client.leases() == [], "the release to be over")
    daemon.assert_serves(image, vm)


def test_end_without_the_first_thread(daemon, slow, vm, other_vm, image):
    """The process's first thread hangs: it ends all the same when it is told to."""
    link = make_link(slow, image)
    make_quick(daemon, image, vm)
    slow.hang()
    with daemon.client() as caller:
        caller.send("acquire", owner=other_vm.owner(), disks=[{"path": link}], timeout=60000)
        daemon.assert_serves(image, vm)
        start = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - start < END_SECONDS
