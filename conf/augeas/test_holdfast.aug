(* SPDX-License-Identifier: LGPL-2.1-or-later *)
(*
Module: Test_Holdfast
  Tests of the Holdfast lens. Run: augparse -I conf/augeas conf/augeas/test_holdfast.aug
*)

module Test_holdfast =

(* Group: The syntax *)

test Holdfast.lns get "\n# one\n#\n  #two  \n" =
  { } { "#comment" = "one" } { } { "#comment" = "two" }

(* Numbers and flags *)
test Holdfast.lns get "lane_threads = 8\n" = { "lane_threads" = "8" }
test Holdfast.lns get "\tlane_threads=8 # eight\n" =
  { "lane_threads" = "8" { "#comment" = "eight" } }
test Holdfast.lns get "auto_disk_leases = 0 #\n" = { "auto_disk_leases" = "0" }
test Holdfast.lns get "auto_disk_leases = 2\n" = *
test Holdfast.lns get "lane_threads = -1\n" = *
test Holdfast.lns get "lane_threads = \"8\"\n" = *

(* Strings, in each kind of quotes *)
test Holdfast.lns get "host_name = \"\"\n" = { "host_name" = "" }
test Holdfast.lns get "host_name = ''\n" = { "host_name" = "" }
test Holdfast.lns get "host_name = \"n3\"\n" = { "host_name" = "n3" }
test Holdfast.lns get "host_name = 'n3'#c\n" = { "host_name" = "n3" { "#comment" = "c" } }
test Holdfast.lns get "host_name = \"\"\"n3\"\"\"\n" = { "host_name" = "n3" }
test Holdfast.lns get "host_name = \"it's # 3\"\n" = { "host_name" = "it's # 3" }
test Holdfast.lns get "host_name = 'say \"x\"'\n" = { "host_name" = "say \"x\"" }
test Holdfast.lns get "host_name = \"\"\"say \"it's\" now\"\"\"\n" =
  { "host_name" = "say \"it's\" now" }
test Holdfast.lns get "log_filters = \"\"\"1:a\n2:b\"\"\"\n" = { "log_filters" = "1:a\n2:b" }
test Holdfast.lns get "host_name = \"n3'\n" = *
test Holdfast.lns get "host_name = \"n\n3\"\n" = *
test Holdfast.lns get "host_name = n3\n" = *
test Holdfast.lns get "host_name = 3\n" = *

(* Lists *)
test Holdfast.lns get "driver_config = []\n" = { "driver_config" }
test Holdfast.lns get "driver_config = [\n]\n" = { "driver_config" }
test Holdfast.lns get "driver_config = [ \"a.b=c\" ]\n" = { "driver_config" { "1" = "a.b=c" } }
test Holdfast.lns get "driver_config = [\n  'a.b=\"',\n  \"d.e='\" ,'',\n]  # two\n" =
  { "driver_config"
    { "1" = "a.b=\"" }
    { "2" = "d.e='" }
    { "3" = "" }
    { "#comment" = "two" } }
test Holdfast.lns get "driver_config = \"a.b=c\"\n" = *
test Holdfast.lns get "driver_config = [ 1 ]\n" = *

(* Lines that end as on other systems, and keys that there are not *)
test Holdfast.lns get "# c\r\n\r\nkill_timeout = 5\r\n" =
  { "#comment" = "c" } { } { "kill_timeout" = "5" }
test Holdfast.lns get "bogus = 1\n" = *

(* Group: Changes *)

test Holdfast.lns put "" after set "/lane_threads" "4" = "lane_threads = 4\n"
test Holdfast.lns put "lane_threads=8 # c\n" after set "/lane_threads" "4" =
  "lane_threads=4 # c\n"
test Holdfast.lns put "# c\nkill_timeout = 5\n" after rm "/kill_timeout" = "# c\n"
test Holdfast.lns put "" after set "/auto_disk_leases" "0" = "auto_disk_leases = 0\n"
test Holdfast.lns put "" after set "/auto_disk_leases" "yes" = *
test Holdfast.lns put "" after set "/bogus" "1" = *

