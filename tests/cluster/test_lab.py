# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lab itself: that it runs what it is told, and that what it breaks is broken and heals."""

import threading
import time

import pytest
from lab import CommandFailed, LabError, NoContact
from lab.fixtures import lab_for
from waiting import wait_until

pytestmark = pytest.mark.xdist_group("lab")

HANGS = 3.0     # a direct read takes some ms; that it does not end in this time shows that it hangs
READ = "dd if=/dev/sda of=/dev/null bs=4096 count=1 iflag=direct"
PATIENCE = 120.0


@pytest.fixture(scope="module", name="lab")
def fixture_lab(request):
    """Two hosts that all tests here share."""
    with lab_for(request, hosts=2, nvme=True) as lab:
        yield lab


@pytest.fixture(autouse=True)
def fixture_whole(lab):
    """A test finds both hosts on."""
    for host in lab.hosts:
        if not host.on:
            host.power_on()


def test_a_commands_output_and_code_come_back(lab):
    """Output, errors and exit code are the command's own."""
    result = lab.h1.run("echo out; echo err >&2; exit 7", check=False)
    assert (result.out, result.err, result.code) == ("out\n", "err\n", 7)
    assert lab.h1.run(["printf", "%s", "a b"]).out == "a b"
    assert lab.h1.run("kill -9 $$", check=False).code == 137
    assert lab.h1.run(["no-such-program"], check=False).code == 127
    with pytest.raises(CommandFailed, match=r"h1: 'echo sorry; false' ended with 1\nsorry"):
        lab.h1.run("echo sorry; false")


def test_input_reaches_a_command(lab):
    """More than fits a pipe goes in and comes out."""
    data = "0123456789abcdef" * 20000
    assert lab.h1.run(["cat"], stdin=data).out == data
    lab.h1.write("/tmp/some/file", "text\n", mode="600")
    assert lab.h1.read("/tmp/some/file") == "text\n"
    assert lab.h1.out("stat -c %a /tmp/some/file") == "600"


def test_a_command_that_is_not_waited_for_any_more_is_killed(lab):
    """A time limit ends the command with all its children."""
    with pytest.raises(CommandFailed, match="did not end within 2 s"):
        lab.h1.run("sleep 7777 & sleep 7777", timeout=2)
    lab.h1.wait_for("! pgrep -f '[s]leep 7777'")


def test_hosts_have_names_and_know_each_other(lab):
    """hostname, /etc/hosts, clocks that agree."""
    assert {name: result.text for name, result in lab.run("hostname").items()} == {"h1": "h1", "h2": "h2"}
    _reach(lab.h1)
    clocks = lab.each(lambda host: (time.time(), float(host.out("date +%s.%N")), time.time()))
    for before, theirs, after in clocks:
        assert before - 2 < theirs < after + 2


def test_the_tree_and_the_build_are_there_read_only(lab, build_dir):
    """The host's root can be read; what a guest writes stays in it."""
    lab.h1.run(["test", "-x", build_dir / "holdfastd"])
    lab.h1.run(["test", "-f", f"{__file__}"])
    assert lab.h1.run(["touch", build_dir / "lab-was-here"], check=False).code == 1
    lab.h1.run("echo only here > /etc/lab-was-here")
    assert lab.h2.run(["test", "-e", "/etc/lab-was-here"], check=False).code == 1
    assert lab.h1.run(["test", "-e", "/host/etc/lab-was-here"], check=False).code == 1


def test_the_hosts_files_are_seen_live(lab, workdir):
    """/host shows what changes on this machine."""
    path = workdir / "note"
    path.write_text("1", encoding="utf-8")
    assert lab.h1.read(f"/host{path}") == "1"
    path.write_text("22", encoding="utf-8")
    lab.h1.wait_for(f"test $(cat /host{path}) = 22")


@pytest.mark.parametrize("disk", ["/dev/sda", "/dev/nvme0n1"])
def test_the_shared_disks_are_shared(lab, disk):
    """What one host writes the other reads."""
    text = f"written at {time.time()}"
    lab.h1.run(f"dd of={disk} bs=4096 conv=sync oflag=direct", stdin=text)
    assert text in lab.h2.run(f"dd if={disk} bs=4096 count=1 iflag=direct").out


