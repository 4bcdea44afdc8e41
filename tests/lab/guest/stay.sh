#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Process 1 of a lab guest without systemd: keeps the agent running and reaps what nobody else does.
# $1: the project's tree
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t configfs configfs /sys/kernel/config 2>/dev/null
mount -t cgroup2 cgroup2 /sys/fs/cgroup 2>/dev/null
while :; do
    /usr/bin/python3 -ISB "$1/tests/lab/guest/agent.py"
    sleep 1
done
