# SPDX-License-Identifier: LGPL-2.1-or-later
"""The QEMU of one guest: its command line, and what goes for its devices later on."""

import json
import os

SHARED_WWN = 0x5000c50000007777


def shared_node(below="shared-file"):
    """The block node of the shared disk, on top of the file's, or of one that breaks it."""
    return {"driver": "raw", "node-name": "shared", "file": below}


def shared_device(plan):
    """The shared disk as the guest sees it. Errors go to the guest, they do not stop it."""
    return {"driver": "scsi-hd", "id": "shared0", "drive": "shared", "bus": "scsi0.0", "scsi-id": 0,
            "lun": 0, "share-rw": True, "serial": "lab-shared", "wwn": SHARED_WWN,
            "rerror": "report", "werror": "report",
            "logical_block_size": plan.sector, "physical_block_size": plan.sector}


def _file(node, path):
    # the host does not crash in a test: a flush need not reach its disk
    return {"driver": "file", "node-name": node, "filename": str(path), "locking": "off",
            "cache": {"direct": False, "no-flush": True}}


def _json(option, value):
    return [option, json.dumps(value)]


def _nvme(plan):
    if not plan.nvme:
        return []
    return [*_json("-blockdev", _file("nvme", plan.path("nvme", "img"))),
            *_json("-device", {"driver": "nvme", "id": "nvme0", "serial": "lab-nvme"}),
            *_json("-device", {"driver": "nvme-ns", "drive": "nvme", "bus": "nvme0", "nsid": 1,
                               "share-rw": True, "uuid": "6c616200-0000-4000-8000-000000007777",
                               "eui64": 0x5254007777000001})]


def _lan(plan, number, index):
    """A LAN runs through a hub, so that cutting its wire leaves the NIC's carrier up."""
    group, port = plan.groups[index]
    return ["-netdev", f"socket,id=wire{index},mcast={group}:{port},localaddr=127.0.0.1",
            "-netdev", f"hubport,id=out{index},hubid={index},netdev=wire{index}",
            "-netdev", f"hubport,id=in{index},hubid={index}",
            "-device", f"virtio-net-pci,id=lan{index},netdev=in{index},romfile=,"
                       f"mac=52:54:00:{77 + index}:00:{number:02x}"]


def _private(plan, name, disk):
    return [*_json("-blockdev", _file(disk, plan.path(name, disk, "img"))),
            "-device", f"virtio-blk-pci,drive={disk},serial=lab-{name}-{disk}"]


def _directory(plan, name, tag):
    return ["-chardev", f"socket,id={tag},path={plan.path(name, tag)}",
            "-device", f"vhost-user-fs-pci,chardev={tag},tag={tag}"]


def _kernel_words(plan, name, tree):
    # QEMU 7.2's NVMe disk sometimes overlooks a doorbell: then its driver should not wait for 30 s;
    # the last line's words only save time
    return " ".join([
        "console=ttyS0", "loglevel=5", "panic=1", "net.ifnames=0",
        f"lab.name={name}", f"lab.number={name[1:]}", f"lab.hosts={plan.hosts}",
        f"lab.init={'systemd' if name in plan.systemd else 'agent'}",
        f"lab.tree={tree}", f"lab.build={plan.build}", "nvme_core.io_timeout=5",
        "mitigations=off", "random.trust_cpu=on", "cryptomgr.notests", "8250.nr_uarts=1", "audit=0"])


def arguments(plan, name, tree):
    """QEMU's command line for a host."""
    number = int(name[1:])
    memory = f"{plan.memory}M"
    return [
        "qemu-system-x86_64", "-name", f"{name}@{plan.directory}", "-M", "pc,usb=off",
        "-accel", os.environ.get("LAB_ACCEL", "tcg"), "-cpu", "max,la57=off", "-smp", str(plan.processors),
        "-m", memory, "-nodefaults", "-display", "none", "-no-reboot", "-rtc", "base=utc",
        "-object", f"memory-backend-memfd,id=ram,size={memory},share=on", "-numa", "node,memdev=ram",
        "-kernel", str(plan.path("kernel")), "-initrd", str(plan.path("initramfs")),
        "-append", _kernel_words(plan, name, tree),
        "-chardev", f"file,id=console,path={plan.path(name, 'console')},append=on",
        "-serial", "chardev:console",
        "-qmp", f"unix:{plan.path(name, 'qmp')},server=on,wait=off",
        *_directory(plan, name, "root"), *_directory(plan, name, "live"), "-device", "virtio-rng-pci",
        *_lan(plan, number, 0), *_lan(plan, number, 1),
        # port 0: the system chooses one, and QEMU tells which
        "-netdev", "user,id=mgmt,restrict=on,hostfwd=tcp:127.0.0.1:0-:77",
        "-device", f"virtio-net-pci,netdev=mgmt,mac=52:54:00:79:00:{number:02x},romfile=",
        "-device", "virtio-scsi-pci,id=scsi0",
        *_json("-blockdev", _file("shared-file", plan.path("shared", "img"))),
        *_json("-blockdev", shared_node()), *_json("-device", shared_device(plan)),
        *_private(plan, name, "vda"), *_private(plan, name, "vdb"), *_nvme(plan)]
