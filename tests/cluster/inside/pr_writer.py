#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes a device without a pause and without the page cache, and keeps count.

usage: pr_writer.py DEVICE REPORT

REPORT is a file with {"written": N, "errors": {"52": N}} as of the last write.
"""

import json
import mmap
import os
import sys

BLOCK = 4096


def main():
    """Until it is killed."""
    device, report = sys.argv[1:]
    fd = os.open(device, os.O_RDWR | os.O_DIRECT)
    buffer = mmap.mmap(-1, BLOCK)
    counts = {"written": 0, "errors": {}}
    for number in range(10 ** 9):
        buffer[:8] = number.to_bytes(8, "little")
        try:
            os.pwrite(fd, buffer, number % 64 * BLOCK)
            counts["written"] += 1
        except OSError as error:
            name = str(error.errno)
            counts["errors"][name] = counts["errors"].get(name, 0) + 1
        with open(f"{report}.new", "w", encoding="ascii") as file:
            json.dump(counts, file)
        os.rename(f"{report}.new", report)


if __name__ == "__main__":
    main()
