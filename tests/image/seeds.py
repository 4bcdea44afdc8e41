#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes the inputs from which tests/fuzz/fuzz-image.c begins: sound images of one format.

usage: tests/image/seeds.py FORMAT DIRECTORY
"""

import struct
import sys
from pathlib import Path

import forge_iso
import forge_luks
import forge_old
import forge_parallels
import forge_qcow2
import forge_vdi
import forge_vhd
import forge_vhdx
import forge_vmdk

GAP = 24
MEMORY = 6 << 20


def encode(image, flags=1, size=None):
    """The input that describes this file; only what is near its begin may not be zero."""
    data = bytes(image)
    result = bytearray(struct.pack("<BQ", flags, (len(data) if size is None else size) - 1))
    at = 0
    while at < min(len(data), MEMORY):
        if not data[at]:
            # to the next byte that is not zero
            rest = data[at:at + 4096].lstrip(b"\0")
            at += len(data[at:at + 4096]) - len(rest)
            continue
        end = data.find(bytes(GAP), at)
        end = len(data) if end < 0 else end
        end = min(end, at + 60000)
        result += struct.pack("<IH", at, end - at) + data[at:end]
        at = end
    return bytes(result)


SEEDS = {
    "raw": lambda: [b"\0" * 4096, b"\0" * 510 + b"\x55\xaaEFI PART"],
    "qcow2": lambda: [
        forge_qcow2.image(), forge_qcow2.image(version=2), forge_qcow2.image(cluster_bits=9),
        forge_qcow2.image(incompatible=forge_qcow2.EXTENDED_L2), forge_qcow2.with_name(b"/x"),
        forge_qcow2.with_snapshots(forge_qcow2.snapshot()),
        forge_qcow2.with_bitmaps(forge_qcow2.bitmap())],
    "qcow": lambda: [forge_old.qcow()],
    "qed": lambda: [forge_old.qed()],
    "luks": lambda: [forge_luks.luks1(), forge_luks.luks2()],
    "vmdk": lambda: [
        forge_vmdk.sparse(grains=(0, 5)), forge_vmdk.sparse(capacity=200000, grain=16),
        forge_vmdk.stream(), forge_vmdk.stream(footer=False), forge_vmdk.cowd(),
        forge_vmdk.sesparse(),
        forge_vmdk.descriptor("monolithicFlat", ('RW 20480 FLAT "flat.vmdk" 0',)),
        forge_vmdk.sparse(text=forge_vmdk.descriptor(parent="base.vmdk", parent_cid="1234"))],
    "vdi": lambda: [
        forge_vdi.image(size=2 << 20, used=(0,)),
        forge_vdi.image(size=2 << 20, used=(1, 0), type=forge_vdi.FIXED)],
    "vhd": lambda: [
        forge_vhd.fixed(), forge_vhd.fixed(app=b"qemu", size=17 * 4 * 512 * 8),
        forge_vhd.dynamic(block=4096, size=1 << 20, blocks=(0, 3)),
        forge_vhd.dynamic(block=65536, size=1 << 20, blocks=(), footer_fields={"type": 4},
                          header_fields={"parent_name": "base.vhd"})],
    "vhdx": lambda: [
        forge_vhdx.image(blocks=(0,)), forge_vhdx.image(blocks=()),
        forge_vhdx.image(blocks=(), meta=forge_vhdx.metadata(
            forge_vhdx.items(4 << 20, flags=2) + [(forge_vhdx.PARENT, 4, bytes(40))]))],
    "parallels": lambda: [
        forge_parallels.image(), forge_parallels.image(magic=forge_parallels.OLD),
        forge_parallels.image(used=(0,), extension=64 * 2) + forge_parallels.extension()],
    "iso": lambda: [
        forge_iso.image(),
        forge_iso.image((forge_iso.volume(), forge_iso.volume(kind=2), forge_iso.boot(),
                         forge_iso.terminator()))],
}


def main():
    """One file an image."""
    name, directory = sys.argv[1], Path(sys.argv[2])
    for index, image in enumerate(SEEDS[name]()):
        (directory / f"seed-{index}").write_bytes(encode(image))


if __name__ == "__main__":
    main()
