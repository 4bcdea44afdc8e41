# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of several hosts share."""

import os
from pathlib import Path

import pytest

INSIDE = Path(__file__).with_name("inside")
# Tests inside a guest take up to a minute on an idle host, several times that on a busy one.
INSIDE_LIMIT = 600.0


@pytest.fixture(name="inside")
def fixture_inside(record_property):
    """Runs a test of inside/ in a guest: inside(host, "systemd.py::test_crashes", NAME=value...)."""
    def run(host, test, **env):
        words = [f"{name}={value}" for name, value in env.items()]
        if "HF_SEED" in os.environ:
            words.append(f"HF_SEED={os.environ['HF_SEED']}")
        result = host.run(
            ["env", f"HF_BUILD={host.plan.build}", "CI=true", *words, "python3", "-B", "-m", "pytest", "-q",
             "-p", "no:cacheprovider", "-p", "no:xdist", "-rP", INSIDE / test],
            INSIDE_LIMIT, check=False)
        print(result.out, result.err)
        assert result.code == 0, f"inside {host}: {test} failed, its output is above"
        assert " passed" in result.out
        record_property("inside", result.out.splitlines()[-1])
    return run
