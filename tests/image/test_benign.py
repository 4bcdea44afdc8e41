# SPDX-License-Identifier: LGPL-2.1-or-later
"""Safe things stay safe: every image that qemu-img makes of these formats, with every option, new,
written to by QEMU, and converted.
"""

import json
import random

import pytest
# pylint: disable=unused-import
from image_rig import check, needs_qemu_img, pytestmark, qemu_img, qemu_size

MIB = 1 << 20
QEMU_NAMES = {"vhd": "vpc"}
SIZES = (512, 65536 + 512, 10 * MIB + 1536, 200 << 30)
OPTIONS = {
    "vmdk": ["", "subformat=monolithicSparse", "subformat=streamOptimized", "zeroed_grain=on",
             "compat6=on", "adapter_type=ide", "adapter_type=lsilogic", "adapter_type=buslogic",
             "adapter_type=legacyESX", "hwversion=17", "toolsversion=10282"],
    "vdi": ["", "static=on"],
    "vhd": ["", "force_size=on", "subformat=fixed", "subformat=fixed,force_size=on"],
    "vhdx": ["", "subformat=fixed", "block_size=1M", "block_size=256M", "log_size=4M",
             "block_state_zero=off"],
    "parallels": ["", "cluster_size=512", "cluster_size=64k", "cluster_size=100k",
                  "cluster_size=4M"],
}
# Those that need as much room as the disk has, a table of each sector, or large blocks.
LARGE = ("static=on", "subformat=fixed", "cluster_size=512", "block_size=256M")
CASES = [(name, option) for name, options in OPTIONS.items() for option in options]
# Made of two files and more, whatever their content.
IN_PIECES = ("monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat")


def assert_safe(path, name):
    """Safe, of the size that QEMU sees, and sound for qemu-img check."""
    verdict = check(path, name)
    assert verdict["verdict"] == "safe", verdict
    assert verdict["virtual-size"] == qemu_size(path, QEMU_NAMES.get(name, name))


def write_somewhere(path, name, size):
    """Let QEMU write into the disk here and there, its last sector included."""
    chance = random.Random(f"{name} {size}")
    commands = [f"write -P 7 {size // 512 * 512 - 512} 512"]
    for _ in range(5):
        length = min(chance.choice((512, 4096, 70144, MIB)), size // 512 * 512)
        commands.append(f"write -P {chance.randrange(1, 255)} "
                        f"{chance.randrange(0, size - length + 1) // 512 * 512} {length}")
    qemu_img("-f", QEMU_NAMES.get(name, name),
             *[word for command in commands for word in ("-c", command)], path,
             program="qemu-io")


@pytest.mark.parametrize("name,option", CASES, ids=lambda value: value or "plain")
@needs_qemu_img
def test_created(name, option, workdir):
    """New, and written to."""
    for size in SIZES:
        if size > 20 * MIB and option.startswith(LARGE):
            continue
        path = workdir / f"{size}"
        qemu_img("create", "-q", "-f", QEMU_NAMES.get(name, name),
                 *(("-o", option) if option else ()), path, size)
        assert_safe(path, name)
        if "stream" not in option:  # QEMU writes such images once only
            write_somewhere(path, name, json.loads(qemu_img(
                "info", "-f", QEMU_NAMES.get(name, name), "--output=json",
                path).stdout)["virtual-size"])
            assert_safe(path, name)
        path.unlink()


@pytest.mark.parametrize("name,option", CASES, ids=lambda value: value or "plain")
@needs_qemu_img
def test_converted(name, option, workdir):
    """Made of a disk with data, zeroes, and an end within a block."""
    source = workdir / "source"
    source.write_bytes(random.Random(1).randbytes(3 * MIB + 512) + bytes(2 * MIB) + b"x" * 1000)
    path = workdir / "image"
    qemu_img("convert", "-O", QEMU_NAMES.get(name, name), *(("-o", option) if option else ()),
             source, path)
    assert_safe(path, name)


@pytest.mark.parametrize("subformat", IN_PIECES)
@needs_qemu_img
def test_in_pieces(subformat, workdir):
    """What has its data in other files is never safe, and its pieces are not disks."""
    path = workdir / "disk.vmdk"
    qemu_img("create", "-q", "-f", "vmdk", "-o", f"subformat={subformat}", path, 10 * MIB)
    verdict = check(path, "vmdk")
    assert {reason["id"] for reason in verdict["reasons"]} == {"external-data"}, verdict
    piece, = (other for other in workdir.iterdir() if other != path)
    if "Sparse" in subformat:
        verdict = check(piece, "vmdk")
        assert {reason["id"] for reason in verdict["reasons"]} == {"detached-header"}, verdict
    else:
        assert check(piece, "raw")["verdict"] == "safe"


@needs_qemu_img
def test_vmdk_with_parent(workdir):
    """A parent is a reference, as in qcow2."""
    qemu_img("create", "-q", "-f", "vmdk", workdir / "base.vmdk", MIB)
    qemu_img("create", "-q", "-f", "vmdk", "-F", "vmdk", "-b", "base.vmdk", "child.vmdk",
             cwd=workdir)
    verdict = check(workdir / "child.vmdk", "vmdk")
    assert {reason["id"] for reason in verdict["reasons"]} == {"backing-file"}, verdict
    assert "base.vmdk" in verdict["reasons"][0]["sentence"]
