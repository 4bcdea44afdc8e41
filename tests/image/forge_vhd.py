# SPDX-License-Identifier: LGPL-2.1-or-later
"""VHD (vpc) images byte by byte, for tests. Source: Microsoft, "Virtual Hard Disk Image Format
Specification" 1.0."""

import struct

FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
NOWHERE = 0xFFFFFFFFFFFFFFFF
UNUSED = 0xFFFFFFFF


def checksum(block, at):
    """The one's complement of the sum of all bytes but the four of the checksum."""
    return ~(sum(block) - sum(block[at:at + 4])) & 0xFFFFFFFF


def geometry(sectors):
    """Cylinders, heads, sectors of a track, as the specification's appendix computes them."""
    sectors = min(sectors, 65535 * 16 * 255)
    if sectors >= 65535 * 16 * 63:
        track, heads = 255, 16
        tracks = sectors // track
    else:
        track = 17
        tracks = sectors // track
        heads = max((tracks + 1023) // 1024, 4)
        if tracks >= heads * 1024 or heads > 16:
            track, heads = 31, 16
            tracks = sectors // track
        if tracks >= heads * 1024:
            track, heads = 63, 16
            tracks = sectors // track
    return tracks // heads, heads, track


def footer(**fields):
    """A footer, 512 bytes; its checksum is right unless one is given."""
    values = {"cookie": b"conectix", "features": 2, "version": 0x10000, "data_offset": 512,
              "timestamp": 1, "app": b"win ", "app_version": 0x000A0000, "os": b"Wi2k",
              "original": 0, "size": 0, "chs": None, "type": DYNAMIC, "checksum": None,
              "uuid": bytes(range(16)), "saved": 0, **fields}
    cylinders, heads, track = values["chs"] or geometry(values["size"] // 512)
    block = bytearray(struct.pack(
        ">8sIIQI4sI4sQQHBBII16sB", values["cookie"], values["features"], values["version"],
        values["data_offset"], values["timestamp"], values["app"], values["app_version"],
        values["os"], values["original"] or values["size"], values["size"], cylinders, heads,
        track, values["type"], 0, values["uuid"], values["saved"]).ljust(512, b"\0"))
    right = checksum(block, 64)
    struct.pack_into(">I", block, 64, right if values["checksum"] is None else values["checksum"])
    return bytes(block)


def dynamic_header(**fields):
    """The header of a dynamic or differencing disk, 1024 bytes."""
    values = {"cookie": b"cxsparse", "data_offset": NOWHERE, "table": 1536, "version": 0x10000,
              "entries": 0, "block": 0x200000, "checksum": None, "parent_uuid": bytes(16),
              "parent_time": 0, "reserved": 0, "parent_name": "", "locators": (), **fields}
    block = bytearray(struct.pack(
        ">8sQQIIII16sII", values["cookie"], values["data_offset"], values["table"],
        values["version"], values["entries"], values["block"], 0, values["parent_uuid"],
        values["parent_time"], values["reserved"]))
    block += values["parent_name"].encode("utf-16-be").ljust(512, b"\0")
    for platform, space, length, offset in values["locators"]:
        block += struct.pack(">4sIIIQ", platform, space, length, 0, offset)
    block = bytearray(block.ljust(1024, b"\0"))
    right = checksum(block, 36)
    struct.pack_into(">I", block, 36, right if values["checksum"] is None else values["checksum"])
    return bytes(block)


def fixed(size=1 << 20, content=b"", **fields):
    """A fixed disk: the data, then the footer."""
    return bytearray(content.ljust(size, b"\0") + footer(
        **{"size": size, "type": FIXED, "data_offset": NOWHERE, **fields}))


def dynamic(size=8 << 20, blocks=(0,), block=0x200000, footer_fields=None, header_fields=None,
            last_footer=None, table=None, between=b""):
    """A dynamic disk: footer, header, table, blocks, footer."""
    entries = -(-size // block)
    table_size = -(-entries * 4 // 512) * 512
    bitmap = -(-block // 4096 // 512) * 512 or 512
    base = 1536 + table_size + len(between)
    values = [UNUSED] * (table_size // 4)
    for place, index in enumerate(blocks):
        values[index] = (base + place * (bitmap + block)) // 512
    values = table or values
    foot = {"size": size, **(footer_fields or {})}
    image = bytearray(footer(**foot))
    image += dynamic_header(**{"entries": entries, "block": block, **(header_fields or {})})
    image += struct.pack(f">{len(values)}I", *values) + between
    for _ in blocks:
        image += b"\xff" * bitmap + b"block".ljust(block, b"\0")
    return image + footer(**{**foot, **(last_footer or {})})
