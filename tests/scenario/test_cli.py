# SPDX-License-Identifier: LGPL-2.1-or-later
"""The holdfast command in front of a daemon that only pretends: usage, and all verbs but run.

What it asks for, what it prints, and how it ends. The verb run is in test_cli_run.py, the real
daemon in test_cli_daemon.py, the completions are in test_cli_completion.py.
"""

import json
import os
import pty
import re
import subprocess
import sys

import pytest
# pylint: disable=unused-import
from cli_rig import (HOLDFAST, UUID, fixture_daemon, fixture_holdfast, held, pytestmark,
                     started)
from fake_holdfastd import SINCE, holder
from waiting import wait_until

def on_terminal(*words, **environment):
    """Output of the command on a terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update({"TERM": "xterm", **environment})
        os.execv(HOLDFAST, [str(HOLDFAST), *words])
    output = b""
    try:
        while chunk := os.read(terminal, 65536):
            output += chunk
    except OSError:
        pass  # the other side was closed
    os.close(terminal)
    os.waitpid(pid, 0)
    return output.decode()


# ---- usage -------------------------------------------------------------------------------------

VERBS = ("run", "acquire", "release", "locks", "who", "status", "metrics", "watch", "drivers", "pr",
         "image", "check-config", "help", "version")


@pytest.mark.parametrize("verb", VERBS)
def test_help(holdfast, verb):
    """Every verb explains itself, without a daemon, in each of three ways."""
    texts = {holdfast(*words).stdout for words in (("help", verb), (verb, "--help"), (verb, "-h"))}
    assert len(texts) == 1 and texts.pop().startswith(f"Usage: holdfast {verb}")
    assert f"\n  {verb} " in holdfast("--help").stdout


@pytest.mark.parametrize("words, complaint", [
    ((), "Usage: holdfast"),
    (("lcoks",), "there is no verb 'lcoks'; did you mean 'locks'?"),
    (("frobnicate",), "there is no verb 'frobnicate'\n"),
    (("a\033[31m",), "there is no verb 'a\\u001b[31m'"),
    (("--jsno", "locks"), "unknown option '--jsno'; did you mean '--json'?"),
    (("run", "--dsik", "/a", "true"), "unknown option '--dsik'; did you mean '--disk'?"),
    (("run", "-x"), "unknown option '-x'"),
    (("run", "--disk"), "option '--disk' needs an argument"),
    (("locks", "--json=1"), "option '--json=1' takes no argument"),
    (("run", "-d", "/a"), "which command is to run?"),
    (("run", "true"), "there is nothing to lock"),
    (("run", "-d", "", "true"), "'' is no disk"),
    (("run", "-d", "nbd://h/x", "true"), "is a network disk"),
    (("run", "-d", "rbd:pool/image", "true"), "is a network disk"),
    (("run", "-l", "k", "true"), "'k' is no lease"),
    (("run", "-l", "/l/", "true"), "'/l/' is no lease"),
    (("run", "-d", "/a", "--wait", "soon", "true"), "'soon' is no number of seconds"),
    (("run", "-d", "/a", "--wait", "-1", "true"), "'-1' is no number of seconds"),
    (("run", "-d", "/a", "--uuid", "4711", "true"), "'4711' is no UUID"),
    (("run", "-d", "/a", "qemu-system-x86_64", "-daemonize"), "add --with-children"),
    (("run", "-d", "/a", "--", "x", "--daemonize"), "add --with-children"),
    (("acquire", "-d", "/a"), "for which process?"),
    (("acquire", "-p", "1"), "there is nothing to lock"),
    (("acquire", "-p", "0", "-d", "/a"), "'0' is no process id"),
    (("acquire", "-p", "1", "/a"), "'/a' is too much"),
    (("release", "-p", "1"), "what is to be released?"),
    (("release", "-p", "1", "-d", "/a", "--all"), "--all goes with neither"),
    (("release", "--all"), "of which process?"),
    (("locks", "/a"), "'/a' is too much"),
    (("locks", "-p", "x"), "'x' is no process id"),
    (("who",), "one disk or one --lease"),
    (("who", "/a", "/b"), "one disk or one --lease"),
    (("watch", "x"), "'x' is too much"),
    (("help", "lcoks"), "there is no verb 'lcoks'"),
])
def test_usage(holdfast, words, complaint):
    """Wrong usage: a complaint on standard error, exit code 2, and nobody was asked."""
    result = holdfast(*words)
    assert result.returncode == 2
    assert complaint in result.stderr and not result.stdout
    assert "\033" not in result.stderr


def test_version(holdfast):
    """The version, in three ways."""
    text = holdfast("version").stdout
    assert re.fullmatch(r"holdfast \S+ \(native protocol 1\)\n", text)
    assert holdfast("--version").stdout == text
    assert json.loads(holdfast("version", "--json").stdout)["protocol"] == 1


def test_no_daemon(holdfast, workdir):
    """Without a daemon: where it was looked for, and what to do."""
    result = holdfast("locks")
    assert result.returncode == 1
    assert result.stderr.startswith("holdfast: no Holdfast daemon listens on " + str(workdir / "s"))
    assert "systemctl" in result.stderr
    result = holdfast("--json", "locks")
    assert result.returncode == 1 and not result.stderr
    assert json.loads(result.stdout)["error"]["class"] == "Connection"


def test_not_a_daemon(holdfast, workdir):
    """Something else listens there."""
    with subprocess.Popen([sys.executable, "-c", "import socket, sys\n"
                           "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()\n"
                           "print('listens', flush=True)\n"
                           "c, _ = s.accept(); c.sendall(b'220 mail\\r\\n'); c.recv(1)",
                           workdir / "s"], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout.readline() == "listens\n"
            result = holdfast("locks")
        finally:
            server.kill()
    assert result.returncode == 1
    assert "is not a Holdfast daemon" in result.stderr


def test_global_options(holdfast, daemon, workdir):
    """They may stand before and after the verb; --socket wins over the environment."""
    daemon.stop()
    daemon.path = str(workdir / "other")
    daemon.start()
    for words in (("--socket", daemon.path, "--json", "locks"),
                  ("locks", "--json", f"--socket={daemon.path}")):
        assert json.loads(holdfast(*words).stdout) == {"leases": []}


def test_standard_output_full(holdfast, daemon):
    """An answer that could not be written is a failure."""
    held(daemon)
    with open("/dev/full", "w", encoding="utf-8") as full:
        result = holdfast("locks", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 1
    assert "cannot write to standard output: No space left on device" in result.stderr


def test_progress(holdfast, daemon):
    """What takes longer than 2 s says so, unless it is to be quiet."""
    daemon.delay = 2.6
    daemon.replies["query-disk"] = ("error", {"class": "Internal", "desc": "no", "data": {}})
    assert holdfast("who", "-q", "/a").stderr == "holdfast: no\n"
    daemon.delay = 5  # long enough for a busy machine to say so, once
    told = r"holdfast: \([2-9] s\) waiting for the daemon's answer"
    assert re.fullmatch(told + "\nholdfast: no\n", holdfast("who", "/a").stderr)
    assert re.search("\r" + told + "\r\033\\[K", on_terminal("who", "/a"))


# ---- the other verbs ---------------------------------------------------------------------------

def test_acquire_release(holdfast, daemon):
    """For another process, and back."""
    result = holdfast("acquire", "-p", "4711", "-d", "/srv/a.img", "-n", "web1")
    assert result.stdout == "/srv/a.img: exclusive, held by VM web1 (pid 4711)\n"
    result = holdfast("--json", "acquire", "-p", "4712", "-d", "/srv/a.img")
    assert result.returncode == 75
    assert json.loads(result.stdout)["error"]["class"] == "Busy"
    result = holdfast("release", "-p", "4711", "-d", "/srv/a.img,shared", "-l", "/l:k")
    assert result.stdout == "released: 1\n"
    assert daemon.requests[-1] == ("release", {
        "owner": {"pid": 4711}, "disks": [{"path": "/srv/a.img"}],
        "leases": [{"lockspace": "/l", "key": "k"}]})
    assert json.loads(holdfast("release", "-p1", "-a", "--json").stdout) == {"released": 0}
    assert daemon.requests[-1] == ("release", {"owner": {"pid": 1}})
    daemon.replies["release"] = ("error", {"class": "NotHeld", "desc": "not held", "data": {}})
    result = holdfast("release", "-p", "1", "--all")
    assert (result.returncode, result.stderr) == (1, "holdfast: not held\n")


def test_locks(holdfast, daemon):
    """A table; names that others chose cannot play tricks with the terminal."""
    assert holdfast("locks").stderr == "holdfast: no locks\n"
    held(daemon)
    held(daemon, "/srv/\033[2J\u202e\x9b.img", "w\nb", 5)
    held(daemon, None, None, 6, uuid=UUID)
    daemon.leases[-1].update(lockspace="/locks", key="k", mode="shared")
    held(daemon, "/srv/日本.img", None, 7)
    result = holdfast("locks")
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    since = "2026-01-31 10:42:07"
    assert [re.split("  +", line) for line in lines] == [
        ["DISK", "MODE", "VM", "PID", "SINCE", "LOCKSPACE"],
        ["/srv/a.img", "exclusive", "web1", "4711", since, "(the disk itself)"],
        ["/srv/\\u001b[2J\\u202e\\u009b.img", "exclusive", "w\\u000ab", "5", since,
         "(the disk itself)"],
        ["/locks/k", "shared", UUID, "6", since, "/locks"],
        ["/srv/日本.img", "exclusive", "-", "7", since, "(the disk itself)"]]
    # The columns stand one below the other; a wide character takes two places.
    assert len({line.index(since) + line.count("日本") * 2 for line in lines[1:]}) == 1
    assert json.loads(holdfast("locks", "--json").stdout) == {"leases": daemon.leases}
    holdfast("locks", "--pid", "5", "--uuid", UUID)
    assert daemon.requests[-1] == ("query-leases", {"pid": 5, "uuid": UUID})


def test_locks_odd(holdfast, daemon):
    """A daemon's odd answer is printed as far as it goes; nothing crashes."""
    for odd in ({}, {"leases": None}, {"leases": [1, None, {}, {"owner": 3, "since": "x"}]}, []):
        daemon.replies["query-leases"] = odd
        assert holdfast("locks").returncode == 0


