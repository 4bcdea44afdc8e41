# SPDX-License-Identifier: LGPL-2.1-or-later
"""What all that ends with its block has in common."""


class Closing:
    """A context manager that is closed at the end of its block."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """End it with all that belongs to it."""
        raise NotImplementedError
