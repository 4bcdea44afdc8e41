#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Logs a lab guest in at the iSCSI target. $1: its own name; others: the target's addresses, one a path.
# Prints the names (sda) of the disks, one a path.
set -e
name=$1
shift
iqn=iqn.2003-01.org.linux-iscsi.lab:lun
modprobe -a iscsi_tcp sg
if ! pgrep -x iscsid >/dev/null; then
    mkdir -p /etc/iscsi /run/lock/iscsi /var/lib/iscsi
    rm -rf /var/lib/iscsi/* /etc/iscsi/nodes /etc/iscsi/send_targets
    echo "InitiatorName=iqn.1993-08.org.debian:01:$name" >/etc/iscsi/initiatorname.iscsi
    # a path that does not answer for 8 s (3 + 5) is dead, and its commands fail 5 s later
    sed -i -e 's/^\(node.session.timeo.replacement_timeout\) = .*/\1 = 5/' \
        -e 's/^\(node.conn\[0\].timeo.noop_out_interval\) = .*/\1 = 3/' \
        -e 's/^\(node.conn\[0\].timeo.noop_out_timeout\) = .*/\1 = 5/' /etc/iscsi/iscsid.conf
    iscsid -f >/run/lab/iscsid.log 2>&1 &
fi
number=0
for address in "$@"; do
    number=$((number + 1))
    portal=$address:3260
    session=$(iscsiadm -m session 2>/dev/null | grep -F " $portal,$number " || true)
    if [ -z "$session" ]; then
        iscsiadm -m node -T $iqn -p "$portal,$number" -o new >/dev/null
        iscsiadm -m node -T $iqn -p "$portal,$number" -l >/dev/null
    fi
done
