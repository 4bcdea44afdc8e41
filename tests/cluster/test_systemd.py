# SPDX-License-Identifier: LGPL-2.1-or-later
"""The shipped units under a real systemd: crashes, restarts, upgrades, mistakes. See inside/*systemd.py."""

import pytest
from lab.fixtures import lab_for

pytestmark = pytest.mark.xdist_group("systemd")

TESTS = ("test_crashes_and_restarts_under_load", "test_upgrade_and_back", "test_broken_configuration",
         "test_repeated_crashes_do_not_end_it", "test_socket_activation_of_virtlockds_socket")

HELPER_TESTS = ("test_first_command_starts_it", "test_sandbox", "test_restarts_with_guests",
                "test_mistake_in_the_configuration")


@pytest.fixture(scope="module", name="lab")
def fixture_lab(request):
    """A host with systemd, and the build installed in it."""
    with lab_for(request, systemd=["h1"], memory=768) as lab:
        lab.h1.install()
        lab.h1.run("systemctl enable --now holdfastd.socket holdfast-virtlockd.socket")
        yield lab


@pytest.mark.parametrize("test", TESTS)
def test_under_systemd(lab, inside, test):
    """A test that runs in the guest."""
    inside(lab.h1, f"systemd.py::{test}")


@pytest.fixture(scope="module", name="lun")
def fixture_lun(lab):
    """A LUN, and the socket of the reservation helper, enabled."""
    lab.h1.run("systemctl enable --now holdfast-pr-helper.socket")
    return lab.h1.tcm_loop()


@pytest.mark.parametrize("test", HELPER_TESTS)
def test_helper_under_systemd(lab, inside, lun, test):
    """The same for the reservation helper."""
    inside(lab.h1, f"pr_systemd.py::{test}", HF_LUN=lun)
