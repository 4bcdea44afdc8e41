# SPDX-License-Identifier: LGPL-2.1-or-later
"""Real libvirtd, real QEMU guests and a lock daemon in a sandbox of their own.

LibvirtRig is root's libvirtd (qemu:///system) with the lock daemon beside it, SessionRig a plain
user's (qemu:///session), which starts the lock daemon by itself. Guests are emulated, have 32 MiB
and nothing to boot: their BIOS just sits there.
"""

import hashlib
import os
import uuid as uuids
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from lock_rig import Holder, LockRig, daemon_binary

EMULATOR = "/usr/bin/qemu-system-x86_64"
PROGRAMS = ("libvirtd", "virsh", EMULATOR)
LIBVIRT_SOCKET = "/run/libvirt/libvirt-sock"
STOCK_LOCKD_CONF = Path("/etc/libvirt/qemu-lockd.conf")
QEMU_CONF = """\
lock_manager = "lockd"
security_driver = "none"
stdio_handler = "file"
namespaces = []
"""


@dataclass(frozen=True)
class Disk:
    """A disk of a guest."""

    path: Path
    target: str = "sda"
    shareable: bool = False
    readonly: bool = False

    def xml(self):
        """The <disk> element."""
        flags = "<shareable/>" * self.shareable + "<readonly/>" * self.readonly
        return (f"<disk type='file'><driver name='qemu' type='raw'/>"
                f"<source file={quoteattr(str(self.path))}/>"
                f"<target dev='{self.target}' bus='scsi'/>{flags}</disk>")


@dataclass(frozen=True)
class Lease:
    """A manual lease of a guest: its file is directory/lockspace/key."""

    directory: Path
    lockspace: str
    key: str

    @property
    def path(self):
        """The file that is locked."""
        return self.directory / self.lockspace / self.key

    def xml(self):
        """The <lease> element."""
        return (f"<lease><lockspace>{escape(self.lockspace)}</lockspace>"
                f"<key>{escape(self.key)}</key>"
                f"<target path={quoteattr(str(self.directory))}/></lease>")


