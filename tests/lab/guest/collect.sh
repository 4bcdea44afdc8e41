#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What a guest can tell about itself after a test has failed.
show() {
    echo "==== $*"
    timeout 5 "$@" 2>&1 | tail -n 200
}
show ps -eo pid,ppid,stat,wchan:20,etimes,args
show dmesg
show cat /proc/mounts
show cat /proc/locks
show ip -brief addr
[ ! -d /run/systemd/units ] || show journalctl -b --no-pager -n 300
for log in /tmp/*.log /run/lab/*.log; do
    [ ! -f "$log" ] || show cat "$log"
done
