# SPDX-License-Identifier: LGPL-2.1-or-later
"""A virtual machine of stock QEMU whose disk is driven by us: SCSI commands without a guest system.

QEMU runs with its processor stopped (`-S`), but all devices work. We do what the virtio-scsi driver of a
guest would do, through QEMU's qtest protocol (lines such as "outl 0xcf8 0x80002000"), so that a
command takes milliseconds where an operating system in an emulated machine would take minutes to
boot. Sources: QEMU's system/qtest.c; Virtual I/O Device specification 1.1, 2.6 (split virtqueue),
4.1 (PCI, legacy interface), 5.6 (SCSI host device).
"""

import socket
import struct
import subprocess
import time
from pathlib import Path

from pr_wire import Answer
from waiting import wait_until

SLOT, PORTS = 4, 0xc000         # where we put the controller, and its registers
QUEUE, QUEUE_AT = 2, 0x100000   # the first queue for requests, and its place in memory
REQUEST_AT, DATA_AT, ANSWER_AT = 0x200000, 0x210000, 0x220000
HOST_FEATURES, GUEST_FEATURES, QUEUE_PFN, QUEUE_SIZE, QUEUE_SELECT, NOTIFY, STATUS = (
    0, 4, 8, 12, 14, 16, 18)
NEXT, WRITE = 1, 2              # flags of a descriptor
SENSE_BYTES, ANSWER_BYTES = 96, 108
PATIENCE = 60.0


class QemuDisk:
    """QEMU with one scsi-block disk and a helper for its reservations; a context manager."""

    def __init__(self, directory, disk, helper_socket, user="nobody"):
        self.path = Path(directory) / "qtest.sock"
        self.log = Path(directory) / "qemu.log"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        self.path.chmod(0o777)
        listener.listen(1)
        listener.settimeout(PATIENCE)  # QEMU is slow to start in an emulated machine
        with listener, self.log.open("wb") as log:
            # pylint: disable-next=consider-using-with
            self.process = subprocess.Popen(
                ["qemu-system-x86_64", "-name", "guest=clustered", "-M", "pc", "-accel", "tcg", "-S",
                 "-qtest", f"unix:{self.path}", "-m", "16", "-nodefaults", "-no-user-config",
                 "-display", "none", "-object", f"pr-manager-helper,id=pr0,path={helper_socket}",
                 "-device", f"virtio-scsi-pci,addr={SLOT},disable-modern=on,disable-legacy=off",
                 "-blockdev", f"driver=host_device,node-name=lun,filename={disk},pr-manager=pr0,"
                 "cache.direct=on", "-device", "scsi-block,drive=lun,share-rw=on"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, user=user, group="nogroup",
                extra_groups=[])
            try:
                self.sock, _ = listener.accept()
            except BaseException:
                self.process.kill()
                self.process.wait()
                print(self.log.read_text(encoding="utf-8"))
                raise
        self.sock.settimeout(PATIENCE)
        self.lines = self.sock.makefile("r", encoding="ascii")
        self.sent = 0
        self._set_up()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()
        self.process.terminate()
        self.process.wait(PATIENCE)

    # ---- the machine

    def ask(self, line):
        """What qtest says to a line."""
        self.sock.sendall(f"{line}\n".encode())
        while (words := self.lines.readline().split())[:1] == ["IRQ"]:
            pass
        assert words[:1] == ["OK"], (line, words, self.log.read_text(encoding="utf-8"))
        return int(words[1], 16) if len(words) > 1 else None

    def _write(self, address, data):
        self.ask(f"write {address:#x} {len(data):#x} 0x{data.hex()}")

    def _read(self, address, size):
        self.sock.sendall(f"read {address:#x} {size:#x}\n".encode())
        while (words := self.lines.readline().split())[:1] == ["IRQ"]:
            pass
        return bytes.fromhex(words[1][2:])

    def _configure(self, register, value):
        self.ask(f"outl 0xcf8 {0x80000000 | SLOT << 11 | register:#x}")
        self.ask(f"outl 0xcfc {value:#x}")

    def _set_up(self):
        self._configure(0x10, PORTS | 1)
        self._configure(0x04, 0x7)      # ports, memory, bus master
        for status in (0, 1, 3):        # reset; noticed; there is a driver
            self.ask(f"outb {PORTS + STATUS:#x} {status}")
        self.ask(f"outl {PORTS + GUEST_FEATURES:#x} 0")
        self.ask(f"outw {PORTS + QUEUE_SELECT:#x} {QUEUE}")
        self.size = self.ask(f"inw {PORTS + QUEUE_SIZE:#x}")
        self.available = QUEUE_AT + 16 * self.size
        self.used = (self.available + 6 + 2 * self.size + 4095) & ~4095
        self._write(QUEUE_AT, bytes(self.used + 6 + 8 * self.size - QUEUE_AT))
        self.ask(f"outl {PORTS + QUEUE_PFN:#x} {QUEUE_AT >> 12:#x}")
        self.ask(f"outb {PORTS + STATUS:#x} 7")  # go

    # ---- commands

    def start(self, cdb, out=b"", size=0):
        """Send a command; out goes to the device, or size bytes are wanted from it."""
        self._write(REQUEST_AT, struct.pack("<8sQ3B32s", b"\x01\x00\x40\x00", self.sent, 0, 0, 0, cdb))
        self._write(ANSWER_AT, bytes(ANSWER_BYTES))
        parts = [(REQUEST_AT, 51, 0)]
        if out:
            self._write(DATA_AT, out)
            parts.append((DATA_AT, len(out), 0))
        parts.append((ANSWER_AT, ANSWER_BYTES, WRITE))
        if size:
            self._write(DATA_AT, bytes(size))
            parts.append((DATA_AT, size, WRITE))
        for i, (address, length, flags) in enumerate(parts):
            more = NEXT if i + 1 < len(parts) else 0
            self._write(QUEUE_AT + 16 * i, struct.pack("<QIHH", address, length, flags | more, i + 1))
        self._write(self.available + 4 + 2 * (self.sent % self.size), struct.pack("<H", 0))
        self.sent += 1
        self._write(self.available, struct.pack("<HH", 0, self.sent & 0xffff))
        self.ask(f"outw {PORTS + NOTIFY:#x} {QUEUE}")

    def is_done(self):
        """Whether the command has been answered."""
        return struct.unpack("<H", self._read(self.used + 2, 2))[0] == self.sent & 0xffff

    def finish(self, size=0):
        """The answer, when there is one."""
        wait_until(self.is_done, "QEMU to carry the command out", PATIENCE)
        sense_length, _, _, status, response = struct.unpack("<IIHBB", self._read(ANSWER_AT, 12))
        assert response == 0, f"the controller says {response}"
        sense = self._read(ANSWER_AT + 12, SENSE_BYTES)[:sense_length].ljust(SENSE_BYTES, b"\0")
        return Answer(status, sense, self._read(DATA_AT, size) if size else b"")

    def command(self, cdb, out=b"", size=0):
        """A command and its answer. Unit attentions are for the guest's driver, which repeats."""
        end = time.monotonic() + PATIENCE
        while True:
            self.start(cdb, out, size)
            answer = self.finish(size)
            if not answer.code.startswith("6/") or time.monotonic() > end:
                return answer
