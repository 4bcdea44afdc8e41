#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# rst2html.sh RST2HTML5 TEMPLATE INPUT OUTPUT OPTION...
# Makes a web page, in which the names of our manual pages are links: **holdfastd**\ (8).
set -eu
rst2html=$1
template=$2
input=$3
output=$4
shift 4

"$rst2html" "$@" --template="$template" --stylesheet=holdfast.css --link-stylesheet \
    --no-generator --no-datestamp --no-source-link --table-style=plain "$input" "$output.part"
sed -E 's,<strong>((holdfast[a-z.-]*|libholdfast))</strong>\(([1358])\),<a href="\1.\3.html">\1(\3)</a>,g' \
    "$output.part" >"$output"
rm "$output.part"
