# SPDX-License-Identifier: LGPL-2.1-or-later
"""VHDX images: headers, log, region tables, metadata, the block allocation table."""

import struct

import forge_vhdx as forge
from corpus import OPENS, REFUSES, Row, patched
from forge_vhdx import BAT, METADATA, MIB, PRESENT, image, items, metadata

GUID = bytes(range(1, 17))
OTHER = bytes(range(2, 18))
KIB = 1024


def headers(**fields):
    """With these fields in both headers."""
    return lambda: image(header_fields=fields)


def regions(*entries):
    """With this region table."""
    return lambda: image(regions=list(entries))


def meta(change=None, more=(), without=None, **fields):
    """With other metadata: `change` is {item: (flags, data, ...)}."""
    def make():
        listed = [(guid, *((change or {}).get(guid) or rest))
                  for guid, *rest in items(4 * MIB, **fields) if guid != without]
        return image(meta=metadata(listed + list(more)))
    return make


def entry(value, index=0):
    """With another entry in the allocation table."""
    return lambda: image(entries={0: 4 * MIB | PRESENT, 2: 5 * MIB | PRESENT, index: value})


def with_log(guid=GUID, log_guid=GUID, target=3 * MIB):
    """With a log that is to be replayed."""
    made = image(header_fields={"log_guid": guid})
    return patched(made, MIB, forge.log_entry(log_guid, target=target))


def broken(at):
    """With one bit turned there, so that a sum is wrong."""
    return lambda: patched(image(), at, b"\xee")


B = (BAT, 2 * MIB, MIB, 1)
M = (METADATA, 3 * MIB, MIB, 1)

SOUND = [
    Row("vhdx", "dynamic", image, "", OPENS, "the usual kind", virtual=4 * MIB),
    Row("vhdx", "one header is torn", broken(64 * KIB + 200), "", OPENS,
        "a header is written at a time: the other one counts"),
    Row("vhdx", "identical headers", lambda: image(second={"sequence": 1}), "", OPENS,
        "Disk2vhd writes them so"),
    Row("vhdx", "old header with a log", lambda: image(
        header_fields={"log_guid": GUID}, second={"log_guid": bytes(16)}), "", OPENS,
        "the second header is newer"),
    Row("vhdx", "bitmap's entry", lambda: image(size=4100 * MIB, blocks=(0,), entries={
        0: 4 * MIB | PRESENT, 4096: 0}), "", OPENS, "one for each 4096 blocks of 1 MiB"),
    Row("vhdx", "no log", headers(log_length=0), "", OPENS, "nothing to replay"),
    Row("vhdx", "optional region", lambda: image(regions=[
        B, M, (forge.UNKNOWN, 4 * MIB, MIB, 0)], entries={1: 0}), "", OPENS,
        "what is not required is ignored"),
    Row("vhdx", "optional item", meta(more=[(forge.UNKNOWN, 0, b"12345678")]), "", OPENS,
        "the same"),
    Row("vhdx", "fixed", meta(flags=1), "", OPENS, "leave blocks allocated"),
    Row("vhdx", "all states", lambda: image(entries={0: 1, 1: 2, 2: 3, 3: 5}), "", OPENS,
        "undefined, zero, unmapped, and unmapped as it was before 1.0"),
    Row("vhdx", "4 KiB physical sectors", meta(physical=4096), "", OPENS, "no more than a hint"),
]

HEADERS = [
    Row("raw", "said to be raw", image, "also-vhdx", OPENS, "QEMU would take it for vhdx"),
    Row("vhdx", "both headers are torn", lambda: patched(
        broken(64 * KIB + 200)(), 128 * KIB + 200, b"\xee"), "bad-checksum", REFUSES,
        "QEMU: No valid VHDX header found"),
    Row("vhdx", "headers disagree", lambda: image(second={"sequence": 1, "data_write": GUID}),
        "bad-header", REFUSES, "QEMU: the same number, not the same header"),
    Row("vhdx", "version 2", headers(version=2), "bad-checksum", REFUSES, "no valid header"),
    Row("vhdx", "log of another version", headers(log_version=1), "unknown-version", REFUSES,
        "QEMU knows version 0 only"),
    Row("vhdx", "log to be replayed", with_log, "not-closed", REFUSES,
        "QEMU does not open it read-only; read-write it writes what the log says, anywhere"),
    Row("vhdx", "log to be replayed over the headers", lambda: with_log(target=192 * KIB),
        "not-closed", REFUSES, "what was checked is not what is opened"),
    Row("vhdx", "new header with a log", lambda: image(
        header_fields={"log_guid": GUID, "sequence": 5},
        second={"log_guid": bytes(16), "sequence": 2}), "not-closed", OPENS,
        "the first header is newer"),
    Row("vhdx", "log without entries", headers(log_guid=GUID), "not-closed", OPENS,
        "a log that the header says is there, with nothing that QEMU finds valid"),
    Row("vhdx", "log of somebody else", lambda: with_log(log_guid=OTHER), "not-closed", OPENS,
        "the same: QEMU passes over entries of other logs"),
    Row("vhdx", "log in the headers", headers(log_offset=0), "table-misaligned", REFUSES,
        "CVE-2014-0148: QEMU would write over the headers"),
    Row("vhdx", "log not at a MiB", headers(log_offset=MIB + 4096), "table-misaligned", REFUSES,
        "the document's alignment"),
    Row("vhdx", "log of a strange length", headers(log_length=4096), "table-misaligned", OPENS,
        "QEMU looks at it only if there is a log"),
    Row("vhdx", "log beyond the end", headers(log_offset=1 << 40), "table-outside", OPENS,
        "QEMU would write it there"),
    Row("vhdx", "log overflows", headers(log_offset=(1 << 64) - MIB, log_length=2 * MIB),
        "table-outside", OPENS, "place and length wrap around"),
    Row("vhdx", "file ends in the headers", lambda: image()[:600 * KIB], "truncated", REFUSES, ""),
]