def test_who(holdfast, daemon):
    """A sentence, and a code for scripts."""
    lease = held(daemon, uuid=UUID)
    answer = {"disk": "/srv/a.img", "state": "held", "resources": [], "holders": [holder(lease)]}
    daemon.replies["query-disk"] = lambda _: answer
    result = holdfast("who", "/srv/a.img")
    assert result.returncode == 75
    assert result.stdout == (f"/srv/a.img is held by VM web1 (uuid {UUID}, pid 4711) on host n3 "
                             "since 2026-01-31 10:42:07 UTC in exclusive mode\n")
    assert daemon.requests[-1] == ("query-disk", {"disk": "/srv/a.img"})
    assert json.loads(holdfast("--json", "who", "/srv/a.img").stdout) == answer
    assert holdfast("who", "-q", "/srv/a.img").stdout == ""
    answer["holders"] = [{"name": None, "pid": None, "source": "kernel"}]
    assert holdfast("who", "/srv/a.img").stdout == "/srv/a.img is held by somebody\n"
    answer["holders"] = []
    assert "cannot be seen from here" in holdfast("who", "/srv/a.img").stdout
    answer["state"] = "shared"
    result = holdfast("who", "/srv/a.img")
    assert result.returncode == 75 and result.stdout.endswith("; readers may join\n")
    answer.update(state="free", holders=[])
    result = holdfast("who", "--lease", "/l:k")
    assert (result.returncode, result.stdout) == (0, "/l/k is free\n")
    assert daemon.requests[-1] == ("query-disk", {"lease": {"lockspace": "/l", "key": "k"}})
    daemon.replies["query-disk"] = {}
    assert holdfast("who", "/a").returncode == 1


