# SPDX-License-Identifier: LGPL-2.1-or-later
"""holdfast run --check: a domain's images, with the formats that its XML tells."""

import json

import forge_iso
import forge_qcow2
import pytest
# pylint: disable=unused-import
from cli_rig import fixture_daemon, fixture_holdfast, pytestmark


def disk(path, kind="qcow2", more="", device="disk"):
    """A <disk>; without a type if `kind` is empty."""
    driver = f"<driver name='qemu' type='{kind}'/>" if kind else ""
    return (f"<disk type='file' device='{device}'>{driver}<source file='{path}'/>{more}"
            "<target dev='vda'/></disk>")


@pytest.fixture(name="start")
def fixture_start(holdfast, daemon, workdir):
    """Runs `true` with a domain of these disks: start(disk, ..., options=(...))."""
    (workdir / "good").write_bytes(forge_qcow2.image())
    (workdir / "bad").write_bytes(forge_qcow2.with_name(b"/etc/passwd"))
    (workdir / "raw").write_bytes(bytes(1 << 20))
    (workdir / "iso").write_bytes(forge_iso.image())

    def start(*disks, options=()):
        daemon.leases.clear()
        (workdir / "domain").write_text(
            f"<domain><name>web1</name><devices>{''.join(disks)}</devices></domain>")
        return holdfast("run", "--domain", "domain", *options, "--", "echo", "started")
    return start


def test_safe(start, workdir):
    """What is safe is nobody's business."""
    result = start(disk(workdir / "good"), disk(workdir / "raw", "raw"), disk(workdir / "raw", ""),
                   disk(workdir / "iso", "raw", device="cdrom"),
                   "<disk type='file' device='cdrom'><target dev='vdb'/></disk>",
                   options=("--check", "enforce"))
    assert result.stdout == "started\n" and not result.stderr and result.returncode == 0


def test_warn(start, workdir):
    """By default, and with --check warn, the command starts with a warning."""
    for options in ((), ("--check", "warn")):
        result = start(disk(workdir / "bad"), disk(workdir / "good"), options=options)
        assert result.stdout == "started\n" and result.returncode == 0
        assert result.stderr == (
            f"holdfast: warning: the image {workdir}/bad, format qcow2, is not safe: "
            "backing-file: The image has a backing file, '/etc/passwd'.\n")
    assert not start(disk(workdir / "bad"), options=("--quiet",)).stderr


def test_off(start, workdir):
    """Or without one."""
    result = start(disk(workdir / "bad"), options=("--check", "off"))
    assert result.stdout == "started\n" and not result.stderr


def test_enforce(start, workdir, daemon):
    """With enforce it does not start, and the locks end with the process."""
    result = start(disk(workdir / "good"), disk(workdir / "bad"), options=("--check", "enforce"))
    assert result.returncode == 1 and not result.stdout
    assert "backing-file" in result.stderr and daemon.requests
    assert "hint: 'holdfast image check' tells where" in result.stderr
    result = start(disk(workdir / "bad"), options=("--check", "enforce", "--json"))
    error = json.loads(result.stderr)["error"]
    assert result.returncode == 1 and error["class"] == "UnsafeImage" and "/etc/passwd" in \
        error["desc"]


@pytest.mark.parametrize("name, kind, device, complaint", [
    ("good", "raw", "disk", "also-qcow2"),
    ("good", "", "disk", "also-qcow2"),
    ("raw", "qcow2", "disk", "wrong-format"),
    ("iso", "raw", "disk", "also-iso"),
    ("good", "raw", "cdrom", "also-qcow2"),
    ("good", "rbd", "disk", "format rbd, cannot be checked"),
    ("none", "raw", "disk", "cannot be checked: No such file"),
])
def test_format_of_the_domain(start, workdir, name, kind, device, complaint):
    """The format is what the XML says, and raw where it says nothing; it is never guessed."""
    result = start(disk(workdir / name, kind, device=device), options=("--check", "enforce"))
    assert result.returncode == 1 and complaint in result.stderr


def test_backing_files_of_the_domain(start, workdir):
    """A chain that the domain tells is checked, layer by layer; one that it ends is ended."""
    chain = ("<backingStore type='file'><format type='{kind}'/><source file='{path}'/>"
             "<backingStore/></backingStore>")
    good = chain.format(kind="qcow2", path=workdir / "good")
    options = ("--check", "enforce")
    assert start(disk(workdir / "bad", more=good), options=options).returncode == 0
    assert start(disk(workdir / "bad", more="<backingStore/>"), options=options).returncode == 0
    raw = chain.format(kind="raw", path=workdir / "good")
    result = start(disk(workdir / "bad", more=raw), options=options)
    assert result.returncode == 1 and f"{workdir}/good, format raw" in result.stderr
    assert "also-qcow2" in result.stderr and "/bad," not in result.stderr


def test_usage(start, workdir, holdfast, daemon):
    """There are three modes, and without a domain there is nothing to check by."""
    result = start(disk(workdir / "good"), options=("--check", "maybe"))
    assert result.returncode == 2 and "'maybe' is neither off, warn nor enforce" in result.stderr
    daemon.requests.clear()
    for mode in ("warn", "enforce"):
        result = holdfast("run", "--disk", workdir / "good", "--check", mode, "echo", "started")
        assert (result.returncode, result.stdout) == (2, "") and not daemon.requests
        assert "--check needs --domain" in result.stderr
    result = holdfast("run", "--disk", workdir / "good", "--check", "off", "echo", "started")
    assert (result.returncode, result.stdout) == (0, "started\n")
