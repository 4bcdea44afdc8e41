# SPDX-License-Identifier: LGPL-2.1-or-later
"""VDI, Parallels and ISO images, and what is recognised only: Bochs, cloop, DMG, COW, partitions."""

import struct

import forge_iso
import forge_parallels
import forge_vdi
from corpus import OPENS, REFUSES, Row, patched
from forge_parallels import IN_USE, OLD, extension
from forge_vdi import BLOCK

MIB = 1 << 20
UUID = bytes(range(1, 17))
SECTOR = forge_iso.SECTOR


def vdi(**fields):
    """A VDI with these fields in its header."""
    return lambda: forge_vdi.image(**fields)


VDI = [
    Row("vdi", "dynamic", forge_vdi.image, "", OPENS, "the usual kind", virtual=4 * BLOCK),
    Row("vdi", "fixed", vdi(used=(0, 1, 2, 3), type=forge_vdi.FIXED), "", OPENS, "all blocks"),
    Row("vdi", "discarded", vdi(entries={1: forge_vdi.DISCARDED}), "", OPENS, "reads as zeroes"),
    Row("vdi", "any size", vdi(size=4 * BLOCK - 77), "", OPENS, "QEMU rounds up to sectors",
        virtual=4 * BLOCK),
    Row("raw", "VDI said to be raw", forge_vdi.image, "also-vdi", OPENS,
        "QEMU would take it for vdi"),
    Row("vdi", "undo", vdi(type=forge_vdi.UNDO), "backing-file", OPENS,
        "VirtualBox knows it as a difference; QEMU does not look"),
    Row("vdi", "differencing", vdi(type=forge_vdi.DIFFERENCING, link=UUID, parent=UUID),
        "backing-file", REFUSES, "QEMU: non-NULL link UUID"),
    Row("vdi", "parent's UUID alone", vdi(parent=UUID), "backing-file", REFUSES,
        "QEMU: non-NULL parent UUID"),
    Row("vdi", "link alone", vdi(link=UUID), "backing-file", REFUSES, "QEMU: non-NULL link UUID"),
    Row("vdi", "unknown type", vdi(type=9), "unknown-feature", OPENS, "QEMU does not look"),
    Row("vdi", "version 0.1", vdi(version=1), "unknown-version", REFUSES, "another header"),
    Row("vdi", "sectors of 4096", vdi(sector_size=4096), "unknown-feature", REFUSES, ""),
    Row("vdi", "blocks of 64 KiB", vdi(block=65536), "unknown-feature", REFUSES,
        "QEMU: block size is not 1048576"),
    Row("vdi", "block size 0", vdi(block=0), "unknown-feature", REFUSES, "CVE-2014-0144"),
    Row("vdi", "extra bytes", vdi(extra=512), "unknown-feature", OPENS,
        "QEMU ignores them and reads every block from the wrong place"),
    Row("vdi", "larger than any", vdi(**{"size": 4 * BLOCK, "blocks": 0x20000000}),
        "table-size", REFUSES, "CVE-2014-0144: too many blocks"),
    Row("vdi", "size over QEMU's", lambda: patched(
        forge_vdi.image(), 368, struct.pack("<Q", 1 << 62)), "size-unknown", REFUSES,
        "CVE-2014-0144: Unsupported VDI image size"),
    Row("vdi", "no size", lambda: patched(forge_vdi.image(), 368, bytes(8)), "size-unknown", OPENS,
        "a disk of nothing"),
    Row("vdi", "larger than allowed", forge_vdi.image, "size-limit", OPENS, "the caller's limit",
        options=("--max-size", "3M")),
    Row("vdi", "map too small", vdi(blocks=3), "table-size", REFUSES,
        "CVE-2014-0144: image bitmap has room for less"),
    Row("vdi", "map beyond the end", vdi(map=0x7FFFFE00, data=0x7FFFFE00), "table-outside", OPENS,
        "QEMU reads zeroes: every block is block 0"),
    Row("vdi", "map not at a sector", vdi(map=600), "table-misaligned", REFUSES, ""),
    Row("vdi", "data not at a sector", vdi(data=1100), "table-misaligned", REFUSES, ""),
    Row("vdi", "map in the header", vdi(map=0), "table-overlap", OPENS,
        "QEMU writes the map into the header"),
    Row("vdi", "data in the header", vdi(data=0), "table-overlap", OPENS,
        "the VM would write the header"),
    Row("vdi", "data in the map", vdi(data=512), "table-overlap", OPENS,
        "the VM would write the map"),
    Row("vdi", "data beyond the end", vdi(data=0xFFFFFE00), "table-outside", OPENS,
        "QEMU reads zeroes"),
    Row("vdi", "header of 4096 bytes", vdi(header_size=4096), "bad-header", OPENS,
        "more than there is room for"),
    Row("vdi", "block beyond the map", vdi(entries={1: 900}), "bad-entry", OPENS,
        "qemu-img check: too large"),
    Row("vdi", "block not counted", vdi(entries={1: 2}, in_file=3), "bad-entry", OPENS,
        "QEMU's next new block would be the same one"),
    Row("vdi", "block twice", vdi(entries={0: 1}), "bad-entry", OPENS,
        "qemu-img check: also used by"),
    Row("vdi", "blocks counted and not there", vdi(allocated=4), "bad-entry", OPENS,
        "qemu-img check: allocated blocks mismatch"),
    Row("vdi", "more blocks than blocks", vdi(allocated=9), "bad-header bad-entry", OPENS,
        "QEMU's next new block would be beyond the map"),
    Row("vdi", "block beyond the end", vdi(in_file=1), "truncated", OPENS, "the file was cut off"),
    Row("vdi", "file ends in the header", lambda: forge_vdi.image()[:300], "truncated", REFUSES,
        ""),
]


