#!/usr/bin/env bash
# Builds the Debian package: the program, its systemd unit, its configuration file, the manual page
# and the shell completions. Prints the path of the package. Builds cargo-deb in target/tools if it
# is not on PATH.
# Usage: scripts/build-deb.sh [PROGRAM]
#   PROGRAM  a program that is already built, for example by scripts/build-release.sh. Without it
#            the script builds one.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/common.sh
use_toolchain
version=3.8.0
tools=$PWD/target/tools

deb=$(command -v cargo-deb || true)
if [[ -z $deb ]]; then
    deb=$tools/bin/cargo-deb
    if [[ ! -x $deb ]]; then
        cargo install cargo-deb --locked --version "$version" --root "$tools" >&2
    fi
fi

if (($#)); then
    mkdir -p target/release
    if [[ ! $1 -ef target/release/etcd-edge ]]; then install "$1" target/release/etcd-edge; fi
else
    cargo build --locked --release --bin etcd-edge >&2
fi

mkdir -p target/deb
for output in man:etcd-edge.8 bash:etcd-edge zsh:_etcd-edge fish:etcd-edge.fish; do
    case ${output%%:*} in
        man) arguments=(man) ;;
        *) arguments=(completions "${output%%:*}") ;;
    esac
    target/release/etcd-edge "${arguments[@]}" >"target/deb/${output#*:}"
done
"$deb" deb --no-build --locked
