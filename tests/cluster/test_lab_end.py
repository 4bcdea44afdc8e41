# SPDX-License-Identifier: LGPL-2.1-or-later
"""A lab's end: nothing is left, however it comes; what is of use to somebody is kept."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from lab import Lab, LabError, boot
from waiting import wait_until

pytestmark = pytest.mark.xdist_group("lab-end")

TREE = Path(__file__).resolve().parents[2]
COMMAND = TREE / "tests" / "lab" / "lab"
PATIENCE = 120.0

# A test's process that has a lab whose host has just been switched on.
TEST = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
sys.path.insert(0, sys.argv[1])
from lab import Lab
with Lab(1, boot_now=False) as lab:
    lab.h1.power_on(wait=False)
    print(lab.directory, flush=True)
    {then}
"""


@pytest.fixture(autouse=True)
def fixture_possible():
    """All that a lab needs."""
    if boot.missing():
        pytest.skip(boot.missing())


def processes(directory):
    """The processes that have a lab's directory in their arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(directory) in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            pass
    return found


def start_test(then="time.sleep(600)"):
    """Start a process with a lab; the process, and the lab's directory."""
    # pylint: disable-next=consider-using-with
    process = subprocess.Popen([sys.executable, "-B", "-c", TEST.format(then=then), TREE / "tests"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)
    directory = process.stdout.readline().strip()
    assert directory, process.communicate()[1]
    assert len(processes(directory)) >= 4, "a keeper, a QEMU and two virtiofsd"
    return process, directory


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_when_the_tests_process_is_ended(number):
    """The guests go with it, and so does the directory."""
    process, directory = start_test()
    process.send_signal(number)
    process.communicate(timeout=PATIENCE)
    wait_until(lambda: not processes(directory), "all of the lab to end", PATIENCE)
    wait_until(lambda: not os.path.exists(directory), "the directory to go", PATIENCE)


def test_the_guests_die_with_their_keeper():
    """Nobody is left to end them later."""
    process, directory = start_test()
    try:
        keeper = next(pid for pid in processes(directory)
                      if b"lab.keeper" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(keeper, signal.SIGKILL)
        wait_until(lambda: not processes(directory), "all of the lab to end", PATIENCE)
    finally:
        process.kill()
        process.communicate()
        shutil.rmtree(directory)


def test_an_orderly_end_leaves_nothing():
    """No process, no directory, no word."""
    process, directory = start_test("sys.stdin.read()")
    assert process.communicate(timeout=PATIENCE) == ("", "")
    assert process.returncode == 0
    assert not processes(directory)
    assert not os.path.exists(directory)


def test_a_failure_keeps_the_logs_and_tells_where():
    """Consoles and events are kept, disks are not."""
    process, directory = start_test("lab.h1.wait_up(); assert False, 'on purpose'")
    said = process.communicate(timeout=PATIENCE)[1]
    try:
        assert f"lab: consoles and logs are kept in {directory}" in said
        kept = {path.name for path in Path(directory).iterdir()}
        assert {"h1.console", "h1.state", "events.log", "keeper.log"} <= kept
        assert not any(name.endswith("img") for name in kept)
        assert "h1 is set up" in (Path(directory) / "h1.console").read_text(encoding="utf-8")
        assert "==== dmesg" in (Path(directory) / "h1.state").read_text(encoding="utf-8")
        assert not processes(directory)
    finally:
        shutil.rmtree(directory)


def test_what_is_missing_is_named(monkeypatch):
    """A lab that cannot be says what to install; bad options say what is bad."""
    with pytest.raises(LabError, match="'12X' is no size; write it as 256M"):
        Lab(1, shared="12X")
    with pytest.raises(LabError, match="there is no host h4 to run systemd"):
        Lab(2, systemd=["h4"])
    monkeypatch.setattr(boot, "PATH", "/nowhere")
    with pytest.raises(LabError, match="is not installed: apt-get install"):
        Lab(1)


def lab_command(*words, run=None, stdin=""):
    """Call the command; its result."""
    env = {key: value for key, value in os.environ.items() if key != "LAB_RUN"}
    return subprocess.run([COMMAND, *words], capture_output=True, text=True, check=False, input=stdin,
                          env={**env, "LAB_RUN": run} if run else env, timeout=600)


def test_the_command_line_does_it_all():
    """up, exec, sh, status, qmp, power-cut, down; wrong words are told."""
    up = lab_command("up", "1")
    assert up.returncode == 0, up.stderr
    run = re.fullmatch(r"export LAB_RUN=(\S+)\n", up.stdout)[1]
    try:
        done = lab_command("exec", "-i", "h1", "cat; echo err >&2; exit 3", run=run, stdin="in")
        assert (done.stdout, done.stderr, done.returncode) == ("in", "err\n", 3)
        assert lab_command("exec", "h1", "echo", "a  b", run=run).stdout == "a  b\n"
        assert lab_command("exec", "-t", "1", "h1", "sleep 99", run=run).returncode == 124
        assert lab_command("sh", "hostname", run=run).stdout == "h1: h1\n"
        assert re.fullmatch(r"h1 on boots=1 pid=\d+\n", lab_command("status", run=run).stdout)
        assert '"running"' in lab_command("qmp", "h1", "query-status", run=run).stdout
        wrong = lab_command("exec", "h2", "true", run=run)
        assert (wrong.returncode, wrong.stderr) == (255, "lab: there is no host h2; there are h1\n")
        assert lab_command("power-cut", "h1", run=run).returncode == 0
        assert lab_command("exec", "h1", "true", run=run).returncode == 255
        assert "h1 power cut" in lab_command("events", run=run).stdout
        assert "h1 is set up" in lab_command("console", "h1", run=run).stdout
    finally:
        assert lab_command("down", run=run).returncode == 0
    assert not processes(run)
    assert not os.path.exists(run)
    gone = lab_command("status", run=run)
    assert (gone.returncode, gone.stderr) == (255, f"lab: no lab in {run}\n")