STATUS = {"version": "0.1.0", "protocol": 1, "host": "n3", "pid": 812, "since": SINCE,
          "sockets": [{"path": "/run/holdfast/holdfast.sock", "protocol": "native"}],
          "connections": 3, "owners": 2, "leases": 4,
          "lockspaces": [
              {"name": "/locks", "driver": "lockd", "leases": 4, "health": "ok", "threads": 1,
               "queued": 0, "running": 0},
              {"name": "direct:/srv", "driver": "lockd", "leases": 0, "health": "stuck",
               "operation": "acquire", "since": SINCE, "threads": 1, "queued": 3, "running": 1}],
          "owners-stopping": [{"name": "web9", "pid": 99}]}
DRIVERS = {"drivers": [
    {"name": "lockd", "description": "locks\nfiles", "version": "0.1.0", "builtin": True,
     "path": None, "capabilities": ["shared", "survives"], "default": True},
    {"name": "x", "description": "", "version": "2", "builtin": False, "path": "/x.so",
     "capabilities": [], "default": False}]}


def test_status(holdfast, daemon):
    """The daemon, its drivers, its lockspaces and what is wrong with them."""
    daemon.replies = {"query-status": STATUS, "query-drivers": DRIVERS}
    text = holdfast("status").stdout
    for line in ("daemon       holdfastd 0.1.0 on host n3, pid 812, since 2026-01-31 10:42:07",
                 "socket       /run/holdfast/holdfast.sock (native)",
                 "leases       4", "drivers      lockd 0.1.0 (default), x 2",
                 "stopping     VM web9 (pid 99) lost its connection and is being ended",
                 "/locks       lockd        4       0        0  ok",
                 "direct:/srv  lockd        0       3        1  stuck: acquire since "
                 "2026-01-31 10:42:07"):
        assert line in text.splitlines()
    assert json.loads(holdfast("status", "--json").stdout) == {**STATUS, **DRIVERS}


