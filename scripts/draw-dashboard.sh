#!/usr/bin/env bash
# Draws docs/images/dashboard.png: runs a three-member cluster, a registered proxy with TLS towards
# its clients, etcdctl clients and a Prometheus that scrapes the proxy, then calls
# scripts/draw-dashboard.py.
# Usage: scripts/draw-dashboard.sh OUT.png [SECONDS]
#   SECONDS  how long the clients run before the drawing, 120 by default
# Needs Python with matplotlib. PYTHON names another Python, ETCD_EDGE_BIN another proxy binary.
#
# With `set -m` each background process is the leader of its own process group, and `stop` kills
# whole groups.
set -euom pipefail

out=$(realpath -m "${1:?OUT.png}") seconds=${2:-120}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/common.sh
use_toolchain
scripts/get-prometheus.sh
edge=${ETCD_EDGE_BIN:-target/release/etcd-edge}
if [[ -z ${ETCD_EDGE_BIN:-} ]]; then cargo build --locked --release; fi
dir=$(mktemp -d) pids=()
stop() {
    kill -- "${pids[@]/#/-}" 2>/dev/null || true
    wait "${pids[@]}" 2>/dev/null || true
    rm -rf "$dir"
}
trap stop EXIT
trap 'exit 1' INT TERM

scripts/local-cluster.sh --dir "$dir/cluster" >/dev/null & pids+=($!)
until [[ -s $dir/cluster/endpoints ]]; do sleep 0.2; done
free_port && listen=127.0.0.1:$port
free_port && pages=127.0.0.1:$port
free_port && prometheus=127.0.0.1:$port
"$edge" start --endpoints="$(<"$dir/cluster/endpoints")" --listen-addr="$listen" \
    --advertise-client-url="$listen" --resolver-prefix=proxies --resolver-ttl=60 --auto-tls \
    --data-dir="$dir/tls" --metrics-addr="http://$pages" 2>"$dir/proxy.log" & pids+=($!)
cat >"$dir/prometheus.yml" <<CONFIG
global: {scrape_interval: 2s, evaluation_interval: 2s}
rule_files: ["$PWD/deploy/prometheus/alerts.yml"]
scrape_configs:
  - {job_name: etcd-edge, metrics_path: /proxy/metrics, static_configs: [targets: ["$pages"]]}
CONFIG
target/prometheus/prometheus --config.file="$dir/prometheus.yml" --storage.tsdb.path="$dir/data" \
    --web.listen-address="$prometheus" 2>"$dir/prometheus.log" & pids+=($!)

bin=(target/etcd/3.7.3/etcdctl --endpoints="https://$listen" --insecure-skip-tls-verify)
until "${bin[@]}" put k v >/dev/null 2>&1; do sleep 0.2; done
for _ in {1..8}; do
    "${bin[@]}" watch --prefix '' >/dev/null & pids+=($!)
done
for _ in {1..4}; do
    lease=$("${bin[@]}" lease grant 3 | cut -d' ' -f2)
    "${bin[@]}" lease keep-alive "$lease" >/dev/null & pids+=($!)
done
# Writes at a fixed rate, repeatedly.
(while :; do "${bin[@]}" check perf --load=s >/dev/null 2>&1 || true; done) & pids+=($!)
(while :; do
    "${bin[@]}" get k >/dev/null
    for _ in 1 2 3 4; do "${bin[@]}" get k --consistency=s >/dev/null; done
done) & pids+=($!)
sleep "$seconds"
"${PYTHON:-python3}" scripts/draw-dashboard.py "http://$prometheus" "$out" "$seconds"
