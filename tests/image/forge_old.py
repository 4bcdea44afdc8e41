# SPDX-License-Identifier: LGPL-2.1-or-later
"""qcow (version 1) and QED images byte by byte, for tests."""

import struct


def qcow(size=1 << 20, cluster_bits=12, l2_bits=9, backing=(0, 0), crypt=0, l1_offset=48, l2=None,
         length=16384, data=8192):
    """Header, L1 table, an L2 table at 4096 with one entry. Source: QEMU's block/qcow.c."""
    result = bytearray(length)
    struct.pack_into(">4sIQIIQBBHIQ", result, 0, b"QFI\xfb", 1, *backing, 0, size, cluster_bits,
                     l2_bits, 0, crypt, l1_offset)
    if 48 <= l1_offset < length - 8:
        struct.pack_into(">Q", result, l1_offset, 4096 if l2 is None else l2)
    struct.pack_into(">Q", result, 4096, data)
    return result


def qed(size=1 << 30, cluster=65536, table=4, header=1, features=0, compatible=0, autoclear=0,
        l1_offset=None, backing=(0, 0), l2=None, clusters=10):
    """Header, L1 table, an L2 table. Source: QEMU's docs/interop/qed_spec.rst."""
    length = max(clusters * min(cluster, 65536), 4096)
    result = bytearray(length)
    l1 = header * cluster if l1_offset is None else l1_offset
    struct.pack_into("<4sIIIQQQQQII", result, 0, b"QED\0", cluster, table, header, features,
                     compatible, autoclear, l1 % 2**64, size, *backing)
    if 64 <= l1 < length - 8:
        struct.pack_into("<Q", result, l1, l1 + table * cluster if l2 is None else l2)
    return result
