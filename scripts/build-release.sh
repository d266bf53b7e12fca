#!/usr/bin/env bash
# Builds the proxy with profile-guided optimisation: builds it with counters, runs it under load,
# and builds it again with the counts. The result executes about a fifth fewer instructions per call
# than a plain `cargo build --release`. docs/internals/performance.md has figures.
# Usage: scripts/build-release.sh [--install]      the binary is target/pgo/etcd-edge
#   --install  install h2load (package nghttp2-client) with apt-get if it is missing
#
# Needs h2load and an llvm-profdata that can read the counts of this rustc. LLVM_PROFDATA names
# one. Otherwise the script tries the rustup component llvm-tools, then the versions on PATH, the
# newest first.
#
# The compiler optimises code that the load below does not run for size, not for speed. When you add
# a new way to serve calls, add it to the load.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/common.sh
use_toolchain

work=$PWD/target/pgo
target=$(rustc -vV | sed -n 's/^host: //p')
etcd=$PWD/target/etcd/3.7.3
pids=()

die() { echo "build-release: $*" >&2 && exit 1; }
stop() {
    if ((${#pids[@]})); then
        kill "${pids[@]}" 2>/dev/null || true
        # The proxies write their counts when they exit.
        wait "${pids[@]}" 2>/dev/null || true
    fi
    pids=()
}
trap stop EXIT

# Sets `port` to a free port, below the range that the kernel uses for outgoing connections.
declare -A used=()
free_port() {
    local try
    while :; do
        try=$((11000 + RANDOM % 20000))
        if [[ -z ${used[$try]:-} ]] && ! (exec 3<>"/dev/tcp/127.0.0.1/$try") 2>/dev/null; then
            used[$try]=1 port=$try
            return
        fi
    done
}

until_up() {
    for ((try = 0; try < 150; try++)); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return; fi
        sleep 0.1
    done
    die "nothing listens on port $1"
}

merge() {
    local tool
    for tool in "${LLVM_PROFDATA:-}" \
        "$(rustc --print sysroot)/lib/rustlib/$target/bin/llvm-profdata" \
        $(compgen -c llvm-profdata- | sort -rV -u) llvm-profdata; do
        if [[ -n $tool ]] && command -v "$tool" >/dev/null \
            && "$tool" merge -o "$work/counts.profdata" "$work"/raw/*.profraw 2>/dev/null; then
            echo "build-release: counts merged by $tool" >&2
            return
        fi
    done
    die "no llvm-profdata can read the counts of $(rustc --version);" \
        "to install one: rustup component add llvm-tools"
}

# build FLAGS FOLDER: with --target the flags apply only to the program, not to build scripts.
build() {
    RUSTFLAGS="${RUSTFLAGS:-} $1" cargo build --locked --release --bin etcd-edge \
        --target "$target" --target-dir "$work/$2"
}

body() { printf '%b' "$2" >"$work/$1"; }

# load METHOD BODY ARGUMENTS…: runs h2load against $url and fails without a 2xx response.
load() {
    local method=$1 body=$2 succeeded
    shift 2
    succeeded=$(h2load "$@" -t1 -d "$work/$body" -H 'content-type: application/grpc' \
        -H 'te: trailers' -H 'user-agent: grpc-go/1.75.0' -H 'grpc-timeout: 4999871u' \
        "$url/$method" | sed -n 's/^status codes: \([0-9]*\) 2xx.*/\1/p')
    ((${succeeded:-0} > 0)) || die "no response under load: $method $*"
}

train() {
    local proxy=$work/counting/$target/release/etcd-edge plain tls front streams=()
    rm -rf "$work/etcd" "$work/raw"
    free_port && plain=$port
    free_port && tls=$port
    free_port
    # etcd generates certificates. The proxy uses them as its server certificate too.
    "$etcd/etcd" --data-dir "$work/etcd" --log-level error --auto-tls \
        --listen-peer-urls "http://127.0.0.1:$port" \
        --listen-client-urls "http://127.0.0.1:$plain,https://127.0.0.1:$tls" \
        --advertise-client-urls "http://127.0.0.1:$plain" &
    pids+=($!)
    until_up "$plain" && until_up "$tls"

    # gRPC frames: Range of "k", Put of 64 bytes at "k", Put of 1 MiB at "b", Range of "b".
    body range '\0\0\0\0\x03\x0a\x01k'
    body put "\\0\\0\\0\\0\\x45\\x0a\\x01k\\x12\\x40$(printf 'v%.0s' {1..64})"
    body range-large '\0\0\0\0\x03\x0a\x01b'
    { printf '\0\0\x10\0\x07\x0a\x01b\x12\x80\x80\x40' && head -c 1048576 /dev/zero; } \
        >"$work/put-large"

    free_port && front=$port url=http://127.0.0.1:$port
    "$proxy" start --endpoints="127.0.0.1:$plain" --listen-addr="127.0.0.1:$front" 2>/dev/null &
    pids+=($!)
    until_up "$front"
    for ((n = 0; n < 4; n++)); do
        "$etcd/etcdctl" --endpoints "127.0.0.1:$front" watch k >/dev/null &
        streams+=($!)
    done
    pids+=("${streams[@]}")
    load etcdserverpb.KV/Put put -n 20000 -c 10 -m 10
    kill "${streams[@]}"
    load etcdserverpb.KV/Range range -n 60000 -c 10 -m 10
    load etcdserverpb.KV/Range range -n 60000 -c 64 -m 1
    load etcdserverpb.KV/Range range -n 40000 -c 500 -m 1
    load etcdserverpb.KV/Put put-large -n 200 -c 8 -m 1
    load etcdserverpb.KV/Range range-large -n 2000 -c 8 -m 1 -w 24 -W 26

    free_port && front=$port url=https://127.0.0.1:$port
    "$proxy" start --endpoints="https://127.0.0.1:$tls" --insecure-skip-tls-verify \
        --cert-file="$work/etcd/fixtures/client/cert.pem" \
        --key-file="$work/etcd/fixtures/client/key.pem" \
        --listen-addr="127.0.0.1:$front" 2>/dev/null &
    pids+=($!)
    until_up "$front"
    load etcdserverpb.KV/Range range -n 20000 -c 10 -m 10
    load etcdserverpb.KV/Range range -n 20000 -c 64 -m 1
    load etcdserverpb.KV/Range range-large -n 200 -c 8 -m 1 -w 24 -W 26
    stop
}

if ! command -v h2load >/dev/null && [[ ${1:-} == --install ]]; then
    install_packages nghttp2-client
fi
command -v h2load >/dev/null ||
    die "h2load is missing; to install it: $(install_command nghttp2-client)"
scripts/get-etcd.sh 3.7.3
mkdir -p "$work"
build "-Cprofile-generate=$work/raw" counting
train
merge
build "-Cprofile-use=$work/counts.profdata" counted
install "$work/counted/$target/release/etcd-edge" "$work/etcd-edge"
"$work/etcd-edge" --version
echo "build-release: $work/etcd-edge"
