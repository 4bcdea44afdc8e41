# SPDX-License-Identifier: LGPL-2.1-or-later
"""VMDK images byte by byte, for tests: sound ones, with every field open to be bent.

Source: VMware, "Virtual Disk Format 5.0", and QEMU's block/vmdk.c for what that text leaves out
(the footer's place, COWD, se-sparse).
"""

import struct
import zlib

SECTOR = 512
GRAIN = 128
GTES = 512
GD_AT_END = 0xFFFFFFFFFFFFFFFF
COMPRESSED = 0x10000
MARKERS = 0x20000


def header(**fields):
    """A sparse extent's header, one sector; a magic of `footer` is the same."""
    values = {"magic": b"KDMV", "version": 1, "flags": 3, "capacity": 0, "grain": GRAIN,
              "desc_offset": 1, "desc_size": 20, "gtes": GTES, "rgd": 0, "gd": 0, "overhead": 0,
              "unclean": 0, "newlines": b"\n \r\n", "compression": 0, **fields}
    return struct.pack("<4sIIQQQQIQQQB4sH", *values.values()).ljust(SECTOR, b"\0")


def descriptor(create_type="monolithicSparse", extents=('RW 20480 SPARSE "disk.vmdk"',),
               cid="12345678", parent_cid="ffffffff", parent=None, first="# Disk DescriptorFile",
               extra=()):
    """A descriptor's text."""
    lines = [first, "version=1", f"CID={cid}", f"parentCID={parent_cid}",
             f'createType="{create_type}"', ""]
    if parent is not None:
        lines.insert(5, f'parentFileNameHint="{parent}"')
    lines += ["# Extent description", *extents, "", "# The Disk Data Base", "#DDB", "",
              'ddb.virtualHWVersion = "4"', *extra, ""]
    return "\n".join(lines).encode()