(* Quotes stay as they were when they can, and change when they have to *)
test Holdfast.lns put "" after set "/host_name" "n3" = "host_name = \"n3\"\n"
test Holdfast.lns put "" after set "/host_name" "" = "host_name = \"\"\n"
test Holdfast.lns put "" after set "/host_name" "it's" = "host_name = \"it's\"\n"
test Holdfast.lns put "" after set "/host_name" "\"n3\"" = "host_name = '\"n3\"'\n"
test Holdfast.lns put "" after set "/host_name" "\"it's\" x" =
  "host_name = \"\"\"\"it's\" x\"\"\"\n"
test Holdfast.lns put "host_name = 'n3'\n" after set "/host_name" "n4" = "host_name = 'n4'\n"
test Holdfast.lns put "host_name = 'n3'\n" after set "/host_name" "it's" =
  "host_name = \"it's\"\n"

(* Lists grow, shrink and appear *)
test Holdfast.lns put "driver_config = [ ]\n" after set "/driver_config/1" "a.b=c" =
  "driver_config = [ \"a.b=c\" ]\n"
test Holdfast.lns put "driver_config = ['a.b=c']\n" after set "/driver_config/2" "d.e=f" =
  "driver_config = ['a.b=c', \"d.e=f\"]\n"
test Holdfast.lns put "driver_config = [ 'a.b=c', 'd.e=f' ]\n" after rm "/driver_config/1" =
  "driver_config = [ 'd.e=f' ]\n"
test Holdfast.lns put "driver_config = [ 'a.b=c' ]\n" after rm "/driver_config/1" =
  "driver_config = [ ]\n"

(* Group: The shipped file, with every setting switched on *)

(* shipped: begin; written by test-conf-files.py --update *)
let shipped = "# Settings of the Holdfast lock daemon, holdfastd, and of holdfast-pr-helper.
#
# Every setting is shown with its default, or with an example where the
# default is \"not set\". To change one, remove the '#' in front of it. The
# daemon reads the file when it starts, and refuses to start when something
# in it is wrong. \"holdfast check-config\" says beforehand what that is, with
# file and line.
#
# The syntax is that of libvirt's files: numbers, \"strings\" without escapes,
# [ \"lists\", \"of\", \"strings\" ], and comments after '#'. Yes and no are 1 and 0.
# When a key is set twice, the first line counts, and you get a warning.


#################################################################
#
# Sockets
#

# The Unix socket that the holdfast command and programs with libholdfast
# talk to. When it is not set, that is
# /run/holdfast/holdfast.sock for root's daemon, and holdfast/holdfast.sock
# below $XDG_RUNTIME_DIR for a user's. A socket that systemd passes to the
# daemon is used in any case.
#
native_socket = \"/run/holdfast/holdfast.sock\"

# The group whose members may look at locks over that socket. They can't
# take or release any. Not set, only the daemon's own user gets an answer.
#
socket_group = \"libvirt\"

# A Unix socket on which to serve virtlockd's protocol too, so that libvirt's
# own lockd plugin can use this daemon. Empty or not set, the daemon serves
# that protocol only on sockets that systemd passes to it, and when it is
# started under the name virtlockd. Virtlockd must not run at the same time.
#
virtlockd_socket = \"/run/libvirt/virtlockd-sock\"


#################################################################
#
# Drivers
#

# The driver that locks disks and leases.
# \"holdfast drivers\" lists those that there are: \"lockd\" takes file locks that
# virtlockd on other hosts understands, \"nop\" locks nothing.
#
default_driver = \"lockd\"

# The directory that drivers are loaded from, other than those which are part
# of the daemon. Not set, it is the one that Holdfast was built for.
#
driver_dir = \"/usr/lib/holdfast/drivers\"

# Settings of the drivers themselves, each as \"driver.key=value\". A driver's
# manual page lists its keys. For example
# [ \"symlink.directory=/srv/links\" ]
#
driver_config = [ ]


#################################################################
#
# Time and threads
#

