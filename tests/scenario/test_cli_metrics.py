# SPDX-License-Identifier: LGPL-2.1-or-later
"""holdfast metrics in front of a daemon that only pretends: files, and daemons that are not there.

What is counted is in test_metrics.py.
"""

import json
import os
import threading

import pytest
# pylint: disable=unused-import
from cli_rig import fixture_daemon, fixture_holdfast, pytestmark
from scraping import Scrape

REPORT = {"version": "0.1.0", "since": "2026-01-31T10:42:07.123456Z", "connections": 1}
DOWN = "# TYPE holdfast_up gauge\n# HELP holdfast_up 1 if the daemon has answered.\n" \
       "holdfast_up 0\n# EOF\n"


@pytest.fixture(name="reporting")
def fixture_reporting(daemon):
    """The daemon, which answers query-metrics."""
    daemon.replies["query-metrics"] = REPORT
    return daemon


@pytest.fixture(name="textfiles")
def fixture_textfiles(workdir):
    """The directory that node_exporter would read."""
    path = workdir / "textfiles"
    path.mkdir()
    return path


def test_text_and_json(holdfast, reporting):
    """Text that ends with its end, or the daemon's own words."""
    result = holdfast("metrics")
    assert (result.returncode, result.stderr) == (0, "")
    seen = Scrape(result.stdout)
    assert (seen("up"), seen("connections")) == (1, 1)
    assert json.loads(holdfast("metrics", "--json").stdout) == REPORT
    assert reporting.requests == [("query-metrics", {})] * 2


def test_file(holdfast, reporting, textfiles):
    """--output writes the same text, for everybody to read, and leaves nothing else."""
    path = textfiles / "holdfast.prom"
    text = holdfast("metrics").stdout
    for _ in range(2):
        result = holdfast("metrics", "--output", path, umask=0o077)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
        assert path.read_text() == text
        assert path.stat().st_mode & 0o7777 == 0o644
    assert os.listdir(textfiles) == ["holdfast.prom"]
    assert reporting.requests
    assert holdfast("metrics", "-o", "here.prom").returncode == 0, "without a directory"
    assert (textfiles.parent / "here.prom").read_text() == text


def test_file_is_never_half(holdfast, reporting, textfiles):
    """Whoever reads while it is written sees the old text or the new one."""
    path = textfiles / "holdfast.prom"
    reporting.replies["query-metrics"] = {**REPORT, "lockspaces": [
        {"name": f"/space{number}", "driver": "lockd"} for number in range(500)]}
    holdfast("metrics", "--output", path)
    whole = path.read_text()
    done = threading.Event()
    torn = []

    def watch():
        while not done.is_set():
            if path.read_text() != whole:
                torn.append(path.read_text())
    thread = threading.Thread(target=watch)
    thread.start()
    for _ in range(20):
        holdfast("metrics", "--output", path)
    done.set()
    thread.join()
    assert not torn and len(whole) > 100000


def test_no_daemon(holdfast, workdir, textfiles):
    """Without a daemon: exit 1 and the usual words, and a file that says so."""
    path = textfiles / "holdfast.prom"
    path.write_text("holdfast_up 1\n")
    usual = holdfast("locks")
    for words in ((), ("--output", path)):
        result = holdfast("metrics", *words)
        assert (result.returncode, result.stdout, result.stderr) == (1, "", usual.stderr)
    assert str(workdir / "s") in usual.stderr
    assert path.read_text() == DOWN and Scrape(DOWN)("up") == 0
    assert json.loads(holdfast("--json", "metrics").stdout)["error"]["class"] == "Connection"


def test_daemon_that_cannot_tell(holdfast, daemon, textfiles):
    """A daemon of an earlier version is as good as none."""
    path = textfiles / "holdfast.prom"
    daemon.replies["query-metrics"] = ("error", {"class": "CommandNotFound", "desc": "no such",
                                                 "data": {}})
    result = holdfast("metrics", "--output", path)
    assert (result.returncode, result.stderr) == (1, "holdfast: no such\n")
    assert path.read_text() == DOWN


def test_file_that_cannot_be_written(holdfast, reporting, textfiles):
    """What is no place for a file is left alone, and said."""
    assert reporting
    result = holdfast("metrics", "--output", textfiles / "none" / "x.prom")
    assert result.returncode == 1
    assert f"cannot write {textfiles}/none/x.prom: No such file" in result.stderr
    (textfiles / "link").symlink_to("/dev/null")
    for path in (textfiles, textfiles / "link"):
        result = holdfast("metrics", "--output", path)
        assert result.returncode == 1 and "is not a regular file" in result.stderr
    assert os.listdir(textfiles) == ["link"] and os.readlink(textfiles / "link") == "/dev/null"


@pytest.mark.parametrize("words, complaint", [
    (("x",), "'x' is too much"),
    (("--output",), "needs an argument"),
    (("--json", "--output", "x"), "leave --json out"),
])
def test_usage(holdfast, words, complaint):
    """What cannot be meant."""
    result = holdfast("metrics", *words)
    assert result.returncode == 2 and complaint in result.stderr
