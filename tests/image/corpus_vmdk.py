# SPDX-License-Identifier: LGPL-2.1-or-later
"""VMDK images: every kind, every field of the header, every word of the descriptor."""

import struct

from corpus import OPENS, REFUSES, Row, patched
from forge_vmdk import (COMPRESSED, GD_AT_END, MARKERS, SECTOR, cowd, descriptor, header, places,
                        sesparse, sparse, stream)

SECRET = "/etc/hostname"
OWN = ('RW 20480 SPARSE "disk.vmdk"',)
FLAT = descriptor("monolithicFlat", (f'RW 1 FLAT "{SECRET}" 0',))


def text(**fields):
    """A sparse image with this descriptor."""
    return lambda: sparse(text=descriptor(**fields))


def field(**fields):
    """A sparse image with these fields of the header."""
    return lambda: sparse(fields=fields)


def word(where, value, index=0, base=sparse):
    """A sparse image with another entry in a table: `where` is gd, rgd or gt."""
    def make():
        image = base()
        return patched(image, places(image)[where] + 4 * index, struct.pack("<I", value))
    return make


def sector(where, base=sparse):
    """The number of a part's sector."""
    return places(base())[where] // SECTOR


def inside_capacity_zero(content, at=1):
    """A header without capacity, which sends QEMU to the descriptor, there or anywhere."""
    image = bytearray(64 * SECTOR)
    image[:SECTOR] = header(capacity=0, desc_offset=at, desc_size=20)
    image[at * SECTOR:at * SECTOR + len(content)] = content
    return bytes(image)


def plain(data):
    """A file that is nothing but these bytes."""
    return lambda: data


SOUND = [
    Row("vmdk", "sparse", sparse, "", OPENS, "the usual kind", virtual=20480 * 512),
    Row("vmdk", "stream", stream, "", OPENS, "as OVF tools write it; the footer has the directory",
        virtual=20480 * 512),
    Row("vmdk", "stream without footer", lambda: stream(footer=False), "", OPENS,
        "the header itself may name the directory"),
    Row("vmdk", "zeroed grains", lambda: patched(
        sparse(fields={"flags": 7, "version": 2}), sector("gt") * SECTOR, b"\1\0\0\0"), "", OPENS,
        "QEMU's zeroed_grain: entry 1 is no sector"),
    Row("vmdk", "own name is another", text(extents=('RW 20480 SPARSE "renamed.vmdk"',)), "",
        OPENS, "renaming a file leaves the old name inside, and nobody goes by it"),
    Row("vmdk", "CR and LF", lambda: sparse(text=descriptor().replace(b"\n", b"\r\n")), "", OPENS,
        "a descriptor may come from Windows"),
    Row("vmdk", "read-only extent", text(extents=('RDONLY 20480 SPARSE "disk.vmdk"',)), "", OPENS,
        "stream writers say so"),
    Row("vmdk", "capacity rounded up", text(extents=('RW 20400 SPARSE "disk.vmdk"',)), "", OPENS,
        "some writers round the header's capacity up to whole grains"),
    Row("vmdk", "smallest grains", lambda: sparse(grain=8), "", OPENS, "4 KiB"),
    Row("vmdk", "long descriptor", text(extra=[f'ddb.x{i} = "1"' for i in range(300)]), "", OPENS,
        "the disk data base may have any entries"),
]

