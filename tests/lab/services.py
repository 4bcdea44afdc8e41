# SPDX-License-Identifier: LGPL-2.1-or-later
"""Services that hosts of a lab give each other or themselves. The scripts are in guest/."""

import shlex
import subprocess
from pathlib import Path

SLOW = 180.0    # for scripts that start daemons; 2 to 10 s on an idle host
LUN_ALIAS = "/dev/mapper/lablun"


def nfs(lab, server=None, clients=None, lease=20, grace=300, options="hard"):
    """Let server (h1) serve NFSv4.2 to clients (all others), mounted at /mnt/nfs; seconds.

    The time of grace after a boot of the server ends as soon as all its clients are back, which is
    late if they were refused often: they try again after 3, 6, 12, … s.

    What is exported is on the server's own disk and survives its power cuts; after a boot, call it
    again. On the server the files are below /srv/lab/export.
    """
    server, clients = _roles(lab, server, clients)
    server.script("nfs-server.sh", lease, grace, timeout=SLOW)
    lab.each(lambda host: host.run(
        "mkdir -p /mnt/nfs; grep -q ' /mnt/nfs nfs4 ' /proc/mounts || mount -t nfs4 "
        f"-o vers=4.2,proto=tcp,{options} {server.name}:/ /mnt/nfs", SLOW), clients)


def _roles(lab, server, clients):
    server = server or lab.hosts[0]
    return server, [host for host in lab.hosts if host is not server] if clients is None else clients


def iscsi(lab, server=None, clients=None, paths=1, multipath=False, defaults=""):
    """Let server (h1) serve its disk /dev/vdb as an iSCSI LUN to clients (all others).

    paths: 1, or 2 (over the second LAN; host.partition(lan=1) is its death). multipath: the clients
    run multipathd; defaults are lines for its configuration. Gives the LUN's path on the clients.
    After a boot of one of them, call it again.
    """
    server, clients = _roles(lab, server, clients)
    server.script("iscsi-target.sh", *portals(server, paths), timeout=SLOW)
    return lab.each(lambda host: iscsi_client(host, server, paths, multipath, defaults), clients)[0]


def portals(server, paths):
    """The addresses of a target, one for each path."""
    return [f"192.168.{77 + lan}.{server.number}" for lan in range(paths)]


def iscsi_client(host, server, paths=1, multipath=False, defaults=""):
    """Log a host in at the target on server; the LUN's path. With more paths than before, they appear."""
    udev(host, multipath)
    host.script("iscsi-login.sh", host.name, *portals(server, paths), timeout=SLOW)
    wwid = host.out("/lib/udev/scsi_id -g /dev/" + iscsi_disks(host)[0])
    if multipath:
        host.script("multipath.sh", wwid, defaults, timeout=SLOW)
        return LUN_ALIAS
    path = f"/dev/disk/by-id/wwn-0x{wwid[1:]}"
    host.wait_for(["test", "-b", path], SLOW)
    return path


def iscsi_disks(host):
    """The names of the iSCSI disks of a host, such as sdb: one for each path, in their order."""
    return host.out("""
        for session in /sys/class/iscsi_session/session*; do
            group=$(cat $session/tpgt)
            for disk in $session/device/target*/*:0/block/*; do echo $group ${disk##*/}; done
        done | sort -n | cut -d' ' -f2""").split()


def paths(host):
    """What multipathd says of each path: {"sdb": "active ready", "sdc": "failed faulty"}."""
    lines = host.out("multipathd show paths raw format '%d %t %T'").splitlines()
    return {words[0]: " ".join(words[1:]) for words in map(str.split, lines)}


def iscsi_logout(host, path):
    """Take a path (1 or 2) away from a host, in an orderly way."""
    host.run(f"iscsiadm -m node -T iqn.2003-01.org.linux-iscsi.lab:lun -p 192.168.{76 + path}.1:3260 -u",
             SLOW)


def udev(host, multipath=False):
    """Let a host have udev."""
    host.script("udev.sh", "multipath" if multipath else "", timeout=SLOW)


def tcm_loop(host, nexus=1):
    """Give a host a LUN of its own by LIO's loopback; its path. PREEMPT AND ABORT on it never returns.

    nexus: 2 is the same LUN as another initiator sees it, after 1.
    """
    return host.script("tcm-loop.sh", nexus, timeout=SLOW).text


def install(lab_directory, host, build=None):
    """Install a build into a host as `meson install` would, and tell systemd, if it is there."""
    build = build or host.plan.build
    stage = Path(lab_directory) / f"install-{abs(hash(str(build)))}"
    if not stage.exists():
        subprocess.run(["meson", "install", "-C", str(build), "--no-rebuild", "--quiet", "--destdir",
                        str(stage)], check=True, stdout=subprocess.DEVNULL)
    host.run(f"cp -a {shlex.quote(f'/host{stage}')}/. /; ldconfig; "
             "[ ! -d /run/systemd/units ] || systemctl daemon-reload", SLOW)
    return stage
