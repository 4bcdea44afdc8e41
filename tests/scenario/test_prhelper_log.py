# SPDX-License-Identifier: LGPL-2.1-or-later
"""The log of commands, as the confined helper writes it: to a file or to a journal, rotated, full."""

import json
import os
import signal
import subprocess
from contextlib import contextmanager

import pr_rig
import pr_wire
import pytest
from pr_wire import CHECK_CONDITION, PrClient
from waiting import DEADLINE, wait_until

PROGRAM = pr_rig.binary("holdfast")
NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="not root")
pytestmark = pytest.mark.skipif(bool(pr_rig.missing("holdfast")),
                                reason=str(pr_rig.missing("holdfast")))


@contextmanager
def helper(workdir, settings, *arguments):
    """A helper with these settings; its process, and a file with what it says."""
    conf, told = workdir / "pr.conf", workdir / "told"
    conf.write_text(settings, encoding="utf-8")
    with told.open("wb") as stream, subprocess.Popen(
            [PROGRAM, "-k", workdir / "pr.sock", "-c", conf, *arguments],
            stdin=subprocess.DEVNULL, stdout=stream, stderr=stream) as process:
        try:
            wait_until(lambda: "serving" in told.read_text() or process.poll() is not None,
                       "the helper to serve")
            assert process.poll() is None, told.read_text()
            yield process, told
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(DEADLINE)


def send(workdir, count=1, action=pr_wire.REGISTER):
    """PERSISTENT RESERVE OUT for something that is no disk: it is refused, and logged."""
    fd = os.open("/dev/null", os.O_RDWR)
    try:
        with PrClient(workdir / "pr.sock") as client:
            for _ in range(count):
                assert client.out(fd, action, 0, 0xa1).status == CHECK_CONDITION
    finally:
        os.close(fd)


def records(path):
    """The records in a JSON log."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("user", [(), pytest.param(("-u", str(NOBODY)), marks=needs_root)],
                         ids=["same-user", "other-user"])
def test_file(workdir, user):
    """Every command is in the file when its answer has come; after SIGHUP there is a new file."""
    logs = workdir / "logs"
    logs.mkdir()
    if user:
        workdir.chmod(0o755)
        os.chown(logs, NOBODY, NOBODY)
    log = logs / "pr.log"
    with helper(workdir, f'pr_log = "{log}"\npr_log_format = "json"\n', *user) as (process, _):
        send(workdir, 3)
        found = records(log)
        assert len(found) == 3
        assert {record["pid"] for record in found} == {os.getpid()}
        assert {record["uid"] for record in found} == {os.getuid()}
        assert found[0]["action"] == "REGISTER" and found[0]["service_key"] == "0xa1"
        assert found[0]["result"] == "CHECK CONDITION" and found[0]["verdict"] == "refused"
        log.rename(logs / "pr.log.1")
        process.send_signal(signal.SIGHUP)

        def is_there():
            send(workdir)
            return log.exists()
        wait_until(is_there, "a new file")
        before = len(records(log))
        send(workdir, 2)
        assert len(records(log)) == before + 2


@needs_root
@pytest.mark.parametrize("owner", [0, NOBODY], ids=["roots", "anothers"])
def test_link(workdir, owner):
    """A link in root's directory is root's will; in another's it leads root nowhere."""
    logs, target = workdir / "logs", workdir / "target"
    logs.mkdir()
    os.chown(logs, owner, owner)
    (logs / "pr.log").symlink_to(target)
    settings = f'pr_log = "{logs}/pr.log"\n'
    if owner == 0:
        with helper(workdir, settings):
            send(workdir)
        assert "action=REGISTER" in target.read_text()
        return
    (workdir / "pr.conf").write_text(settings, encoding="utf-8")
    result = subprocess.run([PROGRAM, "-k", workdir / "pr.sock", "-c", workdir / "pr.conf", "-u",
                             str(NOBODY)], capture_output=True, text=True, timeout=2 * DEADLINE,
                            check=False)
    assert result.returncode == 1 and "symbolic link" in result.stderr
    assert not target.exists()


def test_text(workdir):
    """Text is one line a command, and holdfast pr log reads it."""
    log = workdir / "pr.log"
    with helper(workdir, f'pr_log = "{log}"\n'):
        send(workdir, action=pr_wire.CLEAR)
    [line] = log.read_text().splitlines()
    assert " action=CLEAR " in line
    out = subprocess.run([PROGRAM.with_name("holdfast"), "--json", "pr", "log", "--file", log],
                         capture_output=True, text=True, check=True).stdout
    assert json.loads(out)["service_key"] == "0xa1"


def test_none(workdir):
    """No log, no trace."""
    with helper(workdir, 'pr_log = "none"\n') as (_, told):
        send(workdir)
    assert "cannot" not in told.read_text()


def test_full(workdir):
    """A full disk fails no command, and is reported once."""
    with helper(workdir, 'pr_log = "/dev/full"\n') as (_, told):
        send(workdir, 20)
        wait_until(lambda: "No space left" in told.read_text(), "a message")
        assert told.read_text().count("No space left") == 1


@pytest.mark.parametrize("log, says", [
    ("/nonexistent/pr.log", "cannot open the directory of pr_log"), ("/proc/pr.log", "cannot write")])
def test_impossible(workdir, log, says):
    """A file that cannot be written: the helper does not start."""
    conf = workdir / "pr.conf"
    conf.write_text(f'pr_log = "{log}"\n', encoding="utf-8")
    result = subprocess.run([PROGRAM, "-k", workdir / "pr.sock", "-c", conf], capture_output=True,
                            text=True, timeout=2 * DEADLINE, check=False)
    assert result.returncode == 1 and says in result.stderr


def test_mistakes_in_the_rules(workdir):
    """A wrong rule: the helper does not start, and says where it is; so does check-config."""
    conf = workdir / "pr.conf"
    conf.write_text('pr_rules = [ "device=*",\n  "keys=much" ]\n', encoding="utf-8")
    for command in ([PROGRAM, "-k", workdir / "pr.sock", "-c", conf],
                    [PROGRAM.with_name("holdfast"), "check-config", conf]):
        result = subprocess.run(command, capture_output=True, text=True, timeout=2 * DEADLINE,
                                check=False)
        assert result.returncode == 1
        assert f"{conf}:2: error: pr_rules: 'much' is no key" in result.stdout + result.stderr
