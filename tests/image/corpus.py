# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the lists of hostile and sound images are made of."""

from typing import Callable, NamedTuple

OPENS, REFUSES = True, False


class Row(NamedTuple):
    """One image and what has to be said of it."""
    format: str          # what it is said to be
    name: str
    make: Callable       # its bytes
    reasons: str         # ids, separated by blanks; none: it is safe
    qemu: bool           # whether QEMU 7.2 opens it as that format
    why: str             # what makes it dangerous, and who says so
    options: tuple = ()  # for the check
    virtual: int = None  # the disk's size, if it matters


def patched(image, at, data):
    """The image with these bytes at that place."""
    image = bytearray(image)
    image[at:at + len(data)] = data
    return image
