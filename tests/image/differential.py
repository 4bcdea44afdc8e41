#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Compares the check with qemu-img on images whose headers were changed at random.

usage: tests/image/differential.py [COUNT [SEED]]

Prints every kind of disagreement, how often it was seen, and why it is one. The exit code is 1 if
one of them has no reason: the check says "safe" and QEMU sees another disk, or a reference, or a
reason is not among those for which we mean to be stricter.
"""

import json
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

# pylint: disable=wrong-import-position
import forge_luks
import forge_old
import forge_parallels
import forge_qcow2
import forge_vdi
import forge_vhd
import forge_vhdx
import forge_vmdk
from image_rig import HOLDFAST

C = forge_qcow2.CLUSTER

# Format: QEMU's name, byte order, sound images, the places that are changed: (begin, end).
SUBJECTS = {
    "qcow2": ("qcow2", "big", lambda: [
        forge_qcow2.image(), forge_qcow2.image(version=2),
        forge_qcow2.with_snapshots(forge_qcow2.snapshot(extra=bytes(16))),
        forge_qcow2.with_bitmaps(forge_qcow2.bitmap())],
        [(4, 144), (4, 144), (4, 144), (C, C + 32), (3 * C, 3 * C + 32), (6 * C, 6 * C + 64)]),
    "qcow": ("qcow", "big", lambda: [forge_old.qcow()], [(8, 56)]),
    "qed": ("qed", "little", lambda: [forge_old.qed()], [(4, 64), (65536, 65552)]),
    "vmdk": ("vmdk", "little", lambda: [
        forge_vmdk.sparse(grains=(0, 5)), forge_vmdk.stream(), forge_vmdk.cowd()],
        [(4, 80), (512, 1024)]),
    "vdi": ("vdi", "little", lambda: [forge_vdi.image(size=2 << 20, used=(0,))],
            [(64, 80), (330, 488), (512, 520)]),
    "vhd": ("vpc", "big", lambda: [forge_vhd.dynamic(), forge_vhd.fixed()],
            [(8, 88), (512, 600), (-512, -400)]),
    "vhdx": ("vhdx", "little", lambda: [forge_vhdx.image(blocks=(0,))],
             [(65536, 65616), (131072, 131152), (196608, 196700), (262144, 262240)]),
    "parallels": ("parallels", "little", lambda: [forge_parallels.image()], [(16, 72)]),
    "luks": ("luks", "big", lambda: [forge_luks.luks1()], [(6, 8), (8, 112), (160, 592)]),
}

# We say "unsafe", QEMU opens it: for these reasons that is meant, in every format.
STRICTER = {
    "backing-file": "a reference to another file",
    "external-data": "a reference to another file",
    "detached-header": "a header without data",
    "size-limit": "the limit of the check, 64 TiB if none is given",
    "size-mismatch": "the size is told twice, and programs differ in which one they take",
    "unknown-feature": "a feature that the next program may take for another",
    "unknown-version": "a version that the documents do not have",
    "legacy-encryption": "QEMU opens it without a key only to tell about it",
    "marked-corrupt": "QEMU opens it for reading alone",
    "not-closed": "QEMU replays the log, or says that it would",
    "truncated": "QEMU reads zeros behind the file's end",
    "bad-header": "a field that QEMU does not look at, or not when it opens the image",
    "bad-checksum": "QEMU warns, or does not look",
    "table-outside": "QEMU reads zeros there, or fails when the guest comes to it",
    "table-misaligned": "QEMU looks at entries when they are used",
    "table-size": "QEMU takes tables that are too small or too large for the disk",
    "table-overlap": "QEMU notices when it writes",
    "bad-entry": "QEMU looks at entries when they are used",
    "too-much-metadata": "QEMU reads without a bound",
    "size-unknown": "QEMU guesses",
    "wrong-format": "QEMU does not look at a magic when it is told the format",
    "also-qcow": "it looks like both, for QEMU as well",
    "also-vhd": "a VHD's footer at the end",
}

# We say "safe", QEMU does not open it: what it says, and why that is no matter.
QEMU_STRICTER = {
    "vmdk": [("Invalid argument", "a descriptor in the file that QEMU cannot read to its end")],
    "luks": [("not supported|No matching|Unsupported|cipher|hash|algorithm|mode",
              "a cipher, mode or hash that QEMU does not have; cryptsetup may")],
}
ANY_STRICTER = [
    ("Parameter 'key-secret' is required|requires.*secret", "it wants the key, so the header is right"),
]

VALUES = (0, 1, 2, 3, 7, 8, 9, 16, 255, 256, 511, 512, 513, 4096, 65535, 65536, 65537, 1 << 20,
          (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40, (1 << 62), (1 << 63) - 1,
          1 << 63, (1 << 64) - 1, (1 << 64) - 65536)


def mend_vhd(image):
    """The right checksums, and the same footer in front as behind."""
    for at, magic, place in ((len(image) - 512, b"conectix", 64), (512, b"cxsparse", 36)):
        size = 512 if place == 64 else 1024
        if image[at:at + 8] == magic:
            struct.pack_into(">I", image, at + place,
                             forge_vhd.checksum(image[at:at + size], place))
    if image[:8] == b"conectix":
        image[:512] = image[-512:]


def mend_vhdx(image):
    """The right checksums."""
    for at, size in ((65536, 4096), (131072, 4096), (196608, 65536), (262144, 65536)):
        forge_vhdx.seal(image, at, size)


MEND = {"vhd": mend_vhd, "vhdx": mend_vhdx}


def mutate(rng, image, order, places):
    """One to three changes."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        begin, end = rng.choice(places)
        if begin < 0:
            begin, end = len(image) + begin, len(image) + end
        end = min(end, len(image))
        if end - begin < 1:
            continue
        at = rng.randrange(begin, end)
        if rng.random() < 0.4:
            image[at] ^= 1 << rng.randrange(8)
            continue
        width = min(rng.choice((1, 2, 4, 8)), end - at)
        value = rng.choice(VALUES) % (1 << 8 * width)
        image[at:at + width] = value.to_bytes(width, order)
    return image


