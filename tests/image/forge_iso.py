# SPDX-License-Identifier: LGPL-2.1-or-later
"""ISO 9660 images byte by byte, for tests. Source: ECMA-119, El Torito 1.0."""

import struct

SECTOR = 2048


def both32(number):
    """A number in both byte orders."""
    return struct.pack("<I", number) + struct.pack(">I", number)


def both16(number):
    """The same with two bytes each."""
    return struct.pack("<H", number) + struct.pack(">H", number)


def volume(kind=1, space=24, version=1, block=SECTOR, root=22, root_size=SECTOR, paths=10,
           path_l=20, path_m=21, magic=b"CD001", root_length=34):
    """A volume descriptor, primary or supplementary."""
    data = bytearray(SECTOR)
    data[0:8] = bytes([kind]) + magic + bytes([version, 0])
    data[40:46] = b"FORGED"
    data[80:88] = space if isinstance(space, bytes) else both32(space)
    data[120:124] = both16(1)
    data[124:128] = both16(1)
    data[128:132] = both16(block)
    data[132:140] = both32(paths)
    struct.pack_into("<I", data, 140, path_l)
    struct.pack_into(">I", data, 148, path_m)
    data[156] = root_length
    data[158:166] = both32(root)
    data[166:174] = both32(root_size)
    return bytes(data)


def boot(catalogue=23):
    """A boot record as El Torito has it."""
    data = bytearray(SECTOR)
    data[0:7] = b"\0CD001\1"
    data[7:30] = b"EL TORITO SPECIFICATION"
    struct.pack_into("<I", data, 71, catalogue)
    return bytes(data)


def terminator():
    """The end of the descriptors."""
    return (b"\xffCD001\1").ljust(SECTOR, b"\0")


def image(descriptors=None, sectors=24, system_area=b""):
    """A volume with an empty root directory."""
    if descriptors is None:
        descriptors = (volume(), boot(), terminator())
    result = bytearray(sectors * SECTOR)
    result[:len(system_area)] = system_area
    for index, data in enumerate(descriptors):
        at = (16 + index) * SECTOR
        result[at:at + len(data)] = data
    return result
