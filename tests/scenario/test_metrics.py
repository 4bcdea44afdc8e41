# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the daemon counts, seen through `holdfast metrics` and parsers of others."""

import os
import re
import time

import lock_rig
import pytest
from native import Refused
from scraping import scrape, wait_scrape
# pylint: disable-next=unused-import
from slow_storage import fixture_slow
from virtlockd_wire import AUTOCREATE, RemoteError
from vm_holder import Holder
from waiting import wait_until


def lane_of(path):
    """The lockspace of a disk that is locked directly: its mount."""
    path = os.path.realpath(path)
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return f"direct:{path}"


@pytest.fixture(name="space")
def fixture_space(workdir):
    """A lockspace with two lock files."""
    space = workdir / "space"
    space.mkdir()
    (space / "a").touch()
    (space / "b").touch()
    return space


def test_at_the_start(daemon):
    """A daemon that has done nothing shows zeros, and when it began."""
    before = time.time()
    seen = scrape(daemon)
    assert seen("up") == 1
    assert seen.labels("build_info", "version") != {None}
    assert before - 600 < seen("start_time_seconds") < time.time() + 1
    assert (seen("owners"), seen("owners_stopping")) == (0, 0)
    wait_scrape(daemon, lambda now: now("connections") == 1, "its connection to be the only one")
    assert seen("refusals_total", **{"class": "Busy"}) == 0
    assert seen("operation_duration_seconds_count", driver="lockd", operation="acquire") == 0
    assert seen("vault_info", supervisor="none") == 1
    assert seen.total("leases") == seen.total("acquisitions_total") == 0


def test_leases(daemon, client, vm, other_vm, new_image, space):
    """Leases by lockspace and mode, and what was granted and given back."""
    disks = [new_image("a"), new_image("b")]
    direct = {"driver": "lockd", "lockspace": lane_of(disks[0])}
    files = {"driver": "lockd", "lockspace": str(space)}
    client.acquire(vm, *disks)
    client.acquire(vm, leases=[(space, "a", "shared"), (space, "b")])
    client.acquire(other_vm, leases=[(space, "a", "shared")])
    seen = scrape(daemon)
    assert seen("owners") == 2
    assert seen("leases", mode="exclusive", **direct) == 2
    assert seen("leases", mode="exclusive", **files) == 1
    assert seen("leases", mode="shared", **files) == 2
    assert seen("leases", mode="readonly", **files) == 0
    assert seen("acquisitions_total", result="granted", **direct) == 2
    assert seen("acquisitions_total", result="granted", **files) == 3
    client.acquire(vm, *disks)
    assert scrape(daemon).total("acquisitions_total", result="granted") == 5, "it had them already"
    client.release(vm, disks[0])
    client.release(vm)
    other_vm.end()
    wait_until(lambda: client.leases() == [], "the ended owner's lease to be released")
    seen = scrape(daemon)
    assert seen("owners") == seen.total("leases") == 0
    assert seen("releases_total", **direct) == 2
    assert seen("releases_total", **files) == 3


def test_refusals(daemon, client, vm, other_vm, image, workdir):
    """What was refused, by lockspace and by the class of the error, over both protocols."""
    direct = {"driver": "lockd", "lockspace": lane_of(image)}
    client.acquire(vm, image)
    for _ in range(3):
        with pytest.raises(Refused, match="Busy"):
            client.acquire(other_vm, image)
    with daemon.peer() as peer:
        peer.register(other_vm.pid, other_vm.name)
        with pytest.raises(RemoteError):
            peer.acquire(str(image))
    with pytest.raises(Refused, match="BadResource"):
        client.acquire(vm, workdir / "none")
    with pytest.raises(Refused, match="NoSuchOwner"):
        client.call("acquire", owner={"pid": 2 ** 31 - 1}, disks=[{"path": str(image)}])
    seen = scrape(daemon)
    assert seen("refusals_total", **{"class": "Busy"}) == 4
    assert seen("refusals_total", **{"class": "BadResource"}) == 1
    assert seen("refusals_total", **{"class": "NoSuchOwner"}) == 1
    assert seen.total("refusals_total") == 6
    assert seen("acquisitions_total", result="refused", **direct) == 5
    assert seen("acquisitions_total", result="granted", **direct) == 1


