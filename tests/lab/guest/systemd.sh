#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Makes a lab guest ready for systemd as process 1, and becomes it. None of the host's units is to be
# started: the guest has its own directory of units, with just the agent in it.
# $1: the project's tree
set -e
units=/etc/systemd/system
mount -t tmpfs -o mode=755 units $units
mkdir -p /run/systemd/system $units/lab.target.wants
rm -f /etc/fstab
: >/etc/fstab

cat >$units/lab.target <<END
[Unit]
Description=A guest of the lab
Requires=basic.target
After=basic.target
AllowIsolate=yes
END
cat >$units/lab-agent.service <<END
[Unit]
Description=The lab's command channel
DefaultDependencies=no
After=basic.target

[Service]
ExecStart=/usr/bin/python3 -ISB $1/tests/lab/guest/agent.py
Environment=HOME=/root LANG=C.UTF-8
Restart=always
KillMode=process
OOMScoreAdjust=-1000
END
ln -s ../lab-agent.service $units/lab.target.wants/
# only what tests use: each device's event costs 20 ms, and some load large modules
mkdir $units/systemd-udev-trigger.service.d
cat >$units/systemd-udev-trigger.service.d/lab.conf <<END
[Service]
ExecStart=
ExecStart=udevadm trigger --action=add --subsystem-match=block --subsystem-match=nvme
END
# slow under emulation, and of no use here
for unit in systemd-binfmt.service systemd-hwdb-update.service systemd-update-done.service \
    systemd-journal-flush.service systemd-journal-catalog-update.service systemd-random-seed.service \
    systemd-modules-load.service systemd-sysusers.service systemd-firstboot.service \
    systemd-pstore.service systemd-network-generator.service systemd-timesyncd.service \
    systemd-remount-fs.service systemd-update-utmp.service systemd-pcrphase.service \
    systemd-pcrphase-sysinit.service systemd-machine-id-commit.service systemd-boot-system-token.service \
    lvm2-monitor.service lvm2-lvmpolld.socket dm-event.socket blk-availability.service \
    multipathd.service multipathd.socket iscsid.socket iscsid.service open-iscsi.service \
    apparmor.service kmod-static-nodes.service dev-hugepages.mount dev-mqueue.mount \
    sys-kernel-debug.mount sys-kernel-tracing.mount proc-sys-fs-binfmt_misc.automount \
    run-rpc_pipefs.mount proc-fs-nfsd.mount nfs-server.service rpcbind.socket rpcbind.service \
    timers.target getty.target systemd-ask-password-console.path systemd-ask-password-wall.path; do
    ln -s /dev/null "$units/$unit"
done
ln -s lab.target $units/default.target
export SYSTEMD_COLORS=0 TERM=dumb
exec /lib/systemd/systemd --unit=lab.target --show-status=yes
