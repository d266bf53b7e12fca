#!/usr/bin/env bash
# From a clone to a running proxy: builds it, gets a real etcd, starts three members and the proxy
# on loopback, and writes and reads a key through it. Needs only the Rust and Go toolchains.
# Usage: scripts/quickstart.sh [--once]
#   --once  ends by itself after the tour; without it everything runs until Ctrl-C
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=3.7.3 once='' work='' cluster='' proxy=''
case ${1:-} in
    '') ;;
    --once) once=yes ;;
    *) sed -n '2,5s/^# //p' "$0" >&2 && exit 2 ;;
esac

say() { printf '\n== %s\n' "$*"; }
# As it could be typed: what has a space in it is quoted.
show() {
    local word line=''
    for word in "$@"; do
        if [[ $word == *' '* ]]; then word="'$word'"; fi
        line+=" $word"
    done
    printf '$%s\n' "$line" && "$@"
}
stop() {
    local pid
    if [[ -n $cluster && -z $once ]]; then echo "stopping; etcd takes some seconds"; fi
    # The proxy first, so that it drains while etcd still answers.
    for pid in $proxy $cluster; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    if [[ -n $work ]]; then rm -rf "$work"; fi
}
trap stop EXIT
trap 'exit 0' INT TERM

# Waits until a file appears or the process that is to write it is gone.
await() {
    local file=$1 pid=$2 log=$3
    until [[ -s $file ]]; do
        if ! kill -0 "$pid" 2>/dev/null; then
            cat "$log" >&2
            exit 1
        fi
        sleep 0.2
    done
}

page() {
    if command -v curl >/dev/null; then
        curl --silent --show-error "http://$1$2"
    else
        exec 3<>"/dev/tcp/${1%:*}/${1##*:}"
        printf 'GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$2" "$1" >&3
        tail -n 1 <&3
        exec 3>&-
    fi
}

say "Building etcd-edge"
cargo build --bin etcd-edge
edge=${CARGO_TARGET_DIR:-target}/debug/etcd-edge

say "Getting etcd $version"
scripts/get-etcd.sh "$version"
etcdctl=target/etcd/$version/etcdctl

say "Starting three etcd members on loopback"
work=$(mktemp -d)
scripts/local-cluster.sh --members 3 --version "$version" --dir "$work/etcd" >"$work/cluster.log" 2>&1 &
cluster=$!
await "$work/etcd/endpoints" "$cluster" "$work/cluster.log"
endpoints=$(cat "$work/etcd/endpoints")
echo "etcd answers at $endpoints"

say "Starting the proxy"
listen=127.0.0.1:23790
if (exec 3<>/dev/tcp/127.0.0.1/23790) 2>/dev/null; then
    listen=127.0.0.1:0
    echo "port 23790 is taken: another one is used"
fi
printf '$ %s\n' "$edge start --endpoints $endpoints --listen-addr $listen"
: >"$work/proxy.log"
"$edge" start --endpoints "$endpoints" --listen-addr "$listen" 2>"$work/proxy.log" &
proxy=$!
for ((try = 0; try < 100; try++)); do
    address=$(sed -n '/started gRPC proxy/s/.*"address":"\([^"]*\)".*/\1/p' "$work/proxy.log")
    if [[ -n $address ]] || ! kill -0 "$proxy" 2>/dev/null; then break; fi
    sleep 0.1
done
if [[ -z $address ]]; then
    echo "the proxy did not get ready; its log:" >&2
    cat "$work/proxy.log" >&2
    exit 1
fi
echo "the proxy listens on $address"

say "A write and a read through the proxy"
show "$etcdctl" --endpoints "$address" put greeting "hello from etcd-edge"
show "$etcdctl" --endpoints "$address" get greeting
[[ $("$etcdctl" --endpoints "$address" get --print-value-only greeting) == "hello from etcd-edge" ]]

say "Its health page, http://$address/health"
health=$(page "$address" /health)
echo "$health"
[[ $health == *'"health":"true"'* ]]

if [[ -n $once ]]; then
    say "Done: stopping the proxy and etcd"
    exit 0
fi
say "Go on in another terminal"
cat <<EOT
    $etcdctl --endpoints $address watch --prefix ''
    $etcdctl --endpoints $address put greeting again
    $etcdctl --endpoints $address member list -w table
    http://$address/metrics         etcd's metrics
    http://$address/proxy/metrics   the proxy's own
The proxy's log is $work/proxy.log. Ctrl-C stops all and removes the data.
EOT
wait "$proxy"
