# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs in a guest: a command that never returns. Afterwards the LUN is of no use any more."""

import os
import time

import pr_rig
import pr_wire
import pytest
from pr_wire import BUSY, GOOD, PREEMPT_AND_ABORT, REGISTER, RESERVE, Closed
from waiting import wait_until

LUN = os.environ["HF_LUN"]
KEY_A = 0xa
PATIENCE = 120.0        # for what an idle host does at once
GATE_PATIENCE = 5.0     # gate.h
GATE_ABANDON = 30.0


@pytest.fixture(name="lun")
def fixture_lun():
    """The LUN, open as by QEMU."""
    fd = pr_wire.open_device(LUN)
    yield fd
    os.close(fd)


def test_stuck_command(tmp_path, lun):
    """PREEMPT AND ABORT by LIO's loopback never returns: its own device alone has to wait."""
    other = pr_wire.open_device(os.environ["HF_OTHER"])
    helper = pr_rig.Helper("holdfast", tmp_path)
    clients = [helper.client() for _ in range(4)]
    stuck, second, third, free = clients
    assert stuck.out(lun, REGISTER, 0, KEY_A).status == GOOD
    assert stuck.out(lun, RESERVE, KEY_A, kind=5).status == GOOD
    healthy = free.read(other)
    began = time.monotonic()
    stuck.send(pr_wire.cdb_out(PREEMPT_AND_ABORT, 5), lun)
    stuck.send(pr_wire.parameters(KEY_A, KEY_A))
    wait_until(lambda: in_d_state(helper), "the command to hang", PATIENCE)

    second.send(pr_wire.cdb_in(0), lun)
    for _ in range(50):
        assert free.read(other) == healthy
    # bounded: its patience and what a busy host adds
    assert second.answer().status == BUSY
    assert time.monotonic() - began > GATE_PATIENCE - 1
    # and at once from now on, on this and on new connections
    for client in (third, second, third):
        assert client.read(lun).status == BUSY
    assert free.read(other) == healthy

    # QEMU does not have to wait for ever: its connection is closed, and it connects again
    with pytest.raises(Closed):
        stuck.receive(1)
    assert time.monotonic() - began > GATE_ABANDON - 1
    with helper.client() as again:
        assert again.read(lun).status == BUSY
        assert again.read(other) == healthy
    assert "has not returned" in helper.text() and "BUSY" in helper.text()

    # the end is bounded as well; the next helper serves, and finds the device as it is
    helper.process.terminate()
    wait_until(lambda: not helper.socket.exists(), "the socket to be removed", PATIENCE)
    with pytest.raises((Closed, OSError)):
        free.read(other)
    successor = pr_rig.Helper("holdfast", tmp_path)
    with successor.client() as client:
        assert client.read(other) == healthy
    assert successor.end() == 0


def in_d_state(helper):
    """Whether one of its threads waits where no signal reaches it."""
    for task in helper.proc("task").iterdir():
        stat = (task / "stat").read_text(encoding="ascii")
        if stat.rpartition(")")[2].split()[0] == "D":
            return True
    return False