def test_a_power_cut_loses_memory_and_keeps_disks(lab):
    """Only what was on a disk is there after it; the other host runs on."""
    lab.h2.run("echo x > /root/lost; dd of=/dev/vdb bs=512 conv=sync oflag=direct", stdin="kept")
    boots, others = lab.h2.boots, lab.h1.out("cat /proc/sys/kernel/random/boot_id")
    lab.h2.power_cut()
    assert not lab.h2.on
    with pytest.raises(NoContact, match="h2 is off"):
        lab.h2.run("true")
    with pytest.raises(LabError, match="h2 is off"):
        lab.h2.power_cut()
    lab.h2.power_on()
    assert lab.h2.boots == boots + 1
    assert lab.h2.run("test -e /root/lost", check=False).code == 1
    assert lab.h2.out("head -c 4 /dev/vdb") == "kept"
    assert lab.h1.out("cat /proc/sys/kernel/random/boot_id") == others
    assert "h2 power cut" in lab.events()


def test_a_host_that_is_reset_boots_again(lab):
    """The reset button, and a reset from inside (a watchdog's is the same)."""
    boot_id = lab.h2.out("cat /proc/sys/kernel/random/boot_id")
    lab.h2.reboot()
    second = lab.h2.out("cat /proc/sys/kernel/random/boot_id")
    assert second != boot_id
    boots = lab.h2.boots
    lab.h2.start("echo b > /proc/sysrq-trigger")
    wait_until(lambda: lab.h2.boots == boots + 1, "another boot", PATIENCE)
    lab.h2.wait_up()


def _reaches(host, name):
    return host.run(f"busybox ping -c 1 -W 2 {name}", check=False).code == 0


def _reach(host, *names):
    for name in names or ("h2", "h2-b"):
        wait_until(lambda name=name: _reaches(host, name), f"contact with {name}", PATIENCE)


def test_a_partition_is_silent_and_heals(lab):
    """Nothing passes, the NIC notices nothing, commands still work; then all is as before."""
    _reach(lab.h1)
    lab.h2.partition()
    assert not _reaches(lab.h1, "h2")
    assert not _reaches(lab.h1, "h2-b")
    assert lab.h2.out("cat /sys/class/net/lan0/carrier") == "1"
    lab.h2.heal()
    _reach(lab.h1)


def test_one_lan_can_be_cut_alone_with_its_carrier(lab):
    """The other LAN works on."""
    lab.h2.partition(lan=1, carrier=True)
    assert not _reaches(lab.h1, "h2-b")
    _reach(lab.h1, "h2")
    assert lab.h2.out("cat /sys/class/net/lan1/carrier") == "0"
    lab.h2.heal(lan=1)
    _reach(lab.h1)


@pytest.mark.parametrize("stall", [False, True])
def test_a_frozen_host_does_nothing_until_it_is_thawed(lab, stall):
    """It does not answer; what was under way goes on later."""
    lab.h2.freeze(stall)
    answer = []

    def ask():
        answer.append(lab.h2.start("true", contact=PATIENCE).wait(PATIENCE).code)
    asking = threading.Thread(target=ask)
    asking.start()
    try:
        asking.join(HANGS)
        assert not answer
    finally:
        lab.h2.thaw()
        asking.join(PATIENCE)
    assert answer == [0]


@pytest.mark.parametrize("how", ["hang", "error", "unplug"])
def test_storage_breaks_for_one_host_and_heals(lab, how):
    """The shared disk hangs, fails or goes away, and comes back; the other host sees nothing."""
    for host in lab.hosts:
        host.run(READ)
    # the guest's kernel does not lose patience before it is healed, however slow all is
    lab.h2.run("echo 600 > /sys/block/sda/device/timeout")
    lab.h2.storage_cut(how)
    if how == "unplug":
        lab.h2.wait_for("! test -e /dev/sda")
    reading = lab.h2.start(READ)
    if how == "hang":
        assert not reading.ended(within=HANGS)
    else:
        assert reading.wait(check=False).code == 1
    lab.h1.run(READ)
    lab.h2.storage_heal()
    if how == "hang":
        assert reading.wait(PATIENCE).code == 0
    lab.h2.wait_for(READ, PATIENCE)
