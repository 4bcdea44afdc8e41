# SPDX-License-Identifier: LGPL-2.1-or-later
"""holdfast run in front of a daemon that only pretends: what it asks for, and what it becomes."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
# pylint: disable=unused-import
from cli_rig import UUID, fixture_daemon, fixture_holdfast, held, pytestmark, started
from waiting import wait_until


def test_run_becomes_the_command(holdfast, daemon):
    """The command is the process that asked, with its exit code, and the connection is closed."""
    result = holdfast("run", "-d", "/srv/a.img", "--", "sh", "-c", "echo $$; exit 7")
    assert result.returncode == 7 and not result.stderr
    daemon.wait_for_connections(0)
    assert daemon.requests == [("acquire", {
        "owner": {"pid": int(result.stdout), "name": "sh"},
        "disks": [{"path": "/srv/a.img", "mode": "exclusive"}]})]


def test_run_what_it_asks_for(holdfast, daemon, workdir):
    """Modes, relative paths, commas in paths, leases in both spellings."""
    (workdir / "there").mkdir()
    (workdir / "link").symlink_to("there")
    result = holdfast(
        "run", "-d", "/a,shared", "--disk=/b,ro", "-d/c,readonly", "-d", "/d,exclusive",
        "-d", "/e,f", "-d", "/g,ro,exclusive", "-d", "./h.img", "-d", "link/i.img",
        "-d", "../j.img", "-l", "/l:k", "-l", "/l/m/k,shared", "-l", "/l.d:k:1", "-l", "l:k,ro",
        "--name", "web1", "--uuid", UUID.upper().replace("-", ""), "--uri", "qemu:///system",
        "true")
    assert result.returncode == 0, result.stderr
    _, arguments = daemon.requests[0]
    assert [(d["path"], d["mode"]) for d in arguments["disks"]] == [
        ("/a", "shared"), ("/b", "readonly"), ("/c", "readonly"), ("/d", "exclusive"),
        ("/e,f", "exclusive"), ("/g,ro", "exclusive"), (f"{workdir}/h.img", "exclusive"),
        (f"{workdir}/link/i.img", "exclusive"), (f"{workdir}/../j.img", "exclusive")]
    assert [(e["lockspace"], e["key"], e["mode"]) for e in arguments["leases"]] == [
        ("/l", "k", "exclusive"), ("/l/m", "k", "shared"), ("/l.d", "k:1", "exclusive"),
        (f"{workdir}/l", "k", "readonly")]
    assert arguments["owner"].items() >= {"name": "web1", "uuid": UUID,
                                          "uri": "qemu:///system"}.items()


@pytest.mark.parametrize("words, name, uuid", [
    (("-name", "web1"), "web1", None),
    (("-name", "guest=web1,debug-threads=on", "-uuid", UUID), "web1", UUID),
    (("-name", ",process=x"), "qemu-fake", None),
    (("-name",), "qemu-fake", None),
    ((), "qemu-fake", None),
])
def test_run_default_name(holdfast, daemon, workdir, words, name, uuid):
    """A QEMU's own name and UUID; otherwise the program's name."""
    (workdir / "qemu-fake").symlink_to("/bin/true")
    assert holdfast("run", "-d", "/a", "./qemu-fake", *words).returncode == 0
    owner = daemon.requests[0][1]["owner"]
    assert (owner["name"], owner.get("uuid")) == (name, uuid)


INHERITED = """
import json, os, signal
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd")),
    "signals": [status[key].strip() for key in ("SigBlk", "SigIgn", "SigCgt")],
    "environ": dict(os.environ), "cwd": os.getcwd(), "stdin": os.read(0, 99).decode()}))
