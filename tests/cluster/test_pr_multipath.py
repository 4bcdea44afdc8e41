# SPDX-License-Identifier: LGPL-2.1-or-later
"""Persistent reservations on a LUN with two paths: they die, return, appear, and the holder writes on."""

import json
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab import services
from lab.fixtures import lab_for

pytestmark = [pytest.mark.xdist_group("lab-pr-multipath"), pytest.mark.long]

LIB = Path(__file__).resolve().parents[1] / "lib"
WRITER = Path(__file__).with_name("inside") / "pr_writer.py"
STOCK = "/usr/bin/qemu-pr-helper"
OURS, STOCKS, REPORT, LOG = "/run/pr.sock", "/run/stock.sock", "/run/writes", "/run/pr.log"
PATIENCE = 240.0
EBADE = "52"  # the kernel's errno for a reservation conflict
MINE, OTHER = "0xa2", "0xb3"
WERO = 5


class Member:
    """A host that speaks with a helper on it."""

    def __init__(self, host, lun, socket=OURS):
        self.host, self.lun, self.socket = host, lun, socket

    def do(self, *commands):
        """Answers to the commands of tests/lib/pr_do.py."""
        result = self.host.run(["python3", "-B", LIB / "pr_do.py", self.socket, self.lun, *commands], PATIENCE)
        return [json.loads(line) for line in result.out.splitlines()]

    def statuses(self, *commands):
        """Their statuses alone."""
        return [answer["status"] for answer in self.do(*commands)]

    def keys(self):
        """All registrations."""
        return sorted(self.do("keys")[0]["keys"])

    def paths(self):
        """What holdfast says of the map's paths: {"sdb": True}, whether it is registered."""
        out = self.host.out([f"{self.host.plan.build}/holdfast", "--json", "pr", "status", self.lun])
        return {path["path"]: path["registered"] for path in json.loads(out)["devices"][0]["paths"]}

    def counts(self):
        """What the writer has done so far."""
        return json.loads(self.host.read(REPORT))

    def wait_for_writes(self, more=30):
        """Until so many more blocks were written; the counts then."""
        start, end = self.counts()["written"], time.monotonic() + PATIENCE
        while self.counts()["written"] < start + more:
            assert time.monotonic() < end, f"no writes any more: {self.counts()}"
            time.sleep(0.2)
        return self.counts()

    @contextmanager
    def writing(self):
        """The block's time long the host writes the LUN."""
        self.host.run(f"rm -f {REPORT}")
        writer = self.host.start(["python3", "-B", WRITER, self.lun, REPORT])
        try:
            self.host.wait_for(f"test -e {REPORT}", PATIENCE)
            yield
        finally:
            writer.kill()


@pytest.fixture(scope="module", name="lab")
def fixture_lab(request):
    """A storage (h1), a host with two paths (h2) and one with one (h3), with our helper on both."""
    with lab_for(request, hosts=3) as lab:
        yield lab


@pytest.fixture(name="make_members")
def fixture_make_members(lab):
    """make_members(settings): both hosts with a helper; at the end all is as it was."""
    def make(pr_multipath="auto", defaults=""):
        lab.iscsi(clients=[lab.h3])
        lun = lab.iscsi(clients=[lab.h2], paths=2, multipath=True, defaults=defaults)
        lab.h2.wait_for("test $(multipathd show paths raw format %t | grep -c active) = 2", PATIENCE)
        members = []
        for host, device in ((lab.h2, lun), (lab.h3, "/dev/" + services.iscsi_disks(lab.h3)[0])):
            host.write("/run/pr.conf", f'pr_multipath = "{pr_multipath}"\npr_log = "{LOG}"\n'
                                       'pr_log_format = "json"\n')
            host.run(f"{host.plan.build}/holdfast-pr-helper -d -k {OURS} -f /run/pr.pid -c /run/pr.conf")
            members.append(Member(host, device))
        members[1].do(f"ignore:0:{OTHER}", f"clear:{OTHER}")
        return members

    yield make
    lab.h2.heal(lan=1)
    for host in (lab.h2, lab.h3):
        host.run("kill $(cat /run/pr.pid); while test -e /run/pr.pid; do sleep 0.1; done", PATIENCE)


def take(member, other=None):
    """Register and reserve; the other host registers as well."""
    if other:
        assert other.statuses(f"register:0:{OTHER}") == ["good"]
    assert member.statuses(f"register:0:{MINE}", f"reserve:{MINE}::{WERO}") == ["good", "good"]


def assert_only_good_writes(member):
    """The holder has never been refused, on either path."""
    counts = member.wait_for_writes()
    assert not counts["errors"], counts


def wait_for_refusal(member):
    """Until a write of the host is a reservation conflict."""
    end = time.monotonic() + PATIENCE
    while EBADE not in member.counts()["errors"]:
        assert time.monotonic() < end, f"nobody stops the writes: {member.counts()}"
        time.sleep(0.2)


@pytest.mark.parametrize("settings", [
    {"pr_multipath": "auto", "defaults": "reservation_key file"},
    {"pr_multipath": "paths", "defaults": ""}], ids=["library", "paths"])
