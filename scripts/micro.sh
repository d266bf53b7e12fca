#!/usr/bin/env bash
# Counts the instructions and allocations of the hot paths under valgrind and holds them against
# benches/micro/figures.txt. Exits with 1 when a case costs more, with 3 where it cannot count.
# Usage: scripts/micro.sh [--update | --list] [NAME…]
#   --update  writes the figures instead
#   --list    says what each case does
#   NAME      only cases with this in their names
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
if ! command -v valgrind >/dev/null && [[ $EUID -eq 0 ]]; then
    echo "micro: valgrind is not installed; trying apt" >&2
    { apt-get install -y -q valgrind || { apt-get update -q && apt-get install -y -q valgrind; }; } >&2 || true
fi
if ! command -v valgrind >/dev/null; then
    printf 'micro: valgrind is not here (%s): NOTHING IS COUNTED\n' "$(uname -nm)" >&2
    exit 3
fi
exec cargo run --quiet --locked --profile micro --package etcd-edge-micro -- "$@"
