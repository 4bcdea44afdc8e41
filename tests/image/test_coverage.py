# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lists of images leave nothing out: every reason, every format, every attack that is known."""

import re
from pathlib import Path

import lock_rig
import test_corpus
import test_luks
import test_qcow2
import test_raw_and_old

HERE = Path(__file__).parent
SOURCE = lock_rig.REPOSITORY / "src" / "image"
DOCS = lock_rig.REPOSITORY / "docs"
# Those that the page on checking images begins with, and what they were about.
ATTACKS = [
    "CVE-2013-2096", "CVE-2014-0142", "CVE-2014-0143", "CVE-2014-0144", "CVE-2014-0145",
    "CVE-2014-0146", "CVE-2014-0147", "CVE-2014-0148", "CVE-2015-1850", "CVE-2015-5163",
    "CVE-2022-47951", "CVE-2023-32684", "CVE-2024-4467", "CVE-2024-32498", "CVE-2024-40767",
    "CVE-2026-24708"]


def rows():
    """(format, reasons, why) of every hostile image."""
    yield from (("qcow2", *row[2:4]) for row in test_qcow2.HOSTILE)
    yield from (("luks", *row[2:4]) for row in test_luks.HOSTILE)
    yield from ((name, *row[2:4]) for name, rows_ in test_raw_and_old.HOSTILE.items()
                for row in rows_)
    yield from ((row.format, set(row.reasons.split()), row.why) for row in test_corpus.ROWS)


def known_reasons():
    """All reasons: name -> what it means."""
    text = (SOURCE / "reasons.h").read_text(encoding="utf-8").replace("\\\n", " ")
    return dict(re.findall(r'R\(\s*\w+,\s*"([^"]+)",\s*"([^"]+)"\)', text))


def test_every_reason():
    """There is an image for every reason, and no other reasons."""
    assert set().union(*(reasons for _, reasons, _ in rows())) == set(known_reasons())


def test_every_attack():
    """There is an image for the shape of every known attack."""
    reasons = " ".join(why for _, _, why in rows())
    assert not [name for name in ATTACKS if name not in reasons]


def test_every_format():
    """There are hostile images of every format."""
    text = "".join(path.read_text(encoding="utf-8") for path in SOURCE.glob("*.c"))
    checked = re.findall(r'\.name = "([a-z0-9]+)",(?:(?!};).)*?\.check =', text, re.DOTALL)
    assert len(checked) == 11 and {row[0] for row in rows()} - {"vpc"} == set(checked)


def test_reasons_are_documented():
    """The page has every reason, with what it means, and no other."""
    page = (DOCS / "checking-images.rst").read_text(encoding="utf-8")
    table = re.search(r"\nreason +what it means\n=.*?\n(.*?)\n=+ =+\n", page, re.DOTALL).group(1)
    told = {}
    for line in table.splitlines():
        name, text = line[:20].strip(), line[21:].strip()
        if name:
            told[name] = text
        else:
            told[last] += " " + text
        last = name or last
    assert told == known_reasons()
