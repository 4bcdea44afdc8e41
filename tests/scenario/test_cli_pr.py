# SPDX-License-Identifier: LGPL-2.1-or-later
"""holdfast pr: the log of persistent reservations, and what devices say."""

import datetime
import json
import os
import time

import pytest
# pylint: disable=unused-import
from cli_rig import fixture_daemon, fixture_holdfast, pytestmark, started
from waiting import wait_until

TEXT = ('2026-01-31T09:42:07.123456Z vm=web1 pid=4711 uid=64055 gid=64055 cgroup=/m.slice/web1.scope '
        'device=naa.6001405aa disk=dm-3 kind=multipath action=PREEMPT type=WERO key=0xa '
        'service_key=0xb result=GOOD status=0 verdict=allowed backend=mpath latency_usec=48211\n')
JSON = {"time": "2026-01-31T10:00:00.000001Z", "vm": "db 1", "pid": 4712, "uid": 0, "gid": 0,
        "device": "naa.6001405bb", "disk": "sdc", "kind": "scsi", "action": "CLEAR", "key": "0xc",
        "service_key": "0x0", "result": "CHECK CONDITION", "status": 2, "sense": "5/20/02",
        "verdict": "refused", "reason": "this VM must not clear reservations",
        "latency_usec": 90}
ODD = ('2026-01-31T11:00:00.000000Z vm="a\\u001b[31m \\"b\\"" pid=1 uid=0 gid=0 kind=scsi '
       'action="REGISTER AND IGNORE EXISTING KEY" key=0x0 service_key=0xd '
       'result="RESERVATION CONFLICT" status=24 verdict=allowed latency_usec=1\n')


@pytest.fixture(name="log")
def fixture_log(workdir):
    """A log in both formats."""
    path = workdir / "pr.log"
    path.write_text(TEXT + json.dumps(JSON) + "\n" + ODD)
    return path


def records(result):
    """What --json has printed."""
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_log_for_people(holdfast, log):
    """A line for each record, safe for a terminal."""
    result = holdfast("pr", "log", "--file", log)
    assert result.returncode == 0 and not result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == ("2026-01-31 09:42:07  web1 (pid 4711)  PREEMPT WERO by 0xa of 0xb  on dm-3 "
                        "naa.6001405aa: GOOD, 48.2 ms")
    assert lines[1] == ("2026-01-31 10:00:00  db 1 (pid 4712)  CLEAR by 0xc  on sdc naa.6001405bb: "
                        "CHECK CONDITION 5/20/02, 0.1 ms; this VM must not clear reservations")
    assert lines[2].startswith('2026-01-31 11:00:00  a\\u001b[31m "b" (pid 1)  '
                               "REGISTER AND IGNORE EXISTING KEY -> 0xd  on -: RESERVATION CONFLICT")


def test_log_as_json(holdfast, log):
    """Both formats become the same objects."""
    first, second, third = records(holdfast("--json", "pr", "log", "--file", log))
    assert second == JSON
    assert first["key"] == "0xa" and first["pid"] == 4711 and first["latency_usec"] == 48211
    assert third["vm"] == 'a\x1b[31m "b"' and third["status"] == 24


@pytest.mark.parametrize("arguments, actions", [
    (("--vm", "web1"), ["PREEMPT"]),
    (("--vm", "*1"), ["PREEMPT", "CLEAR"]),
    (("--device", "naa.6001405b*"), ["CLEAR"]),
    (("--device", "/dev/dm-3"), ["PREEMPT"]),
    (("--device", "sdc", "--vm", "web1"), []),
    (("--since", "2026-01-31 10:00"), ["CLEAR", "REGISTER AND IGNORE EXISTING KEY"]),
    (("--since", "2026-01-31T10:00:01Z"), ["REGISTER AND IGNORE EXISTING KEY"]),
    (("--since", "2026-01-31"), ["PREEMPT", "CLEAR", "REGISTER AND IGNORE EXISTING KEY"]),
    (("--since", "2026-02-01"), []),
    (("--since", "1s"), []),
])
def test_log_filters(holdfast, log, arguments, actions):
    """Only what was asked for."""
    found = records(holdfast("--json", "pr", "log", "--file", log, *arguments))
    assert [record["action"] for record in found] == actions


@pytest.mark.parametrize("text, seconds", [("90s", 90), ("10min", 600), ("-2h", 7200), ("3d", 259200)])
def test_log_ages(holdfast, workdir, text, seconds):
    """An age counts from now."""
    log = workdir / "pr.log"
    now = datetime.datetime.now(datetime.timezone.utc)
    times = [now - datetime.timedelta(seconds=seconds + 20),
             now - datetime.timedelta(seconds=seconds - 60)]
    log.write_text("".join(json.dumps({**JSON, "time": t.isoformat().replace("+00:00", "Z")}) + "\n"
                           for t in times))
    assert len(records(holdfast("--json", "pr", "log", "--file", log, "--since", text))) == 1


