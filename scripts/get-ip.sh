#!/usr/bin/env bash
# Sees to it that iproute2's `ip` is there, with which tests build networks of namespaces; installs
# Debian's package where it is missing. Silent when it is there. Usage: scripts/get-ip.sh
set -euo pipefail

if command -v ip >/dev/null; then exit 0; fi

say() { printf 'get-ip: %s\n' "$*" >&2; }
if ! command -v apt-get >/dev/null; then
    say "no \`ip\` on PATH and no apt-get to install it: install iproute2"
    exit 1
fi
if [[ $(id -u) != 0 ]]; then
    say "no \`ip\` on PATH: run this as root, or install iproute2"
    exit 1
fi
say "installing iproute2"
install() { DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends iproute2 >/dev/null; }
# The lists of packages may be missing or old.
install 2>/dev/null || { apt-get update -qq >/dev/null && install; }
