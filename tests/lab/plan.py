# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a lab is made of, and the names of the files in its directory."""

import json
import os
import random
from dataclasses import asdict, dataclass, field
from pathlib import Path

from . import boot
from .errors import LabError

MOST_HOSTS = 9      # their number is a digit of addresses and of /etc/machine-id
UNITS = {"": 0, "K": 10, "M": 20, "G": 30}


def size(text):
    """A size such as 256M in bytes."""
    text = str(text)
    unit = text.lstrip("0123456789").upper()
    if unit not in UNITS or not text[:1].isdigit():
        raise LabError(f"{text!r} is no size; write it as 256M")
    return int(text[:len(text) - len(unit)]) << UNITS[unit]


def _groups():
    """Multicast groups, one for each LAN: labs with the same ones would be one LAN (2^40 of them)."""
    return [[f"239.{random.randrange(256)}.{random.randrange(256)}.{random.randrange(256)}",
             random.randrange(1024, 65536)] for _ in range(2)]


@dataclass
class Plan:
    """The facts of a lab that do not change while it runs."""

    directory: str
    hosts: int = 1
    systemd: tuple = ()         # the hosts with systemd as process 1, by name
    memory: int = 512           # MiB of each guest
    processors: int = 1         # of each guest
    shared: str = "256M"        # size of the disk that all see
    private: str = "256M"       # size of each host's two own disks, which survive a power cut
    nvme: bool = False          # an NVMe disk, too, that all see
    sector: int = 512           # of the shared disk
    build: str = ""
    groups: list = field(default_factory=_groups)

    @classmethod
    def load(cls, directory):
        """The plan of the lab in a directory."""
        try:
            return cls(**json.loads((Path(directory) / "plan.json").read_text("utf-8")))
        except (OSError, ValueError) as error:
            raise LabError(f"no lab in {directory}") from error

    @property
    def names(self):
        """The hosts' names."""
        return [f"h{number + 1}" for number in range(self.hosts)]

    def path(self, *parts):
        """A file of the lab: path("h1", "console") is h1.console."""
        return Path(self.directory) / ".".join(parts)

    def disks(self):
        """The disk images and their sizes."""
        files = {self.path("shared", "img"): self.shared}
        if self.nvme:
            files[self.path("nvme", "img")] = self.shared
        for name in self.names:
            files |= {self.path(name, disk, "img"): self.private for disk in ("vda", "vdb")}
        return files

    def write(self):
        """Make the files that the guests need."""
        if not 1 <= self.hosts <= MOST_HOSTS:
            raise LabError(f"a lab has 1 to {MOST_HOSTS} hosts, not {self.hosts}")
        unknown = set(self.systemd) - set(self.names)
        if unknown:
            raise LabError(f"there is no host {', '.join(sorted(unknown))} to run systemd")
        for path, text in self.disks().items():
            with path.open("xb") as image:
                image.truncate(size(text))
        kernel = boot.kernel()
        os.symlink(kernel, self.path("kernel"))
        self.path("initramfs").write_bytes(boot.initramfs(kernel))
        self.path("plan.json").write_text(json.dumps(asdict(self)), encoding="utf-8")
