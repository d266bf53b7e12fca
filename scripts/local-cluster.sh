#!/usr/bin/env bash
# Runs a new etcd cluster on loopback in the foreground, until Ctrl-C or SIGTERM.
# Usage: scripts/local-cluster.sh [--members N] [--version VERSION] [--dir DIR]
#   --members  the number of etcd members, 3 by default
#   --version  the etcd version, 3.7.3 by default
#   --dir      the folder for data and logs. The default is a temporary folder that the script
#              removes at the end.
# When every member is healthy, the script prints `endpoints: HOST:PORT,...` and writes the list to
# DIR/endpoints.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/scripts/common.sh"
members=3 version=3.7.3 dir='' own_dir='' pids=()

while (($#)); do
    case $1 in
        --members) members=${2:?--members needs a number} && shift 2 ;;
        --version) version=${2:?--version needs a release} && shift 2 ;;
        --dir) dir=${2:?--dir needs a folder} && shift 2 ;;
        -h | --help) sed -n '2,9s/^# //p' "$0" && exit ;;
        *) sed -n '2,9s/^# //p' "$0" >&2 && exit 2 ;;
    esac
done

stop() {
    if ((${#pids[@]})); then
        echo "local-cluster: stopping; etcd takes a few seconds" >&2
        kill "${pids[@]}" 2>/dev/null || true
        wait "${pids[@]}" 2>/dev/null || true
    fi
    if [[ -n $own_dir ]]; then rm -rf "$own_dir"; fi
}
trap stop EXIT
trap 'exit 0' INT TERM

"$root/scripts/get-etcd.sh" "$version"
bin=$root/target/etcd/$version
if [[ -z $dir ]]; then dir=$(mktemp -d) && own_dir=$dir; fi
mkdir -p "$dir"

client=() peer=() list='' endpoints=''
for ((i = 0; i < members; i++)); do
    free_port && client[i]=$port
    free_port && peer[i]=$port
    list+=${list:+,}m$i=http://127.0.0.1:${peer[i]}
    endpoints+=${endpoints:+,}127.0.0.1:${client[i]}
done
for ((i = 0; i < members; i++)); do
    "$bin/etcd" --name "m$i" --data-dir "$dir/m$i" --log-level warn \
        --listen-client-urls "http://127.0.0.1:${client[i]}" \
        --advertise-client-urls "http://127.0.0.1:${client[i]}" \
        --listen-peer-urls "http://127.0.0.1:${peer[i]}" \
        --initial-advertise-peer-urls "http://127.0.0.1:${peer[i]}" \
        --initial-cluster "$list" --initial-cluster-state new \
        >"$dir/m$i.log" 2>&1 &
    pids[i]=$!
done

for ((try = 0; ; try++)); do
    if "$bin/etcdctl" --endpoints "$endpoints" endpoint health >/dev/null 2>&1; then break; fi
    for ((i = 0; i < members; i++)); do
        if ! kill -0 "${pids[i]}" 2>/dev/null || ((try > 60)); then
            echo "local-cluster: etcd m$i does not start; its log:" >&2
            tail -n 20 "$dir/m$i.log" >&2
            exit 1
        fi
    done
    sleep 0.5
done
echo "$endpoints" >"$dir/endpoints.new"
mv "$dir/endpoints.new" "$dir/endpoints"
echo "endpoints: $endpoints"
wait