def path_key(path):
    """The name of the lock file of a disk in file_lockspace_dir."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()


def domain_xml(name, uuid, devices):
    """The XML of a tiny guest; devices are Disks and Leases."""
    return (f"<domain type='qemu'><name>{escape(name)}</name><uuid>{uuid}</uuid>"
            "<memory unit='MiB'>32</memory><os><type arch='x86_64'>hvm</type></os><devices>"
            f"<emulator>{EMULATOR}</emulator>{''.join(device.xml() for device in devices)}"
            "<controller type='scsi' model='virtio-scsi'/><controller type='usb' model='none'/>"
            "<memballoon model='none'/></devices></domain>")


class LibvirtRig(LockRig):
    """Root's libvirtd and a lock daemon in a sandbox; a context manager."""

    uri = "qemu:///system"
    libvirt_socket = LIBVIRT_SOCKET

    def __init__(self, daemon, directory, lockd_conf=""):
        self.lockd_conf = STOCK_LOCKD_CONF.read_text(encoding="utf-8") + lockd_conf
        self.libvirtd = None
        self.guests = set()
        super().__init__(daemon, directory)

    def set_up(self):
        self.write_conf(self.sandbox.path("/etc/libvirt"), 'user = "root"\ngroup = "root"\n')
        self.start_lockd()
        self.start_libvirtd()

    def write_conf(self, directory, qemu_conf=""):
        """Write libvirt's configuration files to a directory."""
        for name, text in (("libvirtd.conf", 'auth_unix_rw = "none"\n'),
                           ("qemu.conf", QEMU_CONF + qemu_conf),
                           ("qemu-lockd.conf", self.lockd_conf)):
            (directory / name).write_text(text, encoding="utf-8")

    def start_libvirtd(self):
        """Start libvirtd and wait until it listens."""
        self.libvirtd = self.sandbox.spawn("libvirtd", env=self.env(), user=self.uid,
                                           log=self.log("libvirtd"))
        self.sandbox.wait_socket(self.libvirt_socket, self.libvirtd, self.uid)

    def restart_libvirtd(self):
        """Stop libvirtd, its guests running on, and start it again."""
        self.sandbox.terminate(self.libvirtd)
        self.start_libvirtd()

    def close(self):
        """Stop libvirtd and the lock daemon; then end whatever is left."""
        if self.libvirtd:
            self.sandbox.terminate(self.libvirtd)
        super().close()

    def env(self):
        """The environment of libvirtd and virsh."""
        return self.sandbox.env

    def virsh(self, *args):
        """Run virsh; a CompletedProcess."""
        return self.sandbox.run("virsh", "--connect", self.uri, *args, env=self.env(),
                                user=self.uid)

    def ok(self, *args):
        """Run virsh, which must succeed; what it says."""
        result = self.virsh(*args)
        assert result.returncode == 0, f"virsh {' '.join(map(str, args))}: {result.stderr}"
        return result.stdout.strip()

    def refused(self, *args):
        """Run virsh, which must fail; what it says."""
        result = self.virsh(*args)
        assert result.returncode != 0, f"virsh {' '.join(map(str, args))} was not refused"
        return result.stderr

    def define(self, name, *devices):
        """Define a guest; its UUID."""
        uuid = uuids.uuid4()
        self.ok("define", self._file(domain_xml(name, uuid, devices)))
        self.guests.add(name)
        return uuid

    def start(self, name, *devices):
        """Define and start a guest; the Holder that it then is."""
        uuid = self.define(name, *devices)
        self.ok("start", name)
        return Holder(name, uuid, self.qemu_pid(name), self.sandbox.hostname)

    def destroy(self, name):
        """End a guest at once."""
        self.ok("destroy", name)

    def attach(self, name, device):
        """Hot plug a Disk or Lease."""
        self.ok("attach-device", name, self._file(device.xml()))

    def attach_refused(self, name, device):
        """Hot plug a Disk or Lease, which must fail; what virsh says."""
        return self.refused("attach-device", name, self._file(device.xml()))

    def detach(self, name, device):
        """Unplug a Disk or Lease."""
        self.ok("detach-device", name, self._file(device.xml()))

    def _file(self, text):
        path = self.directory / "virsh.xml"
        path.write_text(text, encoding="utf-8")
        return path

    def state(self, name):
        """What virsh says about a guest: running, paused, shut off."""
        return self.ok("domstate", name)

    def pid_file(self, name):
        """The path of a guest's pid file, as seen inside."""
        return f"/run/libvirt/qemu/{name}.pid"

    def qemu_pid(self, name):
        """The pid of a running guest, as seen inside."""
        return int(self.sandbox.path(self.pid_file(name)).read_text(encoding="ascii"))

    def reset(self):
        """End and forget all guests that were defined."""
        defined = self.ok("list", "--all", "--name").split()
        for name in self.guests.intersection(defined):
            self.virsh("destroy", name)
            self.ok("undefine", name, "--managed-save")
        self.guests.clear()


class SessionRig(LibvirtRig):
    """A plain user's libvirtd, which starts the lock daemon found by VIRTLOCKD_PATH."""

    uri = "qemu:///session"
    uid = 65534
    programs = "/run/programs"

    @property
    def home(self):
        """The user's home."""
        return self.directory / "home"

    @property
    def runtime(self):
        """The user's XDG_RUNTIME_DIR."""
        return self.directory / "run"

    @property
    def socket(self):
        """Where the lock daemon listens."""
        return self.runtime / "libvirt/virtlockd-sock"

    @property
    def libvirt_socket(self):
        """Where libvirtd listens."""
        return self.runtime / "libvirt/libvirt-sock"

    def set_up(self):
        conf = self.home / ".config/libvirt"
        conf.mkdir(parents=True)
        self.runtime.mkdir(mode=0o700)
        self.write_conf(conf)
        for path in (self.runtime, self.home, *self.home.rglob("*")):
            os.chown(path, self.uid, self.uid)
        # Mounted, as the user may not be able to reach the build directory by its own path.
        mounted = self.sandbox.run("mount", "--bind", "--mkdir",
                                   daemon_binary(self.daemon).parent, self.programs)
        assert mounted.returncode == 0, mounted.stderr
        self.start_libvirtd()

    def close(self):
        self.lockd = self.lockd_pid()
        super().close()

    def env(self):
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "TZ": "UTC",
                "HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.runtime),
                "VIRTLOCKD_PATH": self.programs}

    def pid_file(self, name):
        return self.runtime / f"libvirt/qemu/run/{name}.pid"

    def lockd_pid(self):
        """The pid of the lock daemon, None before libvirt has started it."""
        try:
            return int((self.runtime / "libvirt/virtlockd.pid").read_text(encoding="ascii"))
        except FileNotFoundError:
            return None