def test_drivers(holdfast, daemon):
    """key=value lines, whatever a driver says of itself."""
    daemon.replies = {"query-drivers": DRIVERS}
    lockd = ["name=lockd", "description=locks\\u000afiles", "version=0.1.0", "builtin=yes", "path=",
             "default=yes", "capabilities=shared,survives"]
    other = ["name=x", "description=", "version=2", "builtin=no", "path=/x.so", "default=no",
             "capabilities="]
    assert holdfast("drivers").stdout.splitlines() == [*lockd, "", *other]
    assert holdfast("drivers", "x").stdout.splitlines() == other
    result = holdfast("drivers", "y")
    assert (result.returncode, result.stdout) == (1, "")
    assert "'y'; 'holdfast drivers' shows" in result.stderr
    assert json.loads(holdfast("drivers", "--json").stdout) == DRIVERS


def test_watch(holdfast, daemon, workdir):
    """Events as they come, over a restart of the daemon."""
    with open(workdir / "log", "w", encoding="utf-8") as log, started(
            "watch", "-e", "lease-acquired", "-e", "OWNER_GONE", stderr=log) as process:
        wait_until(lambda: daemon.subscribers, "the subscription")
        assert daemon.requests == [("subscribe", {"events": ["LEASE_ACQUIRED", "OWNER_GONE"]})]
        lease = held(daemon)
        for name, data, line in (
                ("LEASE_ACQUIRED", lease, "/srv/a.img exclusive VM web1 (pid 4711)"),
                ("LEASE_RELEASED", {**lease, "reason": "owner-gone"},
                 "/srv/a.img exclusive VM web1 (pid 4711): owner-gone"),
                ("LEASE_REFUSED", {**lease, "class": "Busy", "desc": "it is\nheld"},
                 "/srv/a.img exclusive VM web1 (pid 4711): it is\\u000aheld"),
                ("OWNER_GONE", lease["owner"], "VM web1 (pid 4711)"),
                ("NEW_ONE", {"a": 1}, '{"a":1}')):
            daemon.send_event({"event": name, "data": data, "timestamp": SINCE})
            assert process.stdout.readline() == f"2026-01-31 10:42:07 {name} {line}\n"
        daemon.stop()
        daemon.start()
        assert "EVENTS_LOST some events are missing here" in process.stdout.readline()
        daemon.send_event({"event": "OWNER_GONE", "data": lease["owner"], "timestamp": SINCE})
        assert "OWNER_GONE VM web1" in process.stdout.readline()
    assert (workdir / "log").read_text().count("connecting again") == 1
    daemon.wait_for_connections(0)
    with started("watch", "--json") as process:
        wait_until(lambda: daemon.subscribers, "the subscription")
        event = {"event": "OWNER_GONE", "data": {}, "timestamp": SINCE}
        daemon.send_event(event)
        assert json.loads(process.stdout.readline()) == event
        process.stdout.close()
        daemon.send_event(event)
        assert process.wait(timeout=60) != 0


def test_check_config(holdfast, workdir):
    """Files are read as what they are called; errors have file and line."""
    (workdir / "holdfast.conf").write_text("request_timeout = 30\n")
    (workdir / "x.conf").write_text("\nrequest_timeuot = 30\n")
    (workdir / "qemu-lockd.conf").write_text("auto_disk_leases = 1\n")
    (workdir / "virtlockd.conf").write_text("max_clients = \"x\"\n")
    result = holdfast("check-config", "holdfast.conf", "qemu-lockd.conf")
    assert (result.returncode, result.stdout) == (0, "holdfast.conf: ok\nqemu-lockd.conf: ok\n")
    result = holdfast("check-config", "x.conf")
    assert result.returncode == 1
    assert result.stdout.startswith("x.conf:2: error: ") and "request_timeout" in result.stdout
    assert "virtlockd.conf:1: error: " in holdfast("check-config", "virtlockd.conf").stdout
    result = holdfast("--json", "check-config", "x.conf", "holdfast.conf")
    files = json.loads(result.stdout)["files"]
    assert [(file["file"], file["ok"]) for file in files] == [("x.conf", False),
                                                            ("holdfast.conf", True)]
    assert files[0]["problems"][0]["line"] == 2
    assert holdfast("check-config", "none.conf").returncode == 1
    assert holdfast("check-config").returncode in (0, 1)


def test_colour(holdfast, daemon):
    """Colours are for terminals only, and for those who want them."""
    held(daemon)
    assert "\033" not in holdfast("locks").stdout
    assert "\033[1m" in on_terminal("locks")
    for text in (on_terminal("locks", "--no-color"), on_terminal("locks", NO_COLOR="1"),
                 on_terminal("locks", TERM="dumb"), on_terminal("--json", "locks")):
        assert "\033" not in text