DESCRIPTORS = [
    Row("vmdk", "flat", plain(FLAT), "external-data", OPENS,
        "CVE-2022-47951: a descriptor that names a file of the host"),
    Row("raw", "flat said to be raw", plain(FLAT), "also-vmdk", OPENS,
        "CVE-2024-40767: the same, and only the stated format protects"),
    Row("raw", "descriptor behind comments",
        plain(b"# a\n   \n#b\r\nversion=1\n" + FLAT.split(b"\n", 2)[2]), "also-vmdk", OPENS,
        "QEMU's prober skips comments and blank lines"),
    Row("raw", "descriptor behind many comments",
        plain(b"# comment\n" * 200 + b"version=1\n" + FLAT.split(b"\n", 2)[2]), "also-vmdk", OPENS,
        "QEMU looks at 512 bytes, others may look further"),
    Row("raw", "first line alone", plain(b"# Disk DescriptorFile\n".ljust(4096, b"\0")),
        "also-vmdk", OPENS, "VirtualBox and image services go by the first line"),
    Row("vmdk", "two gigabytes an extent",
        plain(descriptor("twoGbMaxExtentSparse", ('RW 4 SPARSE "a-s001.vmdk"',))),
        "external-data", REFUSES, "each extent is a file; here it is missing"),
    Row("vmdk", "vmfs", plain(descriptor("vmfs", (f'RW 1 VMFS "{SECRET}"',))), "external-data",
        OPENS, "the same on ESX's file system"),
    Row("vmdk", "seSparse", plain(descriptor("seSparse", ('RW 4 SESPARSE "a"',))),
        "external-data", REFUSES, "the same for ESX's snapshots"),
    Row("vmdk", "physical disk", plain(descriptor("fullDevice", ('RW 1 FLAT "/dev/sda" 0',))),
        "external-data", REFUSES, "VMware opens a disk of the host; QEMU does not know the kind"),
    Row("vmdk", "network", plain(descriptor("monolithicFlat", (
        'RW 1 FLAT "nbd://192.0.2.1/x" 0',))), "external-data", REFUSES,
        "QEMU would connect to a server"),
    Row("vmdk", "json", plain(descriptor("monolithicFlat", (
        "RW 1 FLAT \"json:{'driver':'null-co'}\" 0",))), "external-data", REFUSES,
        "QEMU's own way of writing anything as a file's name"),
    Row("vmdk", "no extents", plain(descriptor("monolithicFlat", ())), "external-data", REFUSES,
        "a descriptor without a disk: qemu-img dies by an assertion"),
    Row("vmdk", "sizes beyond 2^63", plain(descriptor("monolithicFlat", (
        f'RW 9223372036854775807 FLAT "{SECRET}" 0',))), "external-data size-unknown", REFUSES,
        "sectors times 512 overflow"),
    Row("vmdk", "sizes whose sum is beyond 2^63", plain(descriptor("monolithicFlat", (
        f'RW {1 << 53} FLAT "{SECRET}" 0',) * 3)), "external-data size-unknown", REFUSES,
        "each one is possible, all together are not"),
    Row("vmdk", "text without extents", plain(b"version=1\n"), "external-data", REFUSES,
        "a descriptor by QEMU's prober, and nothing else"),
]

