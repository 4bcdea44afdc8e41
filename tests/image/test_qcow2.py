# SPDX-License-Identifier: LGPL-2.1-or-later
"""qcow2: what is safe and what is not. Each hostile row tells why; QEMU's sources are those of 7.2."""

import struct
from functools import partial

import forge_luks
import forge_qcow2 as forge
import pytest
# pylint: disable=unused-import
from image_rig import (check, create_luks, needs_qemu_img, pytestmark, qemu_img, qemu_size, reasons,
                       verdict_on)

C = forge.CLUSTER


def luks_inside(offset=6 * C, length=1 << 21, header=None, clusters=40, **fields):
    """With LUKS encryption: the header as an extension says."""
    ext = forge.extension(forge.CRYPTO, struct.pack(">QQ", offset, length))
    image = forge.image(clusters=clusters, **{"crypt": 2, "extensions": ext, **fields})
    return forge.at(image, (6 * C, header or forge_luks.luks1(size=4096)))


SAFE = {
    "plain": forge.image(),
    "version 2": forge.image(version=2),
    "512-byte clusters": forge.image(cluster_bits=9, size=30000),
    "2 MiB clusters": forge.image(cluster_bits=21),
    "no disk": forge.image(size=0),
    "not whole sectors": forge.image(size=1000001),
    "zstd": forge.image(incompatible=forge.COMPRESSION, compression=1),
    "extended L2": forge.image(incompatible=forge.EXTENDED_L2, l1_size=4),
    "dirty": forge.image(incompatible=1),
    "compatible bits not known": forge.image(compatible=0xff00ff00ff00ff01),
    "autoclear bits not known": forge.image(autoclear=0xff00ff00ff00ff00),
    "header without compression": forge.image(header_length=104),
    "long header": forge.image(header_length=4096),
    "extension not known": forge.image(extensions=forge.extension(0x12345678, b"x" * 99)),
    "names of features": forge.image(
        extensions=forge.extension(forge.FEATURE_NAMES, b"\0\0dirty".ljust(48, b"\0") * 5)),
    "format of no backing file": forge.image(
        extensions=forge.extension(forge.BACKING_FORMAT, b"qcow2")),
    "64-bit refcounts": forge.image(refcount_order=6),
    "L1 larger than needed": forge.image(l1_size=100),
    "snapshot": forge.with_snapshots(forge.snapshot(extra=struct.pack(">QQ", 0, 1 << 30))),
    "old snapshot": forge.with_snapshots(forge.snapshot(), version=2),
    "bitmap": forge.with_bitmaps(forge.bitmap(), forge.bitmap(name=b"c")),
    "LUKS": luks_inside(),
}

