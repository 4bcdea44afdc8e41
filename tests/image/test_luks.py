# SPDX-License-Identifier: LGPL-2.1-or-later
"""LUKS 1 and 2: what is safe and what is not. Sources are those that src/image/luks*.c name."""

import json
import struct

import forge_luks as forge
import pytest
# pylint: disable=unused-import
from image_rig import (check, create_luks, needs_qemu_img, pytestmark, reasons, verdict_on)

MIB, OFFSET, SIZE = forge.MIB, forge.OFFSET, forge.SIZE
AREAS = str(OFFSET - 32768)


def with_json(size=SIZE, **changes):
    """A volume with this in its JSON."""
    return forge.luks2(size, json.dumps(forge.metadata(**changes)).encode())


def patched(content, *places):
    """With other bytes in these places."""
    for offset, data in places:
        content[offset:offset + len(data)] = data
    return content


def with_cost(**numbers):
    """A volume whose key slot tells this of argon2."""
    kdf = {**forge.metadata()["keyslots"]["0"]["kdf"], **numbers}
    return with_json(slot={"kdf": kdf})


def with_digest(**numbers):
    """A volume whose digest tells this."""
    digest = {**forge.metadata()["digests"]["0"], **numbers}
    return with_json(digests={"0": digest})


SAFE = {
    "version 1": (forge.luks1(), 65536),
    "version 1, all slots": (forge.luks1(slots={7: (0x00ac71f3, 9, 3536, 4000)}), 65536),
    "version 1, as many iterations as may be": (
        forge.luks1(iterations=100000000, slots={0: (0x00ac71f3, 100000000, 8, 4000)}), 65536),
    "version 1, a slot that is off": (
        forge.luks1(slots={1: (0xdead, 0xffffffff, 8 + 504, 4000)}), 65536),
    "version 2": (forge.luks2(), 65536),
    "version 2, all that cryptsetup makes": (with_cost(time=64, memory=4 << 20, cpus=4), 65536),
    "version 2, passes over little": (with_cost(time=8 << 20, memory=32, cpus=1), 65536),
    "version 2, PBKDF2": (with_json(slot={"kdf": {
        "type": "pbkdf2", "hash": "sha256", "iterations": 100000000, "salt": "AAAA"}}), 65536),
    "version 2, of a size": (with_json(segment={"size": "32768"}), 32768),
    "version 2, larger headers": (forge.luks2(header=32768), 65536),
    "version 2, flat JSON": (forge.luks2(text=json.dumps(
        forge.metadata(), separators=(",", ":")).encode()), 65536),
}

