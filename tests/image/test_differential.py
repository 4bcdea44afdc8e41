# SPDX-License-Identifier: LGPL-2.1-or-later
"""The check and qemu-img on images with changed headers: every disagreement has a known reason."""

import differential
import pytest
# pylint: disable=unused-import
from image_rig import needs_qemu_img, pytestmark


@needs_qemu_img
@pytest.mark.parametrize("kind", differential.SUBJECTS)
def test_differential(kind):
    """See differential.py; the changes are the same in each run."""
    found = differential.compare(kind, 20 if kind == "vhdx" else 60, "test")
    assert not [what for what, why in found if why is None]


def test_disagreement_is_seen():
    """That it would be seen if there were one."""
    safe = {"verdict": "safe", "virtual-size": 512, "reasons": []}
    unsafe = {"verdict": "unsafe", "reasons": [{"id": "also-dmg"}]}
    info = {"virtual-size": 512}
    classify = differential.classify
    assert classify("qcow2", safe, info, "") is None
    assert classify("qcow2", unsafe, None, "no") is None
    for ours, theirs in ((safe, None), (safe, {"virtual-size": 1024}), (unsafe, info),
                         (safe, {**info, "backing-filename": "x"}),
                         ({"verdict": "error", "error": "x"}, info)):
        assert classify("qcow2", ours, theirs, "")[1] is None
