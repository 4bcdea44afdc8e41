# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every image of the lists: exactly the reasons that are told there, and QEMU does what is said of
it. A list of hostile images proves little if QEMU would not open them in the first place.
"""

import corpus_others
import corpus_vhd
import corpus_vhdx
import corpus_vmdk
import pytest
# pylint: disable=unused-import
from image_rig import pytestmark, qemu_size, reasons, verdict_on

ROWS = corpus_vmdk.ROWS + corpus_vhd.ROWS + corpus_vhdx.ROWS + corpus_others.ROWS
QEMU_NAMES = {"vhd": "vpc", "iso": "raw"}


def test_names_are_unique():
    """A row that has another's name would hide it."""
    names = [(row.format, row.name) for row in ROWS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.format}-{row.name}")
def test_row(row, workdir):
    """One image."""
    verdict = verdict_on(workdir, row.make(), row.format, *row.options)
    assert reasons(verdict) == set(row.reasons.split()), verdict
    size = qemu_size(workdir / "image", QEMU_NAMES.get(row.format, row.format))
    assert (size is not None) == row.qemu, row.why
    if not row.reasons:
        assert verdict["virtual-size"] == size
    if row.virtual is not None:
        assert verdict["virtual-size"] == row.virtual