@pytest.mark.parametrize("since", ["", "tomorrow", "10", "1y", "2026-13-01", "25:00", "10:4", "2026-01-31 x"])
def test_log_bad_time(holdfast, log, since):
    """What is no time is an error of usage."""
    result = holdfast("pr", "log", "--file", log, "--since", since)
    assert result.returncode == 2 and "is no time" in result.stderr


def test_log_of_other_lines(holdfast, workdir):
    """Lines that are no records are counted, and harm nothing."""
    log = workdir / "pr.log"
    log.write_bytes(b"rubbish\n{\"time\": 1}\n[]\n\xff\xfe\n2026-01-31T09:42:07Z x\n\n" + TEXT.encode())
    result = holdfast("pr", "log", "--file", log)
    assert result.returncode == 0 and len(result.stdout.splitlines()) == 1
    assert "5 lines of " in result.stderr


def test_log_without_a_match(holdfast, log):
    """Nothing to show is said so, and is no failure."""
    result = holdfast("pr", "log", "--file", log, "--vm", "nobody")
    assert (result.returncode, result.stdout) == (0, "")
    assert f"no such records in {log}" in result.stderr
    assert holdfast("pr", "log", "--quiet", "--file", log, "--vm", "nobody").stderr == ""


def test_log_missing(holdfast, workdir):
    """A file that is not there."""
    result = holdfast("pr", "log", "--file", workdir / "none")
    assert result.returncode == 1 and "No such file" in result.stderr
    result = holdfast("--json", "pr", "log", "--file", workdir / "none")
    assert json.loads(result.stdout)["error"]["class"] == "Log"


def test_log_follow(workdir, log):
    """What is written later comes at once, also after the file was rotated."""
    out = workdir / "out"
    with out.open("w", encoding="utf-8") as stream, \
            started("--json", "pr", "log", "--follow", "--file", log, stdout=stream):
        def has(count):
            wait_until(lambda: len(out.read_text().splitlines()) >= count, f"{count} records")
            assert len(out.read_text().splitlines()) == count
        has(3)
        with log.open("a") as writer:
            writer.write(TEXT[:40])
            writer.flush()
            time.sleep(0.6)  # half a line must not be taken for a whole one
            writer.write(TEXT[40:])
        has(4)
        log.rename(workdir / "pr.log.1")
        log.write_text(TEXT)
        has(5)


def test_log_from_the_journal(holdfast, workdir, monkeypatch):
    """The journal is asked for our records, since then."""
    fields = {"time": JSON["time"], "action": "CLEAR", "vm": "web2", "pid": "17", "device": "naa.1",
              "result": "GOOD", "status": "0", "verdict": "allowed", "latency_usec": "5"}
    entry = {"MESSAGE": "x", "_PID": "1", **{f"HOLDFAST_PR_{name.upper()}": value
                                            for name, value in fields.items()}}
    journalctl = workdir / "journalctl"
    journalctl.write_text(f"#!/bin/sh\nprintf '%s ' \"$@\" >{workdir}/asked\n"
                          f"cat <<'EOF'\n{json.dumps(entry)}\nEOF\n")
    journalctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{workdir}:{os.environ['PATH']}")
    result = holdfast("--json", "pr", "log", "--since", "2026-01-31 09:00")
    if "pr_log" in result.stdout + result.stderr:
        pytest.skip("this machine's holdfast.conf names another log")
    [record] = records(result)
    assert record["pid"] == 17 and record["vm"] == "web2" and record["latency_usec"] == 5
    asked = (workdir / "asked").read_text()
    assert "MESSAGE_ID=" in asked and "--since=@1769850000" in asked
    journalctl.write_text("#!/bin/sh\nexit 3\n")
    assert holdfast("pr", "log").returncode == 1


@pytest.mark.parametrize("arguments", [
    (), ("lag",), ("log", "sda"), ("status",), ("status", "--follow", "/dev/null"),
    ("status", "--since", "1h", "/dev/null")])
def test_usage(holdfast, arguments):
    """What makes no sense is an error of usage."""
    result = holdfast("pr", *arguments)
    assert result.returncode == 2 and "Try 'holdfast help pr'" in result.stderr


def test_status_of_no_device(holdfast, workdir):
    """Each thing that cannot be asked is named with its reason."""
    result = holdfast("pr", "status", "/dev/null", workdir / "none", workdir)
    assert result.returncode == 1 and not result.stdout
    lines = result.stderr.splitlines()
    assert "/dev/null: not a block device" in lines[0]
    assert "No such file" in lines[1] and "not a block device" in lines[2]
