# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs in a guest, on LIO LUNs: what a helper does with a SCSI disk, stock and ours."""

import os
import subprocess
import threading
from contextlib import ExitStack, contextmanager

import pr_rig
import pr_wire
import pytest
from pr_wire import (CHECK_CONDITION, CLEAR, GOOD, PREEMPT, PR_LENGTH_MAX, READ_FULL_STATUS,
                     READ_RESERVATION, REGISTER, REGISTER_AND_IGNORE, RELEASE,
                     REPORT_CAPABILITIES, RESERVATION_CONFLICT, RESERVE, Closed)
from waiting import wait_until

LUN = os.environ["HF_LUN"]
KEY_A, KEY_B = 0xa, 0xb
PATIENCE = 120.0        # for what an idle host does at once


@pytest.fixture(name="helper", params=pr_rig.HELPERS)
def fixture_helper(request, tmp_path):
    """A helper that serves."""
    with pr_rig.Helper(request.param, tmp_path) as helper:
        yield helper
        assert helper.end() == 0, helper.text()


@pytest.fixture(name="lun")
def fixture_lun():
    """The LUN without a registration, open as by QEMU."""
    fd = pr_wire.open_device(LUN)
    subprocess.run(["sg_persist", "--out", "--register-ignore", "--param-sark=0xffff", LUN],
                   check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["sg_persist", "--out", "--clear", "--param-rk=0xffff", LUN], check=True,
                   stdout=subprocess.DEVNULL)
    yield fd
    os.close(fd)


# ---- what both do --------------------------------------------------------------------------------

def test_life_of_a_reservation(helper, lun):
    """Register, reserve, read, change the key, release, unregister; conflicts are conflicts."""
    with helper.client() as client:
        assert client.read(lun).keys == []
        assert client.read(lun, READ_RESERVATION).reservation is None
        generation = client.read(lun).generation
        assert client.out(lun, REGISTER, 0, KEY_A).status == GOOD
        assert client.read(lun).keys == [KEY_A]
        assert client.read(lun).generation == generation + 1
        assert client.out(lun, RESERVE, KEY_A, kind=5).status == GOOD
        assert client.read(lun, READ_RESERVATION).reservation == (KEY_A, 5)
        assert client.out(lun, RESERVE, KEY_A, kind=1).status == RESERVATION_CONFLICT
        assert client.out(lun, REGISTER, KEY_B, 0).status == RESERVATION_CONFLICT
        assert client.out(lun, RELEASE, KEY_B, kind=5).status == RESERVATION_CONFLICT
        assert client.out(lun, REGISTER, KEY_A, KEY_B).status == GOOD
        assert client.read(lun).keys == [KEY_B]
        assert client.out(lun, RELEASE, KEY_B, kind=5).status == GOOD
        assert client.read(lun, READ_RESERVATION).reservation is None
        assert client.out(lun, REGISTER_AND_IGNORE, 0, KEY_A).status == GOOD
        assert client.out(lun, PREEMPT, KEY_A, KEY_B, kind=5).status == RESERVATION_CONFLICT
        assert client.out(lun, CLEAR, KEY_A).status == GOOD
        assert client.read(lun).keys == []


def test_answers_are_never_old(helper, lun):
    """What was changed before a question is in its answer, however many ask the same at once."""
    newest, faults, answers = [], [], [0] * 8
    done = threading.Event()

    def ask(number, client):
        while not done.is_set():
            least = newest[-1]
            found = client.read(lun).generation
            if found < least:
                faults.append((found, least))
            answers[number] += 1

    with ExitStack() as stack:
        client, *clients = [stack.enter_context(helper.client()) for _ in range(1 + len(answers))]
        newest.append(client.read(lun).generation)
        threads = [threading.Thread(target=ask, args=each) for each in enumerate(clients)]
        for thread in threads:
            thread.start()
        try:
            key = 0
            for number in range(1, 151):
                before = answers[number % len(answers)]
                assert client.out(lun, REGISTER, key, number).status == GOOD
                key = number
                newest.append(newest[-1] + 1)
                wait_until(lambda n=number, old=before: answers[n % len(answers)] > old, "an answer",
                           PATIENCE)
        finally:
            done.set()
            for thread in threads:
                thread.join(PATIENCE)
        assert not faults
        assert client.read(lun).generation == newest[-1]
        assert client.out(lun, CLEAR, key).status == GOOD


def test_sense_of_the_device(helper, lun):
    """What the device says is passed on: LIO's own word on wrong requests."""
    with helper.client() as client:
        for answer in (client.out(lun, REGISTER, 0, KEY_A, flags=0xff),
                       client.command(lun, pr_wire.cdb_out(REGISTER, length=10), bytes(10)),
                       client.command(lun, pr_wire.cdb_out(REGISTER, length=0)),
                       client.command(lun, pr_wire.cdb_out(31), bytes(24)),
                       client.read(lun, 31)):
            assert answer.status == CHECK_CONDITION
            assert answer.code.startswith("5/"), answer
        assert client.read(lun).keys == []