"""


def test_run_leaves_no_trace(holdfast, daemon):
    """Descriptors, signals, environment and input are the command's as they were holdfast's."""
    def change_signals():
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])

    inherited, other = os.pipe()
    options = {"pass_fds": [inherited], "preexec_fn": change_signals, "input": "hello",
               "stdin": None, "restore_signals": False}
    command = [sys.executable, "-c", INHERITED]
    plain = subprocess.run(command, check=True, capture_output=True, text=True,
                           **{**options, "env": dict(os.environ), "cwd": daemon.path[:-2]})
    result = holdfast("run", "-d", "/a", *command, **options)
    os.close(inherited)
    os.close(other)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == json.loads(plain.stdout)


def test_run_without_streams(holdfast, daemon):
    """Started with closed standard streams, the command has them closed, and nothing was said to
    the daemon but the request."""
    def close_streams():
        for fd in (0, 1, 2):
            os.close(fd)

    daemon.replies["acquire"] = ("error", {"class": "Busy", "desc": "busy", "data": {}})
    result = holdfast("run", "-d", "/a", "true", capture_output=False, stdin=None,
                      preexec_fn=close_streams)
    assert result.returncode == 75
    assert [command for command, _ in daemon.requests] == ["acquire"]


def test_run_with_children(holdfast, daemon):
    """The connection stays open until the last process that the command left has ended."""
    result = holdfast("run", "--with-children", "-d", "/a", "--", "sh", "-c",
                      "sleep 60 >/dev/null 2>&1 & echo $!", "-daemonize")
    assert result.returncode == 0, result.stderr
    assert daemon.requests[0][1]["owner"]["until"] == "connection"
    time.sleep(0.2)
    assert daemon.open_connections() == 1
    os.kill(int(result.stdout), signal.SIGKILL)
    daemon.wait_for_connections(0)


def test_run_cannot(holdfast, daemon, workdir):
    """A command that is not there is 127, one that cannot be run 126, as with env(1)."""
    result = holdfast("run", "-d", "/a", "no-such-command")
    assert result.returncode == 127
    assert "cannot run 'no-such-command': No such file or directory" in result.stderr
    daemon.leases.clear()
    assert holdfast("run", "-d", "/a", str(workdir)).returncode == 126
    daemon.wait_for_connections(0)


def test_run_refused(holdfast, daemon):
    """The daemon's sentence as it is, 75, and no command."""
    held(daemon)
    result = holdfast("run", "-d", "/srv/a.img", "echo", "started")
    assert result.returncode == 75 and not result.stdout
    assert result.stderr.splitlines() == [
        "holdfast: /srv/a.img is held by VM web1 (pid 4711)",
        "holdfast: hint: --wait SECONDS waits until it is free"]
    assert len(holdfast("-q", "run", "-d", "/srv/a.img", "true").stderr.splitlines()) == 1
    result = holdfast("run", "--json", "-d", "/srv/a.img", "echo", "started")
    assert result.returncode == 75 and not result.stdout
    error = json.loads(result.stderr)["error"]
    assert error["class"] == "Busy" and error["data"]["holders"][0]["name"] == "web1"


def test_run_wait(holdfast, daemon, workdir):
    """Who is waited for is told at once and again after 2 s; freed, it goes on."""
    with open(workdir / "log", "w+", encoding="utf-8") as log:
        held(daemon)
        with started("run", "-d", "/srv/a.img", "--wait", "90", "echo", "go",
                     stderr=log) as process:
            wait_until(lambda: "for VM web1 (pid 4711) on host n3 to let go of /srv/a.img" in
                       (workdir / "log").read_text(), "the first remark")
            wait_until(lambda: "still waiting for VM web1" in (workdir / "log").read_text(),
                       "the progress")
            held(daemon, name="web2", pid=4712)
            wait_until(lambda: "waiting up to 90 s for VM web2" in (workdir / "log").read_text(),
                       "the next holder")
            daemon.leases.clear()
            assert process.communicate(timeout=60)[0] == "go\n"
            assert process.returncode == 0
        seconds = re.search(r"\((\d+) s of 90 s\) still waiting for VM web1",
                            (workdir / "log").read_text())[1]
        assert int(seconds) >= 2