# The name of this host, as holders of locks on other hosts are shown it in
# refusals: \"held by web1 on host n3\". Not set, it is the system's host name.
#
host_name = \"n3.example.org\"

# How long a request may wait for storage, in seconds, from 1 to 3600. After
# that it is refused, with the name of the lockspace that does not answer, and
# what it may still get is given back. Requests that concern other storage do
# not wait.
#
request_timeout = 30

# How long a virtual machine has to end after TERM before it gets KILL, in
# seconds, from 1 to 600. The daemon ends a machine of libvirt's that runs on
# when its connection to the daemon is lost.
#
kill_timeout = 10

# How many threads may work for one lockspace at the same time, from 1 to 64.
# More let more requests proceed beside one that hangs in the same lockspace.
#
lane_threads = 16


#################################################################
#
# Rules for disks
#
# All but the first mean what they mean in libvirt's qemu-lockd.conf. A value here
# wins over one there. All hosts that share storage need the same rules:
# otherwise they lock different files for one disk.
#

# The file of that kind whose rules apply. Not set, it is libvirt's own one, if
# there is one. Empty: no such file is read.
#
lockd_conf = \"/etc/libvirt/qemu-lockd.conf\"

# Whether the disks of a virtual machine are locked of themselves. With 0, only
# the <lease> elements in its configuration are.
#
auto_disk_leases = 1

# Whether a machine that has writable disks but no <lease> may not start. Not
# set, it is the opposite of auto_disk_leases.
#
require_lease_for_disks = 0

# The directory in which a disk is represented by a lock file, named after the
# SHA-256 hash of the disk's path. Not set, or empty, the disk's own file is
# locked. Use it when locks on the files themselves do not reach the other
# hosts (block devices), and put it on storage that all of them share.
#
file_lockspace_dir = \"/var/lib/libvirt/lockd/files\"

# The same for LVM volumes, whose lock file is named after the volume's UUID,
# so that the path may differ from host to host. Not set, or empty, they are
# locked like other disks.
#
lvm_lockspace_dir = \"/var/lib/libvirt/lockd/lvmvolumes\"

# The same for SCSI disks, by the identifier that the device reports.
#
scsi_lockspace_dir = \"/var/lib/libvirt/lockd/scsivolumes\"


#################################################################
#
# Persistent reservations
#
# These are for holdfast-pr-helper, which carries out the SCSI persistent
# reservations of guests. It reads them when it starts. The page \"Persistent
# reservations\" of the documentation explains them.
#

# How a command reaches the paths of a multipath device: by libmpathpersist
# where that is installed and does it well, otherwise path by path (\"auto\"); by
# libmpathpersist, without which there are then no reservations on multipath
# devices (\"library\"); always path by path (\"paths\").
#
pr_multipath = \"auto\"

# Whether a guest may reserve by a partition, or by a device that lies over
# others (dm-linear, LVM, MD). A reservation is always one of the whole LUN, and
# concerns everybody who uses any part of it.
#
pr_allow_partitions = 0
pr_allow_stacked = 0

# What to do when a second VM of this host registers on a LUN. For the LUN both
# are one: each can write while the other one holds the reservation, and a
# fence stops both. \"allow\", \"warn\" (the log names the other VM) or \"refuse\".
#
pr_second_vm = \"warn\"

# Who may use persistent reservations on which LUN, and how. Empty, everybody
# who can connect may do everything. Otherwise the first rule that fits the VM
# and the LUN counts, and where none fits the command is refused. A rule has
# conditions (user, group, cgroup, label, device) and what it allows (keys,
# preempt, clear); holdfast.conf(5) explains each. For example
# [ \"cgroup=/machine.slice/machine-qemu*web* device=naa.6001405* keys=0xa000-0xafff\",
#   \"user=libvirt-qemu device=naa.6001405* preempt=no clear=no\" ]
#
pr_rules = [ ]

# Where each command that changes a reservation is logged: \"journal\", \"none\", or
# the path of a file, which is written to at its end, and opened again after
# SIGHUP. \"holdfast pr log\" shows it.
#
pr_log = \"journal\"

