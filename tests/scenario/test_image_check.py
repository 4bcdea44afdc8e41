# SPDX-License-Identifier: LGPL-2.1-or-later
"""A client that tells a disk's format has the image checked before the lock is taken."""

import struct

import pytest
from native import Refused


def qcow2(path, backing=b""):
    """The smallest qcow2: four clusters; with a backing file of that name."""
    image = bytearray(4 * 65536)
    struct.pack_into(">4sIQIIQIIQQII", image, 0, b"QFI\xfb", 2, 1024 if backing else 0,
                     len(backing), 16, 65536, 0, 1, 3 * 65536, 65536, 1, 0)
    image[1024:1024 + len(backing)] = backing
    struct.pack_into(">Q", image, 65536, 2 * 65536)
    path.write_bytes(image)
    return path


def acquire(client, vm, *disks):
    """Acquire (path, format) pairs."""
    return client.call("acquire", owner=vm.owner(), disks=[
        {"path": str(path), **({"format": kind} if kind else {})} for path, kind in disks])


def test_safe(client, vm, workdir):
    """A safe image is locked as ever, with its format or without one."""
    good = qcow2(workdir / "good")
    (workdir / "raw").write_bytes(bytes(4096))
    leases = acquire(client, vm, (good, "qcow2"), (workdir / "raw", "raw"))["leases"]
    assert [lease["disk"] for lease in leases] == [str(good), str(workdir / "raw")]


def test_unsafe(client, vm, workdir):
    """With an unsafe one the whole request is refused, and nothing is locked."""
    good, bad = qcow2(workdir / "good"), qcow2(workdir / "bad", b"/etc/passwd")
    with pytest.raises(Refused) as refused:
        acquire(client, vm, (good, "qcow2"), (bad, "qcow2"))
    assert refused.value.error_class == "BadResource"
    assert "backing-file: The image has a backing file, '/etc/passwd'." in str(refused.value)
    assert refused.value.data["disk"] == str(bad)
    assert not client.leases()
    # nobody asks, nobody looks
    assert len(acquire(client, vm, (good, "qcow2"), (bad, None))["leases"]) == 2


@pytest.mark.parametrize("name, kind, complaint", [
    ("good", "raw", "also-qcow2"), ("none", "qcow2", "No such file"),
    ("directory", "qcow2", "it is a directory")])
def test_no_verdict(client, vm, workdir, name, kind, complaint):
    """What is of another format, or no image, is refused."""
    qcow2(workdir / "good")
    (workdir / "directory").mkdir()
    with pytest.raises(Refused, match=complaint) as refused:
        acquire(client, vm, (workdir / name, kind))
    assert refused.value.error_class == "BadResource" and not client.leases()


def test_format_nobody_knows(client, vm, workdir):
    """A format that cannot be checked is a wrong argument."""
    with pytest.raises(Refused, match="no format of images") as refused:
        acquire(client, vm, (qcow2(workdir / "good"), "rbd"))
    assert refused.value.error_class == "InvalidArgument"
    assert refused.value.data["argument"] == "format"
    with pytest.raises(Refused) as refused:
        acquire(client, vm, (workdir / "good", 7))
    assert refused.value.error_class == "InvalidArgument"