HOSTILE = [
    ("LUKS inside, without end", luks_inside(header=forge_luks.luks1(
        size=4096, iterations=0xffffffff)), {"unlock-cost"}, "crypto/block-luks.c: on the host"),
    ("LUKS 2's second header", forge.at(forge.image(), (0x4000, b"SKUL\xba\xbe\0\2")),
     {"also-luks"}, "libblkid: a polyglot"),
    # references out of the file
    ("backing file", forge.with_name(b"/etc/passwd"), {"backing-file"},
     "CVE-2015-5163, CVE-2023-32684: the host's file becomes the disk"),
    ("backing file, json:", forge.with_name(b'json:{"driver":"raw","file":{"filename":"/x"}}'),
     {"backing-file"}, "CVE-2024-4467: json: names reach every driver"),
    ("backing file, nbd:", forge.with_name(b"nbd://192.0.2.1/x"), {"backing-file"}, "network"),
    ("backing file, itself", forge.with_name(b"image"), {"backing-file"}, "endless chain"),
    ("backing file, version 2", forge.with_name(b"/etc/passwd", version=2), {"backing-file"}, ""),
    ("backing file without name", forge.image(backing_offset=1024), {"backing-file"},
     "QEMU takes any offset but 0 for a backing file"),
    ("backing name too long", forge.with_name(b"a" * 1024), {"backing-file", "bad-header"},
     "block/qcow2.c: Backing file name too long"),
    ("backing name behind the cluster", forge.image(backing_offset=C + 8, backing_size=4),
     {"backing-file", "bad-header"}, "block/qcow2.c: Invalid backing file offset"),
    ("backing name outside the file", forge.image(backing_offset=1 << 62, backing_size=4),
     {"backing-file", "bad-header"}, "block/qcow2.c: Invalid backing file offset"),
    ("data file", forge.image(incompatible=forge.DATA_FILE, extensions=forge.extension(
        forge.DATA_NAME, b"/etc/passwd")), {"external-data"}, "CVE-2024-32498"),
    ("data file without name", forge.image(incompatible=forge.DATA_FILE), {"external-data"},
     "QEMU wants it from its user"),
    ("data file named only", forge.image(extensions=forge.extension(forge.DATA_NAME, b"/x")),
     {"external-data"}, "stricter than QEMU"),
    ("raw without data file", forge.image(autoclear=2), {"bad-header"},
     "block/qcow2.c: data-file-raw needs one"),
    # what it needs
    ("feature not known", forge.image(incompatible=1 << 5), {"unknown-feature"}, "qcow2.txt"),
    ("highest feature", forge.image(incompatible=1 << 63), {"unknown-feature"}, "qcow2.txt"),
    ("corrupt", forge.image(incompatible=forge.CORRUPT), {"marked-corrupt"},
     "QEMU opens it for reading alone"),
    ("version 4", forge.image(version=4, refcount_order=4, header_length=112),
     {"unknown-version"}, "block/qcow2.c: Unsupported qcow2 version"),
    ("version 0", forge.image(version=0), {"unknown-version"}, "as above"),
    ("AES", forge.image(crypt=1), {"legacy-encryption"}, "qcow2.txt: AES is strongly discouraged"),
    ("encryption not known", forge.image(crypt=3), {"unknown-feature"}, "block/qcow2.c"),
    ("compression not known", forge.image(incompatible=forge.COMPRESSION, compression=2),
     {"unknown-feature"}, "block/qcow2.c: unknown compression type"),
    ("zstd unmarked", forge.image(compression=1), {"bad-header"},
     "block/qcow2.c: Compression type incompatible feature bit must be set"),
    ("zlib marked", forge.image(incompatible=forge.COMPRESSION), {"bad-header"}, "the opposite"),
    ("extended L2, small clusters", forge.image(incompatible=forge.EXTENDED_L2, cluster_bits=13,
                                                l1_size=1000), {"bad-header"},
     "block/qcow2.c: Unsupported subcluster size"),
    ("LUKS without header", forge.image(crypt=2), {"detached-header"}, "block/qcow2.c"),
    ("LUKS header without LUKS", luks_inside(crypt=0), {"bad-header"}, "block/qcow2.c"),
    ("LUKS header outside", luks_inside(offset=1 << 30), {"table-outside"},
     "the encryption header's offset is not checked for the file's end"),
    ("LUKS header misaligned", luks_inside(offset=6 * C + 512), {"table-misaligned"},
     "block/qcow2.c: must be a multiple of cluster size"),
    ("LUKS header empty", luks_inside(length=0), {"bad-header"}, ""),
    ("LUKS header is none", luks_inside(header=b"nothing"), {"bad-header"}, "crypto/block-luks.c"),
    ("LUKS slots overlap", luks_inside(header=forge_luks.luks1(size=4096, slots={
        1: (0xdead, 0, 16, 4000)})), {"table-overlap"}, "crypto/block-luks.c"),
    # size
    ("8 EiB", forge.image(size=1 << 63), {"size-limit", "table-size"}, "CVE-2013-2096"),
    ("16 EiB less a byte", forge.image(size=(1 << 64) - 1, l1_size=1),
     {"size-limit", "table-size"}, "the number of L1 entries must not overflow to 0"),
    # header
    ("clusters of 256 bytes", forge.image(cluster_bits=8, clusters=1024, l1_size=1),
     {"bad-header"}, "CVE-2014-0146: block/qcow2.c: 9 to 21"),
    ("clusters of 4 MiB", forge.image(cluster_bits=22), {"bad-header"}, "as above"),
    ("clusters of 2^64", forge.poke(forge.image(), cluster_bits=64), {"bad-header"}, "as above"),
    ("header of 96 bytes", forge.image(header_length=96), {"bad-header"}, "CVE-2014-0144"),
    ("header over a cluster", forge.image(header_length=C + 8), {"bad-header"}, "CVE-2014-0144"),
    ("header of 106 bytes", forge.image(header_length=106), {"bad-header"},
     "qcow2.txt: a multiple of 8; QEMU does not look"),
    ("extension too long", forge.image(extensions=struct.pack(">II", 0x12345678, C)),
     {"bad-header"}, "CVE-2014-0144: Header extension too large"),
    ("extension of 4 GiB", forge.image(extensions=struct.pack(">II", 0x12345678, 0xffffffff)),
     {"bad-header"}, "as above, 32-bit overflow when rounded up"),
    ("extension that ends them, too long", forge.image(extensions=struct.pack(">II", 0, C)),
     {"bad-header"}, "block/qcow2.c looks at the length first"),
    ("extension into the name", forge.with_name(b"x", at=200, extensions=forge.extension(
        0x12345678, b"y" * 96)), {"backing-file", "bad-header"}, "block/qcow2.c"),
    ("backing format too long", forge.image(extensions=forge.extension(
        forge.BACKING_FORMAT, b"q" * 16)), {"bad-header"}, "block/qcow2.c"),
    ("refcounts of 128 bits", forge.image(refcount_order=7), {"bad-header"}, "CVE-2014-0144"),
    # tables
    ("no refcount table", forge.image(reftable_clusters=0), {"table-size"},
     "block/qcow2.c: Image does not contain a reference count table"),
    ("refcount table of 8 MiB and more", forge.image(reftable_clusters=129), {"table-size"},
     "CVE-2014-0144: Reference count table too large"),
    ("refcount table of 2^48", forge.image(reftable_clusters=0xffffffff), {"table-size"},
     "CVE-2014-0147: the product overflows 32 bits"),
    ("refcount table misaligned", forge.image(reftable_offset=C + 8), {"table-misaligned"},
     "block/qcow2.c: Reference count table offset invalid"),
    ("refcount table outside", forge.image(reftable_offset=6 * C), {"table-outside"},
     "QEMU reads zeros"),
    ("refcount table, end overflows", forge.image(reftable_offset=(1 << 64) - C),
     {"table-outside"}, "block/qcow2.c: offset invalid"),
    ("refcount table in the header", forge.image(reftable_offset=0), {"table-overlap"}, ""),
    ("refcount block outside", forge.at(forge.image(), (C, struct.pack(">Q", 1 << 40))),
     {"table-outside"}, "block/qcow2-refcount.c, when it is used"),
    ("refcount block, reserved bits", forge.at(forge.image(), (C, struct.pack(">Q", 2 * C + 1))),
     {"bad-entry"}, "qcow2.txt: bits 0 to 8"),
    ("refcount block misaligned", forge.at(forge.image(), (C, struct.pack(">Q", 2 * C + 512))),
     {"table-misaligned"}, "block/qcow2-refcount.c: marks the image corrupt"),
    ("refcount block on L1", forge.at(forge.image(), (C, struct.pack(">Q", 3 * C))),
     {"table-overlap"}, "qcow2.txt: metadata must not overlap"),
    ("L1 too small", forge.image(l1_size=1), {"table-size"}, "CVE-2014-0144: L1 table is too small"),
    ("L1 too large", forge.image(l1_size=(4 << 20) + 1), {"table-size"},
     "CVE-2014-0144: Active L1 table too large"),
    ("L1 of 2^32 entries", forge.image(l1_size=0xffffffff), {"table-size"},
     "CVE-2014-0143: the product overflows"),
    ("L1 misaligned", forge.image(l1_offset=3 * C + 512), {"table-misaligned"},
     "block/qcow2.c: Active L1 table offset invalid"),
    ("L1 outside", forge.image(l1_offset=1 << 40), {"table-outside"}, "QEMU fails to read it"),
    ("L1 in the header", forge.image(l1_offset=0), {"table-overlap"},
     "the header's bytes would be entries"),
    ("L1 on the refcount table", forge.image(l1_offset=C), {"table-overlap"}, "qcow2.txt"),
    ("L2 outside", forge.at(forge.image(), (3 * C, struct.pack(">Q", 1 << 50 | 1 << 63))),
     {"table-outside"}, "the end of the upload is missing"),
    ("L2 misaligned", forge.at(forge.image(), (3 * C, struct.pack(">Q", 4 * C + 512 | 1 << 63))),
     {"table-misaligned"}, "block/qcow2-cluster.c: marks the image corrupt"),
    ("L2 on the refcount table", forge.at(forge.image(), (3 * C, struct.pack(">Q", C | 1 << 63))),
     {"table-overlap"}, "the guest's data would be metadata"),
    ("L2, reserved bits", forge.at(forge.image(), (3 * C, struct.pack(">Q", 4 * C | 1 << 62))),
     {"bad-entry"}, "qemu-img check: reserved bits"),
    # snapshots
    ("too many snapshots", forge.image(n_snapshots=65537, snapshots_offset=5 * C),
     {"table-size"}, "CVE-2014-0143, CVE-2014-0145: Snapshot table too large"),
    ("snapshots misaligned", forge.with_snapshots(forge.snapshot(), snapshots_offset=6 * C + 8),
     {"table-misaligned"}, "block/qcow2.c: Snapshot table offset invalid"),
    ("snapshots misaligned, none", forge.image(snapshots_offset=8), {"table-misaligned"},
     "as above"),
    ("snapshots outside", forge.with_snapshots(forge.snapshot(), snapshots_offset=1 << 40),
     {"table-outside"}, "block/qcow2-snapshot.c"),
    ("snapshots on L1", forge.at(forge.image(n_snapshots=1, snapshots_offset=3 * C),
                                 (3 * C, bytes(8))), {"table-overlap"},
     "an empty L1 table reads as a snapshot"),
    ("snapshot's L1 too large", forge.with_snapshots(forge.snapshot(l1_size=(4 << 20) + 1)),
     {"bad-entry"}, "CVE-2014-0145: Snapshot L1 table too large"),
    ("snapshot's L1 misaligned", forge.with_snapshots(forge.snapshot(l1_offset=3 * C + 8)),
     {"bad-entry"}, "CVE-2014-0145"),
    ("snapshot's L1 outside", forge.with_snapshots(forge.snapshot(l1_offset=1 << 40)),
     {"bad-entry"}, "CVE-2014-0145"),
    ("snapshot's L1 in the header", forge.with_snapshots(forge.snapshot(l1_offset=0)),
     {"bad-entry"}, ""),
    ("snapshot's extra data", forge.with_snapshots(forge.snapshot(extra_size=1025)),
     {"bad-entry"}, "block/qcow2-snapshot.c: Too much extra metadata"),
    ("snapshot's extra data, 4 GiB", forge.with_snapshots(forge.snapshot(extra_size=0xffffffff)),
     {"bad-entry"}, "as above"),
    ("snapshot of 8 EiB", forge.with_snapshots(forge.snapshot(
        extra=struct.pack(">QQ", 0, 1 << 63))), {"size-limit"}, "who returns to it has that disk"),
    # bitmaps
    ("bitmaps, none", forge.with_bitmaps(count=0), {"bad-header"},
     "block/qcow2.c: found bitmaps extension with zero bitmaps"),
    ("bitmaps, too many", forge.with_bitmaps(forge.bitmap(), count=65536), {"bad-header"},
     "block/qcow2.c"),
    ("bitmaps, reserved", forge.with_bitmaps(forge.bitmap(), reserved=1), {"bad-header"},
     "block/qcow2.c: Reserved field is not zero"),
    ("bitmaps, directory too large", forge.with_bitmaps(forge.bitmap(), length=1 << 40),
     {"bad-header"}, "block/qcow2.c"),
    ("bitmaps, directory outside", forge.with_bitmaps(forge.bitmap(), offset=1 << 40),
     {"table-outside"}, "QEMU cannot read it"),
    ("bitmaps, directory misaligned", forge.with_bitmaps(forge.bitmap(), offset=6 * C + 8),
     {"table-misaligned"}, "block/qcow2.c: invalid bitmap_directory_offset"),
    ("bitmaps, directory on L1", forge.with_bitmaps(forge.bitmap(), offset=3 * C),
     {"table-overlap"}, "qcow2.txt"),
    ("bitmaps, short extension", forge.image(autoclear=1, extensions=forge.extension(
        forge.BITMAPS, bytes(16))), {"bad-header"}, "block/qcow2.c: invalid extension length"),
    ("bitmap's table outside", forge.with_bitmaps(forge.bitmap(table=1 << 40)),
     {"table-outside"}, "block/qcow2-bitmap.c"),
    ("bitmap's table of no entries", forge.with_bitmaps(forge.bitmap(entries=0)),
     {"table-outside"}, "block/qcow2-bitmap.c: check_dir_entry"),
    ("bitmap's flags", forge.with_bitmaps(forge.bitmap(flags=8)), {"bad-entry"}, "as above"),
    ("bitmap's type", forge.with_bitmaps(forge.bitmap(kind=2)), {"bad-entry"}, "as above"),
    ("bitmap's granularity", forge.with_bitmaps(forge.bitmap(granularity=32)), {"bad-entry"},
     "as above"),
    ("bitmap without name", forge.with_bitmaps(forge.bitmap(name=b"")), {"bad-entry"}, "as above"),
    ("bitmap's extra data", forge.with_bitmaps(forge.bitmap(extra=8)), {"bad-entry"}, "as above"),
    ("bitmap directory's end", forge.with_bitmaps(forge.bitmap(), length=16), {"bad-entry"}, ""),
    ("bitmap directory longer", forge.with_bitmaps(forge.bitmap(), length=64), {"bad-entry"},
     "block/qcow2-bitmap.c"),
    # file
    ("header alone, cut", bytes(forge.image()[:71]), {"truncated"}, ""),
    ("header of version 3, cut", bytes(forge.image()[:103]), {"truncated"}, ""),
    ("header alone", bytes(forge.image()[:512]), {"table-outside"}, "the rest is missing"),
    # polyglots
    ("MBR over it", forge.at(forge.image(), (510, b"\x55\xaa")), {"also-partitions"},
     "as raw it would be another disk"),
    ("ISO in it", forge.at(forge.image(), (32768, b"\1CD001\1")), {"also-iso"}, "as an ISO"),
    ("VHD's footer", forge.image() + b"conectix".ljust(512, b"\0"), {"also-vhd"},
     "QEMU told vpc opens by the footer"),
]


