#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Makes a lab guest an NFSv4.2 server. $1, $2: the time of leases, and of grace after a boot, in seconds.
# What is exported, and who had state before a power cut, is on the disk /dev/vda.
set -e
lease=${1:-20} grace=${2:-$lease}
if [ "$(cat /proc/fs/nfsd/threads 2>/dev/null || echo 0)" -gt 0 ]; then
    exit 0
fi
modprobe nfsd
blkid /dev/vda >/dev/null || mkfs.ext4 -q -E nodiscard,lazy_itable_init=1 /dev/vda
mkdir -p /srv/lab
mountpoint -q /srv/lab || mount /dev/vda /srv/lab
mkdir -p /srv/lab/export /srv/lab/state/{v4recovery,nfsdcld}
chmod 1777 /srv/lab/export
mount --bind /srv/lab/state /var/lib/nfs
touch /var/lib/nfs/{etab,rmtab}
mountpoint -q /proc/fs/nfsd || mount -t nfsd nfsd /proc/fs/nfsd
mkdir -p /run/rpc_pipefs
mountpoint -q /run/rpc_pipefs || mount -t rpc_pipefs rpc_pipefs /run/rpc_pipefs
nfsdcld
echo "$lease" >/proc/fs/nfsd/nfsv4leasetime
echo "$grace" >/proc/fs/nfsd/nfsv4gracetime
exportfs -o rw,sync,no_root_squash,no_subtree_check,fsid=0 192.168.77.0/24:/srv/lab/export
rpc.mountd --no-nfs-version 3
rpc.nfsd --no-nfs-version 3 8