# What a file's lines look like, \"text\" or \"json\".
#
pr_log_format = \"text\"


#################################################################
#
# Logging
#
# These three mean what they mean in libvirt's virtlockd.conf, which is read
# when the daemon runs under the name virtlockd. A value here wins over one
# there. Levels are 1 debug, 2 information, 3 warnings, 4 errors; each includes
# the ones with a higher number.
#

# What is logged at all.
#
log_level = 3

# Another level for parts of the program, separated by spaces: \"1:supervise\" logs
# all from the part that is called \"supervise\". Names may have the shell's wildcards
# and match anywhere in the part's name; the first filter that matches counts.
#
log_filters = \"\"

# Where the log goes, each with the least level that goes there, separated by
# spaces:
#    LEVEL:stderr
#    LEVEL:file:/absolute/path
#    LEVEL:syslog:name
#    LEVEL:journald
# Empty: standard error, which is the journal under systemd, or the system's
# log when the daemon has put itself into the background. For example
# \"3:journald 1:file:/var/log/holdfast.log\"
#
log_outputs = \"\"
"

test Holdfast.lns get shipped =
  { "#comment" = "Settings of the Holdfast lock daemon, holdfastd, and of holdfast-pr-helper." }
  { }
  { "#comment" = "Every setting is shown with its default, or with an example where the" }
  { "#comment" = "default is \"not set\". To change one, remove the '#' in front of it. The" }
  { "#comment" = "daemon reads the file when it starts, and refuses to start when something" }
  { "#comment" = "in it is wrong. \"holdfast check-config\" says beforehand what that is, with" }
  { "#comment" = "file and line." }
  { }
  { "#comment" = "The syntax is that of libvirt's files: numbers, \"strings\" without escapes," }
  { "#comment" = "[ \"lists\", \"of\", \"strings\" ], and comments after '#'. Yes and no are 1 and 0." }
  { "#comment" = "When a key is set twice, the first line counts, and you get a warning." }
  { }
  { }
  { "#comment" = "################################################################" }
  { }
  { "#comment" = "Sockets" }
  { }
  { }
  { "#comment" = "The Unix socket that the holdfast command and programs with libholdfast" }
  { "#comment" = "talk to. When it is not set, that is" }
  { "#comment" = "/run/holdfast/holdfast.sock for root's daemon, and holdfast/holdfast.sock" }
  { "#comment" = "below $XDG_RUNTIME_DIR for a user's. A socket that systemd passes to the" }
  { "#comment" = "daemon is used in any case." }
  { }
  { "native_socket" = "/run/holdfast/holdfast.sock" }
  { }
  { "#comment" = "The group whose members may look at locks over that socket. They can't" }
  { "#comment" = "take or release any. Not set, only the daemon's own user gets an answer." }
  { }
  { "socket_group" = "libvirt" }
  { }
  { "#comment" = "A Unix socket on which to serve virtlockd's protocol too, so that libvirt's" }
  { "#comment" = "own lockd plugin can use this daemon. Empty or not set, the daemon serves" }
  { "#comment" = "that protocol only on sockets that systemd passes to it, and when it is" }
  { "#comment" = "started under the name virtlockd. Virtlockd must not run at the same time." }
  { }
  { "virtlockd_socket" = "/run/libvirt/virtlockd-sock" }
  { }
  { }
  { "#comment" = "################################################################" }
  { }
  { "#comment" = "Drivers" }
  { }
  { }
  { "#comment" = "The driver that locks disks and leases." }
  { "#comment" = "\"holdfast drivers\" lists those that there are: \"lockd\" takes file locks that" }
  { "#comment" = "virtlockd on other hosts understands, \"nop\" locks nothing." }
  { }
  { "default_driver" = "lockd" }
  { }
  { "#comment" = "The directory that drivers are loaded from, other than those which are part" }
  { "#comment" = "of the daemon. Not set, it is the one that Holdfast was built for." }
  { }
  { "driver_dir" = "/usr/lib/holdfast/drivers" }
  { }
  { "#comment" = "Settings of the drivers themselves, each as \"driver.key=value\". A driver's" }
  { "#comment" = "manual page lists its keys. For example" }
  { "#comment" = "[ \"symlink.directory=/srv/links\" ]" }
  { }
  { "driver_config" }
  { }
  { }
  { "#comment" = "################################################################" }
  { }
  { "#comment" = "Time and threads" }
  { }
  { }
  { "#comment" = "The name of this host, as holders of locks on other hosts are shown it in" }
  { "#comment" = "refusals: \"held by web1 on host n3\". Not set, it is the system's host name." }
  { }
  { "host_name" = "n3.example.org" }
  { }
  { "#comment" = "How long a request may wait for storage, in seconds, from 1 to 3600. After" }
  { "#comment" = "that it is refused, with the name of the lockspace that does not answer, and" }
  { "#comment" = "what it may still get is given back. Requests that concern other storage do" }
  { "#comment" = "not wait." }
  { }
  { "request_timeout" = "30" }
  { }
  { "#comment" = "How long a virtual machine has to end after TERM before it gets KILL, in" }
  { "#comment" = "seconds, from 1 to 600. The daemon ends a machine of libvirt's that runs on" }
  { "#comment" = "when its connection to the daemon is lost." }
  { }
  { "kill_timeout" = "10" }
  { }
  { "#comment" = "How many threads may work for one lockspace at the same time, from 1 to 64." }
  { "#comment" = "More let more requests proceed beside one that hangs in the same lockspace." }
  { }
  { "lane_threads" = "16" }
  { }
  { }
  { "#comment" = "################################################################" }
  { }
  { "#comment" = "Rules for disks" }
  { }
  { "#comment" = "All but the first mean what they mean in libvirt's qemu-lockd.conf. A value here" }
  { "#comment" = "wins over one there. All hosts that share storage need the same rules:" }
  { "#comment" = "otherwise they lock different files for one disk." }
  { }
  { }
  { "#comment" = "The file of that kind whose rules apply. Not set, it is libvirt's own one, if" }
  { "#comment" = "there is one. Empty: no such file is read." }
  { }
  { "lockd_conf" = "/etc/libvirt/qemu-lockd.conf" }
  { }
  { "#comment" = "Whether the disks of a virtual machine are locked of themselves. With 0, only" }
  { "#comment" = "the <lease> elements in its configuration are." }
  { }
  { "auto_disk_leases" = "1" }
  { }
  { "#comment" = "Whether a machine that has writable disks but no <lease> may not start. Not" }
  { "#comment" = "set, it is the opposite of auto_disk_leases." }
  { }
  { "require_lease_for_disks" = "0" }
  { }
  { "#comment" = "The directory in which a disk is represented by a lock file, named after the" }
  { "#comment" = "SHA-256 hash of the disk's path. Not set, or empty, the disk's own file is" }
  { "#comment" = "locked. Use it when locks on the files themselves do not reach the other" }
  { "#comment" = "hosts (block devices), and put it on storage that all of them share." }
  { }
  { "file_lockspace_dir" = "/var/lib/libvirt/lockd/files" }
  { }
  { "#comment" = "The same for LVM volumes, whose lock file is named after the volume's UUID," }
  { "#comment" = "so that the path may differ from host to host. Not set, or empty, they are" }
  { "#comment" = "locked like other disks." }
  { }
  { "lvm_lockspace_dir" = "/var/lib/libvirt/lockd/lvmvolumes" }
  { }
  { "#comment" = "The same for SCSI disks, by the identifier that the device reports." }
  { }
  { "scsi_lockspace_dir" = "/var/lib/libvirt/lockd/scsivolumes" }
  { }
  { }
  { "#comment" = "################################################################" }
  { }
  { "#comment" = "Persistent reservations" }
  { }
  { "#comment" = "These are for holdfast-pr-helper, which carries out the SCSI persistent" }
  { "#comment" = "reservations of guests. It reads them when it starts. The page \"Persistent" }
  { "#comment" = "reservations\" of the documentation explains them." }
  { }
  { }
  { "#comment" = "How a command reaches the paths of a multipath device: by libmpathpersist" }
  { "#comment" = "where that is installed and does it well, otherwise path by path (\"auto\"); by" }
  { "#comment" = "libmpathpersist, without which there are then no reservations on multipath" }
  { "#comment" = "devices (\"library\"); always path by path (\"paths\")." }
  { }
  { "pr_multipath" = "auto" }
  { }
  { "#comment" = "Whether a guest may reserve by a partition, or by a device that lies over" }
  { "#comment" = "others (dm-linear, LVM, MD). A reservation is always one of the whole LUN, and" }
  { "#comment" = "concerns everybody who uses any part of it." }
  { }
  { "pr_allow_partitions" = "0" }
  { "pr_allow_stacked" = "0" }
  { }
  { "#comment" = "What to do when a second VM of this host registers on a LUN. For the LUN both" }
  { "#comment" = "are one: each can write while the other one holds the reservation, and a" }
  { "#comment" = "fence stops both. \"allow\", \"warn\" (the log names the other VM) or \"refuse\"." }
  { }
  { "pr_second_vm" = "warn" }
  { }
  { "#comment" = "Who may use persistent reservations on which LUN, and how. Empty, everybody" }
  { "#comment" = "who can connect may do everything. Otherwise the first rule that fits the VM" }
  { "#comment" = "and the LUN counts, and where none fits the command is refused. A rule has" }
  { "#comment" = "conditions (user, group, cgroup, label, device) and what it allows (keys," }
  { "#comment" = "preempt, clear); holdfast.conf(5) explains each. For example" }
  { "#comment" = "[ \"cgroup=/machine.slice/machine-qemu*web* device=naa.6001405* keys=0xa000-0xafff\"," }
  { "#comment" = "\"user=libvirt-qemu device=naa.6001405* preempt=no clear=no\" ]" }
  { }
  { "pr_rules" }
  { }
  { "#comment" = "Where each command that changes a reservation is logged: \"journal\", \"none\", or" }
  { "#comment" = "the path of a file, which is written to at its end, and opened again after" }
  { "#comment" = "SIGHUP. \"holdfast pr log\" shows it." }
  { }
  { "pr_log" = "journal" }
  { }
  { "#comment" = "What a file's lines look like, \"text\" or \"json\"." }
  { }
  { "pr_log_format" = "text" }
  { }
  { }
  { "#comment" = "################################################################" }
  { }
  { "#comment" = "Logging" }
  { }
  { "#comment" = "These three mean what they mean in libvirt's virtlockd.conf, which is read" }
  { "#comment" = "when the daemon runs under the name virtlockd. A value here wins over one" }
  { "#comment" = "there. Levels are 1 debug, 2 information, 3 warnings, 4 errors; each includes" }
  { "#comment" = "the ones with a higher number." }
  { }
  { }
  { "#comment" = "What is logged at all." }
  { }
  { "log_level" = "3" }
  { }
  { "#comment" = "Another level for parts of the program, separated by spaces: \"1:supervise\" logs" }
  { "#comment" = "all from the part that is called \"supervise\". Names may have the shell's wildcards" }
  { "#comment" = "and match anywhere in the part's name; the first filter that matches counts." }
  { }
  { "log_filters" = "" }
  { }
  { "#comment" = "Where the log goes, each with the least level that goes there, separated by" }
  { "#comment" = "spaces:" }
  { "#comment" = "LEVEL:stderr" }
  { "#comment" = "LEVEL:file:/absolute/path" }
  { "#comment" = "LEVEL:syslog:name" }
  { "#comment" = "LEVEL:journald" }
  { "#comment" = "Empty: standard error, which is the journal under systemd, or the system's" }
  { "#comment" = "log when the daemon has put itself into the background. For example" }
  { "#comment" = "\"3:journald 1:file:/var/log/holdfast.log\"" }
  { }
  { "log_outputs" = "" }
(* shipped: end *)