REGIONS = [
    Row("vhdx", "no region table", lambda: image(regions=forge.region_table([B, M], b"rega")),
        "bad-header", REFUSES, ""),
    Row("vhdx", "region table's sum", broken(192 * KIB + 5000), "bad-checksum", REFUSES, ""),
    Row("vhdx", "second region table differs", lambda: image(
        second_regions=forge.region_table([M, (BAT, 5 * MIB, MIB, 1)])), "bad-header", OPENS,
        "QEMU reads the first, others the second"),
    Row("vhdx", "second region table is torn", broken(256 * KIB + 5000), "bad-header", OPENS,
        "the same"),
    Row("vhdx", "3000 regions", lambda: image(regions=forge.region_table([B, M], count=3000)),
        "table-size", REFUSES, "QEMU: 2047 at most"),
    Row("vhdx", "15 regions", lambda: image(regions=[B, M] + [(forge.UNKNOWN, (10 + i) * MIB, MIB,
                                                               0) for i in range(13)]),
        "table-size", OPENS, "nobody writes regions that mean nothing"),
    Row("vhdx", "required region", regions(B, M, (forge.UNKNOWN, 4 * MIB, MIB, 1)),
        "unknown-feature", REFUSES, "who does not know it must not open the image"),
    Row("vhdx", "no allocation table", regions(M), "bad-header", REFUSES, ""),
    Row("vhdx", "no metadata", regions(B), "bad-header", REFUSES, ""),
    Row("vhdx", "two allocation tables", regions(B, M, (BAT, 4 * MIB, MIB, 1)), "bad-header",
        REFUSES, "which one?"),
    Row("vhdx", "regions overlap", regions(B, (METADATA, 2 * MIB, MIB, 1)), "table-overlap",
        REFUSES, "CVE-2014-0148"),
    Row("vhdx", "region on the log", regions((BAT, MIB, MIB, 1), M), "table-overlap", REFUSES,
        "the same"),
    Row("vhdx", "region on the headers", regions((BAT, 0, MIB, 1), M), "table-overlap", REFUSES,
        "the VM would write headers; QEMU finds the table strange by chance only"),
    Row("vhdx", "region not at a MiB", regions((BAT, 2 * MIB + 4096, MIB, 1), M),
        "table-misaligned", REFUSES, "and on the metadata"),
    Row("vhdx", "region of a strange length", regions((BAT, 2 * MIB, 4096, 1), M),
        "table-misaligned", OPENS, "the document's alignment"),
    Row("vhdx", "region beyond the end", regions(B, (METADATA, 1 << 40, MIB, 1)), "table-outside",
        REFUSES, ""),
    Row("vhdx", "region overflows", regions((BAT, (1 << 64) - MIB, 2 * MIB, 1), M),
        "table-outside", REFUSES, "place and length wrap around"),
]