def hds(**fields):
    """A Parallels disk with these fields."""
    return lambda: forge_parallels.image(**fields)


def extended(**fields):
    """A Parallels disk with a format extension in its last cluster."""
    return lambda: (forge_parallels.image(extension=3 * 64, used=(0, 2), clusters_in_file=2) +
                    extension(**fields))


PARALLELS = [
    Row("parallels", "extended", forge_parallels.image, "", OPENS, "the usual kind",
        virtual=512 * 512),
    Row("parallels", "old", hds(magic=OLD), "", OPENS, "offsets in sectors", virtual=512 * 512),
    Row("parallels", "closed", hds(in_use=forge_parallels.CLOSED), "", OPENS,
        "by the newer software"),
    Row("parallels", "odd clusters", hds(cluster=63, sectors=630), "", OPENS,
        "the classic size of a track"),
    Row("parallels", "no place for data", hds(data=0, magic=OLD), "", OPENS,
        "the data begins behind the table"),
    Row("raw", "Parallels said to be raw", forge_parallels.image, "also-parallels", OPENS,
        "QEMU would take it for parallels"),
    Row("parallels", "version 3", hds(version=3), "unknown-version", REFUSES, ""),
    Row("parallels", "cluster size 0", lambda: patched(forge_parallels.image(), 28, bytes(4)),
        "bad-header", REFUSES, "CVE-2014-0142: division by zero"),
    Row("parallels", "cluster of 3 GiB", lambda: patched(
        forge_parallels.image(), 28, struct.pack("<I", 6 << 20)), "bad-header", REFUSES,
        "QEMU: Too big cluster"),
    Row("parallels", "large table", lambda: patched(
        forge_parallels.image(), 32, struct.pack("<I", 0x40000000)), "table-size", REFUSES,
        "CVE-2014-0143: Catalog too large"),
    Row("parallels", "table beyond the end", lambda: patched(
        forge_parallels.image(), 32, struct.pack("<I", 1 << 20)), "table-outside", OPENS,
        "QEMU reads zeroes"),
    Row("parallels", "table too small", hds(n_entries=7), "table-size", OPENS,
        "QEMU fails at the last cluster"),
    Row("parallels", "no size", hds(sectors=0, n_entries=8, used=()), "size-unknown", OPENS,
        "a disk of nothing"),
    Row("parallels", "size over 2^63", lambda: patched(
        forge_parallels.image(), 36, struct.pack("<Q", 1 << 62)), "size-unknown", REFUSES,
        "sectors times 512 overflow"),
    Row("parallels", "size in 64 bits, old", lambda: patched(
        forge_parallels.image(magic=OLD), 40, b"\1"), "size-mismatch", OPENS,
        "QEMU sees the lower 32 bits, others all"),
    Row("parallels", "larger than allowed", forge_parallels.image, "size-limit", OPENS,
        "the caller's limit", options=("--max-size", "100K")),
    Row("parallels", "in use", hds(in_use=IN_USE), "not-closed", OPENS,
        "QEMU does not open it for writing"),
    Row("parallels", "in use by nobody", hds(in_use=1), "bad-header", OPENS,
        "the document allows three values"),
    Row("parallels", "unknown flag", hds(flags=2), "unknown-feature", OPENS,
        "the document: unused"),
    Row("parallels", "data in the table", hds(data=1, sectors=64 * 200), "table-overlap", OPENS,
        "QEMU puts new clusters there: the VM would write the table"),
    Row("parallels", "cluster on the table", hds(entries={0: 1}, magic=OLD), "table-overlap",
        OPENS, "the VM would write the header's sector and the table"),
    Row("parallels", "cluster beyond the end", hds(entries={1: 77}), "truncated", OPENS,
        "qemu-img check: outside image"),
    *(Row("parallels", f"cluster {index} of {count} beyond the end", hds(
        cluster=1, sectors=count, n_entries=count, used=(), entries={index: 77777}), "truncated",
        OPENS, "entries in a long table of nothing, wherever they are")
      for count, index in ((40001, 0), (40001, 1), (40001, 16384), (40001, 20001), (40001, 40000),
                           (40002, 40000), (40002, 40001), (1, 0))),
    Row("parallels", "cluster half beyond the end", lambda: forge_parallels.image()[:-512],
        "truncated", OPENS, "the file was cut off"),
    Row("parallels", "dirty bitmap", extended(), "", OPENS,
        "QEMU reads it of what is opened read-only"),
    Row("parallels", "extension without magic", extended(magic=1), "bad-header", REFUSES, ""),
    Row("parallels", "unknown feature", extended(features=((77, 0, b""),)), "unknown-feature",
        REFUSES, ""),
    Row("parallels", "flags of a feature", extended(
        features=((forge_parallels.DIRTY_BITMAP, 1, b""),)), "unknown-feature", REFUSES, ""),
    Row("parallels", "feature too long", extended(
        features=((forge_parallels.DIRTY_BITMAP, 0, bytes(32700)),)), "table-outside", REFUSES,
        "there is no room for the end"),
    Row("parallels", "feature larger than a cluster", extended(
        features=((forge_parallels.DIRTY_BITMAP, 0, bytes(40000)),)), "table-outside", REFUSES,
        "QEMU: exceeds Format Extension cluster"),
    Row("parallels", "100 features", extended(
        features=((forge_parallels.DIRTY_BITMAP, 0, b""),) * 100), "table-size", REFUSES,
        "QEMU's walk ends with the cluster only"),
    Row("parallels", "extension beyond the end", hds(extension=1 << 40), "table-outside", REFUSES,
        "QEMU reads zeroes there"),
    Row("parallels", "extension in the table", hds(extension=0x100000000000001), "table-outside",
        REFUSES, "sectors times 512 wrap around"),
    Row("parallels", "file ends in the header", lambda: forge_parallels.image()[:60],
        "truncated", OPENS, "QEMU reads zeroes behind the end"),
]


