# SPDX-License-Identifier: LGPL-2.1-or-later
"""The persistent-reservation helper on real LUNs (LIO), in guests."""

import pytest
from lab.fixtures import fixture_make_lab, lab_for  # noqa: F401

__all__ = ["fixture_make_lab"]
pytestmark = pytest.mark.xdist_group("lab-pr")


@pytest.fixture(scope="module", name="host")
def fixture_host(request):
    """A host with a LUN by LIO's loopback."""
    with lab_for(request, hosts=1) as lab:
        lab.h1.write("/run/lun", lab.h1.tcm_loop())
        lab.h1.write("/run/same-lun", lab.h1.tcm_loop(nexus=2))
        yield lab.h1


@pytest.mark.parametrize("test", ["pr_scsi.py", "pr_qemu.py"])
def test_lun(host, inside, test):
    """Commands, conflicts, parts of a LUN; and virtual machines of stock QEMU, their guests booted."""
    inside(host, test, HF_LUN=host.read("/run/lun"), HF_SAME_LUN=host.read("/run/same-lun"))


def test_stuck(make_lab, inside):
    """A command that never returns: the LUN cannot be used afterwards, so it is a host of its own."""
    host = make_lab(hosts=1).h1
    inside(host, "pr_stuck.py", HF_LUN=host.tcm_loop(), HF_OTHER="/dev/sda")
