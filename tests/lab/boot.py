# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a guest boots: Debian's cloud kernel, and an initramfs of busybox and a few modules."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from .errors import LabError

GUEST = Path(__file__).with_name("guest")
TREE = Path(__file__).resolve().parents[2]
# What a guest needs before it sees the host's /lib/modules, and what is quicker loaded here.
MODULES = ("virtio_pci", "virtiofs", "overlay", "virtio_net", "virtio_blk", "virtio_scsi", "virtio_rng",
           "sd_mod", "sg", "softdog")
PATH = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"


def program(name, package):
    """The path of a program on the host; LabError naming its package if it is missing."""
    found = shutil.which(name, path=PATH)
    if not found:
        raise LabError(f"{name} is not installed: apt-get install {package}")
    return found


def virtiofsd():
    """The path of the program that serves the host's root to a guest."""
    for path in ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"):
        if os.access(path, os.X_OK):
            return path
    return program("virtiofsd", "qemu-system-common")


def _version(path):
    return [int(number) for number in re.findall(r"\d+", path.name)]


def kernel():
    """The kernel's file: $LAB_KERNEL, or the newest cloud kernel that has its modules."""
    if os.environ.get("LAB_KERNEL"):
        return Path(os.environ["LAB_KERNEL"])
    found = [path for path in Path("/boot").glob("vmlinuz-*-cloud-*") if _modules(path).is_dir()]
    if not found:
        raise LabError("no kernel for guests in /boot: apt-get install linux-image-cloud-amd64")
    return max(found, key=_version)


def _modules(kernel_file):
    return Path("/lib/modules") / kernel_file.name.removeprefix("vmlinuz-")


def missing():
    """What a lab needs and this host lacks, in words, or None."""
    try:
        kernel()
        virtiofsd()
        program("qemu-system-x86_64", "qemu-system-x86")
        program("busybox", "busybox-static")
    except LabError as error:
        return str(error)
    return "the lab needs root" if os.geteuid() else None


def _module_files(release):
    """The modules' files, each after those that it depends on."""
    files = {}
    for name in MODULES:
        shown = subprocess.run(
            [program("modprobe", "kmod"), "--set-version", release, "--show-depends", name],
            capture_output=True, text=True, check=False)
        if shown.returncode:
            raise LabError(f"the kernel {release} has no module {name}: {shown.stderr.strip()}")
        for line in shown.stdout.splitlines():
            kind, path = line.split()[:2]
            if kind == "insmod":
                files[path] = None
    return [Path(path) for path in files]


class Archive:
    """A cpio archive in the format "newc", which the kernel unpacks (its initramfs buffer format)."""

    def __init__(self):
        self.parts = []
        self.number = 0

    def add(self, name, mode, data=b""):
        """Add a file or a directory."""
        self.number += 1
        encoded = name.encode() + b"\0"
        # ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        fields = (self.number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
        self.parts += [head, bytes(-len(head) % 4), data, bytes(-len(data) % 4)]

    def finish(self):
        """The archive's bytes."""
        self.add("TRAILER!!!", 0)
        return b"".join(self.parts)


def initramfs(kernel_file):
    """The bytes of an initramfs whose /init is guest/init."""
    archive = Archive()
    for directory in ("bin", "lib", "proc", "sys", "dev", "host", "lower", "upper", "root"):
        archive.add(directory, 0o040755)
    archive.add("init", 0o100755, (GUEST / "init").read_bytes())
    archive.add("bin/busybox", 0o100755, Path(program("busybox", "busybox-static")).read_bytes())
    files = _module_files(kernel_file.name.removeprefix("vmlinuz-"))
    for path in files:
        archive.add(f"lib/{path.name}", 0o100644, path.read_bytes())
    order = "".join(f"{path.name}\n" for path in files)
    archive.add("lib/order", 0o100644, order.encode())
    return archive.finish()
