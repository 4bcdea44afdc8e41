# SPDX-License-Identifier: LGPL-2.1-or-later
"""VDI images byte by byte, for tests. Source: VirtualBox's VDICore.h, QEMU's block/vdi.c."""

import struct

BLOCK = 1 << 20
DYNAMIC, FIXED, UNDO, DIFFERENCING = 1, 2, 3, 4
UNALLOCATED, DISCARDED = 0xFFFFFFFF, 0xFFFFFFFE


def header(**fields):
    """The first sector."""
    values = {"text": b"<<< Oracle VM VirtualBox Disk Image >>>\n", "signature": 0xBEDA107F,
              "version": 0x10001, "header_size": 0x190, "type": DYNAMIC, "flags": 0,
              "comment": b"", "map": 512, "data": 1024, "cylinders": 0, "heads": 0, "sectors": 0,
              "sector_size": 512, "unused": 0, "size": 0, "block": BLOCK, "extra": 0, "blocks": 0,
              "allocated": 0, "uuid": bytes(range(16)), "modified": bytes(range(16)),
              "link": bytes(16), "parent": bytes(16), **fields}
    return struct.pack("<64sIIIII256sIIIIIIIQIIII16s16s16s16s", *values.values()).ljust(512, b"\0")


def image(size=4 * BLOCK, used=(0, 2), entries=None, in_file=None, **fields):
    """A dynamic disk: header, map, blocks."""
    blocks = -(-size // BLOCK)
    values = [UNALLOCATED] * blocks
    for place, index in enumerate(used):
        values[index] = place
    for index, value in (entries or {}).items():
        values[index] = value
    table = struct.pack(f"<{blocks}I", *values)
    data = 512 + -(-len(table) // 512) * 512
    result = bytearray(header(**{"size": size, "blocks": blocks, "allocated": len(used),
                                 "data": data, **fields}))
    result += table.ljust(data - 512, b"\0")
    result += bytes((len(used) if in_file is None else in_file) * BLOCK)
    return result
