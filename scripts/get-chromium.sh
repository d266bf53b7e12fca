#!/usr/bin/env bash
# Sees to it that a browser without a screen is there, in which tests look at the page for people; installs
# Debian's package where it is missing (100 MB to load). Silent when it is there. Usage: scripts/get-chromium.sh
set -euo pipefail

for name in chromium-headless-shell chromium; do
    if command -v "$name" >/dev/null; then exit 0; fi
done

say() { printf 'get-chromium: %s\n' "$*" >&2; }
if ! command -v apt-get >/dev/null; then
    say "no browser on PATH and no apt-get to install one: install chromium"
    exit 1
fi
if [[ $(id -u) != 0 ]]; then
    say "no browser on PATH: run this as root, or install chromium-headless-shell or chromium"
    exit 1
fi
install() { DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null; }
say "installing chromium-headless-shell"
# The lists of packages may be missing or old, and older releases have no package of the small one.
install chromium-headless-shell 2>/dev/null || {
    apt-get update -qq >/dev/null
    install chromium-headless-shell 2>/dev/null || install chromium
}