METADATA_ROWS = [
    Row("vhdx", "no metadata table", lambda: image(meta=metadata(items(MIB), b"metadatb")),
        "bad-header", REFUSES, ""),
    Row("vhdx", "3000 items", lambda: image(meta=metadata(items(MIB), count=3000)), "table-size",
        REFUSES, "more than there is room for"),
    Row("vhdx", "required item", meta(more=[(forge.UNKNOWN, 4, b"12345678")]), "unknown-feature",
        REFUSES, "who does not know it must not open the image"),
    Row("vhdx", "item twice", meta(more=[(forge.LOGICAL, 6, struct.pack("<I", 512))]),
        "bad-header", REFUSES, "which one?"),
    Row("vhdx", "no size", meta(without=forge.DISK_SIZE), "bad-header", REFUSES, ""),
    Row("vhdx", "no page 83 data", meta(without=forge.PAGE83), "bad-header", REFUSES, ""),
    Row("vhdx", "item in the table", meta({forge.LOGICAL: (6, struct.pack("<I", 512), 60000)}),
        "table-outside", OPENS, "items begin at 64 KiB"),
    Row("vhdx", "item beyond the region", meta({forge.LOGICAL: (6, b"1234", 1 << 30)}),
        "table-outside", REFUSES, "QEMU reads anywhere in the file"),
    Row("vhdx", "item of a strange length", meta({forge.DISK_SIZE: (
        6, struct.pack("<Q", 4 * MIB), 70000, 4)}), "table-outside", OPENS,
        "QEMU does not look at lengths"),
    Row("vhdx", "parent", meta(flags=2, more=[(forge.PARENT, 4, bytes(40))]), "backing-file",
        REFUSES, "QEMU: differencing files are not supported; Hyper-V opens the parent"),
    Row("vhdx", "parent's locator alone", meta(more=[(forge.PARENT, 4, bytes(40))]),
        "backing-file", REFUSES, "a locator in a disk that says it has no parent"),
    Row("vhdx", "parent without locator", meta(flags=2), "backing-file", REFUSES,
        "QEMU: invalid combination"),
    Row("vhdx", "unknown parameters", meta(flags=4), "unknown-feature", OPENS,
        "QEMU does not look"),
    Row("vhdx", "block size 0", meta(block=0), "bad-header", REFUSES,
        "CVE-2014-0148: division by zero, endless loops"),
    Row("vhdx", "block of 512 KiB", meta(block=MIB // 2), "bad-header", REFUSES, "too small"),
    Row("vhdx", "block of 3 MiB", meta(block=3 * MIB), "bad-header", REFUSES,
        "not a power of two"),
    Row("vhdx", "block of 512 MiB", meta(block=512 * MIB), "bad-header", REFUSES, "too large"),
    Row("vhdx", "logical sector 0", meta(logical=0), "bad-header", REFUSES, "CVE-2014-0148"),
    Row("vhdx", "logical sector 4096", meta(logical=4096), "unknown-feature", REFUSES,
        "in the document, but not in QEMU"),
    Row("vhdx", "physical sector 100", meta(physical=100), "bad-header", OPENS,
        "QEMU does not look"),
    Row("vhdx", "size 0", meta({forge.DISK_SIZE: (6, bytes(8))}), "size-unknown", REFUSES,
        "QEMU counts 2^32 entries less one"),
    Row("vhdx", "size not of sectors", meta({forge.DISK_SIZE: (6, struct.pack("<Q", MIB + 1))}),
        "size-unknown", OPENS, "QEMU rounds down"),
    Row("vhdx", "size over 64 TiB", meta({forge.DISK_SIZE: (6, struct.pack("<Q", 65 << 40))}),
        "size-unknown", REFUSES, "the table would be larger than its region"),
    Row("vhdx", "size that wraps QEMU's count",
        meta({forge.DISK_SIZE: (6, struct.pack("<Q", (1 << 52) + MIB))}), "size-unknown", OPENS,
        "2^32 blocks and one: QEMU counts one, and reads its table beyond the end"),
    Row("vhdx", "larger than allowed", image, "size-limit", OPENS, "the caller's limit",
        options=("--max-size", "3M")),
]

TABLE = [
    Row("vhdx", "table too small", meta({forge.DISK_SIZE: (6, struct.pack("<Q", 1 << 38))}),
        "table-size", REFUSES, "CVE-2014-0148: reads behind the table"),
    Row("vhdx", "block beyond the end", entry(1 << 40 | PRESENT, 1), "truncated", REFUSES,
        "QEMU: points after end of file"),
    Row("vhdx", "block half beyond the end", lambda: image()[:-4096], "truncated", REFUSES,
        "the same"),
    Row("vhdx", "block overflows", entry((1 << 64) - MIB | PRESENT, 1), "truncated", REFUSES,
        "QEMU: offset overflow"),
    Row("vhdx", "block on the headers", entry(0 | PRESENT, 1), "table-overlap", OPENS,
        "the VM would write the headers: QEMU does not count them as a region"),
    Row("vhdx", "block on the log", entry(MIB | PRESENT, 1), "table-overlap", REFUSES, ""),
    Row("vhdx", "block on the table", entry(2 * MIB | PRESENT, 1), "table-overlap", REFUSES, ""),
    Row("vhdx", "block on the metadata", entry(3 * MIB | PRESENT, 1), "table-overlap", REFUSES,
        ""),
    Row("vhdx", "block of a parent", entry(4 * MIB | 7, 1), "bad-entry", OPENS,
        "partially present: QEMU reads an error, others look for a parent"),
    Row("vhdx", "state 4", entry(4, 1), "bad-entry", OPENS, "means nothing"),
    Row("vhdx", "state of a bitmap", lambda: image(size=4100 * MIB, blocks=(), entries={4096: 2}),
        "bad-entry", OPENS, "a bitmap is there or not"),
    Row("vhdx", "bitmap on the metadata", lambda: image(size=4100 * MIB, blocks=(), entries={
        4096: 3 * MIB | PRESENT}), "table-overlap", REFUSES, ""),
    Row("vhdx", "reserved bits", entry(4 * MIB | 8 | PRESENT, 0), "bad-entry", OPENS,
        "QEMU ignores them"),
]

ROWS = SOUND + HEADERS + REGIONS + METADATA_ROWS + TABLE
