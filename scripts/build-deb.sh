#!/usr/bin/env bash
# Builds the Debian package: the program, its unit, its configuration file, the manual page and what
# shells complete. Prints the path of the package.
# Usage: scripts/build-deb.sh [PROGRAM]
#   PROGRAM  one that is built already, as by scripts/build-release.sh; else it is built here
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
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
for made in man:etcd-edge.8 bash:etcd-edge zsh:_etcd-edge fish:etcd-edge.fish; do
    case ${made%%:*} in
        man) words=(man) ;;
        *) words=(completions "${made%%:*}") ;;
    esac
    target/release/etcd-edge "${words[@]}" >"target/deb/${made#*:}"
done
"$deb" deb --no-build --locked
