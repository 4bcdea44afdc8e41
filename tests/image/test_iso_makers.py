# SPDX-License-Identifier: LGPL-2.1-or-later
"""ISO images as xorriso and genisoimage make them are safe: plain, bootable, isohybrid with MBR and
GPT, with UDF or HFS beside the volume.
"""

import shutil
import subprocess

import pytest
# pylint: disable=unused-import
from image_rig import check, pytestmark

XORRISO = ("xorriso", "-as", "mkisofs", "-quiet")
GENISOIMAGE = ("genisoimage", "-quiet")
BOOT = ("-b", "boot.img", "-no-emul-boot", "-boot-load-size", "4")
HYBRID = ("--grub2-mbr", "../mbr", "-partition_offset", "16", "-append_partition", "2", "0xef",
          "../efi", "-appended_part_as_gpt")
MAKERS = {
    "plain": XORRISO,
    "Joliet and Rock Ridge": (*XORRISO, "-J", "-R"),
    "bootable": (*XORRISO, "-R", *BOOT),
    "isohybrid": (*XORRISO, "-R", *BOOT, *HYBRID),
    "genisoimage": (*GENISOIMAGE, "-J", "-R", *BOOT),
    "level 4": (*GENISOIMAGE, "-J", "-joliet-long", "-iso-level", "4"),
    "UDF": (*GENISOIMAGE, "-R", "-udf"),
    "HFS": (*GENISOIMAGE, "-hfs"),
}


@pytest.mark.parametrize("name", MAKERS)
def test_made(name, workdir):
    """One way to make one."""
    if not shutil.which(MAKERS[name][0]):
        pytest.skip(f"{MAKERS[name][0]} is missing")
    (workdir / "mbr").write_bytes(bytes(446))
    (workdir / "efi").write_bytes(bytes(1440 * 1024))
    tree = workdir / "tree"
    tree.mkdir()
    (tree / "boot.img").write_bytes(bytes(2048))
    (tree / "data").write_bytes(b"x" * 300000)
    subprocess.run([*MAKERS[name], "-o", "../image.iso", "."], cwd=tree, check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=300)
    verdict = check(workdir / "image.iso", "iso")
    assert verdict["verdict"] == "safe", verdict
    assert verdict["virtual-size"] == (workdir / "image.iso").stat().st_size
    head = (workdir / "image.iso").read_bytes()[:1024]
    assert (head[510:512] == b"\x55\xaa" and head[512:520] == b"EFI PART") == (name == "isohybrid")
