#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Makes a lab guest have udev, and so /dev/disk/by-id, for its disks. With systemd it has it already.
set -e
mkdir -p /etc/udev/rules.d
if [ "$1" != multipath ] && [ ! -e /run/lab/multipath ]; then
    # would ask for each disk whether it is a path
    ln -sf /dev/null /etc/udev/rules.d/60-multipath.rules
fi
pgrep -x systemd-udevd >/dev/null || pgrep -f '^/lib/systemd/systemd-udevd' >/dev/null ||
    /lib/systemd/systemd-udevd --daemon
udevadm trigger --action=add --subsystem-match=block --subsystem-match=nvme
udevadm settle --timeout=60
