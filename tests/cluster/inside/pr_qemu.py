# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs in a guest: virtual machines of stock QEMU, without privileges, reserve their LUN by a helper.

Their guests are booted, and send the commands by themselves (lib/qemu_guest.py). There are two, each
an initiator of its own for the LUN, as on two hosts.
"""

import os
import socket
import subprocess

import pr_rig
import pytest
from pr_wire import (CLEAR, GOOD, PREEMPT, READ_KEYS, READ_RESERVATION, REGISTER,
                     REGISTER_AND_IGNORE, RELEASE, RESERVATION_CONFLICT, RESERVE, cdb_in, cdb_out,
                     parameters)
from qemu_guest import QemuGuest

LUN, SAME_LUN = os.environ["HF_LUN"], os.environ["HF_SAME_LUN"]
KEY, OTHER, THIRD = 0xc1, 0xa3, 0xc2
WRITE_10 = bytes([0x2a]) + bytes(7) + b"\x01\x00"
INQUIRY = bytes([0x12, 0, 0, 0, 96, 0])
RESTARTS = 3


def prepare(directory):
    """Let QEMU's user reach the directory; nothing is registered with the LUN."""
    for path in (directory, *list(directory.parents)[:2]):
        path.chmod(0o755)
    os.umask(0)
    for action in (("--register-ignore", "--param-sark=0xffff"), ("--clear", "--param-rk=0xffff")):
        subprocess.run(["sg_persist", "--out", *action, LUN], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["chown", "nobody", LUN, SAME_LUN], check=True)


def machine(directory, name, disk, helper_socket):
    """A virtual machine, booted."""
    place = directory / name
    place.mkdir(mode=0o777)
    return QemuGuest(place, disk, helper_socket)


@pytest.fixture(name="helper", params=pr_rig.HELPERS)
def fixture_helper(request, tmp_path):
    """A helper to which QEMU's user may connect."""
    prepare(tmp_path)
    with pr_rig.Helper(request.param, tmp_path) as helper:
        yield helper
        assert helper.end() == 0, helper.text()


@pytest.fixture(name="vm")
def fixture_vm(helper, tmp_path):
    """The machine that all is about."""
    with machine(tmp_path, "vm", LUN, helper.socket) as vm:
        yield vm


@pytest.fixture(name="other")
def fixture_other(helper, tmp_path):
    """Another member of its cluster."""
    with machine(tmp_path, "other", SAME_LUN, helper.socket) as vm:
        yield vm


def out(vm, action, key=0, service_key=0, kind=0):
    """PERSISTENT RESERVE OUT as the guest sends it; its status."""
    return vm.command(cdb_out(action, kind), parameters(key, service_key)).status


def read(vm, action=READ_KEYS):
    """PERSISTENT RESERVE IN."""
    answer = vm.command(cdb_in(action, 512), size=512)
    assert answer.status == GOOD, answer
    return answer


def write(vm):
    """Write a block as the guest does; the status."""
    return vm.command(WRITE_10, bytes(512)).status


def test_cluster_of_virtual_machines(helper, vm, other):
    """They register, reserve, read, preempt, release, unregister; conflicts are conflicts."""
    assert b"LIO-ORG" in vm.command(INQUIRY, size=96).data
    for machine_ in (vm, other):
        assert machine_.process.poll() is None and owner(machine_.process.pid) != 0
    assert read(vm).keys == []
    assert out(vm, REGISTER, 0, KEY) == GOOD
    assert out(vm, RESERVE, KEY, kind=5) == GOOD
    assert read(other).keys == [KEY]
    assert read(other, READ_RESERVATION).reservation == (KEY, 5)
    assert out(vm, RESERVE, KEY, kind=1) == RESERVATION_CONFLICT
    assert out(vm, REGISTER, OTHER, OTHER) == RESERVATION_CONFLICT
    assert write(vm) == GOOD

    assert write(other) == RESERVATION_CONFLICT                         # it is not registered
    assert out(other, RESERVE, OTHER, kind=5) == RESERVATION_CONFLICT
    assert out(other, REGISTER, 0, OTHER) == GOOD
    assert write(other) == GOOD
    assert sorted(read(vm).keys) == sorted([KEY, OTHER])

    assert helper.end() == 0
    helper.start()
    assert read(vm, READ_RESERVATION).reservation == (KEY, 5)
    assert write(vm) == GOOD

    assert out(vm, PREEMPT, KEY, OTHER, kind=5) == GOOD                 # the other one is fenced
    assert read(vm).keys == [KEY]
    assert write(other) == RESERVATION_CONFLICT
    assert out(other, RELEASE, OTHER, kind=5) == RESERVATION_CONFLICT
    assert out(other, REGISTER, 0, OTHER) == GOOD                       # back, it takes all
    assert out(other, PREEMPT, OTHER, KEY, kind=6) == GOOD
    assert read(other, READ_RESERVATION).reservation == (OTHER, 6)
    assert write(vm) == RESERVATION_CONFLICT

    assert out(vm, REGISTER_AND_IGNORE, 0, THIRD) == GOOD
    assert out(other, RELEASE, OTHER, kind=6) == GOOD
    assert read(vm, READ_RESERVATION).reservation is None
    assert out(other, REGISTER, OTHER, 0) == GOOD
    assert out(vm, REGISTER, THIRD, 0) == GOOD
    assert read(vm).keys == []
    assert vm.shut_down() == 0
    assert helper.text() == "" or "CRITICAL" not in helper.text()


def test_restarts_while_it_works(tmp_path):
    """The helper is restarted, as by systemd, in the middle of commands: the guest sees no error.

    Only ours: qemu-pr-helper drops its connections, and the guest gets INVALID FIELD IN CDB.
    """
    prepare(tmp_path)
    path = tmp_path / "activated.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(16)
        helper = pr_rig.activate("holdfast", listener)
        try:
            with machine(tmp_path, "vm", LUN, path) as vm:
                assert out(vm, REGISTER_AND_IGNORE, 0, KEY) == GOOD
                for _ in range(RESTARTS):
                    for _ in range(10):
                        assert read(vm).keys == [KEY]
                    # one is under way, or about to be
                    vm.start(cdb_in(READ_KEYS, 512), size=512)
                    helper.terminate()
                    helper.communicate(timeout=120)
                    helper = pr_rig.activate("holdfast", listener)
                    answer = vm.finish(512)
                    assert answer.status == GOOD and answer.keys == [KEY], answer
                    assert out(vm, REGISTER_AND_IGNORE, 0, KEY) == GOOD
                assert out(vm, CLEAR, KEY) == GOOD
        finally:
            helper.kill()
            helper.communicate()


def owner(pid):
    """The user as whom a process runs."""
    return os.stat(f"/proc/{pid}").st_uid
