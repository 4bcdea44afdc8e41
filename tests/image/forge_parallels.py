# SPDX-License-Identifier: LGPL-2.1-or-later
"""Parallels disks byte by byte, for tests. Source: QEMU's docs/interop/parallels.txt."""

import hashlib
import struct

OLD, EXTENDED = b"WithoutFreeSpace", b"WithouFreSpacExt"
IN_USE, CLOSED = 0x746F6E59, 0x312E3276
EXTENSION, DIRTY_BITMAP = 0xAB234CEF23DCEA87, 0x20385FAE252CB34A


def image(magic=EXTENDED, cluster=64, sectors=64 * 8, used=(0, 2), entries=None, n_entries=None,
          clusters_in_file=None, **fields):
    """A disk: header, table, clusters from the first whole one on."""
    count = -(-sectors // cluster) if n_entries is None else n_entries
    first = -(-(64 + 4 * count) // (cluster * 512))
    unit = 1 if magic == EXTENDED else cluster
    values = [0] * count
    for place, index in enumerate(used):
        values[index] = (first + place) * unit
    for index, value in (entries or {}).items():
        values[index] = value
    head = {"magic": magic, "version": 2, "heads": 16, "cylinders": 100, "tracks": cluster,
            "entries": count, "sectors": sectors, "in_use": 0, "data": first * cluster,
            "flags": 0, "extension": 0, **fields}
    result = bytearray(struct.pack("<16sIIIIIQIIIQ", *head.values()))
    result += struct.pack(f"<{count}I", *values)
    result = result.ljust(first * cluster * 512, b"\0")
    held = len(used) if clusters_in_file is None else clusters_in_file
    return result + bytes(held * cluster * 512)


def bitmap(sectors=64 * 8):
    """A dirty bitmap's data: nothing is dirty."""
    return struct.pack("<Q16sIIQ", sectors, bytes(range(16)), 128, 1, 0)


def extension(cluster=64, features=((DIRTY_BITMAP, 0, bitmap()),), magic=EXTENSION, end=True):
    """A cluster with the format extension, and its sum."""
    result = bytearray()
    for feature, flags, data in features:
        result += struct.pack("<QQII", feature, flags, len(data), 0) + data
        result += bytes(-len(result) % 8)
    if end:
        result += bytes(24)
    result = result.ljust(cluster * 512 - 24, b"\0")
    return struct.pack("<Q", magic) + hashlib.md5(result).digest() + result