EMBEDDED = [
    Row("vmdk", "capacity 0", lambda: inside_capacity_zero(FLAT), "external-data", OPENS,
        "CVE-2022-47951: a sparse header without capacity makes QEMU open the descriptor's files"),
    Row("vmdk", "capacity 0, elsewhere", lambda: inside_capacity_zero(FLAT, 30),
        "external-data bad-header", REFUSES,
        "the same, out of sight of who looks at sector 1 only; QEMU then misses the CID there"),
    Row("vmdk", "flat extent inside", text(extents=(f'RW 20480 FLAT "{SECRET}" 0',)),
        "external-data", OPENS, "VMware follows the descriptor; QEMU ignores it here"),
    Row("vmdk", "extent with a path", text(extents=('RW 20480 SPARSE "../../x.vmdk"',)),
        "external-data", OPENS, "OpenStack's OSSA-2024-001 check: no slash in an extent's name"),
    Row("vmdk", "extent with a Windows path", text(extents=('RW 20480 SPARSE "C:\\x.vmdk"',)),
        "external-data", OPENS, "the same there"),
    Row("vmdk", "two extents", text(extents=(*OWN, 'RW 20480 SPARSE "b.vmdk"')),
        "external-data size-mismatch", OPENS, "the second one is another file"),
    Row("vmdk", "lower case", text(extents=(f'rw 20480 flat "{SECRET}" 0',)), "external-data",
        OPENS, "VMware does not care for case"),
    Row("vmdk", "tabs and blanks", text(extents=(f' \tRW\t20480 \t FLAT "{SECRET}" 0 ',)),
        "external-data", OPENS, "VMware skips them"),
    Row("vmdk", "blanks around a kind", lambda: sparse(text=descriptor().replace(
        b'createType="monolithicSparse"', b' createType\t= "vmfs" ')), "external-data", OPENS,
        "the same"),
    Row("vmdk", "size that is no number", text(extents=('RW 20480x SPARSE "disk.vmdk"',)),
        "size-mismatch", OPENS, "each reader stops somewhere else"),
    Row("vmdk", "size of 20 digits", text(extents=('RW 18446744073709572096 SPARSE "disk.vmdk"',)),
        "size-mismatch", OPENS, "2^64 and 20480: some wrap around"),
    Row("vmdk", "size less by a grain", text(extents=('RW 20352 SPARSE "disk.vmdk"',)),
        "size-mismatch", OPENS, "more than rounding up can be"),
    Row("vmdk", "kind of another", text(create_type="monolithicFlat"), "external-data", OPENS,
        "header and descriptor disagree whether the data is here"),
    Row("vmdk", "parent", text(parent="/etc/passwd", parent_cid="12345678"), "backing-file", OPENS,
        "CVE-2023-32684: QEMU opens the parent with the image (info alone does not)"),
    Row("vmdk", "parent in a comment", text(extra=('# parentFileNameHint="/etc/passwd"',)),
        "backing-file", OPENS, "QEMU finds the word wherever it is"),
    Row("vmdk", "parent behind NUL",
        lambda: patched(sparse(), SECTOR + 2000, b'parentFileNameHint="/etc/passwd"\n'),
        "backing-file", OPENS, "who reads lines does not stop at NUL"),
    Row("vmdk", "parent's CID alone", text(parent_cid="0"), "backing-file", OPENS,
        "VMware looks for the parent by itself"),
    Row("vmdk", "parent beyond the descriptor",
        lambda: patched(sparse(fields={"desc_size": 1}, text=descriptor() + b"#" * 200 +
                               b'\nparentFileNameHint="x"\n'), 0, b""),
        "backing-file", OPENS, "QEMU reads 20 sectors, whatever the header says"),
    Row("vmdk", "changed-block tracking", text(extra=('changeTrackPath="disk-ctk.vmdk"',)),
        "external-data", OPENS, "VMware opens this file as well"),
    Row("vmdk", "side car", text(extra=('ddb.sidecars = "x_1.vmfd;"',)), "external-data", OPENS,
        "VMware's I/O filters keep files beside the disk"),
    Row("vmdk", "encrypted", text(extra=('encryptionKeys="vmware:key/list/"',)),
        "unknown-feature", OPENS, "QEMU shows the cipher text"),
    Row("vmdk", "no CID", lambda: sparse(text=descriptor().replace(b"\nCID=", b"\nXYZ=")),
        "bad-header", OPENS, "no descriptor that VMware would take; QEMU finds parentCID instead"),
    Row("vmdk", "two kinds", text(extra=('createType="streamOptimized"',)), "bad-header", OPENS,
        "who reads the first and who reads the last disagree"),
    Row("vmdk", "no extent", text(extents=()), "bad-header", OPENS, "VMware would have no disk"),
    Row("vmdk", "size in the descriptor", text(extents=('RW 99999999 SPARSE "disk.vmdk"',)),
        "size-mismatch", OPENS, "VMware goes by the descriptor, QEMU by the header"),
    Row("vmdk", "no descriptor", lambda: sparse(text=b""), "detached-header", REFUSES,
        "an extent of a disk in several files"),
    Row("vmdk", "no place for one", field(desc_offset=0, desc_size=0), "detached-header", OPENS,
        "the same by its header; QEMU looks at sector 1 nevertheless"),
    Row("vmdk", "descriptor elsewhere", field(desc_offset=2), "bad-header", OPENS,
        "QEMU looks at sector 1, VMware where the header says"),
    Row("vmdk", "descriptor of 1 GiB", field(desc_size=1 << 21), "table-size", OPENS,
        "nothing has to be read for longer than a descriptor can be"),
    Row("vmdk", "descriptor beyond the end", field(desc_size=128, capacity=1024, overhead=64),
        "table-overlap size-mismatch", OPENS, "grains over the descriptor"),
]