def sectors(data):
    """How many sectors hold this."""
    return -(-len(data) // SECTOR)


def sparse(capacity=20480, text=None, grains=(0,), fields=None, grain=GRAIN, gtes=GTES):
    """A monolithicSparse image: header, descriptor, two directories with their tables, grains."""
    if text is None:
        text = descriptor(extents=(f'RW {capacity} SPARSE "disk.vmdk"',))
    tables = -(-capacity // (grain * gtes))
    table_sectors = -(-gtes * 4 // SECTOR)
    dir_sectors = -(-tables * 4 // SECTOR)
    rgd = 21
    gd = rgd + dir_sectors + tables * table_sectors
    overhead = -(-(gd + dir_sectors + tables * table_sectors) // grain) * grain
    entries = [0] * (tables * gtes)
    for place, index in enumerate(grains):
        entries[index] = overhead + place * grain
    image = bytearray((overhead + len(grains) * grain) * SECTOR)
    values = {"capacity": capacity, "grain": grain, "gtes": gtes, "rgd": rgd, "gd": gd,
              "overhead": overhead, **(fields or {})}
    image[:SECTOR] = header(**values)
    image[SECTOR:SECTOR + len(text)] = text
    for start in (rgd, gd):
        first = start + dir_sectors
        for table in range(tables):
            at = first + table * table_sectors
            struct.pack_into("<I", image, start * SECTOR + 4 * table, at)
            struct.pack_into(f"<{gtes}I", image, at * SECTOR,
                             *entries[table * gtes:(table + 1) * gtes])
    for place in range(len(grains)):
        at = (overhead + place * grain) * SECTOR
        image[at:at + 7] = b"grain %d" % (place % 10)
    return image


def places(image):
    """Where the parts of such an image are, in bytes."""
    rgd, gd, overhead = struct.unpack_from("<QQQ", image, 48)
    first = struct.unpack_from("<I", image, gd * SECTOR)[0] if gd != GD_AT_END else 0
    return {"rgd": rgd * SECTOR, "gd": gd * SECTOR, "overhead": overhead * SECTOR,
            "gt": first * SECTOR}


def marker(kind, size_in_sectors, value_is_size=True):
    """A metadata marker of a stream."""
    return struct.pack("<QII", size_in_sectors if value_is_size else 0, 0, kind).ljust(
        SECTOR, b"\0")


def stream(capacity=20480, text=None, grains=(0, 3), fields=None, footer_fields=None, footer=True,
           grain=GRAIN):
    """A streamOptimized image as VMware's and OVF tools write it: the directory at the end."""
    if text is None:
        text = descriptor("streamOptimized", (f'RW {capacity} SPARSE "disk.vmdk"',))
    tables = -(-capacity // (grain * GTES))
    values = {"version": 3, "flags": 3 | COMPRESSED | MARKERS, "capacity": capacity,
              "grain": grain, "overhead": grain, "gd": GD_AT_END, "compression": 1,
              **(fields or {})}
    image = bytearray(grain * SECTOR)
    image[SECTOR:SECTOR + len(text)] = text
    entries = [0] * (tables * GTES)
    for index in grains:
        entries[index] = len(image) // SECTOR
        data = zlib.compress(b"grain".ljust(grain * SECTOR, b"\0"))
        image += struct.pack("<QI", index * grain, len(data)) + data
        image += bytes(-len(image) % SECTOR)
    directory = []
    for table in range(tables):
        part = entries[table * GTES:(table + 1) * GTES]
        if any(part):
            image += marker(1, GTES * 4 // SECTOR)
            directory.append(len(image) // SECTOR)
            image += struct.pack(f"<{GTES}I", *part)
        else:
            directory.append(0)
    image += marker(2, -(-tables * 4 // SECTOR))
    gd = len(image) // SECTOR
    image += struct.pack(f"<{tables}I", *directory)
    image += bytes(-len(image) % SECTOR)
    if footer:
        image += marker(3, 1)
        image += header(**{**values, "gd": gd, **(footer_fields or {})})
        image += marker(0, 0)
    else:
        values["gd"] = gd
    image[:SECTOR] = header(**values)
    return image


def cowd(capacity=20480, text=None, grain=1, version=1, **fields):
    """A COWD image (vmfsSparse, the older ESX), with a descriptor where QEMU looks for one."""
    values = {"magic": b"COWD", "version": version, "flags": 3, "capacity": capacity,
              "grain": grain, "gd": 32, "gd_size": -(-capacity // (4096 * max(grain, 1))),
              "next": 0, **fields}
    image = bytearray(64 * SECTOR)
    struct.pack_into("<4sIIIIIII", image, 0, *values.values())
    text = descriptor("vmfsSparse", (f'RW {capacity} VMFSSPARSE "disk.vmdk"',)) \
        if text is None else text
    image[SECTOR:SECTOR + len(text)] = text
    return image


def sesparse(capacity=20480, **fields):
    """An extent of ESX's seSparse kind."""
    values = [("magic", 0xCAFEBABE), ("version", 0x0000000200000001), ("capacity", capacity),
              ("grain", 8), ("table", 64), ("flags", 0), ("r1", 0), ("r2", 0), ("r3", 0),
              ("r4", 0), ("volatile", 1), ("volatile_size", 1), ("journal_header", 2),
              ("journal_header_size", 2), ("journal", 2048), ("journal_size", 2048), ("gd", 4096),
              ("gd_size", 1), ("gts", 4224), ("gts_size", 64), ("bitmap", 4352),
              ("bitmap_size", 64), ("backmap", 4480), ("backmap_size", 64), ("grains", 4608),
              ("grains_size", 64)]
    values = {**dict(values), **fields}
    image = bytearray(4800 * SECTOR)
    struct.pack_into("<26Q", image, 0, *values.values())
    struct.pack_into("<QQQQ", image, SECTOR, 0xCAFECAFE, 0, 1, 0)
    return image
