# SPDX-License-Identifier: LGPL-2.1-or-later
"""raw, qcow (version 1) and QED: what is safe and what is not. QEMU's sources are those of 7.2."""

import os
import shutil
import struct
import subprocess

import forge_iso
import forge_luks
import forge_old
import forge_parallels
import forge_qcow2
import forge_vdi
import forge_vhd
import forge_vhdx
import forge_vmdk
import pytest
# pylint: disable=unused-import
from image_rig import (check, needs_qemu_img, pytestmark, qemu_img, qemu_size, reasons,
                       verdict_on)

MIB = 1 << 20


def disk(*places, size=MIB):
    """A raw disk with these bytes."""
    return forge_qcow2.at(bytearray(size), *places)


MBR = (510, b"\x55\xaa")
# Where LUKS 2 may have its second header: libblkid looks there, whatever the file begins with.
SECOND_LUKS = [0x4000 << n for n in range(9)]


def second_luks(place):
    """A disk with nothing but the second header of a LUKS 2 volume."""
    return disk((place, bytes(forge_luks.copy(place, b"{}", place)[:4096])),
                size=max(MIB, place + 4096))


SAFE = {
    "raw": {
        "zeros": disk(), "nothing": b"", "one byte": b"x", "half a sector": bytes(700),
        "MBR": disk(MBR), "GPT": disk(MBR, (512, b"EFI PART")),
        "GPT, sectors of 4 KiB": disk(MBR, (4096, b"EFI PART")),
        "text": b"hello\n" * 1000, "ext4": disk((1080, b"\x53\xef")),
        "magic elsewhere": disk((512, b"QFI\xfb\0\0\0\3")),
        "LUKS 2's second header elsewhere": disk((0x2000, b"SKUL\xba\xbe\0\2"),
                                                 (0x4200, b"SKUL\xba\xbe\0\2")),
        "LUKS 2's first header there": disk((0x4000, b"LUKS\xba\xbe\0\2")),
    },
    "qcow": {
        "plain": forge_old.qcow(), "compressed": forge_old.qcow(data=1 << 63 | 5 << 51 | 9000),
        "small clusters": forge_old.qcow(cluster_bits=9, l2_bits=6),
    },
    "qed": {
        "plain": forge_old.qed(), "small": forge_old.qed(cluster=4096, table=2, size=1 << 20),
        "not closed": forge_old.qed(features=2), "bits not known": forge_old.qed(
            compatible=1 << 40, autoclear=1 << 41),
        "no disk": forge_old.qed(size=0),
    },
}