@pytest.mark.parametrize("name", SAFE)
def test_safe(name, workdir):
    """A sound image is safe, and QEMU sees the same disk."""
    path = workdir / "image"
    path.write_bytes(SAFE[name])
    image = check(path, "qcow2")
    assert image["verdict"] == "safe", image
    if name != "LUKS":
        assert image["virtual-size"] == qemu_size(path, "qcow2")


@pytest.mark.parametrize("name, content, expected", [row[:3] for row in HOSTILE],
                         ids=[row[0] for row in HOSTILE])
def test_unsafe(name, content, expected, workdir):
    """A hostile one is unsafe, for these reasons and no others."""
    image = verdict_on(workdir, content, "qcow2")
    assert reasons(image) == expected, (name, image)
    assert image["status"] == 3


CREATE = {
    "plain": (), "0.10": ("-o", "compat=0.10"), "512": ("-o", "cluster_size=512"),
    "2M": ("-o", "cluster_size=2M"), "extended": ("-o", "extended_l2=on"),
    "zstd": ("-o", "compression_type=zstd"), "lazy": ("-o", "lazy_refcounts=on"),
    "metadata": ("-o", "preallocation=metadata"), "falloc": ("-o", "preallocation=falloc"),
    "refcounts of 1": ("-o", "refcount_bits=1"), "refcounts of 64": ("-o", "refcount_bits=64"),
    "LUKS": ("-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=200"),
}


