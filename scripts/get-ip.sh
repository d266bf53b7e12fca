#!/usr/bin/env bash
# Checks that the program `ip` of iproute2 is installed. Tests use it to build networks from
# network namespaces. Prints nothing if it is.
# Usage: scripts/get-ip.sh [--install]
#   --install  install the Debian package if the program is missing. Without it the script prints
#              the command and exits with 1.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/common.sh

if command -v ip >/dev/null; then exit 0; fi
if [[ ${1:-} == --install ]]; then
    install_packages iproute2
    exit
fi
echo "get-ip: the program ip is missing; to install it: $(install_command iproute2)" >&2
exit 1
