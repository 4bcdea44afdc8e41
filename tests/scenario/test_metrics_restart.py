# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a daemon counts that took leases over from an earlier one."""

import pytest
from scraping import scrape, wait_scrape
# pylint: disable-next=unused-import
from vault_rig import KeptDaemon, fixture_start_daemon


@pytest.mark.parametrize("end", [KeptDaemon.crash, KeptDaemon.restart], ids=["crash", "restart"])
def test_adoptions(daemon, vm, new_image, end):
    """Leases that outlive a daemon are the next one's adoptions; counters begin anew."""
    disks = [new_image("a"), new_image("b")]
    with daemon.client() as client:
        client.acquire(vm, *disks)
    before = scrape(daemon)
    assert before("vault_info", supervisor="keeper") == 1
    assert before("vault_descriptors") >= 3 and before("ledger_bytes") > 200
    end(daemon)
    after = wait_scrape(daemon, lambda now: now.total("leases_adopted_total") == 2,
                        "both leases to be adopted")
    assert after("start_time_seconds") > before("start_time_seconds")
    assert after.total("leases", mode="exclusive") == 2
    assert after.total("acquisitions_total") == after.total("leases_lost_total") == 0
    with daemon.client() as client:
        client.release(vm)
    after = scrape(daemon)
    assert (after.total("leases"), after.total("releases_total")) == (0, 2)


def test_lost_lease(daemon, vm, image, workdir):
    """A lock file that was replaced while no daemon ran: one lease is lost, one adopted."""
    space = workdir / "space"
    space.mkdir()
    (space / "k").touch()
    with daemon.client() as client:
        client.acquire(vm, image, leases=[(space, "k")])
    daemon.kill_frozen()
    (space / "k").unlink()
    (space / "k").touch()
    daemon.thaw()
    seen = wait_scrape(daemon, lambda now: now.total("leases_lost_total")
                       + now.total("leases_adopted_total") == 2, "both leases to be looked at")
    assert seen("leases_lost_total", driver="lockd", lockspace=str(space)) == 1
    assert seen.total("leases_lost_total") == seen.total("leases_adopted_total") == 1
