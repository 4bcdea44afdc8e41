# SPDX-License-Identifier: LGPL-2.1-or-later
"""Waiting for a condition, with a deadline."""

import time

DEADLINE = 30.0


def wait_until(condition, what, deadline=DEADLINE):
    """Give back the first true value of condition(); TimeoutError naming what if none comes."""
    end = time.monotonic() + deadline
    pause = 0.001
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"waited {deadline:g} s in vain: {what}")
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
