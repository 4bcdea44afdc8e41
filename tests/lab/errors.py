# SPDX-License-Identifier: LGPL-2.1-or-later
"""What can go wrong with a lab, in words that say what to do."""


class LabError(Exception):
    """Something that the lab cannot do."""


class NoContact(LabError):
    """A guest did not answer: it is off, frozen, or still booting."""


class CommandFailed(LabError):
    """A command in a guest ended with another code than 0, or not in time."""

    def __init__(self, host, command, result):
        self.result = result
        how = (f"did not end within {result.limit:g} s" if result.code is None
               else f"ended with {result.code}")
        super().__init__(f"{host}: {command!r} {how}\n{result.out}{result.err}".rstrip())