NUMBERS = [
    Row("vmdk", "larger than allowed", lambda: sparse(fields={"capacity": 1 << 38},
                                                      text=descriptor(extents=(
                                                          f'RW {1 << 38} SPARSE "d"',))),
        "size-limit table-outside", OPENS, "a file of 70 KiB claims 128 TiB (CVE-2015-5162)"),
    Row("vmdk", "directory of 2^38 entries", lambda: sparse(
        fields={"capacity": 1 << 50, "grain": 8},
        text=descriptor(extents=(f'RW {1 << 50} SPARSE "d"',))), "size-limit table-size", OPENS,
        "QEMU counts them in 32 bits: there are none"),
    Row("vmdk", "capacity overflows", field(capacity=1 << 62), "size-mismatch size-unknown",
        REFUSES, "sectors times 512 are more than 2^63 (CVE-2014-0144)"),
    Row("vmdk", "grain 0", field(grain=0), "bad-header", REFUSES,
        "division by zero in many readers"),
    Row("vmdk", "grain of 3 sectors", field(grain=3), "bad-header", OPENS,
        "not a power of two: VMware and VirtualBox refuse"),
    Row("vmdk", "grain of 4 sectors", field(grain=4), "bad-header", OPENS,
        "less than the document allows: large tables for a small disk"),
    Row("vmdk", "grain of 2 GiB", field(grain=1 << 22), "bad-header", REFUSES,
        "QEMU: unrealistic; it would allocate as much"),
    Row("vmdk", "no entries in a table", field(gtes=0), "bad-header", REFUSES,
        "division by zero (CVE-2014-0144)"),
    Row("vmdk", "1024 entries in a table", field(gtes=1024), "bad-header", REFUSES,
        "QEMU: L2 table size too big (CVE-2014-0144)"),
    Row("vmdk", "256 entries in a table", field(gtes=256), "bad-header", OPENS,
        "VMware and VirtualBox know 512 only and would see another disk"),
    Row("vmdk", "version 4", field(version=4), "unknown-version", REFUSES, "not known to anybody"),
    Row("vmdk", "version 0", field(version=0), "unknown-version", OPENS, "not known to VMware"),
    Row("vmdk", "unknown flag", field(flags=3 | 1 << 20), "unknown-feature", OPENS,
        "QEMU ignores flags, VMware does not"),
    Row("vmdk", "unknown compression", field(compression=2), "unknown-feature", OPENS,
        "QEMU would take the grains for plain ones"),
    Row("vmdk", "compression without flag", field(compression=1), "bad-header", OPENS,
        "QEMU inflates, VMware does not: two disks in one file"),
    Row("vmdk", "flag without compression", field(flags=3 | COMPRESSED | MARKERS), "bad-header",
        OPENS, "the other way round"),
    Row("vmdk", "damaged by a transfer as text", field(newlines=b"\n\n\r\n"), "bad-header", OPENS,
        "this is what these four bytes are for"),
    Row("vmdk", "file ends in the header", lambda: sparse()[:600], "truncated", REFUSES,
        "no descriptor"),
    Row("vmdk", "file ends before the grains", lambda: sparse(grains=())[:20000],
        "truncated", REFUSES, "QEMU: File truncated"),
]

TABLES = [
    Row("vmdk", "directory beyond the end", field(gd=1 << 40), "table-outside", OPENS,
        "QEMU reads zeroes there"),
    Row("vmdk", "directory's place overflows", field(gd=(1 << 63) + 5), "table-outside", OPENS,
        "sectors times 512 wrap around to sector 5"),
    Row("vmdk", "directory in the header", field(gd=0), "table-overlap", OPENS,
        "the magic would be a table's number"),
    Row("vmdk", "directory in the descriptor", field(gd=2), "table-overlap", OPENS,
        "the text would be tables' numbers"),
    Row("vmdk", "directory in the grains", field(gd=128), "table-overlap", OPENS,
        "the VM would write the directory, and so reach the descriptor"),
    Row("vmdk", "second directory in the grains", field(rgd=128), "table-overlap", OPENS,
        "QEMU writes new grains' numbers through it"),
    Row("vmdk", "second directory beyond the end", field(rgd=1 << 33), "table-outside", OPENS,
        "the same"),
    Row("vmdk", "table beyond the end", word("gd", 1 << 31), "table-outside", OPENS,
        "QEMU reads zeroes there, and writes there"),
    Row("vmdk", "table in the header", word("gd", 0x00000001), "table-overlap", OPENS,
        "QEMU would write grains' numbers into the descriptor"),
    Row("vmdk", "table on the directory", lambda: word("gd", sector("gd"))(), "table-overlap",
        OPENS, "the VM would fill the directory"),
    Row("vmdk", "table in the grains", word("gd", 130), "table-overlap", OPENS,
        "the VM would write the table, and through it the descriptor"),
    Row("vmdk", "second directory's table in the descriptor", word("rgd", 1), "table-overlap",
        OPENS, "QEMU writes into both tables"),
    Row("vmdk", "second directory lacks a table", word("rgd", 0), "bad-entry", OPENS,
        "QEMU would write to the number's place from sector 0 on: over the header"),
    Row("vmdk", "grain in the header", word("gt", 1), "bad-entry", OPENS,
        "the VM would write its own descriptor"),
    Row("vmdk", "grain in the descriptor", word("gt", 2), "bad-entry", OPENS, "the same"),
    Row("vmdk", "grain in the tables", word("gt", 30), "bad-entry", OPENS,
        "the VM would write the tables"),
    Row("vmdk", "grain beyond the end", word("gt", 1 << 30), "truncated", OPENS,
        "qemu-img check: points after EOF"),
    Row("vmdk", "grain half beyond the end", lambda: sparse()[:-512], "truncated", OPENS,
        "the file was cut off"),
]