HOSTILE = {
    "raw": [
        ("qcow2", forge_qcow2.image(), {"also-qcow2"},
         "CVE-2015-1850, CVE-2024-40767, CVE-2026-24708"),
        ("qcow2, header alone", disk((0, bytes(forge_qcow2.image()[:512]))), {"also-qcow2"},
         "a guest writes this onto its own disk"),
        ("qcow2 of a version to come", disk((0, b"QFI\xfb\0\0\0\7")), {"also-qcow2"},
         "block/qcow2.c: qcow2_probe takes any version"),
        ("qcow", forge_old.qcow(), {"also-qcow"}, "block/qcow.c: qcow_probe"),
        ("QED", forge_old.qed(), {"also-qed"}, "block/qed.c: bdrv_qed_probe"),
        ("VMDK", forge_vmdk.sparse(), {"also-vmdk"}, "block/vmdk.c: vmdk_probe"),
        ("VMDK descriptor", forge_vmdk.descriptor("monolithicFlat",
                                                  ('RW 20480 FLAT "/etc/passwd" 0',)),
         {"also-vmdk"}, "CVE-2022-47951, CVE-2024-40767"),
        ("VDI", forge_vdi.image(), {"also-vdi"}, "block/vdi.c: vdi_probe"),
        ("VHD", forge_vhd.dynamic(), {"also-vhd"}, "block/vpc.c: vpc_probe"),
        ("VHD's footer alone", forge_vhd.fixed(), {"also-vhd"},
         "stricter: QEMU looks at the begin only, others at the end"),
        ("VHDX", forge_vhdx.image(), {"also-vhdx"}, "block/vhdx.c: vhdx_probe"),
        ("LUKS", forge_luks.luks1(), {"also-luks"}, "block/crypto.c"),
        ("LUKS 2", forge_luks.luks2(), {"also-luks"}, "block/crypto.c; libblkid"),
        *((f"LUKS 2, second header at {place:#x}", second_luks(place), {"also-luks"},
           "blkid -p: crypto_LUKS; cryptsetup repair") for place in SECOND_LUKS),
        ("LUKS 2, second magic alone", disk((0x40000, b"SKUL\xba\xbe")), {"also-luks"},
         "blkid -p: crypto_LUKS of version 0"),
        ("LUKS 2, second header at the end", disk((MIB, b"SKUL\xba\xbe\0\2"), size=MIB + 8),
         {"also-luks"}, "the end is looked at as well"),
        ("LUKS 2, second header and MBR", disk((0x8000, b"SKUL\xba\xbe\0\2"), MBR),
         {"also-luks"}, "polyglot"),
        ("Parallels", forge_parallels.image(), {"also-parallels"}, "block/parallels.c"),
        ("ISO", forge_iso.image(), {"also-iso"}, "stricter: QEMU has no format for it"),
        ("Bochs", disk((0, b"Bochs Virtual HD Image".ljust(32, b"\0") + b"Redolog".ljust(16, b"\0")
                        + b"Growing".ljust(16, b"\0") + struct.pack("<I", 0x20000))),
         {"also-bochs"}, "block/bochs.c: bochs_probe"),
        ("cloop", disk((0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t "
                        b"iso9660 /dev/cloop $1\n")), {"also-cloop"}, "block/cloop.c: cloop_probe"),
        ("DMG", disk((MIB - 512, b"koly\0\0\0\4\0\0\2\0")), {"also-dmg"},
         "stricter: QEMU goes by the file's name"),
        ("qcow2 with an MBR", disk((0, b"QFI\xfb\0\0\0\3"), MBR), {"also-qcow2"}, "polyglot"),
    ],
    "qcow": [
        ("qcow2", forge_qcow2.image(), {"wrong-format", "also-qcow2"}, ""),
        ("cut", forge_old.qcow()[:40], {"truncated"}, ""),
        ("backing file", forge_qcow2.at(forge_old.qcow(backing=(1000, 4)), (1000, b"/etc")),
         {"backing-file"}, "block/qcow.c"),
        ("backing name too long", forge_old.qcow(backing=(1000, 1024)),
         {"backing-file", "bad-header"}, "block/qcow.c: Backing file name too long"),
        ("backing name outside", forge_old.qcow(backing=(1 << 62, 4)),
         {"backing-file", "bad-header"}, ""),
        ("AES", forge_old.qcow(crypt=1), {"legacy-encryption"}, "as in qcow2"),
        ("encryption not known", forge_old.qcow(crypt=2), {"unknown-feature"},
         "block/qcow.c: invalid encryption method"),
        ("clusters too small", forge_old.qcow(cluster_bits=8), {"bad-header"},
         "CVE-2014-0222's neighbour: Cluster size must be between 512 and 64k"),
        ("clusters too large", forge_old.qcow(cluster_bits=17), {"bad-header"}, "as above"),
        ("L2 too small", forge_old.qcow(l2_bits=5), {"bad-header"},
         "block/qcow.c: L2 table size must be between 512 and 64k"),
        ("L2 too large", forge_old.qcow(l2_bits=14), {"bad-header"}, "CVE-2014-0222"),
        ("disk of one byte", forge_old.qcow(size=1), {"bad-header"},
         "block/qcow.c: Image size is too small"),
        ("8 EiB", forge_old.qcow(size=1 << 63), {"size-limit"}, "CVE-2014-0223, CVE-2013-2096"),
        ("16 EiB less a byte", forge_old.qcow(size=(1 << 64) - 1), {"size-limit"},
         "CVE-2014-0223: the number of entries overflows"),
        ("L1 outside", forge_old.qcow(l1_offset=1 << 40), {"table-outside"}, ""),
        ("L1 in the header", forge_old.qcow(l1_offset=40), {"table-outside"}, ""),
        ("L1, end overflows", forge_old.qcow(l1_offset=(1 << 64) - 8), {"table-outside"}, ""),
        ("L2 outside", forge_old.qcow(l2=1 << 50), {"table-outside"}, "cut off"),
        ("L2 misaligned", forge_old.qcow(l2=8), {"table-misaligned"}, ""),
        ("L2 on the header", forge_old.qcow(l1_offset=4104), {"table-overlap"}, ""),
        ("two L2 in one", forge_qcow2.at(forge_old.qcow(size=4 << 20), (56, struct.pack(
            ">Q", 4096))), {"table-overlap"}, ""),
        ("data on the header", forge_old.qcow(data=1 << 62, length=4096 * 5), {"table-outside"},
         ""),
        ("data in the header", forge_old.qcow(data=8), {"table-misaligned"},
         "block/qcow.c: the guest writes a header with a backing file, and gets it next time"),
        ("data on L2", forge_old.qcow(data=4096), {"table-overlap"},
         "block/qcow.c: the guest writes entries that lie on the header"),
        ("data on L1", forge_old.qcow(data=12288, l1_offset=12288), {"table-overlap"}, "as above"),
    ],
    "qed": [
        ("raw", disk(), {"wrong-format"}, ""),
        ("cut", forge_old.qed()[:60], {"truncated"}, ""),
        ("backing file", forge_qcow2.at(forge_old.qed(features=1, backing=(100, 4)),
                                        (100, b"/etc")), {"backing-file"}, "qed_spec.rst"),
        ("backing file, raw", forge_old.qed(features=5, backing=(100, 4)), {"backing-file"}, ""),
        ("backing file unmarked", forge_old.qed(backing=(100, 4)), {"backing-file"}, "stricter"),
        ("backing name outside", forge_old.qed(features=1, backing=(0xfffffff0, 100)),
         {"backing-file"}, "block/qed.c"),
        ("feature not known", forge_old.qed(features=8), {"unknown-feature"}, "qed_spec.rst"),
        ("clusters of 2 KiB", forge_old.qed(cluster=2048), {"bad-header"}, "block/qed.c"),
        ("clusters of 128 MiB", forge_old.qed(cluster=1 << 27), {"bad-header"}, "block/qed.c"),
        ("clusters of no power", forge_old.qed(cluster=65536 + 512), {"bad-header"}, "block/qed.c"),
        ("no clusters", forge_old.qed(cluster=0), {"bad-header"}, "division by zero"),
        ("tables of 1", forge_old.qed(table=1), {"bad-header"},
         "block/qed.c: qed_check_table_offset() refuses them"),
        ("tables of 3", forge_old.qed(table=3), {"bad-header"}, "block/qed.c"),
        ("tables of 32", forge_old.qed(table=32), {"bad-header"}, "block/qed.c"),
        ("no header", forge_old.qed(header=0, l1_offset=65536), {"bad-header"}, "block/qed.c"),
        ("header of 4 GiB", forge_old.qed(header=65536, l1_offset=65536), {"bad-header"},
         "block/qed.c: the product overflows 32 bits"),
        ("half a sector", forge_old.qed(size=1000), {"bad-header"}, "block/qed.c"),
        ("8 EiB", forge_old.qed(size=1 << 63), {"bad-header"}, "more than its tables can hold"),
        ("128 TiB", forge_old.qed(size=1 << 47), {"bad-header"}, "as above"),
        ("65 TiB", forge_old.qed(size=65 << 40, table=16, clusters=40), {"size-limit"},
         "CVE-2013-2096"),
        ("L1 outside", forge_old.qed(l1_offset=1 << 40), {"table-outside"}, "block/qed.c"),
        ("L1 in the header", forge_old.qed(l1_offset=0), {"table-outside"}, "block/qed.c"),
        ("L1 misaligned", forge_old.qed(l1_offset=65536 + 512), {"table-outside"}, "block/qed.c"),
        ("L2 outside", forge_old.qed(l2=1 << 50), {"table-outside"}, "block/qed-table.c"),
        ("L2 is L1", forge_old.qed(l2=65536), {"table-outside"}, "a table in itself"),
        ("MBR", forge_qcow2.at(forge_old.qed(), MBR), {"also-partitions"}, "polyglot"),
    ],
}


