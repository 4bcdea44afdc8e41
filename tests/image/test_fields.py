# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every field of every header, with every value that is an edge: the check and QEMU side by side.

Sums are made right again, so that it is the field that QEMU judges. What the check calls safe, QEMU
opens, finds nothing wrong with, and sees of the same size. Where the check is stricter, the field
is in the list here, with the reason; a field that is listed without need fails as well.
"""

import json
import os
import struct
from typing import NamedTuple

import forge_parallels
import forge_vdi
import forge_vhd
import forge_vhdx
import forge_vmdk
import pytest
# pylint: disable=unused-import
from image_rig import check_all, needs_qemu_img, pytestmark, qemu_img

KIB, MIB = 1 << 10, 1 << 20
# qemu-img check: leaked clusters; the format cannot be checked
NOTHING_WRONG = (0, 3, 63)


class Field(NamedTuple):
    """A number in an image; `stricter` tells why the check may refuse what QEMU opens."""
    name: str
    at: int
    code: str  # struct's
    stricter: str = ""


def seal_nothing(image):
    """For formats without sums."""
    return image


def seal_vhd(image):
    """Both footers and the dynamic header."""
    for at, size, where in ((0, 512, 64), (512, 1024, 36), (len(image) - 512, 512, 64)):
        if image[at:at + 8] in (b"conectix", b"cxsparse"):
            struct.pack_into(">I", image, at + where,
                             forge_vhd.checksum(image[at:at + size], where))
    return image


def seal_vhd_twice(image):
    """The last footer is a copy of the first, which is what was changed."""
    image[-512:] = image[:512]
    return seal_vhd(image)


def seal_vhdx(image):
    """The four sums; the second region table is a copy of the first."""
    image[256 * KIB:320 * KIB] = image[192 * KIB:256 * KIB]
    for at, size in ((64 * KIB, 4 * KIB), (128 * KIB, 4 * KIB), (192 * KIB, 64 * KIB),
                     (256 * KIB, 64 * KIB)):
        forge_vhdx.seal(image, at, size)
    return image


VMDK = [
    Field("version", 4, "<I", "0 is no version"),
    Field("flags", 8, "<I", "QEMU ignores what it does not know"),
    Field("capacity", 12, "<Q", "the descriptor says another size; or 0: QEMU opens other files"),
    Field("grain", 20, "<Q", "VMware: a power of two, at least 8"),
    Field("descriptor", 28, "<Q", "QEMU goes to sector 1 whatever this says"),
    Field("descriptor size", 36, "<Q", "QEMU reads 20 sectors whatever this says"),
    Field("entries", 44, "<I", "VMware: always 512"),
    Field("redundant directory", 48, "<Q", "QEMU reads zeroes there, and writes there"),
    Field("directory", 56, "<Q", "QEMU reads zeroes there, and writes there"),
    Field("overhead", 64, "<Q", "the VM could write the tables"),
    Field("compression", 77, "<H", "the flags say otherwise"),
]
VMDK_FOOTER = [
    Field(f"footer: {field.name}", field.at - 1024, field.code,
          "header and footer have to be the same" if field.name != "directory" else field.stricter)
    for field in VMDK if field.name != "redundant directory"]
VMDK_TABLES = [
    Field("directory entry", 28 * 512, "<I", "QEMU reads zeroes there, and writes there"),
    Field("redundant entry", 21 * 512, "<I", "QEMU writes there"),
    Field("grain", 29 * 512, "<I"),
]
VDI = [
    Field("version", 68, "<I"),
    Field("header size", 72, "<I", "QEMU ignores it"),
    Field("type", 76, "<I", "QEMU ignores it; 3 and 4 have a parent"),
    Field("map", 340, "<I"),
    Field("data", 344, "<I", "QEMU reads zeroes behind the end, and writes there"),
    Field("sector size", 360, "<I"),
    Field("size", 368, "<Q", "0 is no size"),
    Field("block size", 376, "<I"),
    Field("extra", 380, "<I", "QEMU ignores it"),
    Field("blocks", 384, "<I"),
    Field("allocated", 388, "<I"),
    Field("link", 424, "<Q"),
    Field("parent", 440, "<Q"),
    Field("map entry", 512, "<I", "QEMU looks at it when the VM comes to it"),
]
VHD_FOOTER = [
    Field("features", 8, ">I", "QEMU ignores them"),
    Field("version", 12, ">I", "QEMU ignores it"),
    Field("data offset", 16, ">Q"),
    Field("creator", 28, ">I"),
    Field("original size", 40, ">Q"),
    Field("size", 48, ">Q", "QEMU may go by the geometry; of a fixed disk it believes anything"),
    Field("geometry", 56, ">I"),
    Field("type", 60, ">I", "QEMU ignores it of what has a footer at the begin"),
    Field("saved", 84, ">B"),
    Field("reserved", 100, ">Q", "QEMU ignores them"),
]
# Of a fixed disk QEMU looks at the type, and not at what a fixed disk has not.
VHD_FIXED = [
    field._replace(at=field.at - 512, stricter={
        "type": "", "data offset": "QEMU ignores it"}.get(field.name, field.stricter))
    for field in VHD_FOOTER]
VHD_HEADER = [
    Field("header: data offset", 520, ">Q"),
    Field("header: table", 528, ">Q", "QEMU takes any place that is in the file"),
    Field("header: version", 536, ">I", "QEMU ignores it"),
    Field("header: entries", 540, ">I"),
    Field("header: block size", 544, ">I"),
    Field("header: parent's UUID", 552, ">Q"),
    Field("header: parent's name", 576, ">H", "QEMU ignores parents"),
    Field("header: locator", 1088, ">I", "QEMU ignores parents"),
    Field("block", 1536, ">I", "QEMU takes any place that is in the file"),
]
VHDX_HEADER = [
    Field("sequence", 64 * KIB + 8, "<Q"),
    Field("log's GUID", 64 * KIB + 48, "<Q", "QEMU looks for entries; there are none here"),
    Field("log's version", 64 * KIB + 64, "<H"),
    Field("version", 64 * KIB + 66, "<H"),
    Field("log's length", 64 * KIB + 68, "<I", "QEMU looks at it if there is a log"),
    Field("log's place", 64 * KIB + 72, "<Q", "QEMU looks at it if there is a log"),
]
VHDX_REGIONS = [
    Field("regions", 192 * KIB + 8, "<I", "QEMU takes empty ones"),
    Field("table's place", 192 * KIB + 16 + 16, "<Q", "QEMU reads zeroes behind the end"),
    Field("table's length", 192 * KIB + 16 + 24, "<I", "QEMU takes any that is long enough"),
    Field("metadata's place", 192 * KIB + 48 + 16, "<Q"),
    Field("metadata's length", 192 * KIB + 48 + 24, "<I", "QEMU ignores it"),
    Field("flags", 192 * KIB + 48 + 28, "<I"),
]
VHDX_METADATA = [
    Field("items", 3 * MIB + 10, "<H"),
    Field("item's place", 3 * MIB + 32 + 16, "<I"),
    Field("item's length", 3 * MIB + 32 + 20, "<I", "QEMU ignores it"),
    Field("block size", 3 * MIB + 64 * KIB, "<I"),
    Field("parameters", 3 * MIB + 64 * KIB + 4, "<I", "QEMU ignores what it does not know"),
    Field("size", 3 * MIB + 64 * KIB + 8, "<Q", "QEMU rounds down, and wraps around"),
    Field("logical sector", 3 * MIB + 64 * KIB + 32, "<I"),
    Field("physical sector", 3 * MIB + 64 * KIB + 40, "<I", "QEMU ignores it"),
    Field("block", 2 * MIB, "<Q", "QEMU takes reserved bits, the headers' place, and states"),
]
PARALLELS = [
    Field("version", 16, "<I"),
    Field("cluster", 28, "<I", "QEMU looks at clusters when the VM comes to them"),
    Field("entries", 32, "<I", "QEMU reads zeroes, and fails when the VM comes there"),
    Field("size", 36, "<Q", "QEMU takes a table that is too small"),
    Field("in use", 44, "<I", "QEMU opens it read-only, or ignores it"),
    Field("data", 48, "<I", "the VM could write the table"),
    Field("flags", 52, "<I", "QEMU ignores them"),
    Field("extension", 56, "<Q"),
    Field("cluster's place", 64, "<I"),
]
PARALLELS_OLD = [
    field._replace(stricter="a cluster may be on the table") if field.at == 64 else field
    for field in PARALLELS]

# What is changed: format, QEMU's name, a sound image, how it is sealed, its fields.
SUBJECTS = {
    "vmdk": ("vmdk", "vmdk", forge_vmdk.sparse, seal_nothing, VMDK + VMDK_TABLES),
    "vmdk stream": ("vmdk", "vmdk", forge_vmdk.stream, seal_nothing, VMDK_FOOTER),
    "vdi": ("vdi", "vdi", forge_vdi.image, seal_nothing, VDI),
    "vhd": ("vhd", "vpc", forge_vhd.dynamic, seal_vhd_twice, VHD_FOOTER + VHD_HEADER),
    "vhd fixed": ("vhd", "vpc", forge_vhd.fixed, seal_vhd, VHD_FIXED),
    "vhdx": ("vhdx", "vhdx", lambda: forge_vhdx.image(header_fields={"sequence": 5}, second={
        "sequence": 4}), seal_vhdx, VHDX_HEADER + VHDX_REGIONS + VHDX_METADATA),
    "parallels": ("parallels", "parallels", forge_parallels.image, seal_nothing, PARALLELS),
    "parallels old": ("parallels", "parallels",
                      lambda: forge_parallels.image(magic=forge_parallels.OLD), seal_nothing,
                      PARALLELS_OLD),
}
CASES = [(name, field) for name, subject in SUBJECTS.items() for field in subject[4]]


def edges(field, old):
    """Values at which a reader may fail: of the type, of sectors, around what is right."""
    bits = 8 * struct.calcsize(field.code)
    values = {0, 1, 2, 7, 4096, 1 << 62, 1 << 55, (1 << 64) - 512, old - 1, old + 1, old * 2,
              old // 2, old + MIB, (1 << bits) - 1, 1 << (bits - 1), 1 << (bits - 8)}
    return sorted({value % (1 << bits) for value in values} - {old})


def ask_qemu(directory, names, qemu_format):
    """What qemu-img says of each: the size if it opens it and finds nothing wrong, or None. It
    takes milliseconds of the processor for a sound image, and has a line to say on each wrong entry
    of a table, be they millions: so much of it is enough."""
    script = ('for name; do qemu-img info --output=json -f "$FORMAT" "$name" >"$name.out" && '
              '{ prlimit --cpu=2 qemu-img check -q -f "$FORMAT" "$name"; echo $? >"$name.code"; }; done; true')
    qemu_img("-c", script, "sh", *names, program="sh", cwd=directory,
             env={**os.environ, "FORMAT": qemu_format})
    for name in names:
        text = (directory / f"{name}.out").read_text()
        code = directory / f"{name}.code"
        good = code.exists() and int(code.read_text()) in NOTHING_WRONG
        yield json.loads(text)["virtual-size"] if good else None


@pytest.mark.parametrize("name,field", CASES, ids=lambda value: getattr(value, "name", value))
@needs_qemu_img
def test_field(name, field, workdir):
    """All edges of one field."""
    kind, qemu_format, make, seal, _ = SUBJECTS[name]
    image = seal(make())
    at = field.at if field.at >= 0 else len(image) + field.at
    old, = struct.unpack_from(field.code, image, at)
    values = edges(field, old)
    for value in values:
        changed = bytearray(image)
        struct.pack_into(field.code, changed, at, value)
        (workdir / f"{value}").write_bytes(seal(changed))
    names = [f"{value}" for value in values]
    stricter = []
    for value, verdict, size in zip(values, check_all(names, kind, workdir),
                                    ask_qemu(workdir, names, qemu_format)):
        if verdict["verdict"] == "safe":
            assert size == verdict["virtual-size"], f"{value} is safe; QEMU: {size}"
        elif size is not None:
            assert field.stricter, (value, verdict["reasons"])
            stricter.append(value)
    assert stricter or not field.stricter, "the check is not stricter here"
