(* SPDX-License-Identifier: LGPL-2.1-or-later *)
(*
Module: Holdfast
  Reads and writes /etc/holdfast/holdfast.conf, the settings of the Holdfast lock daemon.

  A setting becomes a node of its name. A list has its strings in numbered nodes below, a comment
  behind a setting is its last child:

    { "lane_threads" = "8" }
    { "driver_config"
      { "1" = "symlink.directory=/srv/links" }
      { "#comment" = "this host" } }

  A new string is written in double quotes, or in the quotes that it needs.

  The daemon accepts some things that nobody writes and that this lens does not cover: two
  settings on one line with ';' between them, zeros or '+' in front of flags and '+' in front of
  numbers, and triple quotes around a line with " in it that would go into single ones.
*)

module Holdfast =
  autoload xfm

(* Group: Separators *)

let indent = del /[ \t]*/ ""
let equals = del /[ \t]*=[ \t]*/ " = "

(* A value may have a comment behind it; one without text vanishes with the line's end. *)
let line_end = Util.comment_eol | del /[ \t]*(#[ \t]*)?\r?\n/ "\n"

(* Group: Strings
  There are no escapes. Which quotes a string may have depends on what is in it, so the kinds
  below are told apart by the text and never overlap. *)

let quoted (marks:regexp) (mark:string) (text:regexp) =
  square (del marks mark) (store text) (del marks mark)

let string_empty = del /""|''|""""""/ "\"\"" . store ""
let string_plain = quoted /"""|"|'/ "\"" /[^"'\n]+/
let string_with_apostrophe = quoted /"""|"/ "\"" /[^"\n]*'[^"\n]*/
let string_with_quote = quoted /'/ "'" /[^'\n]*"[^'\n]*/

(* What no other quotes can hold, line ends or both of them: anything but three " in a row. *)
let long_text = /("?"?[^"])*/ - (/[^"\n]*/ | /[^'\n]*/)
let string_long = Util.del_str "\"\"\"" . store long_text . Util.del_str "\"\"\""

(* Group: Nodes
  Kinds of string can only be told apart by the value of a whole node, hence the many nodes. *)

let setting (names:regexp) (value:lens) = [ indent . key names . equals . value . line_end ]

let texts (names:regexp) = setting names string_empty
                         | setting names string_plain
                         | setting names string_with_apostrophe
                         | setting names string_with_quote
                         | setting names string_long

let list_open = del /\[[ \t\r\n]*/ "[ "
let list_comma = del /[ \t\r\n]*,[ \t\r\n]*/ ", "
let list_close = del /[ \t\r\n]*(,[ \t\r\n]*)?\]/ " ]"
let list_empty = del /\[[ \t\r\n]*\]/ "[ ]"
let list_item = [ seq "item" . string_empty ]
              | [ seq "item" . string_plain ]
              | [ seq "item" . string_with_apostrophe ]
              | [ seq "item" . string_with_quote ]
              | [ seq "item" . string_long ]
let list_filled = counter "item" . list_open . list_item . (list_comma . list_item)* . list_close

let lists (names:regexp) = setting names (list_empty | list_filled)
let numbers (names:regexp) = setting names (store /[0-9]+/)
let flags (names:regexp) = setting names (store /[01]/)

(* Group: Settings, by the kind of their value *)

let text_names = "native_socket"
               | "socket_group"
               | "virtlockd_socket"
               | "default_driver"
               | "driver_dir"
               | "host_name"
               | "lockd_conf"
               | "file_lockspace_dir"
               | "lvm_lockspace_dir"
               | "scsi_lockspace_dir"
               | "pr_multipath"
               | "pr_second_vm"
               | "pr_log"
               | "pr_log_format"
               | "log_filters"
               | "log_outputs"

let list_names = "driver_config"
               | "pr_rules"

let number_names = "request_timeout"
                 | "kill_timeout"
                 | "lane_threads"
                 | "log_level"

let flag_names = "auto_disk_leases"
               | "require_lease_for_disks"
               | "pr_allow_partitions"
               | "pr_allow_stacked"

let entry = texts text_names | lists list_names | numbers number_names | flags flag_names

(* Group: The file *)

let lns = (entry | Util.comment | Util.empty_dos)*

let filter = incl "/etc/holdfast/holdfast.conf"
           . Util.stdexcl

let xfm = transform lns filter