@pytest.mark.parametrize("kind, name", [(kind, name) for kind, rows in SAFE.items()
                                        for name in rows])
def test_safe(kind, name, workdir):
    """A sound image is safe, and QEMU sees the same disk."""
    path = workdir / "image"
    path.write_bytes(SAFE[kind][name])
    image = check(path, kind)
    assert image["verdict"] == "safe", image
    assert image["virtual-size"] == qemu_size(path, kind)


@pytest.mark.parametrize("kind, name, content, expected",
                         [(kind, *row[:3]) for kind, rows in HOSTILE.items() for row in rows],
                         ids=[f"{kind}: {row[0]}" for kind, rows in HOSTILE.items()
                              for row in rows])
def test_unsafe(kind, name, content, expected, workdir):
    """A hostile one is unsafe, for these reasons and no others."""
    image = verdict_on(workdir, content, kind)
    assert reasons(image) == expected, (name, image)


@needs_qemu_img
@pytest.mark.parametrize("kind, options", [
    ("raw", ()), ("raw", ("-o", "preallocation=full")), ("qcow", ()), ("qed", ()),
    ("qed", ("-o", "cluster_size=4096,table_size=2"))])
def test_made_by_qemu_img(kind, options, workdir):
    """Whatever qemu-img makes is safe, empty and with data."""
    qemu_img("create", "-f", kind, *options, workdir / "image", "20M")
    image = check(workdir / "image", kind)
    assert image["verdict"] == "safe" and image["virtual-size"] == 20 << 20, image
    (workdir / "raw").write_bytes(bytes(range(256)) * 8192)
    qemu_img("convert", "-f", "raw", "-O", kind, workdir / "raw", workdir / "image")
    image = check(workdir / "image", kind)
    assert image["verdict"] == "safe" and image["virtual-size"] == 2 << 20, image


