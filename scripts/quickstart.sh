#!/usr/bin/env bash
# Builds the proxy and etcd, starts three etcd members and the proxy on loopback, and writes and
# reads a key through the proxy. Needs only the Rust and Go toolchains and a C compiler. The first
# run takes a few minutes, most of them to build.
# Usage: scripts/quickstart.sh [--once]
#   --once  stop after the demonstration. Without it the servers run until Ctrl-C.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/common.sh
use_toolchain
version=3.7.3 once='' work='' cluster='' proxy=''
case ${1:-} in
    '') ;;
    --once) once=yes ;;
    -h | --help) sed -n '2,6s/^# //p' "$0" && exit ;;
    *) sed -n '2,6s/^# //p' "$0" >&2 && exit 2 ;;
esac

say() { printf '\n== %s\n' "$*"; }
# Prints a command as a user types it, with quotes around arguments that have spaces, and runs it.
show() {
    local argument line=''
    for argument in "$@"; do
        if [[ $argument == *' '* ]]; then argument="'$argument'"; fi
        line+=" $argument"
    done
    printf '$%s\n' "$line" && "$@"
}
stop() {
    local pid
    if [[ -n $cluster && -z $once ]]; then echo "stopping; etcd takes a few seconds"; fi
    # Stop the proxy first, so that it drains while etcd still serves.
    for pid in $proxy $cluster; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    if [[ -n $work ]]; then rm -rf "$work"; fi
}
trap stop EXIT
trap 'exit 0' INT TERM

# Waits for a file. Prints the log and exits if the process that writes the file has ended.
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

say "Building etcd-edge (up to three minutes the first time)"
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
echo "etcd listens on $endpoints"

say "Starting the proxy"
listen=127.0.0.1:23790
if (exec 3<>/dev/tcp/127.0.0.1/23790) 2>/dev/null; then
    free_port && listen=127.0.0.1:$port
    echo "port 23790 is in use: using another port"
fi
flags=(--endpoints "$endpoints" --listen-addr "$listen" --advertise-client-url "$listen")
printf '$ %s\n' "$edge start ${flags[*]}"
: >"$work/proxy.log"
"$edge" start "${flags[@]}" 2>"$work/proxy.log" &
proxy=$!
for ((try = 0; try < 100; try++)); do
    address=$(sed -n '/started gRPC proxy/s/.*"address":"\([^"]*\)".*/\1/p' "$work/proxy.log")
    if [[ -n $address ]] || ! kill -0 "$proxy" 2>/dev/null; then break; fi
    sleep 0.1
done
if [[ -z $address ]]; then
    echo "the proxy did not start; its log:" >&2
    cat "$work/proxy.log" >&2
    exit 1
fi
echo "the proxy listens on $address"

say "Writing and reading a key through the proxy"
show "$etcdctl" --endpoints "$address" put greeting "hello from etcd-edge"
show "$etcdctl" --endpoints "$address" get greeting
[[ $("$etcdctl" --endpoints "$address" get --print-value-only greeting) == "hello from etcd-edge" ]]

say "Listing the members through the proxy"
show "$etcdctl" --endpoints "$address" member list -w table
cat <<EOT
The one member is the proxy: it returns its own address (--advertise-client-url), so that clients
that follow the list stay with the proxy. The three members of etcd are in etcd's own list:
    $etcdctl --endpoints $endpoints member list -w table
EOT

say "Reading the health page, http://$address/health"
health=$(page "$address" /health)
echo "$health"
[[ $health == *'"health":"true"'* ]]

if [[ -n $once ]]; then
    say "Done: stopping the proxy and etcd"
    exit 0
fi
say "The proxy and etcd run until Ctrl-C"
cat <<EOT
In a browser:
    http://$address/proxy/          the status page of the proxy
    http://$address/proxy/metrics   the metrics of the proxy
    http://$address/metrics         the metrics of etcd
In another terminal, with etcdctl and etcd-edge on the path:
    export PATH=$(cd "${etcdctl%/*}" && pwd):$(cd "${edge%/*}" && pwd):\$PATH
    etcdctl --endpoints $address watch --prefix ''
    etcdctl --endpoints $address put greeting again
docs/getting-started.md continues from here. The members of etcd, its infra0 to infra2, are
    $endpoints
The proxy's log is $work/proxy.log. Ctrl-C stops the servers and removes the data.
EOT
wait "$proxy"