@needs_qemu_img
@pytest.mark.parametrize("name", CREATE)
def test_made_by_qemu_img(name, workdir):
    """Whatever qemu-img makes is safe, with what it can add."""
    path = workdir / "image"
    create = create_luks if name == "LUKS" else partial(qemu_img, "create")
    create("-f", "qcow2", *CREATE[name], path, "40M")
    image = check(path, "qcow2")
    assert image["verdict"] == "safe" and image["virtual-size"] == 40 << 20, image
    if name == "LUKS":
        return
    qemu_img("snapshot", "-c", "one", path)
    if name != "0.10":
        qemu_img("resize", path, "50M")
        qemu_img("bitmap", "--add", path, "b")
    assert check(path, "qcow2")["verdict"] == "safe"


@needs_qemu_img
@pytest.mark.parametrize("options", [(), ("-c",), ("-o", "cluster_size=512"),
                                     ("-c", "-o", "compression_type=zstd")], ids=" ".join)
def test_converted(options, workdir):
    """With data."""
    (workdir / "raw").write_bytes(bytes(range(256)) * 8192)
    qemu_img("convert", "-f", "raw", "-O", "qcow2", *options, workdir / "raw", workdir / "image")
    image = check(workdir / "image", "qcow2")
    assert image["verdict"] == "safe" and image["virtual-size"] == 2 << 20, image