def test_blkid_agrees(workdir):
    """What libblkid takes for LUKS, which is what udev and cryptsetup go by, is never safe; and
    of what has only a second header, nothing else is refused."""
    # Where root has it, whoever runs this.
    blkid = shutil.which("blkid", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if not blkid:
        pytest.skip("blkid is not installed")
    disks = {**SAFE["raw"], **{row[0]: row[1] for row in HOSTILE["raw"]}}
    taken = {}
    for name, content in disks.items():
        path = workdir / "image"
        path.write_bytes(content)
        told = subprocess.run([blkid, "--probe", "--output", "export", path], check=False,
                              capture_output=True, text=True, timeout=60).stdout
        taken[name] = "TYPE=crypto_LUKS" in told
        if taken[name]:
            assert "also-luks" in reasons(check(path, "raw")), name
    assert all(taken[f"LUKS 2, second header at {place:#x}"] for place in SECOND_LUKS)
    assert taken["LUKS 2, second magic alone"]
    assert not taken["LUKS 2's second header elsewhere"]
    assert not taken["LUKS 2's first header there"]


def test_probes_agree(workdir):
    """What QEMU takes for a format when nobody tells it is never a safe raw disk."""
    for name, content, _, _ in HOSTILE["raw"]:
        path = workdir / "image"
        path.write_bytes(content)
        told = qemu_img("info", path, check_it=False).stdout
        guessed = [line.split()[-1] for line in told.splitlines() if "file format" in line]
        assert check(path, "raw")["verdict"] == "unsafe", (name, guessed)