@pytest.mark.parametrize("length", [8, 24, 255, PR_LENGTH_MAX])
def test_allocation_length(helper, lun, length):
    """An answer is as long as was asked for, at most."""
    with helper.client() as client:
        assert client.out(lun, REGISTER, 0, KEY_A).status == GOOD
        answer = client.read(lun, length=length)
        assert answer.status == GOOD and 8 <= len(answer.data) <= length
        if length >= 16:
            assert answer.keys == [KEY_A]
        for action in (READ_RESERVATION, REPORT_CAPABILITIES, READ_FULL_STATUS):
            assert client.read(lun, action).status == GOOD
        assert client.out(lun, REGISTER, KEY_A, 0).status == GOOD


def test_read_only(helper):
    """A disk that was opened for reading only can be read."""
    fd = pr_wire.open_device(LUN, os.O_RDONLY)
    try:
        with helper.client() as client:
            assert client.read(fd).status == GOOD
            assert client.out(fd, REGISTER, 0, KEY_A).code == "5/20/00"
    finally:
        os.close(fd)


def test_restart(helper, lun):
    """Registration and reservation are the device's: a restart of the helper does not touch them."""
    with helper.client() as client:
        assert client.out(lun, REGISTER, 0, KEY_A).status == GOOD
        assert client.out(lun, RESERVE, KEY_A, kind=3).status == GOOD
    assert helper.end() == 0
    helper.start()
    with helper.client() as client:
        assert client.read(lun, READ_RESERVATION).reservation == (KEY_A, 3)
        assert client.out(lun, CLEAR, KEY_A).status == GOOD


def test_sg_device(helper, lun):
    """The character device of the LUN will do as well."""
    subprocess.run(["modprobe", "sg"], check=True)
    [name] = os.listdir(f"/sys/block/{os.path.basename(LUN)}/device/scsi_generic")
    fd = pr_wire.open_device(f"/dev/{name}")
    try:
        with helper.client() as client:
            assert client.out(fd, REGISTER, 0, KEY_A).status == GOOD
            assert client.read(lun).keys == [KEY_A]
            assert client.out(fd, REGISTER, KEY_A, 0).status == GOOD
    finally:
        os.close(fd)


# ---- what only ours does -------------------------------------------------------------------------

@contextmanager
def our_helper(directory, settings=""):
    """Our helper with settings."""
    with pr_rig.Helper("holdfast", directory, settings=settings) as helper:
        yield helper
        assert helper.end() == 0, helper.text()


@contextmanager
def slice_of_lun(kind):
    """A device that is a part of the LUN: a partition, or a dm-linear."""
    if kind == "partition":
        subprocess.run(["addpart", LUN, "1", "2048", "2048"], check=True)
        path = f"{LUN}1"
    else:
        subprocess.run(["modprobe", "dm_mod"], check=True)
        subprocess.run(["dmsetup", "create", "slice", "--table", f"0 2048 linear {LUN} 0"],
                       check=True)
        subprocess.run(["dmsetup", "mknodes"], check=True)
        path = "/dev/mapper/slice"
    wait_until(lambda: os.path.exists(path), path, PATIENCE)
    fd = pr_wire.open_device(path)
    try:
        yield fd
    finally:
        os.close(fd)
        if kind == "partition":
            subprocess.run(["delpart", LUN, "1"], check=True)
        else:
            subprocess.run(["dmsetup", "remove", "slice"], check=True)


@pytest.mark.parametrize("kind, setting", [("partition", "pr_allow_partitions"),
                                           ("dm-linear", "pr_allow_stacked")])
def test_part_of_a_lun(tmp_path, lun, kind, setting):
    """A part of a LUN could reserve all of it: refused unless the configuration allows it."""
    with slice_of_lun(kind) as part:
        with our_helper(tmp_path) as helper, helper.client() as client:
            for answer in (client.out(part, REGISTER, 0, KEY_A), client.read(part)):
                assert (answer.status, answer.code) == (CHECK_CONDITION, "5/20/00")
            assert client.read(lun).keys == []
        with our_helper(tmp_path, f"{setting} = 1\n") as helper, helper.client() as client:
            assert client.out(part, REGISTER, 0, KEY_A).status == GOOD
            assert client.read(lun).keys == [KEY_A]
            assert client.out(part, REGISTER, KEY_A, 0).status == GOOD


def test_many_at_once(tmp_path, lun):
    """16 connections to one LUN: each gets its own answers, commands that change alone."""
    with our_helper(tmp_path) as helper:
        errors = []

        def work(key):
            try:
                with helper.client() as client:
                    for _ in range(20):
                        assert client.out(lun, REGISTER_AND_IGNORE, 0, key).status == GOOD
                        assert len(client.read(lun).keys) == 1
            except (AssertionError, OSError, Closed) as error:
                errors.append(repr(error))
        threads = [threading.Thread(target=work, args=(100 + i,)) for i in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        with helper.client() as client:
            assert client.out(lun, REGISTER_AND_IGNORE, 0, 0).status == GOOD
