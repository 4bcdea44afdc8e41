# SPDX-License-Identifier: LGPL-2.1-or-later
"""A virtual machine of stock QEMU, without privileges, whose guest sends the SCSI commands we name.

The guest is tests/guest/scsi-guest.c: it boots in milliseconds, also in an emulated machine inside
an emulated machine, and drives its virtio-scsi controller as an operating system does. What it is
told and what it says goes through its serial port.
"""

import shutil
import subprocess
import threading
import time
from pathlib import Path
from queue import Empty, Queue

import lock_rig
from closing import Closing
from pr_wire import Answer

SENSE_BYTES = 96
PATIENCE = 120.0    # QEMU is slow to start in an emulated machine


def program():
    """What the machine boots."""
    return lock_rig.build_dir() / "tests/guest/scsi-guest.elf"


class QemuGuest(Closing):
    """A booted guest with one scsi-block disk and a helper for its reservations; a context manager."""

    def __init__(self, directory, disk, helper_socket, user="nobody"):
        self.log = Path(directory) / "qemu.log"
        kernel = shutil.copy(program(), directory)  # QEMU's user need not reach the build
        with self.log.open("wb") as log:
            # pylint: disable-next=consider-using-with
            self.process = subprocess.Popen(
                ["qemu-system-x86_64", "-name", "guest=clustered", "-accel", "tcg", "-m", "16",
                 "-M", "microvm,x-option-roms=off,pit=off,pic=off,rtc=off", "-nodefaults",
                 "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
                 "-kernel", kernel,
                 "-object", f"pr-manager-helper,id=pr0,path={helper_socket}",
                 "-blockdev", f"driver=host_device,node-name=lun,filename={disk},pr-manager=pr0,"
                 "cache.direct=on", "-device", "virtio-scsi-device",
                 "-device", "scsi-block,drive=lun,share-rw=on"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1,
                user=user, group="nogroup", extra_groups=[])
        self.lines = Queue()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()
        try:
            assert self.hear() == "ready"
        except BaseException:
            self.close()
            raise

    def close(self):
        """Switch the power off."""
        self.process.kill()
        self.process.wait(PATIENCE)
        self.reader.join()
        self.process.stdin.close()
        self.process.stdout.close()

    def shut_down(self):
        """Let the guest switch itself off; QEMU's exit code."""
        print("end", file=self.process.stdin)
        return self.process.wait(PATIENCE)

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip())
        self.lines.put(None)

    def hear(self):
        """The next line that the guest says."""
        try:
            line = self.lines.get(timeout=PATIENCE)
        except Empty:
            line = None
        assert line is not None, f"the guest is silent: {self.log.read_text(encoding='utf-8')}"
        return line

    # ---- commands

    def start(self, cdb, out=b"", size=0):
        """Send a command; out goes to the device, or size bytes are wanted from it."""
        print(">", cdb.ljust(16, b"\0").hex(), f"{size:04x}", out.hex() or "-",
              file=self.process.stdin)

    def finish(self, size=0):
        """The answer, when there is one."""
        sign, response, status, sense, data = self.hear().split()
        assert (sign, response) == ("<", "00"), f"the controller says {response}"
        sense, data = (b"" if word == "-" else bytes.fromhex(word) for word in (sense, data))
        return Answer(int(status, 16), sense.ljust(SENSE_BYTES, b"\0"), data.ljust(size, b"\0"))

    def command(self, cdb, out=b"", size=0):
        """A command and its answer. Unit attentions are for the guest's driver, which repeats."""
        end = time.monotonic() + PATIENCE
        while True:
            self.start(cdb, out, size)
            answer = self.finish(size)
            if not answer.code.startswith("6/") or time.monotonic() > end:
                return answer
