# SPDX-License-Identifier: LGPL-2.1-or-later
"""The persistent-reservation helper on real LUNs (LIO), in guests."""

import pytest
from lab.fixtures import lab_for

pytestmark = pytest.mark.xdist_group("lab-pr")


@pytest.fixture(scope="module", name="host")
def fixture_host(request):
    """A host with a LUN by LIO's loopback, and another disk."""
    with lab_for(request, hosts=1) as lab:
        lab.h1.write("/run/lun", lab.h1.tcm_loop())
        yield lab.h1


def test_scsi(host, inside):
    """One LUN: commands, conflicts, parts of a LUN, a command that never returns."""
    inside(host, "pr_scsi.py", HF_LUN=host.read("/run/lun"), HF_OTHER="/dev/sda")
