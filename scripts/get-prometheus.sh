#!/usr/bin/env bash
# Puts Prometheus and its promtool into target/prometheus, with which tests judge metrics, alert rules and the
# dashboard: those on PATH, or else those of Debian's package, which is only unpacked, so that no service
# starts. Silent when they are there. Usage: scripts/get-prometheus.sh
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=target/prometheus
if [[ -x $out/prometheus && -x $out/promtool ]]; then exit 0; fi

say() { printf 'get-prometheus: %s\n' "$*" >&2; }
mkdir -p "$out"
if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
    ln -sf "$(command -v prometheus)" "$(command -v promtool)" "$out/"
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    say "no prometheus and promtool on PATH and no apt-get to fetch them with: install Prometheus"
    exit 1
fi
say "fetching Debian's package"
room=$(mktemp -d "$PWD/target/prometheus.XXXXXX")
trap 'rm -rf "$room"' EXIT
# Debian's own user for downloads cannot write here, which apt warns about.
fetch() { (cd "$room" && apt-get download -qq -o APT::Sandbox::User=root prometheus >/dev/null); }
# The lists of packages may be missing or old.
fetch 2>/dev/null || { apt-get update -qq >/dev/null && fetch; }
dpkg-deb --fsys-tarfile "$room"/prometheus_*.deb |
    tar -x -C "$room" ./usr/bin/prometheus ./usr/bin/promtool
# The last step, so that what is there is whole.
mv "$room"/usr/bin/prometheus "$room"/usr/bin/promtool "$out/"