def test_refusal_before_a_disk_has_a_name(start_daemon, vm, workdir):
    """A disk that is looked up in vain counts where it would be."""
    daemon = start_daemon(file_lockspace_dir=workdir / "files")
    with daemon.client() as client:
        with pytest.raises(Refused, match="BadResource"):
            client.acquire(vm, workdir / "none")
    seen = scrape(daemon)
    assert seen("acquisitions_total", result="refused", driver="lockd",
                lockspace=lane_of(workdir)) == 1
    assert seen.labels("acquisitions_total", "lockspace") == {lane_of(workdir)}


def test_set_that_was_undone(daemon, client, vm, other_vm, new_image):
    """What a refused request had taken for a moment was neither granted nor released."""
    disks = [new_image("a"), new_image("b")]
    client.acquire(vm, disks[1])
    with pytest.raises(Refused):
        client.acquire(other_vm, *disks)
    seen = scrape(daemon)
    assert seen.total("acquisitions_total", result="granted") == 1
    assert seen.total("acquisitions_total", result="refused") == 1
    assert seen.total("releases_total") == 0


def test_durations(daemon, client, vm, image):
    """Each operation is in the histogram of its driver, which adds up."""
    start = time.monotonic()
    for _ in range(20):
        client.acquire(vm, image)
        client.release(vm)
    took = time.monotonic() - start
    seen = scrape(daemon)
    for operation in ("acquire", "release"):
        labels = {"driver": "lockd", "operation": operation}
        assert seen("operation_duration_seconds_count", **labels) == 20
        assert 0 < seen("operation_duration_seconds_sum", **labels) < took
        assert seen("operation_duration_seconds_bucket", le="+Inf", **labels) == 20
        assert seen("operation_duration_seconds_bucket", le="60.0", **labels) == 20


def test_stuck_lockspace(slow, start_daemon, vm, image):
    """Storage that hangs: what waits there, since when, and when it is called stuck."""
    daemon = start_daemon(wrapper=slow.wrapper(), request_timeout=3, lane_threads=2)
    disks = [slow.disk(str(number)) for number in range(3)]
    lane = {"driver": "lockd", "lockspace": slow.lane}
    try:
        with daemon.client() as client:
            client.acquire(vm, image)
            before = time.time()
            slow.hang()
            for disk in disks:
                with pytest.raises(Refused, match="Timeout"):
                    client.acquire(vm, disk, timeout=100)
            seen = wait_scrape(daemon, lambda now: now(
                "lockspace_running_operations", **lane) == 2, "two to be under way")
            assert seen("lockspace_queued_operations", **lane) == 1
            since = seen("lockspace_oldest_operation_timestamp_seconds", **lane)
            assert before - 1 < since < time.time() + 1
            assert seen("refusals_total", **{"class": "Timeout"}) == 3
            assert seen("acquisitions_total", result="refused", **lane) == 3
            assert seen("threads") >= 2
            stuck = wait_scrape(daemon, lambda now: now("lockspace_stuck", **lane) == 1,
                                "it to be called stuck")
            assert stuck("lockspace_oldest_operation_timestamp_seconds", **lane) == since
            assert stuck("lockspace_stuck", driver="lockd", lockspace=lane_of(image)) == 0
            slow.go_on()
            seen = wait_scrape(daemon, lambda now: now(
                "lockspace_oldest_operation_timestamp_seconds", **lane) is None,
                               "it to be quiet again")
            assert seen("lockspace_stuck", **lane) == 0
            assert seen("lockspace_running_operations", **lane) == 0
    finally:
        slow.close()


def test_guests_that_were_ended(start_daemon, new_image):
    """VMs that lost their connection: TERM, and KILL for those that ignore it."""
    daemon = start_daemon(kill_timeout=5)  # enough for one that does not ignore it
    holders = [Holder(daemon, new_image("a"), kind="plain"),
               Holder(daemon, new_image("b"), kind="stubborn")]
    try:
        for holder in holders:
            holder.lose_connection()
        with daemon.client() as client:
            wait_until(lambda: client.leases() == [], "both to be ended")
        seen = scrape(daemon)
        assert seen("signals_total", signal="TERM") == 2
        assert seen("signals_total", signal="KILL") == 1
        assert seen("owners_stopping") == 0
    finally:
        for holder in holders:
            holder.end()


