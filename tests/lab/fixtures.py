# SPDX-License-Identifier: LGPL-2.1-or-later
"""Labs for pytest. A test file imports fixture_make_lab, or makes its own fixture with lab_for()."""

from contextlib import contextmanager

import pytest

from . import boot
from .cluster import Lab


@contextmanager
def lab_for(request, **options):
    """A lab for a fixture of any scope; its logs are kept if one of the scope's tests fails."""
    reason = boot.missing()
    if reason:
        pytest.skip(reason)
    failures = request.session.testsfailed
    lab = Lab(**options)
    try:
        yield lab
    finally:
        lab.close(failed=request.session.testsfailed > failures)


@pytest.fixture(name="make_lab")
def fixture_make_lab(request):
    """Makes labs for one test: make_lab(hosts=2, ...)."""
    reason = boot.missing()
    if reason:
        pytest.skip(reason)
    failures = request.session.testsfailed
    labs = []

    def make_lab(hosts=1, **options):
        labs.append(Lab(hosts, **options))
        return labs[-1]

    try:
        yield make_lab
    finally:
        for lab in labs:
            lab.close(failed=request.session.testsfailed > failures)