def ask_qemu(directory, names, qemu_format):
    """What qemu-img says of each: (its information or None, its complaint)."""
    script = ('ulimit -t 20; ulimit -v 2097152; ulimit -c 0; for name; do timeout 20 qemu-img info --output=json '
              f'-f {qemu_format} "$name" >"$name.out" 2>"$name.err" || :; done')
    command = ["unshare", "--net", "--"] if os.geteuid() == 0 else []
    subprocess.run([*command, "sh", "-c", script, "sh", *names], check=True, cwd=directory,
                   timeout=600)
    for name in names:
        text = (directory / f"{name}.out").read_text()
        yield (json.loads(text) if text.strip() else None,
               (directory / f"{name}.err").read_text(errors="replace"))


def ask_check(directory, names, kind):
    """The verdicts of one run."""
    result = subprocess.run([HOLDFAST, "image", "check", "--json", "--format", kind, *names],
                            check=False, cwd=directory, capture_output=True, timeout=600)
    return json.loads(result.stdout)["images"]


def classify(kind, ours, theirs, complaint):
    """None when both say the same; else (what, why), where why is None if nobody knows."""
    if ours["verdict"] == "error":
        return f"error: {ours['error']}", None
    if ours["verdict"] == "safe":
        if theirs is None:
            known = QEMU_STRICTER.get(kind, []) + ANY_STRICTER
            for pattern, why in known:
                if re.search(pattern, complaint):
                    return "safe, QEMU refuses", why
            return f"safe, QEMU refuses: {complaint.strip()}", None
        if "backing-filename" in theirs:
            return "safe, QEMU sees a backing file", None
        if theirs["virtual-size"] != ours["virtual-size"]:
            return (f"safe with {ours['virtual-size']} bytes, QEMU sees "
                    f"{theirs['virtual-size']}"), None
        return None
    if theirs is None:
        return None
    ids = sorted({reason["id"] for reason in ours["reasons"]})
    known = [STRICTER[name] for name in ids if name in STRICTER]
    return f"{', '.join(ids)}; QEMU opens it", known[0] if known else None


def compare(kind, count, seed, keep=None):
    """Counts of disagreements: {(what, why): number}. With `keep`, those without a why stay there."""
    qemu_format, order, subjects, places = SUBJECTS[kind]
    rng = random.Random(f"{kind} {seed}")
    subjects = subjects()
    found = Counter()
    with tempfile.TemporaryDirectory(prefix="hf-") as temporary:
        directory = Path(temporary)
        names = []
        for index in range(count):
            image = mutate(rng, bytearray(rng.choice(subjects)), order, places)
            if kind in MEND and rng.random() < 0.8:
                MEND[kind](image)
            names.append(f"image{index}")
            (directory / names[-1]).write_bytes(image)
        ours = ask_check(directory, names, kind)
        for name, mine, (theirs, complaint) in zip(names, ours,
                                                   ask_qemu(directory, names, qemu_format)):
            complaint = complaint.replace(name, "IMAGE")
            outcome = classify(kind, mine, theirs, complaint)
            if outcome:
                found[outcome] += 1
                if outcome[1] is None and keep:
                    (Path(keep) / f"{kind}-{name}").write_bytes((directory / name).read_bytes())
    return found


def main():
    """All formats, and a table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    seed = sys.argv[2] if len(sys.argv) > 2 else "1"
    unknown = 0
    for kind in SUBJECTS:
        found = compare(kind, count, seed, os.environ.get("HF_KEEP"))
        print(f"{kind}: {count} images, {sum(found.values())} disagreements")
        for (what, why), number in sorted(found.items(), key=lambda item: -item[1]):
            print(f"    {number:5} {what}: {why or 'NOBODY KNOWS WHY'}")
            unknown += why is None
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