def iso(*descriptors, **fields):
    """An ISO image with these descriptors."""
    return lambda: forge_iso.image(descriptors or None, **fields)


def volume(**fields):
    """An ISO image with such a primary descriptor."""
    return iso(forge_iso.volume(**fields), forge_iso.terminator())


MBR = bytes(510) + b"\x55\xaa"

ISO = [
    Row("iso", "plain", forge_iso.image, "", OPENS, "a bootable volume", virtual=24 * SECTOR),
    Row("iso", "isohybrid", iso(system_area=MBR), "", OPENS, "an MBR for booting from a stick"),
    Row("iso", "isohybrid with GPT", iso(system_area=MBR + b"EFI PART"), "", OPENS,
        "and a GPT for UEFI"),
    Row("iso", "Joliet", iso(forge_iso.volume(), forge_iso.volume(kind=2),
                             forge_iso.terminator()), "", OPENS, "long names"),
    Row("iso", "enhanced volume", iso(forge_iso.volume(), forge_iso.volume(kind=2, version=2),
                                      forge_iso.terminator()), "", OPENS, "ISO 9660:1999"),
    Row("iso", "padded", iso(sectors=200), "", OPENS, "writers add 300 KiB"),
    Row("raw", "ISO said to be raw", forge_iso.image, "also-iso", OPENS,
        "a VM may boot it; whoever probes mounts it"),
    Row("iso", "qcow2 in the system area", iso(system_area=b"QFI\xfb\0\0\0\3"), "also-qcow2",
        OPENS, "the first 32 KiB are free for any header"),
    Row("iso", "VMDK in the system area", iso(system_area=b"KDMV\1\0\0\0"), "also-vmdk", OPENS,
        "the same"),
    Row("iso", "descriptor in the system area", iso(
        system_area=b'# Disk DescriptorFile\nversion=1\nRW 1 FLAT "/etc/passwd" 0\n'),
        "also-vmdk", OPENS, "a VMDK for QEMU's prober: CVE-2024-40767's shape"),
    Row("iso", "VHD at the end", lambda: forge_iso.image() + b"conectix".ljust(512, b"\0"),
        "also-vhd", OPENS, "and behind the volume as well"),
    Row("iso", "not ISO", lambda: bytes(100000), "wrong-format", OPENS, "nothing at sector 16"),
    Row("iso", "UDF alone", lambda: patched(bytes(65536), 32769, b"BEA01"), "bad-header", OPENS,
        "cannot be checked"),
    Row("iso", "High Sierra", lambda: patched(bytes(65536), 32777, b"CDROM"), "bad-header", OPENS,
        "the draft of 1986"),
    Row("iso", "block size 0", volume(block=0), "bad-header", OPENS, "division by zero"),
    Row("iso", "block of 4096", volume(block=4096), "bad-header", OPENS,
        "more than a sector of a CD"),
    Row("iso", "two sizes", volume(space=struct.pack("<I", 24) + struct.pack(">I", 20)),
        "bad-header", OPENS, "which half is read depends on the reader"),
    Row("iso", "volume beyond the end", volume(space=4000), "truncated", OPENS,
        "the file was cut off"),
    Row("iso", "root beyond the end", volume(root=0xFFFFFFFF), "table-outside", OPENS, ""),
    Row("iso", "path table beyond the end", volume(path_l=0xFFFFFFFF, path_m=1 << 20),
        "table-outside", OPENS, "both tables"),
    Row("iso", "no root", volume(root_length=0), "bad-header", OPENS, ""),
    Row("iso", "boot catalogue beyond the end", iso(
        forge_iso.volume(), forge_iso.boot(1 << 30), forge_iso.terminator()), "table-outside",
        OPENS, "El Torito"),
    Row("iso", "version 7", volume(version=7), "unknown-version", OPENS, ""),
    Row("iso", "first is not primary", iso(forge_iso.boot(), forge_iso.volume(),
                                           forge_iso.terminator()), "bad-header", OPENS, ""),
    Row("iso", "no terminator", iso(forge_iso.volume()), "bad-header", OPENS, ""),
    Row("iso", "endless descriptors", iso(*[forge_iso.volume()] * 40, sectors=80), "table-size",
        OPENS, ""),
    Row("iso", "file ends in the descriptors", lambda: forge_iso.image()[:36864],
        "table-outside truncated", OPENS, "no terminator, no root, no boot catalogue"),
    Row("iso", "larger than allowed", forge_iso.image, "size-limit", OPENS, "the caller's limit",
        options=("--max-size", "40K")),
]