def test_events(daemon, client, vm, new_image):
    """Events by subscriber, and those that one did not get because it does not read."""
    disks = [new_image(str(number)) for number in range(50)]
    with daemon.client() as reader:
        reader.call("subscribe")
        client.acquire(vm, *disks)
        client.release(vm)
        for _ in range(2 * len(disks)):
            reader.next_event()
        seen = scrape(daemon)
        assert (seen("subscribers"), seen("events_sent_total")) == (1, 100)
        assert seen("events_dropped_total") == 0
    with daemon.client() as slow:
        slow.call("subscribe")
        for _ in range(200):
            client.acquire(vm, *disks)
            client.release(vm)
            if client.call("query-metrics")["notices"]["dropped"]:
                break
        wait_scrape(daemon, lambda now: now("subscribers") == 0, "the slow reader to be cut off")
    assert scrape(daemon)("events_dropped_total") > 0


def test_odd_names(daemon, client, vm, workdir):
    """Lockspaces whose names have to be escaped: each comes back as it is, or as it may be."""
    names = {b'quo"ted': 'quo"ted', b"back\\slash": "back\\slash", b"line\nfeed": "line\nfeed",
             b"\\n": "\\n", b"end\\": "end\\", b"\xff": "\\xff", b"\xfe": "\\xfe",
             b"\x1b[31m": "\\u001b[31m", b"tab\tret\r": "tab\\u0009ret\\u000d",
             "ä😀".encode(): "ä😀", b'{a="b"} 1 # x': '{a="b"} 1 # x'}
    with daemon.peer() as peer:
        peer.register(vm.pid, vm.name)
        for name in names:
            space = os.fsencode(workdir) + b"/" + name
            os.mkdir(space)
            peer.acquire("k", space, AUTOCREATE)
        seen = scrape(daemon)
    for shown in names.values():
        labels = {"driver": "lockd", "lockspace": f"{workdir}/{shown}", "mode": "exclusive"}
        assert seen("leases", **labels) == 1, shown
    assert seen.labels("leases", "lockspace") == {f"{workdir}/{shown}" for shown in names.values()}


def test_many_lockspaces(daemon, client, vm, workdir):
    """So many lockspaces have series of their own; the rest is summed up under one name."""
    spaces = []
    for number in range(130):
        spaces.append(workdir / f"space{number}")
        spaces[-1].mkdir()
        (spaces[-1] / "k").touch()
        client.acquire(vm, leases=[(spaces[-1], "k")])
    seen = scrape(daemon)
    shown = seen.labels("leases", "lockspace")
    assert len(shown) == 101 and "other" in shown
    assert seen("leases", driver="lockd", lockspace="other", mode="exclusive") == 30
    assert seen.total("leases") == seen.total("acquisitions_total", result="granted") == 130
    client.release(vm)
    seen = scrape(daemon)
    assert seen("releases_total", driver="lockd", lockspace="other") == 30
    assert seen.total("releases_total") == 130
    assert seen.total("leases") == 0


def test_json(daemon, client, vm, image):
    """The command's value for programs: what the text is made of."""
    client.acquire(vm, image)
    report = client.call("query-metrics")
    [space] = [space for space in report["lockspaces"] if space["name"] == lane_of(image)]
    assert space["leases"] == {"exclusive": 1, "shared": 0, "readonly": 0}
    assert (space["granted"], space["refused"], space["oldest"]) == (1, 0, None)
    [driver] = [driver for driver in report["drivers"] if driver["name"] == "lockd"]
    assert driver["acquire"]["count"] == 1 and driver["release"]["count"] == 0
    counts = [bucket["count"] for bucket in driver["acquire"]["buckets"]]
    assert counts == sorted(counts)


def test_documented(daemon):
    """The manual page lists what there is; alarms and text speak of nothing else."""
    names = {family.name + ("_total" if family.type == "counter" else "")
             for family in scrape(daemon).families.values()}
    docs = lock_rig.REPOSITORY / "docs"
    manual = (docs / "man/holdfast-metrics.1.rst").read_text(encoding="utf-8")
    assert set(re.findall(r"(?<=\*\*)holdfast_\w+", manual)) == names
    page = (docs / "monitoring.rst").read_text(encoding="utf-8")
    used = {re.sub("_bucket$", "", name) for name in re.findall(r"\bholdfast_\w+", page)}
    assert len(used) >= 7 and used <= names
    alarms = re.findall(r"- alert: (\w+)", page)
    assert re.findall(r"(?m)^(Holdfast\w+)$", page.partition("\nWhat to do\n")[2]) == alarms
