#!/usr/bin/env bash
# Builds every program that is compared, then runs the benchmark with the given arguments:
#   scripts/bench.sh                    the short set, at most ten minutes
#   scripts/bench.sh --long             the whole set
#   scripts/bench.sh --publish          also writes the report and the plots into docs/
#   scripts/bench.sh --case read-c64-m1 --target etcd-edge --rounds 9 --seconds 5
#   scripts/bench.sh --list             prints the named cases
#   scripts/bench.sh --install …        first installs haproxy, nginx and strace with apt-get
# The report is printed and saved in target/bench/. ETCD_BIN and ETCD_EDGE_BIN name other binaries.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/common.sh

install=''
if [[ ${1:-} == --install ]]; then install=yes && shift; fi
use_toolchain

# Help and the list need none of the compared programs.
for argument in "$@"; do
    case $argument in
        --help | help | --list)
            exec cargo run --locked --release --quiet --package etcd-edge-bench -- "$@"
            ;;
    esac
done

if [[ -z "${ETCD_BIN:-}" && ! -x target/etcd/3.7.3/etcd ]]; then
    scripts/get-etcd.sh
fi

PATH="$PATH:/usr/sbin"
missing=()
command -v haproxy >/dev/null || missing+=(haproxy)
command -v nginx >/dev/null || missing+=(nginx-light)
command -v strace >/dev/null || missing+=(strace)
if ((${#missing[@]})) && ! { [[ -n $install ]] && install_packages "${missing[@]}"; }; then
    echo "bench: not measured, because not installed: ${missing[*]}" >&2
    echo "bench: to install: $(install_command "${missing[@]}")" >&2
fi

# Two builds, so that the proxy is built with only the features of its own dependencies.
if [[ -z "${ETCD_EDGE_BIN:-}" ]]; then
    cargo build --locked --release
fi
exec cargo run --locked --release --quiet --package etcd-edge-bench -- "$@"