BOCHS = b"Bochs Virtual HD Image".ljust(32, b"\0") + b"Redolog".ljust(16, b"\0") + \
    b"Growing".ljust(16, b"\0") + struct.pack("<IIIII", 0x20000, 512, 1, 1, 0)
CLOOP = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"
COW = struct.pack(">4sI1024sIQI", b"OOOM", 2, b"/etc/passwd", 0, 1 << 20, 512)

RECOGNISED = [
    Row("raw", "Bochs", lambda: BOCHS.ljust(4096, b"\0"), "also-bochs", OPENS,
        "CVE-2014-0142, -0147: extent size 0 divides by zero"),
    Row("raw", "cloop", lambda: CLOOP.ljust(4096, b"\0"), "also-cloop", OPENS,
        "CVE-2014-0144: block sizes and counts"),
    Row("raw", "DMG", lambda: bytes(4096) + b"koly".ljust(512, b"\0"), "also-dmg", OPENS,
        "CVE-2014-0145: QEMU goes by the file's name, and then by this trailer"),
    Row("raw", "DMG of any length", lambda: bytes(4096) + b"koly".ljust(600, b"\0"), "also-dmg",
        OPENS, "QEMU looks at 515 places"),
    Row("raw", "DMG at the last byte", lambda: bytes(4096) + b"koly", "also-dmg", OPENS,
        "QEMU rounds the length up"),
    Row("raw", "COW", lambda: COW.ljust(4096, b"\0"), "also-cow", OPENS,
        "libvirt takes a pool's volume for a disk with /etc/passwd as its backing file"),
    Row("raw", "MBR", lambda: MBR.ljust(4096, b"\0"), "", OPENS, "what a raw disk is made for"),
    Row("raw", "GPT", lambda: (MBR + b"EFI PART").ljust(4096, b"\0"), "", OPENS, "the same"),
    Row("vdi", "MBR in VDI", lambda: patched(forge_vdi.image(), 510, b"\x55\xaa"),
        "also-partitions", OPENS, "one disk for who knows VDI, another for who does not"),
]

ROWS = VDI + PARALLELS + ISO + RECOGNISED
