# SPDX-License-Identifier: LGPL-2.1-or-later
"""VHD images: both footers, the geometry, the dynamic header, parents, the allocation table."""

import struct

from corpus import OPENS, REFUSES, Row, patched
from forge_vhd import DIFFERENCING, FIXED, UNUSED, dynamic, fixed, footer

MIB = 1 << 20
BLOCK = 2 * MIB
CHS = (200, 4, 17)
CHS_SIZE = 200 * 4 * 17 * 512


def both(**fields):
    """A dynamic disk with these fields in both footers."""
    return lambda: dynamic(footer_fields=fields)


def head(**fields):
    """A dynamic disk with these fields in its dynamic header."""
    return lambda: dynamic(header_fields=fields)


def entry(value, index=0):
    """A dynamic disk with another entry in its table."""
    return lambda: patched(dynamic(), 1536 + 4 * index, struct.pack(">I", value))


def with_mbr():
    """A dynamic disk whose first sector ends as a boot sector does, its sum right."""
    image = patched(dynamic(), 510, b"\x55\xaa")
    size = len(image)
    for at in (0, size - 512):
        image[at + 510:at + 512] = b"\x55\xaa"
        old = struct.unpack_from(">I", image, at + 64)[0]
        struct.pack_into(">I", image, at + 64, (old - 0x55 - 0xAA) & 0xFFFFFFFF)
    return image


def moved_header():
    """A dynamic disk with a GPT at sector 1, and its own header behind."""
    plain = dynamic(footer_fields={"data_offset": 1024}, header_fields={"table": 2048},
                    blocks=())
    return plain[:512] + b"EFI PART".ljust(512, b"\0") + plain[512:]


def header_behind():
    """A dynamic disk whose header is where QEMU puts the first block."""
    plain = dynamic(footer_fields={"data_offset": 1024}, header_fields={"table": 512}, blocks=())
    return plain[:512] + plain[1536:2048] + plain[512:1536] + plain[2048:]


SOUND = [
    Row("vhd", "dynamic", dynamic, "", OPENS, "the usual kind", virtual=8 * MIB),
    Row("vpc", "QEMU's name", dynamic, "", OPENS, "vpc is the same format", virtual=8 * MIB),
    Row("vhd", "fixed", fixed, "", OPENS, "data, then the footer", virtual=MIB),
    Row("vhd", "fixed with MBR", lambda: fixed(content=bytes(510) + b"\x55\xaa"), "", OPENS,
        "the data is a disk's"),
    Row("vhd", "fixed with GPT", lambda: fixed(content=bytes(510) + b"\x55\xaaEFI PART"), "",
        OPENS, "the same"),
    Row("vhd", "small blocks", lambda: dynamic(block=4096, size=MIB, blocks=(0, 5, 9)), "", OPENS,
        "any power of two"),
    Row("vhd", "smallest blocks", lambda: dynamic(block=512, size=8192, blocks=(0, 15)), "", OPENS,
        "a sector each"),
    Row("vhd", "largest blocks", lambda: dynamic(block=256 * MIB, blocks=()), "", OPENS,
        "256 MiB"),
    Row("vhd", "room for 2040 GiB", lambda: dynamic(
        header_fields={"entries": 1044480}, table=[UNUSED] * 1044480, blocks=()), "", OPENS,
        "XenServer's tables have room for the largest disk"),
    Row("vhd", "saved state and hidden", lambda: dynamic(last_footer={"saved": 1}), "", OPENS,
        "may differ between the two footers"),
    Row("vhd", "temporary", both(features=3), "", OPENS, "a known feature"),
]

