# SPDX-License-Identifier: LGPL-2.1-or-later
"""The bench works: every row is measured, and the table, the JSON and the chart are written.

Nothing is said about times: those are for a quiet machine and for people.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import lock_rig
import pytest

RUN = Path(__file__).with_name("run")
LOAD = lock_rig.build_dir() / "tests" / "bench" / "load"

REASON = (lock_rig.missing("stock", "prlimit", root=True) or lock_rig.missing("holdfast")
          or (None if os.access(LOAD, os.X_OK) else "the load generator is not built"))
pytestmark = pytest.mark.skipif(bool(REASON), reason=str(REASON))


def test_quick_run(workdir):
    """One short round of everything."""
    result = subprocess.run(
        [sys.executable, "-B", RUN, "--quick", "--build", lock_rig.build_dir(), "--output",
         workdir], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
        check=False)
    assert result.returncode == 0, result.stderr
    document = json.loads((workdir / "benchmark.json").read_text(encoding="utf-8"))
    for row in document["rows"]:
        assert row["ours"]["median"] is not None or row["ours"]["never"], row["key"]
        assert row["title"] in result.stdout
    assert document["quick"] and document["machine"]["kernel"]
    chart = ElementTree.parse(workdir / "benchmark.svg").getroot()
    assert chart.tag.endswith("svg") and len(chart) > len(document["rows"])
    assert (workdir / "benchmark.txt").read_text(encoding="utf-8") in result.stdout


def test_rows_by_name():
    """Rows can be listed and chosen; an unknown one is an error."""
    def run(*arguments):
        return subprocess.run([sys.executable, "-B", RUN, *arguments], capture_output=True,
                              text=True, timeout=60, check=False)
    listed = run("--list", "--rows", "native")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [
        f"native-{disks}" for disks in (1, 2, 16, 64)]
    wrong = run("--rows", "nativ")
    assert wrong.returncode != 0 and "no row is called nativ" in wrong.stderr


def test_reservations(workdir):
    """The bench of the reservation helpers measures both, and leaves a table and JSON."""
    result = subprocess.run(
        [sys.executable, "-B", RUN.with_name("pr-bench"), "--no-lab", "--rounds", "1", "--seconds", "0.1",
         "--build", lock_rig.build_dir(), "--output", workdir], stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    assert (workdir / "reservations.txt").read_text(encoding="utf-8") == result.stdout
    document = json.loads((workdir / "reservations.json").read_text(encoding="utf-8"))
    for helper in ("stock", "holdfast"):
        for connections in ("1", "4", "16"):
            assert document["results"]["dispatch"][0][helper][connections]["n"] > 0
