# SPDX-License-Identifier: LGPL-2.1-or-later
"""A cluster of emulated hosts to break on purpose. README.rst says how to use it.

    with Lab(hosts=2) as lab:
        lab.h1.run("uname -r")
        lab.h2.power_cut()
"""

from .cluster import Lab
from .errors import CommandFailed, LabError, NoContact

__all__ = ["CommandFailed", "Lab", "LabError", "NoContact"]