@needs_qemu_img
def test_references_made_by_qemu_img(workdir):
    """What qemu-img makes with a reference is not."""
    qemu_img("create", "-f", "qcow2", "base", "1M", cwd=workdir)
    qemu_img("create", "-f", "qcow2", "-b", "base", "-F", "qcow2", "backing", cwd=workdir)
    qemu_img("create", "-f", "qcow2", "-o", "data_file=data", "external", "1M", cwd=workdir)
    assert reasons(check(workdir / "backing", "qcow2")) == {"backing-file"}
    assert reasons(check(workdir / "external", "qcow2")) == {"external-data"}


def test_tables_within_the_limit(workdir):
    """A disk that the limit allows may have its tables; without the disk there are none."""
    # 12 TiB in clusters of 64 KiB: 24,576 L1 entries
    content = forge.image(size=12 << 40, clusters=12, l1_offset=6 * C, l1_size=24576)
    assert verdict_on(workdir, content, "qcow2")["verdict"] == "safe"
    assert reasons(verdict_on(workdir, content, "qcow2", "--max-size", "11T")) == {"size-limit"}
    # reported, not read: an L2 outside the file
    content = forge.at(content, (6 * C, struct.pack(">Q", 1 << 50)))
    assert reasons(verdict_on(workdir, content, "qcow2", "--max-size", "11T")) == {"size-limit"}
