#!/usr/bin/env bash
# Runs the tests. The whole set needs Rust and Go, builds real etcd binaries on the first run, and
# takes tens of minutes on 2 cores. CONTRIBUTING.md lists the time of each test target.
# Usage: scripts/test.sh [--quick] [--install] [ARGUMENTS OF cargo test]
#   --quick    run only the unit, model and corpus tests, without etcd and Go: half a minute, and
#              a few minutes to build
#   --install  install missing system packages (iproute2, Chromium) with apt-get, so that every
#              test runs. Without it the script prints the command and skips the tests that need
#              the missing program.
# Examples: scripts/test.sh --test reads        one file, tests/reads.rs
#           scripts/test.sh --test reads users  only its tests with "users" in their names
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/common.sh

quick='' install=()
while (($#)); do
    case $1 in
        --quick) quick=yes ;;
        --install) install=(--install) ;;
        -h | --help) sed -n '2,12s/^# \{0,1\}//p' "$0" && exit ;;
        *) break ;;
    esac
    shift
done

use_toolchain

if [[ -n $quick ]]; then
    # A test file without `mod support` starts no etcd and no proxy.
    targets=(--lib --bins)
    while read -r file; do
        targets+=(--test "$(basename "$file" .rs)")
    done < <(grep -L '^mod support;' tests/*.rs)
    exec cargo test --package etcd-edge "${targets[@]}" "$@"
fi

# skip PATTERN REASON: skips the tests of every file below tests/ that contains this pattern.
skipped=()
skip() {
    local names name
    # The functions that follow an attribute `#[test]` or `#[tokio::test…]`.
    # shellcheck disable=SC2016  # $0 is awk's.
    names=$(grep -rlE --include='*.rs' --exclude-dir=support "$1" tests | xargs awk '
        /^#\[(tokio::)?test/ { test = 1 }
        test && match($0, /fn [a-z0-9_]+/) { print substr($0, RSTART + 3, RLENGTH - 3); test = 0 }')
    if [[ -z $names ]]; then
        echo "test: no test matches '$1': correct scripts/test.sh" >&2
        exit 1
    fi
    for name in $names; do
        echo "test: SKIPPED, $2: $name" >&2
        skipped+=(--skip "$name")
    done
}

# get SCRIPT PATTERN WHAT: gets a program, or skips the tests that need it. With --install a
# program that cannot be installed is an error.
get() {
    if scripts/"$1" "${install[@]}"; then return; fi
    if ((${#install[@]})); then exit 1; fi
    skip "$2" "$3 is missing"
}

scripts/get-etcd.sh 3.7.3 3.6.16 3.5.35
if ((EUID != 0 && ${#install[@]} == 0)); then
    skip 'support::net' 'not root'
else
    get get-ip.sh 'support::net' 'the program ip'
fi
get get-prometheus.sh 'program\("prom' 'Prometheus'
get get-chromium.sh 'support::browser' 'a Chromium browser'

# Most tests wait for etcd or for time to pass most of the time, so two tests a core keep it busy.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))}
if ((${#skipped[@]} == 0)); then exec cargo test --workspace "$@"; fi

# The options for the test programs follow `--`.
for ((i = 1; i <= $#; i++)); do
    if [[ ${!i} == -- ]]; then break; fi
done
cargo test --workspace "${@:1:i-1}" -- "${skipped[@]}" "${@:i+1}" || exit
echo "test: passed, but $((${#skipped[@]} / 2)) tests were skipped: use --install to run them" >&2
