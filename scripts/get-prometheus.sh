#!/usr/bin/env bash
# Puts Prometheus and promtool into target/prometheus. Tests use them to check metrics, alert rules
# and the dashboard. Takes the programs on PATH. Otherwise downloads the Debian package and unpacks
# it there, so that nothing is installed and no service starts. Prints nothing if they are there.
# Usage: scripts/get-prometheus.sh [--install]
#   --install  update apt's package lists if the download fails. Without it the script prints the
#              command and exits with 1.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/common.sh
out=target/prometheus
if [[ -x $out/prometheus && -x $out/promtool ]]; then exit 0; fi

say() { printf 'get-prometheus: %s\n' "$*" >&2; }
mkdir -p "$out"
if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
    ln -sf "$(command -v prometheus)" "$(command -v promtool)" "$out/"
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    say "no prometheus and promtool on PATH and no apt-get to download them: install Prometheus"
    exit 1
fi
say "downloading the Debian package"
unpacked=$(mktemp -d "$PWD/target/prometheus.XXXXXX")
trap 'rm -rf "$unpacked"' EXIT
# apt's own user for downloads cannot write to this folder, and apt warns about it.
fetch() { (cd "$unpacked" && apt-get download -qq -o APT::Sandbox::User=root prometheus >/dev/null); }
if ! fetch 2>/dev/null; then
    if [[ ${1:-} != --install ]]; then
        say "the download failed. The package lists can be missing or out of date. To update them:"
        say "$(update_command); then run scripts/test.sh again"
        exit 1
    fi
    update_packages
    fetch
fi
dpkg-deb --fsys-tarfile "$unpacked"/prometheus_*.deb |
    tar -x -C "$unpacked" ./usr/bin/prometheus ./usr/bin/promtool
# Moving is the last step, so that an interrupted run leaves nothing behind.
mv "$unpacked"/usr/bin/prometheus "$unpacked"/usr/bin/promtool "$out/"
