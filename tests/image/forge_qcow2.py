# SPDX-License-Identifier: LGPL-2.1-or-later
"""qcow2 images byte by byte, for tests. Source: QEMU's docs/interop/qcow2.txt."""

import struct

CLUSTER = 65536
CORRUPT, DATA_FILE, COMPRESSION, EXTENDED_L2 = 1 << 1, 1 << 2, 1 << 3, 1 << 4
BACKING_FORMAT, CRYPTO, BITMAPS, DATA_NAME = 0xe2792aca, 0x0537be77, 0x23852875, 0x44415441
FEATURE_NAMES = 0x6803f857

# Field: (offset, format)
FIELDS = {"magic": (0, ">4s"), "version": (4, ">I"), "backing_offset": (8, ">Q"),
          "backing_size": (16, ">I"), "cluster_bits": (20, ">I"), "size": (24, ">Q"),
          "crypt": (32, ">I"), "l1_size": (36, ">I"), "l1_offset": (40, ">Q"),
          "reftable_offset": (48, ">Q"), "reftable_clusters": (56, ">I"),
          "n_snapshots": (60, ">I"), "snapshots_offset": (64, ">Q"),
          "incompatible": (72, ">Q"), "compatible": (80, ">Q"), "autoclear": (88, ">Q"),
          "refcount_order": (96, ">I"), "header_length": (100, ">I"), "compression": (104, ">B")}


def extension(kind, data):
    """One header extension."""
    return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)


def poke(image, **fields):
    """Set fields of the header."""
    for name, value in fields.items():
        offset, fmt = FIELDS[name]
        struct.pack_into(fmt, image, offset, value)
    return image


def image(size=1 << 30, cluster_bits=16, version=3, extensions=b"", clusters=6, **fields):
    """Header, refcount table, refcount block, L1 table, one L2 table, one cluster of data."""
    cluster = 1 << cluster_bits
    result = bytearray(cluster * clusters)
    values = {"magic": b"QFI\xfb", "version": version, "cluster_bits": cluster_bits, "size": size,
              "reftable_offset": cluster, "reftable_clusters": 1, "l1_offset": 3 * cluster,
              "l1_size": min(max(1, -(-size // (cluster // 8 * cluster))), 4096)}
    if version == 3:
        values.update(refcount_order=4, header_length=112)
    poke(result, **{**values, **fields})
    header = struct.unpack_from(">I", result, 100)[0] if version == 3 else 72
    result[header:header + len(extensions)] = extensions
    struct.pack_into(">Q", result, cluster, 2 * cluster)
    struct.pack_into(f">{clusters}H", result, 2 * cluster, *[1] * clusters)
    struct.pack_into(">Q", result, 3 * cluster, 4 * cluster | 1 << 63)
    struct.pack_into(">Q", result, 4 * cluster, 5 * cluster | 1 << 63)
    return result


def with_name(name, at=1024, **fields):
    """With a backing file."""
    result = image(backing_offset=at, backing_size=len(name), **fields)
    result[at:at + len(name)] = name
    return result


def at(result, *places):
    """Put bytes at places."""
    for offset, data in places:
        if len(result) < offset + len(data):
            result += bytes(offset + len(data) - len(result))
        result[offset:offset + len(data)] = data
    return result


def snapshot(l1_offset=3 * CLUSTER, l1_size=1, extra=b"", name=b"a", extra_size=None):
    """One entry of the snapshot table."""
    entry = struct.pack(">QIHHIIQII", l1_offset, l1_size, 1, len(name), 0, 0, 0, 0,
                        len(extra) if extra_size is None else extra_size)
    entry += extra + b"1" + name
    return entry + bytes(-len(entry) % 8)


def with_snapshots(*entries, **fields):
    """A snapshot table in the sixth cluster."""
    table = b"".join(entries)
    result = image(clusters=7, **{"n_snapshots": len(entries), "snapshots_offset": 6 * CLUSTER,
                                  **fields})
    return at(result, (6 * CLUSTER, table))


def bitmap(table=7 * CLUSTER, entries=1, flags=0, kind=1, granularity=16, name=b"b", extra=0):
    """One entry of the bitmap directory."""
    entry = struct.pack(">QIIBBHI", table, entries, flags, kind, granularity, len(name), extra)
    entry += name
    return entry + bytes(-len(entry) % 8)


def with_bitmaps(*entries, count=None, length=None, offset=6 * CLUSTER, reserved=0, **fields):
    """A bitmap directory in the sixth cluster."""
    directory = b"".join(entries)
    ext = struct.pack(">IIQQ", len(entries) if count is None else count, reserved,
                      len(directory) if length is None else length, offset)
    result = image(clusters=8, **{"autoclear": 1, "extensions": extension(BITMAPS, ext), **fields})
    return at(result, (6 * CLUSTER, directory))
