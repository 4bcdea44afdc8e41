#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# install-settings.sh FILE DIRECTORY: for `meson install`. Settings that somebody has changed stay;
# the new file is put beside them.
set -eu
file=$1
dir="${DESTDIR:-}$2"
name=${file##*/}

mkdir -p "$dir"
if [ -e "$dir/$name" ] && ! cmp -s "$file" "$dir/$name"; then
    name=$name.new
fi
echo "Installing $file to $dir/$name"
install -m 644 "$file" "$dir/$name"