SIZES = [
    Row("vhd", "Hyper-V's size", both(app=b"win ", chs=CHS), "", OPENS,
        "by the footer, not by the geometry", virtual=8 * MIB),
    Row("vhd", "Virtual PC's size", both(app=b"vpc ", chs=CHS), "", OPENS,
        "by the geometry", virtual=CHS_SIZE),
    Row("vhd", "QEMU's size", both(app=b"qemu", chs=CHS), "", OPENS, "by the geometry",
        virtual=CHS_SIZE),
    Row("vhd", "QEMU's forced size", both(app=b"qem2", chs=CHS), "", OPENS, "by the footer",
        virtual=8 * MIB),
    Row("vhd", "Disk2vhd's size", both(app=b"d2v ", chs=CHS), "", OPENS, "by the footer",
        virtual=8 * MIB),
    Row("vhd", "XenServer's size", both(app=b"tap\0", chs=CHS), "", OPENS, "by the footer",
        virtual=8 * MIB),
    Row("vhd", "XenConverter's size", both(app=b"CTXS", chs=CHS), "", OPENS, "by the footer",
        virtual=8 * MIB),
    Row("vhd", "anybody's size", both(app=b"me  ", chs=CHS), "", OPENS, "by the geometry",
        virtual=CHS_SIZE),
    Row("vhd", "largest geometry", both(app=b"vpc ", chs=(65535, 16, 255)), "", OPENS,
        "means that there is none", virtual=8 * MIB),
    Row("vhd", "geometry larger than the table", both(app=b"vpc ", chs=(65535, 16, 63)),
        "table-size", REFUSES, "QEMU: Page table too small (CVE-2014-0144)"),
    Row("vhd", "fixed, geometry larger than the data",
        lambda: fixed(app=b"vpc ", chs=(100, 16, 17)), "size-mismatch", OPENS,
        "QEMU lets the VM write over the footer, and behind it"),
    Row("vhd", "fixed, size larger than the data", lambda: fixed()[512:], "size-mismatch", OPENS,
        "QEMU lets the VM grow the file"),
    Row("vhd", "fixed, size smaller than the data", lambda: bytes(512) + fixed(), "size-mismatch",
        OPENS, "data that no VM sees"),
    Row("vhd", "no geometry", both(app=b"vpc ", chs=(0, 0, 0)), "size-unknown", OPENS,
        "QEMU sees a disk of nothing"),
    Row("vhd", "no size", both(size=0, original=1, chs=CHS), "size-unknown", OPENS,
        "and Hyper-V one of nothing"),
    Row("vhd", "not whole sectors", both(size=8 * MIB - 1), "bad-header", OPENS,
        "QEMU rounds down, others do not"),
    Row("vhd", "larger than any", both(size=1 << 62), "bad-header table-size", REFUSES,
        "QEMU: 2040 GiB at most (CVE-2014-0144)"),
    Row("vhd", "larger than allowed", lambda: dynamic(size=3 * MIB), "size-limit", OPENS,
        "the limit of the caller", options=("--max-size", "2M")),
    Row("vhd", "larger than allowed elsewhere", both(app=b"vpc ", chs=(10, 4, 17)), "size-limit",
        OPENS, "Hyper-V would show 8 MiB", options=("--max-size", "4M"), virtual=10 * 4 * 17 * 512),
]

FOOTERS = [
    Row("raw", "fixed said to be raw", fixed, "also-vhd", OPENS,
        "who probes the end sees a VHD, and a smaller disk"),
    Row("raw", "dynamic said to be raw", dynamic, "also-vhd", OPENS, "QEMU would take it for vpc"),
    Row("raw", "footer of 511 bytes", lambda: bytes(MIB) + footer(size=MIB, type=FIXED)[:511],
        "also-vhd", OPENS, "Virtual PC before 2004"),
    Row("vhd", "footer of 511 bytes", lambda: fixed()[:-1],
        "", OPENS, "QEMU finds it by rounding the file's size up", virtual=MIB),
    Row("vhd", "footer of 200 bytes", lambda: bytes(MIB) + footer(size=MIB, type=FIXED)[:200],
        "bad-header", OPENS, "QEMU finds it just so, nobody else does"),
    Row("raw", "footer of 200 bytes", lambda: bytes(MIB) + footer(size=MIB, type=FIXED)[:200],
        "also-vhd", OPENS, "the same"),
    Row("vhd", "qcow2 inside fixed", lambda: fixed(content=b"QFI\xfb\0\0\0\3"), "also-qcow2",
        OPENS, "the VM writes a header into its first sector, and waits for somebody to probe"),
    Row("vhd", "footer said to be of a dynamic disk", lambda: fixed(type=3), "bad-header", REFUSES,
        "QEMU: a footer at the end alone is of a fixed disk"),
    Row("vhd", "fixed with a header", lambda: fixed(data_offset=512), "bad-header", OPENS,
        "fixed for some, dynamic for others"),
    Row("vhd", "fixed at the begin", both(type=FIXED), "bad-header", OPENS,
        "QEMU reads the table and then ignores it: the VM may write the header"),
    Row("vhd", "file not of whole sectors", lambda: b"x" + fixed(), "bad-header", REFUSES,
        "QEMU looks for the footer behind it"),
    Row("vhd", "check sum", both(checksum=1), "bad-checksum", REFUSES, "QEMU: Incorrect header"),
    Row("vhd", "check sum of fixed", lambda: fixed(checksum=1), "bad-checksum", REFUSES,
        "the same"),
    Row("vhd", "version 2", both(version=0x20000), "unknown-version", OPENS, "QEMU does not look"),
    Row("vhd", "unknown feature", both(features=6), "unknown-feature", OPENS,
        "QEMU does not look"),
    Row("vhd", "reserved bytes", lambda: patched(dynamic(), 300, b"x"), "bad-checksum",
        REFUSES, "they are part of the sum"),
    Row("vhd", "MBR in a footer", with_mbr, "bad-header", OPENS,
        "one disk for who knows VHD, another for who does not"),
    Row("vhd", "GPT in a dynamic disk", moved_header, "also-partitions", OPENS, "the same"),
    Row("vhd", "last footer differs", lambda: dynamic(last_footer={"type": DIFFERENCING}),
        "bad-header", OPENS, "VirtualBox goes by the last one, QEMU by the first"),
    Row("vhd", "last footer is missing", lambda: dynamic()[:-512] + bytes(512), "bad-header",
        OPENS, "the same"),
    Row("vhd", "file ends in the header", lambda: dynamic()[:1024], "truncated", REFUSES, ""),
]