STREAMS = [
    Row("vmdk", "footer promised", lambda: patched(
        stream(footer=False), 56, struct.pack("<Q", GD_AT_END)), "truncated", REFUSES,
        "QEMU: Invalid footer"),
    Row("vmdk", "footer of another size", lambda: stream(footer_fields={"capacity": 1 << 30}),
        "size-mismatch table-outside", OPENS,
        "the footer counts for QEMU, the header for who reads a stream"),
    Row("vmdk", "footer of another kind", lambda: stream(footer_fields={"compression": 0}),
        "bad-header table-overlap", OPENS, "header and footer disagree"),
    *[Row("vmdk", f"footer with another {name}", lambda name=name, value=value: stream(
        footer_fields={name: value}), "bad-header", OPENS, "header and footer disagree")
      for name, value in (("version", 2), ("flags", 2 | COMPRESSED | MARKERS), ("desc_size", 19),
                          ("overhead", 127))],
    *[Row("vmdk", f"footer damaged {-at} bytes before the end",
          lambda at=at: (lambda image: patched(image, len(image) + at, b"\7"))(stream()),
          "truncated", REFUSES, "QEMU: Invalid footer")
      for at in (-1536 + 8, -1536 + 12, -1024, -512, -512 + 8, -512 + 12)],
    Row("vmdk", "file not of whole sectors", lambda: stream() + b"x", "truncated", REFUSES,
        "the footer is not where it should be"),
    Row("vmdk", "stream's directory beyond the end", lambda: stream(footer_fields={"gd": 99999}),
        "table-outside", OPENS, "QEMU reads zeroes"),
    Row("vmdk", "stream's directory in the descriptor", lambda: stream(footer_fields={"gd": 3}),
        "table-overlap", OPENS, "QEMU writes new tables' entries"),
    Row("vmdk", "no markers", lambda: stream(fields={"flags": 3 | COMPRESSED}), "bad-header",
        OPENS, "grains without their length"),
]

EXTENTS = [
    Row("vmdk", "COWD", cowd, "detached-header", OPENS,
        "an extent of ESX; with a descriptor inside, which ESX never writes, QEMU opens it"),
    Row("vmdk", "COWD version 2", lambda: cowd(version=2), "detached-header unknown-version",
        OPENS, "not known"),
    Row("vmdk", "COWD with grain 0", lambda: cowd(grain=0, gd_size=1),
        "detached-header bad-header", OPENS, "division by zero"),
    Row("vmdk", "COWD with a small directory", lambda: cowd(gd_size=1),
        "detached-header table-size", OPENS, "reads beyond the directory"),
    Row("vmdk", "COWD with other flags", lambda: cowd(flags=7),
        "detached-header unknown-feature", OPENS, "not known"),
    Row("vmdk", "seSparse extent", sesparse, "detached-header", REFUSES,
        "QEMU opens it by a descriptor only"),
    Row("vmdk", "seSparse with a journal", lambda: patched(
        sesparse(), SECTOR + 24, b"\1"), "detached-header not-closed", REFUSES,
        "QEMU: Image is dirty"),
    Row("vmdk", "seSparse of another version", lambda: sesparse(version=3),
        "detached-header unknown-version", REFUSES, "QEMU: Unsupported version"),
    Row("vmdk", "seSparse with other grains", lambda: sesparse(grain=16),
        "detached-header unknown-feature", REFUSES, "QEMU: Unsupported grain size"),
    Row("vmdk", "seSparse with tables outside", lambda: sesparse(gts=1 << 40),
        "detached-header table-outside", REFUSES, "beyond the end"),
    Row("vmdk", "COWD cut off", lambda: cowd()[:1000], "detached-header truncated", OPENS,
        "QEMU reads zeroes"),
    Row("vmdk", "seSparse cut off", lambda: sesparse()[:600], "detached-header truncated", REFUSES,
        ""),
    Row("vmdk", "seSparse too large", lambda: sesparse(capacity=1 << 60),
        "detached-header size-unknown", REFUSES, "sectors times 512 overflow"),
    Row("vmdk", "seSparse with another second header", lambda: patched(
        sesparse(), SECTOR, b"x"), "detached-header bad-header", REFUSES,
        "QEMU: Bad volatile header magic"),
    Row("vmdk", "seSparse without second header", lambda: sesparse(volatile=1 << 60),
        "detached-header table-outside", REFUSES, "beyond the end, and overflows"),
]

ROWS = SOUND + DESCRIPTORS + EMBEDDED + NUMBERS + TABLES + STREAMS + EXTENTS
