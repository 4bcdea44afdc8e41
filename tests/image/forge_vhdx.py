# SPDX-License-Identifier: LGPL-2.1-or-later
"""VHDX images byte by byte, for tests. Source: Microsoft, [MS-VHDX]."""

import functools
import struct
import uuid

MIB = 1 << 20
KIB = 1 << 10
HEADERS = (64 * KIB, 128 * KIB)
REGION_TABLES = (192 * KIB, 256 * KIB)
NOT_PRESENT, UNDEFINED, ZERO, UNMAPPED, PRESENT, PARTIAL = 0, 1, 2, 3, 6, 7
REQUIRED, VIRTUAL = 4, 2


def guid(text):
    """As it is stored: the first three parts in little-endian order."""
    return uuid.UUID(text).bytes_le


BAT = guid("2DC27766-F623-4200-9D64-115E9BFD4A08")
METADATA = guid("8B7CA206-4790-4B9A-B8FE-575F050F886E")
PARAMETERS = guid("CAA16737-FA36-4D43-B3B6-33F0AA44E76B")
DISK_SIZE = guid("2FA54224-CD1B-4876-B211-5DBED83BF4B8")
PAGE83 = guid("BECA12AB-B2E6-4523-93EF-C309E000C746")
LOGICAL = guid("8141BF1D-A96F-4709-BA47-F233A8FAAB5F")
PHYSICAL = guid("CDA348C7-445D-4471-9CC9-E9885251C556")
PARENT = guid("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C")
UNKNOWN = guid("00000001-0002-4003-8004-000000000005")


def _table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC = _table()


@functools.lru_cache(maxsize=1024)
def crc32c(data):
    """The check sum of everything in a VHDX."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def seal(image, at, size):
    """Put in the right check sum, four bytes behind `at`."""
    image[at + 4:at + 8] = bytes(4)
    struct.pack_into("<I", image, at + 4, crc32c(bytes(image[at:at + size])))


def header(**fields):
    """One of the two headers, 4 KiB, with its sum."""
    values = {"signature": b"head", "sequence": 1, "file_write": bytes(16),
              "data_write": bytes(16), "log_guid": bytes(16), "log_version": 0, "version": 1,
              "log_length": MIB, "log_offset": MIB, **fields}
    block = bytearray(4096)
    struct.pack_into("<4sIQ16s16s16sHHIQ", block, 0, values["signature"], 0, values["sequence"],
                     values["file_write"], values["data_write"], values["log_guid"],
                     values["log_version"], values["version"], values["log_length"],
                     values["log_offset"])
    seal(block, 0, 4096)
    return bytes(block)


def region_table(entries, signature=b"regi", count=None):
    """A region table, 64 KiB, with its sum; entries are (guid, offset, length, required)."""
    block = bytearray(64 * KIB)
    struct.pack_into("<4sIII", block, 0, signature, 0,
                     len(entries) if count is None else count, 0)
    for index, entry in enumerate(entries):
        struct.pack_into("<16sQII", block, 16 + 32 * index, *entry)
    seal(block, 0, 64 * KIB)
    return bytes(block)


def metadata(items, signature=b"metadata", count=None):
    """The metadata region, 1 MiB; items are (guid, flags, data[, offset[, length]])."""
    block = bytearray(MIB)
    struct.pack_into("<8sHH", block, 0, signature, 0, len(items) if count is None else count)
    at = 64 * KIB
    for index, (item, flags, data, *place) in enumerate(items):
        offset = place[0] if place else at
        length = place[1] if len(place) > 1 else len(data)
        struct.pack_into("<16sIIII", block, 32 + 32 * index, item, offset, length, flags, 0)
        if offset + len(data) <= MIB:
            block[offset:offset + len(data)] = data
        at += -(-len(data) // 8) * 8
    return bytes(block)


def items(size, block=MIB, flags=0, logical=512, physical=512):
    """The five items that every image has."""
    return [(PARAMETERS, REQUIRED, struct.pack("<II", block, flags)),
            (DISK_SIZE, REQUIRED | VIRTUAL, struct.pack("<Q", size)),
            (PAGE83, REQUIRED | VIRTUAL, bytes(range(16))),
            (LOGICAL, REQUIRED | VIRTUAL, struct.pack("<I", logical)),
            (PHYSICAL, REQUIRED | VIRTUAL, struct.pack("<I", physical))]


def image(size=4 * MIB, block=MIB, blocks=(0, 2), header_fields=None, second=None, regions=None,
          second_regions=None, entries=None, meta=None):
    """A dynamic disk: headers, log, table, metadata, blocks; each part may be given instead."""
    fields = header_fields or {}
    data = 4 * MIB
    result = bytearray(data + len(blocks) * block)
    result[0:8] = b"vhdxfile"
    result[HEADERS[0]:HEADERS[0] + 4096] = header(**fields)
    result[HEADERS[1]:HEADERS[1] + 4096] = header(**{"sequence": 2, **fields, **(second or {})})
    regions = regions or [(BAT, 2 * MIB, MIB, 1), (METADATA, 3 * MIB, MIB, 1)]
    table = regions if isinstance(regions, bytes) else region_table(regions)
    other = second_regions or table
    result[REGION_TABLES[0]:REGION_TABLES[0] + 64 * KIB] = table
    result[REGION_TABLES[1]:REGION_TABLES[1] + 64 * KIB] = other
    values = entries or {index: data + place * block | PRESENT
                         for place, index in enumerate(blocks)}
    for index, value in values.items():
        struct.pack_into("<Q", result, 2 * MIB + 8 * index, value)
    result[3 * MIB:4 * MIB] = metadata(items(size, block)) if meta is None else meta
    return result


def log_entry(log_guid, sequence=1, target=3 * MIB, fill=b"X"):
    """An entry of the log that writes one sector of 4 KiB at `target`, of two sectors."""
    entry = bytearray(2 * 4096)
    data = fill * 4096
    struct.pack_into("<4sIIIQII16sQQ", entry, 0, b"loge", 0, len(entry), 0, sequence, 1, 0,
                     log_guid, 4 * MIB, 4 * MIB)
    struct.pack_into("<4s4s8sQQ", entry, 64, b"desc", data[-4:], data[:8], target, sequence)
    struct.pack_into("<4sI", entry, 4096, b"data", sequence >> 32)
    entry[4104:8188] = data[8:4092]
    struct.pack_into("<I", entry, 8188, sequence & 0xFFFFFFFF)
    seal(entry, 0, len(entry))
    return bytes(entry)
