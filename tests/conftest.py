# SPDX-License-Identifier: LGPL-2.1-or-later
"""What all Python tests share: temporary directories, rigs, and what a skip means in CI."""

import os
import shutil
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).with_name("lib")))

# pylint: disable=wrong-import-position
import libvirt_rig
import lock_rig
from lock_table import held_locks
from waiting import wait_until

FAILED = pytest.StashKey[bool]()


def pytest_configure(config):
    """Our own marks."""
    config.addinivalue_line("markers", "long: takes minutes; not part of make check, see tests/run")


def _forbid_skip(report):
    """In CI nothing may be missing: make a skip a failure."""
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr[2]}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    """Judge a test's skip, and remember its failure for the fixtures' tearing down."""
    outcome = yield
    report = outcome.get_result()
    _forbid_skip(report)
    if report.failed:
        item.stash[FAILED] = True


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report():
    """Judge the skip of a whole file."""
    outcome = yield
    _forbid_skip(outcome.get_result())


def _temporary_directory():
    """A directory with a short path, as a socket's path must not exceed 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="hf-", dir="/tmp"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@pytest.fixture(scope="session", name="build_dir")
def fixture_build_dir():
    """Where our programs are built."""
    return lock_rig.build_dir()


@pytest.fixture(name="workdir")
def fixture_workdir():
    """A temporary directory for one test."""
    yield from _temporary_directory()


@pytest.fixture(scope="session", name="session_workdir")
def fixture_session_workdir():
    """A temporary directory for what several tests share."""
    yield from _temporary_directory()


@pytest.fixture(name="new_image")
def fixture_new_image(workdir):
    """Makes an empty disk image of 1 MiB: new_image(name) gives its path."""
    def new_image(name, uid=0):
        path = workdir / f"{name}.img"
        with path.open("xb") as image:
            image.truncate(1024 * 1024)
        if uid:
            os.chown(path, uid, uid)
        return path
    return new_image


@pytest.fixture(name="image")
def fixture_image(new_image):
    """A disk image."""
    return new_image("a")


@pytest.fixture(scope="session", params=lock_rig.DAEMONS, name="lock_daemon")
def fixture_lock_daemon(request):
    """The lock daemon under test: stock virtlockd, then ours."""
    return request.param


class RigPool:
    """Rigs that tests share one after the other; a test that fails breaks its rig."""

    def __init__(self, directory):
        self.directory = directory
        self.rigs = {}
        self.made = 0

    def lend(self, request, kind, daemon, lockd_conf=""):
        """Lend a libvirt rig to a test, and clean up behind the test."""
        reason = lock_rig.missing(daemon, *libvirt_rig.PROGRAMS, root=True)
        if reason:
            pytest.skip(reason)
        key = (kind, daemon, lockd_conf)
        if key not in self.rigs:
            self.made += 1
            self.rigs[key] = kind(daemon, self.directory / f"rig{self.made}", lockd_conf)
        rig = self.rigs[key]
        workdir = request.getfixturevalue("workdir")
        clean = False
        try:
            yield rig
            rig.reset()
            wait_until(lambda: not _locked(workdir), "the locks of all guests to be freed")
            clean = FAILED not in request.node.stash
        finally:
            if not clean:
                print(rig.logs())
                self.rigs.pop(key).close()

    def close(self):
        """End all rigs."""
        for rig in self.rigs.values():
            rig.close()


def _locked(directory):
    return [path for path in directory.rglob("*") if path.is_file() and held_locks(path)]


@pytest.fixture(scope="session", name="rig_pool")
def fixture_rig_pool(session_workdir):
    """The rigs that tests share."""
    with closing(RigPool(session_workdir)) as pool:
        yield pool


@pytest.fixture(name="rig")
def fixture_rig(request, rig_pool, lock_daemon):
    """Root's libvirtd with the lock daemon under test and the stock qemu-lockd.conf."""
    yield from rig_pool.lend(request, libvirt_rig.LibvirtRig, lock_daemon)


@pytest.fixture(name="holdfast_rig")
def fixture_holdfast_rig(request, rig_pool):
    """The same with our lock daemon only, for what stock does not do."""
    yield from rig_pool.lend(request, libvirt_rig.LibvirtRig, "holdfast")


@pytest.fixture(name="lockspace_dir")
def fixture_lockspace_dir(session_workdir, lock_daemon):
    """The directory for lock files of lockspace_rig."""
    return session_workdir / f"files-{lock_daemon}"


@pytest.fixture(name="lockspace_rig")
def fixture_lockspace_rig(request, rig_pool, lock_daemon, lockspace_dir):
    """Root's libvirtd with file_lockspace_dir in qemu-lockd.conf."""
    conf = f'file_lockspace_dir = "{lockspace_dir}"\n'
    yield from rig_pool.lend(request, libvirt_rig.LibvirtRig, lock_daemon, conf)


@pytest.fixture(name="session_rig")
def fixture_session_rig(request, rig_pool, lock_daemon):
    """A plain user's libvirtd, which starts the lock daemon under test by itself."""
    yield from rig_pool.lend(request, libvirt_rig.SessionRig, lock_daemon)