def test_both_paths_are_one(make_members, settings):
    """Every path is registered, and the guest is told what one path would tell."""
    member, other = make_members(**settings)
    take(member, other)
    assert member.keys() == [MINE, MINE, OTHER]
    assert set(member.paths().values()) == {True}
    assert member.statuses(*[f"register:0:{MINE}"] * 4) == ["conflict"] * 4
    assert member.statuses(f"register:0xbad:{MINE}", f"reserve:{MINE}::{WERO}", "reserve:0xbad::5",
                           f"reserve:{MINE}::1") == ["conflict", "good", "conflict", "check"]
    with member.writing():
        assert_only_good_writes(member)
    assert member.statuses(f"register:{MINE}:0xa9", "register:0xa9:0xaa", f"ignore:0:{MINE}") == ["good"] * 3
    assert member.keys() == [MINE, MINE, OTHER]
    assert member.do("reservation")[0]["reservation"] == [MINE, WERO]
    assert member.statuses(f"release:{MINE}::{WERO}", f"register:{MINE}:0") == ["good", "good"]
    assert member.do("keys", "reservation")[1]["reservation"] is None
    assert member.keys() == [OTHER]


def test_a_path_dies_and_returns(lab, make_members):
    """The holder writes on by the other path; every command works; the path comes back registered."""
    member, other = make_members(defaults="reservation_key file")
    take(member, other)
    with member.writing():
        assert_only_good_writes(member)
        lab.h2.partition(lan=1)
        lab.h2.wait_for("multipathd show paths raw format %t | grep -q failed", PATIENCE)
        assert_only_good_writes(member)
        # the kernel's ioctl would now destroy the registration of the path that lives
        assert member.statuses(f"reserve:{MINE}::{WERO}", f"register:{MINE}:{MINE}",
                               f"register:0xbad:{MINE}") == ["good", "good", "conflict"]
        assert MINE in member.keys()
        assert_only_good_writes(member)
        lab.h2.heal(lan=1)
        lab.h2.wait_for("test $(multipathd show paths raw format %t | grep -c active) = 2", PATIENCE)
        assert_only_good_writes(member)
        assert set(member.paths().values()) == {True}
    assert member.statuses(f"clear:{MINE}") == ["good"]


@pytest.mark.parametrize("defaults", ["reservation_key file", ""], ids=["multipathd", "ourselves"])
def test_a_path_appears(lab, make_members, defaults):
    """A new path is registered before the holder's writes take it, whoever does that."""
    member, _ = make_members(defaults=defaults)
    services.iscsi_logout(lab.h2, 2)
    lab.h2.wait_for("test $(multipathd show paths raw format %t | grep -c active) = 1", PATIENCE)
    take(member)
    with member.writing():
        assert_only_good_writes(member)
        services.iscsi_client(lab.h2, lab.h1, 2, True, defaults)
        lab.h2.wait_for("test $(multipathd show paths raw format %t | grep -c active) = 2", PATIENCE)
        assert_only_good_writes(member)
    assert set(member.paths().values()) == {True}
    assert member.statuses(f"clear:{MINE}") == ["good"]


def test_preempt(make_members):
    """A preempting host loses none of its registrations, a preempted one all; new ones stay away."""
    member, other = make_members()
    take(member, other)
    with member.writing():
        assert_only_good_writes(member)
        assert other.statuses(f"abort:{OTHER}:{MINE}:{WERO}") == ["good"]
        wait_for_refusal(member)
    assert other.keys() == [OTHER]
    assert member.statuses(f"reserve:{MINE}::{WERO}") == ["conflict"]
    assert member.statuses(f"register:0:{MINE}", f"abort:{MINE}:{OTHER}:{WERO}") == ["good", "good"]
    assert member.keys() == [MINE, MINE]
    with member.writing():
        assert_only_good_writes(member)
    # one's own key, to change the type: no path may lose its registration
    assert member.statuses(f"preempt:{MINE}:{MINE}:6") == ["good"]
    assert member.keys() == [MINE, MINE]
    assert member.do("reservation")[0]["reservation"] == [MINE, 6]
    assert member.statuses(f"clear:{MINE}") == ["good"]


def test_log(make_members):
    """Each command that changed something is in the log, with its keys and its answer."""
    member, _ = make_members()
    member.host.run(f"truncate -s 0 {LOG}")
    take(member)
    assert member.statuses("register:0xbad:0xbae", f"clear:{MINE}") == ["conflict", "good"]
    out = member.host.out([f"{member.host.plan.build}/holdfast", "--json", "pr", "log", "--file", LOG])
    found = [json.loads(line) for line in out.splitlines()]
    assert [(record["action"], record["result"]) for record in found] == [
        ("REGISTER", "GOOD"), ("RESERVE", "GOOD"), ("REGISTER", "RESERVATION CONFLICT"), ("CLEAR", "GOOD")]
    assert {record["kind"] for record in found} == {"multipath"}
    assert found[0]["service_key"] == MINE and found[1]["type"] == "WERO"


def test_who_has_the_privileges_is_killed(make_members):
    """The process that serves multipath is killed: the next command is carried out all the same."""
    member, _ = make_members()
    take(member)
    member.host.run("kill -9 $(pgrep -P $(pgrep -P $(cat /run/pr.pid) -f holdfast-pr-multipath))")
    assert member.statuses(f"register:{MINE}:0xa9", "clear:0xa9") == ["good", "good"]


def test_stock_is_wrong(make_members):
    """The same steps with stock's helper: it registers one path, and the holder's writes fail."""
    member, _ = make_members()
    stock = Member(member.host, member.lun, STOCKS)
    running = member.host.start([STOCK, "-k", STOCKS])
    try:
        member.host.wait_for(f"test -S {STOCKS}", PATIENCE)
        assert stock.statuses(f"register:0:{MINE}") == ["good"]
        # each command takes the next path, and one path alone is registered: by the other one it fails
        found = stock.statuses(*[f"reserve:{MINE}::{WERO}"] * 6)
        assert "good" in found and set(found) & {"conflict", "check"}, found
        assert stock.keys() == [MINE]
        with member.writing():
            wait_for_refusal(member)
    finally:
        running.kill()
        member.do(f"ignore:0:{MINE}", f"clear:{MINE}")
