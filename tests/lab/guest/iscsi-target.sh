#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Makes a lab guest serve its disk /dev/vdb as an iSCSI LUN with LIO, by the kernel's configfs alone.
# $1: the target's address on the first LAN; $2: on the second, for a second path, or nothing.
# Each path is a target port group of its own, as a storage with two controllers has.
# What initiators have reserved with APTPL survives a power cut, like the LUN.
set -e
target=/sys/kernel/config/target
iqn=iqn.2003-01.org.linux-iscsi.lab:lun
modprobe -a target_core_mod target_core_iblock iscsi_target_mod
mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
mkdir -p /var/target/pr /var/target/alua

store=$target/core/iblock_0/lablun
if [ ! -e $store ]; then
    mkdir -p $store
    echo udev_path=/dev/vdb,readonly=0 >$store/control
    echo /dev/vdb >$store/udev_path
    echo 1 >$store/enable
    echo lablun0001 >$store/wwn/vendor_id 2>/dev/null || true
    echo 6c616200-0000-4000-8000-000000000001 >$store/wwn/vpd_unit_serial
fi
number=0
for address in "$@"; do
    number=$((number + 1))
    group=$target/iscsi/$iqn/tpgt_$number
    [ ! -e "$group" ] || continue
    mkdir -p "$group/lun/lun_0" "$group/np/$address:3260"
    ln -s $store "$group/lun/lun_0/store"
    echo 0 >"$group/attrib/authentication"
    echo 1 >"$group/attrib/generate_node_acls"
    echo 0 >"$group/attrib/demo_mode_write_protect"
    echo 1 >"$group/attrib/cache_dynamic_acls"
    echo 1 >"$group/enable"
done
