# SPDX-License-Identifier: LGPL-2.1-or-later
"""Two hosts on one iSCSI LUN, each with our helper: reservations stop what the standard says."""

import json
import time
from contextlib import ExitStack
from pathlib import Path

import pr_wire
import pytest
from lab.fixtures import lab_for
from pr_wire import (CHECK_CONDITION, CLEAR, GOOD, PREEMPT, PREEMPT_AND_ABORT, REGISTER,
                     REGISTER_AND_IGNORE, RELEASE, RESERVATION_CONFLICT, RESERVE)

pytestmark = pytest.mark.xdist_group("lab-pr")

AGENT = Path(__file__).with_name("inside") / "pr_agent.py"
SOCKET = "/run/qemu-pr-helper.sock"
PATIENCE = 180.0
EBADE = 52  # the kernel's errno for a reservation conflict
KEY = {"h2": 0xa2, "h3": 0xa3}
# SPC-4, table 33: what a host that is not the holder may do: (write, read), not registered and
# registered.
TYPES = {
    pr_wire.WRITE_EXCLUSIVE: ((False, True), (False, True)),
    pr_wire.EXCLUSIVE_ACCESS: ((False, False), (False, False)),
    pr_wire.WRITE_EXCLUSIVE_REGISTRANTS: ((False, True), (True, True)),
    pr_wire.EXCLUSIVE_ACCESS_REGISTRANTS: ((False, False), (True, True)),
    pr_wire.WRITE_EXCLUSIVE_ALL: ((False, True), (True, True)),
    pr_wire.EXCLUSIVE_ACCESS_ALL: ((False, False), (True, True)),
}


class Member:
    """A host of the cluster with its agent (inside/pr_agent.py)."""

    def __init__(self, host, lun):
        self.key = KEY[host.name]
        self.running = host.start(["python3", "-B", AGENT, SOCKET, lun], stdin=None)
        self.asked = 0

    def ask(self, *request):
        """What the agent says."""
        self.running.call.send_input(json.dumps(request).encode() + b"\n")
        self.asked += 1
        end = time.monotonic() + PATIENCE
        while self.running.out.count("\n") < self.asked:
            assert not self.running.ended(0.01), self.running.wait(1, check=False)
            assert time.monotonic() < end, f"no answer to {request}"
        return json.loads(self.running.out.splitlines()[self.asked - 1])

    def out(self, action, key=None, service_key=0, kind=0):
        """PERSISTENT RESERVE OUT with the host's own key; its status."""
        return self.ask("out", action, self.key if key is None else key, service_key, kind)[0]

    def allowed(self):
        """(write, read): whether the host may."""
        codes = self.ask("write"), self.ask("read")
        assert set(codes) <= {0, EBADE}
        return tuple(code == 0 for code in codes)


@pytest.fixture(scope="module", name="lab")
def fixture_lab(request):
    """A storage, and two hosts with a helper each."""
    with lab_for(request, hosts=3) as lab:
        lun = lab.iscsi()
        for host in (lab.h2, lab.h3):
            host.run(f"{host.plan.build}/holdfast-pr-helper -d -c /dev/null")
            host.write("/run/lun", lun)
        yield lab


@pytest.fixture(name="members")
def fixture_members(lab):
    """Both hosts' agents; no registration is left."""
    with ExitStack() as stack:
        members = [Member(host, host.read("/run/lun")) for host in (lab.h2, lab.h3)]
        for member in members:
            stack.callback(member.running.kill)
        first = members[0]
        assert first.out(REGISTER_AND_IGNORE, 0, first.key) == GOOD
        assert first.out(CLEAR) == GOOD
        yield members


@pytest.mark.parametrize("kind", TYPES)
def test_types(members, kind):
    """Each type of reservation stops the other host from what it says, and nothing else."""
    holder, other = members
    strangers, registrants = TYPES[kind]
    assert other.allowed() == (True, True)
    assert holder.out(REGISTER, 0, holder.key) == GOOD
    assert holder.out(RESERVE, kind=kind) == GOOD
    assert holder.ask("reservation") == [
        0 if kind in (pr_wire.WRITE_EXCLUSIVE_ALL, pr_wire.EXCLUSIVE_ACCESS_ALL) else holder.key,
        kind]
    assert holder.allowed() == (True, True)
    assert other.allowed() == strangers
    assert other.out(REGISTER, 0, other.key) == GOOD
    assert other.allowed() == registrants
    another = min(set(TYPES) - {kind})
    assert other.out(RESERVE, kind=another) == RESERVATION_CONFLICT
    assert sorted(other.ask("keys")) == [holder.key, other.key]
    assert holder.out(RELEASE, kind=kind) == GOOD
    assert other.allowed() == holder.allowed() == (True, True)


def test_conflicts(members):
    """What the other host has reserved is neither reserved, released nor cleared by strangers."""
    holder, other = members
    kind = pr_wire.WRITE_EXCLUSIVE
    assert holder.out(REGISTER, 0, holder.key) == GOOD
    assert holder.out(RESERVE, kind=kind) == GOOD
    for action in (RESERVE, RELEASE, CLEAR, PREEMPT):
        assert other.out(action, service_key=holder.key, kind=kind) == RESERVATION_CONFLICT
    assert other.out(REGISTER, 0, other.key) == GOOD
    assert other.out(RESERVE, kind=kind) == RESERVATION_CONFLICT
    # whoever does not hold it releases nothing, and that is no error (SPC-4, 5.13.11.2)
    assert other.out(RELEASE, kind=kind) == GOOD
    assert holder.ask("reservation") == [holder.key, kind]
    # a key that nobody has
    assert other.out(PREEMPT, service_key=0xdead, kind=kind) == RESERVATION_CONFLICT
    # of another type than it is (SPC-4 has INVALID RELEASE for that, LIO a conflict)
    assert holder.out(RELEASE, kind=pr_wire.EXCLUSIVE_ACCESS) in (CHECK_CONDITION,
                                                                  RESERVATION_CONFLICT)
    assert other.out(PREEMPT, service_key=holder.key, kind=kind) == GOOD
    assert other.ask("reservation") == [other.key, kind]
    assert holder.out(RESERVE, kind=kind) == RESERVATION_CONFLICT


def test_fencing(members):
    """PREEMPT AND ABORT ends a writing host's writes, for good."""
    victim, survivor = members
    kind = pr_wire.WRITE_EXCLUSIVE_REGISTRANTS
    for member in members:
        assert member.out(REGISTER, 0, member.key) == GOOD
    assert victim.out(RESERVE, kind=kind) == GOOD
    victim.ask("writer")
    assert survivor.allowed() == (True, True)
    assert survivor.out(PREEMPT_AND_ABORT, service_key=victim.key, kind=kind) == GOOD
    writes, code = victim.ask("fenced")
    assert writes > 0 and code == EBADE
    assert survivor.ask("keys") == [survivor.key]
    assert survivor.ask("reservation") == [survivor.key, kind]
    for _ in range(3):
        assert victim.allowed() == (False, True)
        assert survivor.allowed() == (True, True)
    # a fence lasts as long as nobody on that host registers again
    assert victim.out(REGISTER, 0, victim.key) == GOOD
    assert victim.allowed() == (True, True)