HOSTILE = [
    ("version 3", patched(forge.luks1(), (6, b"\0\3")), {"unknown-version"}, ""),
    ("version 0", patched(forge.luks1(), (6, b"\0\0")), {"unknown-version"}, ""),
    # version 1
    ("cut", forge.luks1()[:500], {"truncated"}, ""),
    ("no data", forge.luks1(size=4096 * 512), {"detached-header"},
     "what cryptsetup luksHeaderBackup makes"),
    ("data elsewhere", forge.luks1(payload=0), {"detached-header"}, "cryptsetup --header"),
    ("data behind the end", forge.luks1(size=MIB), {"truncated"}, ""),
    ("data in the header", forge.luks1(payload=7), {"bad-header"},
     "crypto/block-luks.c: LUKS payload is overlapping with the header"),
    ("cipher without end", patched(forge.luks1(), (8, b"a" * 32)), {"bad-header"},
     "crypto/block-luks.c: cipher name is not NUL terminated"),
    ("mode without end", patched(forge.luks1(), (40, b"a" * 32)), {"bad-header"}, "as above"),
    ("hash without end", patched(forge.luks1(), (72, b"a" * 32)), {"bad-header"}, "as above"),
    ("no cipher", patched(forge.luks1(), (8, bytes(32))), {"bad-header"}, ""),
    ("cipher_null", forge.luks1(cipher=b"cipher_null"), {"legacy-encryption"},
     "cryptsetup: stores data as it is"),
    ("no key", forge.luks1(key=0), {"bad-header"}, ""),
    ("key of 4 GiB", forge.luks1(key=0xffffffff), {"bad-header"}, "times stripes it overflows"),
    ("no iterations", forge.luks1(iterations=0), {"bad-header"}, "crypto/block-luks.c"),
    ("slot neither on nor off", forge.luks1(slots={3: (1, 1, 8 + 504 * 3, 4000)}), {"bad-entry"},
     "crypto/block-luks.c: Keyslot state is corrupt"),
    ("slot without iterations", forge.luks1(slots={0: (0x00ac71f3, 0, 8, 4000)}), {"bad-entry"},
     "crypto/block-luks.c"),
    ("stripes", forge.luks1(slots={0: (0x00ac71f3, 1, 8, 1)}), {"bad-entry"},
     "crypto/block-luks.c: Keyslot is corrupted"),
    ("slot in the header", forge.luks1(slots={0: (0x00ac71f3, 1, 7, 4000)}), {"table-outside"},
     "crypto/block-luks.c: Keyslot is overlapping with the LUKS header"),
    ("slot in the data", forge.luks1(slots={7: (0xdead, 0, 4000, 4000)}), {"table-outside"},
     "crypto/block-luks.c: overlapping with the encrypted payload"),
    ("slot, end overflows", forge.luks1(slots={7: (0xdead, 0, 0xffffffff, 4000)}),
     {"table-outside"}, "as above"),
    ("slots on each other", forge.luks1(slots={7: (0xdead, 0, 8 + 504 * 6 + 8, 4000)}),
     {"table-overlap"}, "crypto/block-luks.c: Keyslots are overlapping in the header"),
    ("slot with 2^32 iterations", forge.luks1(slots={0: (0x00ac71f3, 0xffffffff, 8, 4000)}),
     {"unlock-cost"}, "crypto/block-luks.c: an hour on the host's processor, and no end to it"),
    ("slot with one iteration more", forge.luks1(slots={5: (0x00ac71f3, 100000001, 8 + 504 * 5,
                                                            4000)}), {"unlock-cost"}, "stricter"),
    ("key with 2^32 iterations", forge.luks1(iterations=0xffffffff), {"unlock-cost"}, "as above"),
    # version 2
    ("version 2, argon2 of more than 4 GiB", with_cost(memory=(4 << 20) + 1), {"unlock-cost"},
     "cryptsetup's crypt_pbkdf_get_limits(): what is made, not what is opened"),
    ("version 2, argon2 of 4 TiB", with_cost(memory=0xffffffff, time=4), {"unlock-cost"},
     "cryptsetup: memory of the host"),
    ("version 2, argon2 without end", with_cost(time=0xffffffff), {"unlock-cost"},
     "cryptsetup: any number of passes is opened"),
    ("version 2, a pass too many", with_cost(time=65, memory=4 << 20), {"unlock-cost"}, "stricter"),
    ("version 2, time times memory is over 2^64", with_cost(time=1 << 50, memory=1 << 22),
     {"unlock-cost"}, "the product wraps around"),
    ("version 2, argon2 with 5 threads", with_cost(cpus=5), {"unlock-cost"},
     "cryptsetup: makes 4 at most, opens 2^24"),
    ("version 2, PBKDF2 with 2^32 iterations", with_cost(iterations=0xffffffff), {"unlock-cost"},
     "cryptsetup: an hour; the type may be told before or behind it"),
    ("version 2, cost with a sign", with_cost(time=-1), {"bad-header"}, "2^32 - 1 for some"),
    ("version 2, cost as a string", with_cost(memory="64"), {"bad-header"}, "LUKS2 1.1.4, 3.2"),
    ("version 2, cost with an exponent", forge.luks2(text=json.dumps(forge.metadata()).replace(
        '"time": 4', '"time": 1e9').encode()), {"bad-header"}, "an integer for some"),
    ("version 2, cost told twice", forge.luks2(text=json.dumps(forge.metadata()).replace(
        '"time": 4', '"time": 4, "time": 9').encode()), {"bad-header"},
     "parsers differ in which one counts"),
    ("version 2, digest with 2^32 iterations", with_digest(iterations=0xffffffff),
     {"unlock-cost"}, "cryptsetup: once for each key that is tried"),
    ("version 2, cost in the second header alone", forge.luks2(second_text=json.dumps(
        forge.metadata(digests={"0": {"iterations": 0xffffffff}})).encode()), {"unlock-cost"},
     "cryptsetup takes the second one if the first is damaged"),
    ("version 2, cut", forge.luks2()[:20000], {"truncated"}, ""),
    ("version 2, header of 12 KiB", forge.luks2(header=12288), {"bad-header"},
     "LUKS2 1.1.4, table 1"),
    ("version 2, header of 128 KiB", forge.luks2(header=131072), {"too-much-metadata"},
     "stricter: allowed by LUKS2 1.1.4"),
    ("version 2, header of 8 EiB", patched(forge.luks2(), (8, struct.pack(">Q", 1 << 63))),
     {"bad-header"}, "LUKS2 1.1.4, table 1"),
    ("version 2, sum", patched(forge.luks2(), (5000, b"#")), {"bad-checksum"}, "LUKS2 1.1.4, 2.1"),
    ("version 2, second sum", patched(forge.luks2(), (16384 + 5000, b"#")), {"bad-checksum"},
     "stricter: cryptsetup mends it"),
    ("version 2, sum of another kind", forge.luks2(alg=b"sha512"), {"unknown-feature"}, "stricter"),
    ("version 2, first header gone", patched(forge.luks2(), (0, bytes(8))), {"bad-header"},
     "cryptsetup repairs it with the second one"),
    ("version 2, second magic", forge.luks2(second={"magic": b"LUKS\xba\xbe"}), {"bad-header"}, ""),
    ("version 2, second place", forge.luks2(second={"offset": 0x8000}), {"bad-header"},
     "LUKS2 1.1.4: hdr_offset must be where it is"),
    ("version 2, second is newer", forge.luks2(second={"seqid": 4}), {"size-mismatch"},
     "cryptsetup takes the newer one"),
    ("version 2, second tells other data", forge.luks2(second_text=json.dumps(
        forge.metadata(segment={"size": "512"})).encode()), {"size-mismatch"}, "as above"),
    ("version 2, no JSON", forge.luks2(text=b""), {"bad-header"}, ""),
    ("version 2, JSON without end", forge.luks2(text=b" " * 12288), {"bad-header"}, ""),
    ("version 2, JSON and more", forge.luks2(text=json.dumps(forge.metadata()).encode() + b"{}"),
     {"bad-header"}, ""),
    ("version 2, deep JSON", forge.luks2(text=b"[" * 5000), {"bad-header"}, "CWE-674"),
    ("version 2, escaped name", forge.luks2(text=json.dumps(forge.metadata()).replace(
        '"segments"', '"s\\u0065gments"').encode()), {"bad-header"}, "two spellings of one name"),
    ("version 2, a number twice", forge.luks2(text=json.dumps(forge.metadata()).replace(
        f'"offset": "{OFFSET}"', f'"offset": "{OFFSET}", "offset": "512"').encode()),
     {"bad-header"}, "parsers differ in which one counts"),
    ("version 2, no segments", with_json(segments={}), {"size-unknown"}, ""),
    ("version 2, two segments", forge.luks2(text=json.dumps(forge.metadata(segments={
        name: forge.metadata()["segments"]["0"] for name in "01"})).encode()),
     {"unknown-feature"}, "a reencryption that was not finished"),
    ("version 2, plain data", with_json(segment={"type": "linear"}), {"unknown-feature"},
     "CVE-2021-4122: a volume that is decrypted on its next use"),
    ("version 2, flags", with_json(segment={"flags": ["backup-final"]}), {"unknown-feature"},
     "CVE-2021-4122"),
    ("version 2, requirements", with_json(config={
        "json_size": "12288", "keyslots_size": AREAS,
        "requirements": {"mandatory": ["online-reencrypt-v2"]}}), {"unknown-feature"},
     "CVE-2021-4122"),
    ("version 2, slot of a reencryption", with_json(slot={"type": "reencrypt"}),
     {"unknown-feature"}, "CVE-2021-4122"),
    ("version 2, cipher_null", with_json(segment={"encryption": "cipher_null-ecb"}),
     {"legacy-encryption"}, "stores data as it is"),
    ("version 2, integrity", with_json(segment={"integrity": {"type": "hmac(sha256)"}}),
     {"size-unknown"}, "how much is data depends on the tags"),
    ("version 2, data elsewhere", with_json(segment={"offset": "0"}), {"detached-header"}, ""),
    ("version 2, header alone", with_json(size=OFFSET), {"detached-header"},
     "what cryptsetup luksHeaderBackup makes"),
    ("version 2, data behind the end", with_json(size=OFFSET - 512), {"truncated"}, ""),
    ("version 2, size behind the end", with_json(segment={"size": "1048577024"}), {"truncated"},
     ""),
    ("version 2, half a sector", with_json(segment={"size": "1000"}), {"bad-header"}, ""),
    ("version 2, number with a sign", with_json(segment={"offset": "-512"}), {"bad-header"}, ""),
    ("version 2, number of 2^64", with_json(segment={"offset": "18446744073709551616"}),
     {"bad-header"}, ""),
    ("version 2, data on the slots", with_json(segment={"offset": "262144"}), {"table-overlap"},
     ""),
    ("version 2, data on the headers", with_json(segment={"offset": "16384"}, config={
        "json_size": "12288", "keyslots_size": "0"}), {"table-overlap"}, ""),
    ("version 2, size of the JSON", with_json(config={"json_size": "4096",
                                                      "keyslots_size": AREAS}),
     {"size-mismatch"}, "LUKS2 1.1.4: must be the binary header's"),
    ("version 2, slot in the header", with_json(slot={"area": {"offset": "4096",
                                                               "size": "4096"}}),
     {"table-outside"}, ""),
    ("version 2, slot in the data", with_json(slot={"area": {"offset": str(OFFSET),
                                                             "size": "4096"}}),
     {"table-outside"}, ""),
    ("version 2, slots on each other", with_json(keyslots={
        name: forge.metadata()["keyslots"]["0"] for name in "01"}), {"table-overlap"}, ""),
    ("version 2, too many slots", with_json(keyslots={
        str(n): {"type": "luks2", "area": {"offset": str(32768 + n * 4096), "size": "4096"}}
        for n in range(33)}), {"bad-header"}, "LUKS2 1.1.4: at most 32"),
]


@pytest.mark.parametrize("name", SAFE)
def test_safe(name, workdir):
    """A sound volume is safe, and as large as its data."""
    content, size = SAFE[name]
    image = verdict_on(workdir, content, "luks")
    assert image["verdict"] == "safe" and image["virtual-size"] == size, image


@pytest.mark.parametrize("name, content, expected", [row[:3] for row in HOSTILE],
                         ids=[row[0] for row in HOSTILE])
def test_unsafe(name, content, expected, workdir):
    """A hostile one is unsafe, for these reasons and no others."""
    image = verdict_on(workdir, content, "luks")
    assert reasons(image) == expected, (name, image)


@needs_qemu_img
def test_made_by_qemu_img(workdir):
    """What qemu-img makes is safe, and its size is what QEMU sees."""
    create_luks("-f", "luks", "-o", "key-secret=s,iter-time=200", workdir / "image", "10M")
    image = check(workdir / "image", "luks")
    assert image["verdict"] == "safe" and image["virtual-size"] == 10 << 20, image
