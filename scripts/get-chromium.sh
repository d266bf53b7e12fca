#!/usr/bin/env bash
# Checks that a headless browser is installed. Tests open the status page in it. Prints nothing if
# it is.
# Usage: scripts/get-chromium.sh [--install]
#   --install  install the Debian package if no browser is found (about 100 MB to download).
#              Without it the script prints the command and exits with 1.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/common.sh

for name in chromium-headless-shell chromium; do
    if command -v "$name" >/dev/null; then exit 0; fi
done
# Older Debian releases have only the larger package.
if [[ ${1:-} == --install ]]; then
    install_packages chromium-headless-shell || install_packages chromium
    exit
fi
say() { printf 'get-chromium: %s\n' "$*" >&2; }
say "no Chromium browser; to install one: $(install_command chromium-headless-shell)"
say "on a Debian release without that package: $(install_command chromium)"
exit 1
