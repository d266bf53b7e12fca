#!/usr/bin/env bash
# Builds everything that is compared, then runs the benchmark; arguments go to it:
#   scripts/bench.sh                    the short set, at most ten minutes
#   scripts/bench.sh --long             everything
#   scripts/bench.sh --publish          and puts the report and the plots into docs/
#   scripts/bench.sh --case read-c64-m1 --target etcd-edge --rounds 9 --seconds 5
#   scripts/bench.sh --list             the named cases
# The report is printed and kept in target/bench/. ETCD_BIN and ETCD_EDGE_BIN name other binaries.
set -euo pipefail
cd "$(dirname "$0")/.."

# What only prints needs nothing to compare.
for argument in "$@"; do
  case $argument in
    --help | help | --list) exec cargo run --locked --release --quiet --package etcd-edge-bench -- "$@" ;;
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
if ((${#missing[@]})); then
  echo "bench: not installed: ${missing[*]}; trying apt" >&2
  if ! { [[ $EUID -eq 0 ]] && apt-get install --yes "${missing[@]}" >&2; }; then
    echo "bench: going on without them" >&2
  fi
fi

# Two builds, so that the proxy is built with its own dependencies' features and no others.
if [[ -z "${ETCD_EDGE_BIN:-}" ]]; then
  cargo build --locked --release
fi
exec cargo run --locked --release --quiet --package etcd-edge-bench -- "$@"
