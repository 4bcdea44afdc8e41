#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Starts multipathd in a lab guest, whose LUN is /dev/mapper/lablun then. $1: the LUN's WWID, $2: lines for
# the section "defaults" of multipath.conf
set -e
modprobe -a dm_mod dm_multipath dm_round_robin dm_service_time dm_queue_length
touch /run/lab/multipath
rm -f /etc/udev/rules.d/60-multipath.rules
mkdir -p /etc/multipath
cat >/etc/multipath.conf <<END
defaults {
    find_multipaths no
    path_grouping_policy multibus
    path_selector "round-robin 0"
    path_checker tur
    polling_interval 1
    max_polling_interval 2
    checker_timeout 10
    $2
}
overrides { # the table of known hardware says "queue for ever" for LIO; this is some 20 s without any path
    no_path_retry 15
}
blacklist {
    devnode "^(vd|nvme|ram|loop|sr)"
    device {
        vendor "QEMU"
        product ".*"
    }
}
multipaths {
    multipath {
        wwid $1
        alias lablun
    }
}
END
udevadm control --reload
if [ "$(cat /proc/1/comm)" = systemd ]; then
    systemctl unmask --quiet multipathd.service multipathd.socket || true
    rm -f /etc/systemd/system/multipathd.{service,socket}
    systemctl daemon-reload
    systemctl restart multipathd.service
elif ! pgrep -x multipathd >/dev/null; then
    multipathd -d >/run/lab/multipathd.log 2>&1 &
fi
until multipathd show daemon >/dev/null 2>&1; do
    sleep 0.1
done
multipathd reconfigure >/dev/null
until [ -b /dev/mapper/lablun ]; do
    sleep 0.1
done