HEADERS = [
    Row("vhd", "differencing", lambda: dynamic(
        footer_fields={"type": DIFFERENCING}, header_fields={
            "parent_name": "base.vhd", "locators": ((b"W2ku", 512, 20, 1536),)}),
        "backing-file", OPENS, "QEMU ignores the parent, Hyper-V and VirtualBox open it"),
    Row("vhd", "parent by name alone", head(parent_name="../../etc/passwd"), "backing-file", OPENS,
        "a dynamic disk has none"),
    Row("vhd", "parent by locator alone", head(locators=((b"MacX", 512, 20, 1536),)),
        "backing-file", OPENS, "the same"),
    Row("vhd", "header beyond the end", both(data_offset=1 << 40), "table-outside", REFUSES,
        "QEMU: Invalid header magic"),
    Row("vhd", "header in the footer", both(data_offset=0), "table-outside", REFUSES, "the same"),
    Row("vhd", "header overflows", both(data_offset=(1 << 64) - 512), "table-outside", REFUSES,
        "the place and 1,024 bytes wrap around"),
    Row("vhd", "header without magic", head(cookie=b"cxsparsf"), "bad-header", REFUSES, ""),
    Row("vhd", "header's check sum", head(checksum=1), "bad-checksum", OPENS,
        "QEMU does not look, Hyper-V does"),
    Row("vhd", "header's version", head(version=0x20000), "unknown-version", OPENS,
        "QEMU does not look"),
    Row("vhd", "block size 0", head(block=0), "bad-header", REFUSES,
        "CVE-2014-0144: division by zero"),
    Row("vhd", "block size not a power of two", head(block=3 * MIB), "bad-header", REFUSES,
        "QEMU: Invalid block size"),
    Row("vhd", "block of 2 GiB", lambda: dynamic(blocks=(), header_fields={"block": 1 << 31}),
        "bad-header", OPENS,
        "QEMU puts a bitmap of 512 KiB on a stack of 1 MiB, twice"),
    Row("vhd", "few entries", head(entries=3), "table-size", REFUSES,
        "QEMU: Page table too small"),
    Row("vhd", "many entries", head(entries=0xFFFFFFFF), "table-size", REFUSES,
        "CVE-2014-0144: Max Table Entries too large"),
    Row("vhd", "table of 2 GiB", head(entries=0x1FFFFFFF), "table-outside", REFUSES,
        "a table that the file does not have"),
    Row("vhd", "table beyond the end", head(table=1 << 50), "table-outside", REFUSES,
        "QEMU: points after the end of file"),
    Row("vhd", "table overflows", head(table=(1 << 64) - 8), "table-outside", REFUSES,
        "place and length wrap around"),
    Row("vhd", "table not at a sector", head(table=1540), "table-misaligned", OPENS,
        "its last entry is then a piece of a bitmap"),
    Row("vhd", "table on the header", head(table=1024), "table-overlap", OPENS,
        "the header would be block numbers"),
    Row("vhd", "header behind the table", header_behind, "table-overlap", OPENS,
        "qemu-io -c 'write 0 4k' writes over it: the VM could put a parent there"),
    Row("vhd", "table on the footer", head(table=0), "table-overlap", REFUSES, "the same"),
]

BLOCKS = [
    Row("vhd", "block on the footer", entry(0), "table-overlap", OPENS,
        "the VM would write the footer: a parent, for instance"),
    Row("vhd", "block on the header", entry(1), "table-overlap", OPENS, "the same"),
    Row("vhd", "block on the table", entry(3), "table-overlap", OPENS,
        "the VM would write the table"),
    Row("vhd", "block on the last footer", entry(5), "truncated", OPENS,
        "the VM would write the footer that VirtualBox goes by"),
    Row("vhd", "block beyond the end", entry(0xFFFFFFFE, 1), "truncated", REFUSES,
        "QEMU: points after the end of file"),
    Row("vhd", "unused entry is wrong", lambda: patched(
        dynamic(header_fields={"entries": 128}), 1536 + 4 * 100, b"\x7f\0\0\0"), "truncated",
        REFUSES, "QEMU looks at all entries"),
]


ROWS = SOUND + SIZES + FOOTERS + HEADERS + BLOCKS
