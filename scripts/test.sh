#!/usr/bin/env bash
# Runs every test: fetches the etcd releases and the tools the tests need, then `cargo test` of the whole workspace.
# Usage: scripts/test.sh [ARGUMENTS OF cargo test]
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/get-etcd.sh 3.7.3 3.6.16 3.5.35
scripts/get-ip.sh
scripts/get-prometheus.sh
scripts/get-chromium.sh
# Most tests wait most of their time, for etcd or for time to pass: two a core keep it busy.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))}
exec cargo test --workspace "$@"
