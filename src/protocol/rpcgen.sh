#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Runs rpcgen where the input lies, so that the generated #include names no directory.
# usage: rpcgen.sh RPCGEN MODE INPUT OUTPUT
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cp "$3" "$dir/virtlockd_xdr.x"
(cd "$dir" && "$1" "$2" -o out virtlockd_xdr.x)
mv "$dir/out" "$4"
