# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fixtures of the scenarios: private daemons, and processes that play virtual machines."""

import pytest
from native import Daemons, Vm, lend


@pytest.fixture(name="start_daemon")
def fixture_start_daemon(workdir):
    """Starts daemons: start_daemon(name, setting=value, ...)."""
    yield from lend(Daemons, workdir, "holdfastd")


@pytest.fixture(name="daemon")
def fixture_daemon(start_daemon):
    """A daemon with its defaults."""
    return start_daemon(kill_timeout=1)


@pytest.fixture(name="client")
def fixture_client(daemon):
    """A connection to the daemon's native socket."""
    with daemon.client() as client:
        yield client


@pytest.fixture(name="start_vm")
def fixture_start_vm():
    """Starts processes that can own leases: start_vm(name)."""
    running = []

    def start_vm(name="web1", **options):
        running.append(Vm(name, **options))
        return running[-1]
    try:
        yield start_vm
    finally:
        for vm in running:
            vm.end()


@pytest.fixture(name="vm")
def fixture_vm(start_vm):
    """A process that can own leases."""
    return start_vm()


@pytest.fixture(name="other_vm")
def fixture_other_vm(start_vm):
    """Another process that can own leases."""
    return start_vm("db1")


@pytest.fixture(name="lockspace")
def fixture_lockspace(workdir):
    """A directory for lock files, with the file k."""
    path = workdir / "lockspace"
    path.mkdir()
    (path / "k").touch()
    return path
