#!/usr/bin/env bash
# Counts the instructions and allocations of the hot paths under valgrind and compares them with
# benches/micro/figures.txt. Exits with 1 if a case costs more, with 3 if it cannot count here.
# Usage: scripts/micro.sh [--install] [--update | --list] [NAME…]
#   --install  install valgrind with apt-get if it is missing
#   --update   write the counts to the file instead of comparing
#   --list     print what each case does
#   NAME       only the cases with this text in their names
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/common.sh
install=''
if [[ ${1:-} == --install ]]; then install=yes && shift; fi
if ! command -v valgrind >/dev/null && [[ -n $install ]]; then
    install_packages valgrind || true
fi
if ! command -v valgrind >/dev/null; then
    printf 'micro: valgrind is missing (%s): NOTHING IS COUNTED; to install it: %s\n' \
        "$(uname -nm)" "$(install_command valgrind)" >&2
    exit 3
fi
use_toolchain
exec cargo run --quiet --locked --profile micro --package etcd-edge-micro -- "$@"
