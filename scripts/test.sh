#!/usr/bin/env bash
# Runs the tests. The whole set needs Rust and Go, builds real etcd binaries on the first run, and
# takes tens of minutes on 2 cores. CONTRIBUTING.md lists the time of each test target.
# Usage: scripts/test.sh [--quick] [--install] [ARGUMENTS OF cargo test]
#   --quick    run only the unit, model and corpus tests, without etcd and Go: half a minute, and
#              a few minutes to build
#   --install  install missing system packages (iproute2, Chromium, Maven …) with apt-get, so that
#              every test runs. Without it the script prints the command and skips the tests that
#              need the missing program.
# Examples: scripts/test.sh --test reads        one file, tests/reads.rs
#           scripts/test.sh --test reads users  only its tests with "users" in their names
#
# All targets run, also after a failure. The script ends with one line for each failed test: the
# command that repeats it. target/test.log has the whole output. The exit status is that of cargo.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/common.sh

quick='' install=()
while (($#)); do
    case $1 in
        --quick) quick=yes ;;
        --install) install=(--install) ;;
        -h | --help) sed -n '2,15s/^# \{0,1\}//p' "$0" && exit ;;
        *) break ;;
    esac
    shift
done

# Whether the arguments select targets.
selects=''
for argument in "$@"; do
    case $argument in
        --) break ;;
        --test* | --lib | --bin* | --bench* | --example* | --doc | --all-targets | -p | --package*)
            selects=yes
            ;;
    esac
done

if [[ -n $quick && -n $selects ]]; then
    echo "test: runs selected tests of etcd-edge, without etcd"
elif [[ -n $quick ]]; then
    echo "test: runs the unit, model and corpus tests, without etcd: 1 minute, and 3 to build them"
elif [[ -n $selects ]]; then
    echo "test: runs selected tests of etcd-edge, after it has built etcd (minutes, only once)"
else
    echo "test: runs all tests beside real etcd: 20 to 40 minutes on 2 cores, and 15 to build" \
        "etcd and the tests the first time; --quick takes 1 minute"
fi

use_toolchain

# Prints a line `scripts/test.sh TARGET TEST` for each failed test in a log of cargo, and a line
# without a test for each failed target that did not report one: it crashed.
failures() {
    awk -v script="scripts/test.sh${quick:+ --quick}" '
        # The target that runs now, as the option that selects it.
        /^     Running / {
            target = ""
            if (match($0, /tests\/[a-z0-9_]+/)) {
                target = "--test " substr($0, RSTART + 6, RLENGTH - 6)
            } else if (/ src\/main\.rs /) {
                target = "--bins"
            } else if (/ src\/lib\.rs /) {
                target = "--lib"
            }
        }
        /^   Doc-tests / { target = "--doc" }
        # The list of names is the last part of the output of a target.
        /^failures:$/ { count = 0; listed = 1; next }
        listed && /^    [a-zA-Z0-9_]/ { names[count++] = $1; next }
        listed && !/^$/ { listed = 0 }
        /^test result: FAILED/ {
            for (i = 0; i < count; i++) { print "  " script " " target " " names[i] }
            reported[target] = 1
            count = 0
        }
        # At the end cargo lists the targets that failed: `-p PACKAGE --test NAME`.
        /^    `/ {
            gsub(/[`]|-p [a-z-]+ /, "")
            sub(/--bin .*/, "--bins")
            sub(/^ +/, "")
            if (!($0 in reported)) { print "  " script " " $0 "  # ended without a result" }
        }
    ' "$1"
}

# run ARGUMENTS OF cargo test: runs the tests to the end, and lists what failed.
run() {
    local log=${CARGO_TARGET_DIR:-target}/test.log status=0 list start=$SECONDS
    mkdir -p "${log%/*}"
    cargo test --no-fail-fast "$@" 2>&1 | tee "$log" || status=$?
    if ((status == 0)); then
        echo "test: passed in $(((SECONDS - start + 30) / 60)) minutes"
        return
    fi
    list=$(failures "$log")
    if [[ -z $list ]]; then
        echo "test: FAILED: see above" >&2
    else
        printf 'test: FAILED; %s has the output. To repeat each:\n%s\n' "$log" "$list" >&2
    fi
    return "$status"
}

if [[ -n $quick ]]; then
    targets=(--package etcd-edge)
    if [[ -z $selects ]]; then
        # A test file without `mod support` starts no etcd and no proxy.
        targets+=(--lib --bins)
        while read -r file; do
            targets+=(--test "$(basename "$file" .rs)")
        done < <(grep -L '^mod support;' tests/*.rs)
    fi
    run "${targets[@]}" "$@"
    exit
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

# get SCRIPT PATTERN WHAT [ARGUMENT]: gets a program, or skips the tests that need it. With --install
# a program that cannot be installed is an error.
get() {
    if scripts/"$1" "${install[@]}" "${@:4}"; then return; fi
    if ((${#install[@]})); then exit 1; fi
    skip "$2" "$3 is missing"
}

scripts/get-etcd.sh 3.7.3 3.6.16 3.5.35 3.5.0 3.4.13
if ((EUID != 0 && ${#install[@]} == 0)); then
    skip 'support::net' 'not root'
else
    get get-ip.sh 'support::net' 'the program ip'
fi
get get-prometheus.sh 'program\("prom' 'Prometheus'
get get-chromium.sh 'support::browser' 'a Chromium browser'
get get-runtime.sh 'programs::jetcd' 'a JDK or Maven' jetcd
get get-runtime.sh 'programs::node' 'Node.js or npm' node
get get-runtime.sh 'programs::python' 'Python 3 with venv' python
get get-runtime.sh 'programs::rust' 'protoc' rust

# Most tests wait for etcd or for time to pass most of the time, so two tests a core keep it busy.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))}
if ((${#skipped[@]} == 0)); then
    run --workspace "$@"
    exit
fi

# The options for the test programs follow `--`.
for ((i = 1; i <= $#; i++)); do
    if [[ ${!i} == -- ]]; then break; fi
done
run --workspace "${@:1:i-1}" -- "${skipped[@]}" "${@:i+1}"
echo "test: $((${#skipped[@]} / 2)) tests were skipped: use --install to run them" >&2
