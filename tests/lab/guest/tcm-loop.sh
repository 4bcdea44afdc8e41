#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Gives a lab guest a LUN of its own, /dev/vdb by LIO's loopback fabric, and prints its device (/dev/sdb).
# PREEMPT AND ABORT on it never returns: LIO waits for itself.
#
# usage: tcm-loop.sh [NEXUS]   2 is the same LUN once more, as another initiator sees it
set -e
nexus=$(printf %x $((0x7d1 + 16 * ${1:-1})))
target=/sys/kernel/config/target
modprobe -a target_core_mod target_core_iblock tcm_loop sg
mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
mkdir -p /var/target/pr /var/target/alua
group=$target/loopback/naa.6001405000000$nexus/tpgt_1
store=$target/core/iblock_1/looplun
if [ ! -e "$store" ]; then
    mkdir -p $store
    echo udev_path=/dev/vdb,readonly=0 >$store/control
    echo /dev/vdb >$store/udev_path
    echo 1 >$store/enable
fi
if [ ! -e "$group" ]; then
    mkdir -p "$group/lun/lun_0"
    echo "naa.6001405100000$nexus" >"$group/nexus"
    ln -s $store "$group/lun/lun_0/store"
fi
IFS=: read -r host channel target_id _ < <(cat "$group/address")
for _ in {1..300}; do
    echo "- - -" >"/sys/class/scsi_host/host$host/scan"
    for disk in "/sys/class/scsi_device/$host:${channel:-0}:${target_id:-1}:0/device/block/"*; do
        if [ -e "$disk" ]; then
            echo "/dev/${disk##*/}"
            exit 0
        fi
    done
    sleep 0.1
done
echo "the loopback LUN does not appear" >&2
exit 1