def test_run_wait_in_vain(holdfast, daemon):
    """The time is over: refused as without waiting. What is not busy is not waited for."""
    held(daemon)
    start = time.monotonic()
    result = holdfast("run", "-d", "/srv/a.img", "--wait", "2", "true")
    assert result.returncode == 75 and time.monotonic() - start >= 2
    assert result.stderr.splitlines()[-1] == "holdfast: /srv/a.img is held by VM web1 (pid 4711)"
    assert len(daemon.requests) > 3
    daemon.replies["acquire"] = ("error", {"class": "BadResource", "desc": "no\nsuch disk\033[1m",
                                           "data": {}})
    asked = len(daemon.requests)
    result = holdfast("run", "-d", "/srv/a.img", "--wait", "30", "true")
    assert result.returncode == 1 and len(daemon.requests) == asked + 1
    assert result.stderr == "holdfast: no\\x0asuch disk\\x1b[1m\n"


# ---- domains -----------------------------------------------------------------------------------

DOMAIN = f"""<domain type='kvm'><name>web1</name><uuid>{UUID}</uuid><devices>
<disk type='file' device='disk'><source file='/srv/a.img'/><target dev='vda'/></disk>
<disk type='file' device='cdrom'><source file='/srv/debian.iso'/><target dev='sda'/></disk>
<disk type='network' device='disk'><source protocol='rbd' name='p/i'/><target dev='vdb'/></disk>
<lease><lockspace>s</lockspace><key>k</key><target path='/leases'/></lease>
</devices></domain>"""


def test_domain(holdfast, daemon, workdir):
    """Disks, leases, name and UUID come from the domain; options win over it and add to it."""
    (workdir / "d.xml").write_text(DOMAIN)
    result = holdfast("run", "--domain", "d.xml", "--check", "off", "true")
    assert result.returncode == 0
    assert result.stderr == ("holdfast: warning: d.xml: disk vdb is of type 'network' and not "
                             "protected: only files and block devices are\n")
    _, arguments = daemon.requests[0]
    assert arguments["owner"].items() >= {"name": "web1", "uuid": UUID}.items()
    assert arguments["disks"] == [{"path": "/srv/a.img", "mode": "exclusive"},
                                  {"path": "/srv/debian.iso", "mode": "readonly"}]
    assert arguments["leases"] == [{"lockspace": "/leases/s", "key": "k", "mode": "exclusive"}]
    daemon.leases.clear()
    result = holdfast("acquire", "-q", "-p", "1", "-n", "x", "-d", "/b", "--domain", "-",
                      input=DOMAIN, stdin=None)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    _, arguments = daemon.requests[1]
    assert arguments["owner"] == {"pid": 1, "name": "x", "uuid": UUID}
    assert [disk["path"] for disk in arguments["disks"]] == ["/b", "/srv/a.img", "/srv/debian.iso"]


def test_domain_bad(holdfast, daemon, workdir):
    """A domain that is none is an error before anybody is asked."""
    for text, complaint in (("<network/>", "not <domain>"), ("<domain", "no well-formed XML"),
                            ("<!DOCTYPE x><domain/>", "document type declaration")):
        (workdir / "d.xml").write_text(text)
        result = holdfast("run", "--domain", "d.xml", "true")
        assert result.returncode == 1 and complaint in result.stderr
    assert "No such file" in holdfast("run", "--domain", "none.xml", "true").stderr
    assert not daemon.requests
    (workdir / "d.xml").write_text("<domain/>")
    result = holdfast("run", "--domain", "d.xml", "echo", "started")
    assert (result.returncode, result.stdout) == (0, "started\n")
    assert "nothing that can be locked" in result.stderr
    assert holdfast("acquire", "-p", "1", "--domain", "d.xml").returncode == 1
