# SPDX-License-Identifier: LGPL-2.1-or-later
"""LUKS headers byte by byte, for tests. Sources: LUKS On-Disk Format 1.2.3, LUKS2 On-Disk Format 1.1.4."""

import hashlib
import json
import struct

MIB = 1 << 20
OFFSET = MIB // 2  # of the data
SIZE = OFFSET + 65536


def luks1(size=2 * MIB + 65536, payload=4096, key=64, slots=None, **fields):
    """A volume; a slot is (active, iterations, first sector, stripes)."""
    values = {"magic": b"LUKS\xba\xbe", "version": 1, "cipher": b"aes", "mode": b"xts-plain64",
              "hash": b"sha256", "payload": payload, "key": key, "digest": bytes(20),
              "salt": bytes(32), "iterations": 1000, "uuid": b"0" * 36, **fields}
    header = struct.pack(">6sH32s32s32sII20s32sI40s", *values.values())
    places = {0: (0x00ac71f3, 1000, 8, 4000)}
    for number in range(1, 8):
        places[number] = (0xdead, 0, 8 + 504 * number, 4000)
    places.update(slots or {})
    for active, iterations, sector, stripes in places.values():
        header += struct.pack(">II32sII", active, iterations, bytes(32), sector, stripes)
    result = bytearray(size)
    result[:len(header)] = header
    return result


def metadata(header=16384, offset=OFFSET, size="dynamic", slot=None, segment=None, **more):
    """What the JSON of a volume says."""
    areas = OFFSET - 2 * header
    return {
        "keyslots": {"0": {"type": "luks2", "key_size": 64,
                           "af": {"type": "luks1", "stripes": 4000, "hash": "sha256"},
                           "area": {"type": "raw", "offset": str(2 * header), "size": "258048",
                                    "encryption": "aes-xts-plain64", "key_size": 64},
                           "kdf": {"type": "argon2id", "time": 4, "memory": 1048576, "cpus": 4,
                                   "salt": "AAAA"}, **(slot or {})}},
        "tokens": {},
        "segments": {"0": {"type": "crypt", "offset": str(offset), "size": size, "iv_tweak": "0",
                           "encryption": "aes-xts-plain64", "sector_size": 512,
                           **(segment or {})}},
        "digests": {"0": {"type": "pbkdf2", "keyslots": ["0"], "segments": ["0"],
                          "hash": "sha256", "iterations": 1000, "salt": "AAAA",
                          "digest": "AAAA"}},
        "config": {"json_size": str(header - 4096), "keyslots_size": str(areas)},
        **more}


def copy(place, text, header=16384, **fields):
    """One copy of the header."""
    values = {"magic": b"SKUL\xba\xbe" if place else b"LUKS\xba\xbe", "version": 2,
              "size": header, "seqid": 3, "label": b"", "alg": b"sha256", "salt": bytes(64),
              "uuid": b"0" * 36, "subsystem": b"", "offset": place, **fields}
    result = bytearray(struct.pack(">6sHQQ48s32s64s40s48sQ", *values.values()).ljust(4096, b"\0"))
    result += text.ljust(header - 4096, b"\0")
    result[448:480] = hashlib.sha256(result).digest()
    return result


def luks2(size=SIZE, text=None, second_text=None, header=16384, second=None, **fields):
    """A volume whose two headers have this JSON."""
    text = json.dumps(metadata(header)).encode() if text is None else text
    result = bytearray(size)
    result[:header] = copy(0, text, header, **fields)
    result[header:2 * header] = copy(header, text if second_text is None else second_text, header,
                                     **{**fields, **(second or {})})
    return result
