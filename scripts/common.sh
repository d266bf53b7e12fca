# shellcheck shell=bash
# Functions that several scripts share. A script sources this file from the top of the project:
#   source scripts/common.sh

# use_toolchain: exports RUSTUP_TOOLCHAIN if the toolchain of rust-toolchain.toml is not installed
# but another one, such as `stable`, has the same version. Otherwise rustup downloads the pinned
# toolchain, or fails where automatic downloads are off.
use_toolchain() {
    local pinned name
    if [[ -n ${RUSTUP_TOOLCHAIN:-} ]] || ! command -v rustup >/dev/null; then return 0; fi
    pinned=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
    if rustup toolchain list | grep -q "^$pinned-"; then return 0; fi
    for name in $(rustup toolchain list --quiet); do
        if [[ $(rustc "+$name" --version 2>/dev/null) == "rustc $pinned "* ]]; then
            export RUSTUP_TOOLCHAIN=$name
            return 0
        fi
    done
}

# as_root COMMAND...: runs a command as root, with sudo if needed.
as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "not root, and no sudo on PATH: cannot run: $*" >&2
        return 1
    fi
}

# update_packages: updates apt's package lists.
update_packages() { as_root apt-get update -qq >/dev/null; }

# install_packages PACKAGE...: installs Debian packages.
install_packages() {
    if ! command -v apt-get >/dev/null; then
        echo "no apt-get on PATH: install $* by hand" >&2
        return 1
    fi
    local command=(env DEBIAN_FRONTEND=noninteractive
        apt-get install -qq --yes --no-install-recommends "$@")
    echo "installing $*" >&2
    # The package lists can be missing or out of date.
    as_root "${command[@]}" >/dev/null 2>&1 ||
        { update_packages && as_root "${command[@]}" >/dev/null; } ||
        { echo "cannot install $*" >&2 && return 1; }
}

# install_command PACKAGE... and update_command: print the command for a user to type.
install_command() { echo "$(sudo_prefix)apt-get install --no-install-recommends $*"; }
update_command() { echo "$(sudo_prefix)apt-get update"; }
sudo_prefix() { if ((EUID != 0)); then echo 'sudo '; fi; }

# free_port: sets `port` to a free port, below the range that the kernel uses for outgoing
# connections. Never the same twice.
declare -A used_ports=()
free_port() {
    while :; do
        port=$((11000 + RANDOM % 20000))
        if [[ -z ${used_ports[$port]:-} ]] && ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            used_ports[$port]=1
            return
        fi
    done
}
