#!/usr/bin/env bash
# Checks that the programs are installed that a client in tests/clients needs. Prints nothing if
# they are.
# Usage: scripts/get-runtime.sh [--install] jetcd|node|python|rust
#   --install  install the Debian packages if a program is missing. Without it the script prints the
#              command and exits with 1.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/common.sh

install=''
if [[ ${1:-} == --install ]]; then
    install=yes
    shift
fi
case ${1:-} in
    jetcd) programs=(java javac mvn) packages=(default-jdk-headless maven) ;;
    node) programs=(node npm) packages=(nodejs npm) ;;
    python) programs=(python3) packages=(python3 python3-venv) ;;
    rust) programs=(protoc) packages=(protobuf-compiler) ;;
    *)
        sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
esac

# Debian has the modules for virtual environments in a package of their own.
present() {
    local name
    for name in "${programs[@]}"; do command -v "$name" >/dev/null || return 1; done
    [[ $1 != python ]] || python3 -c 'import ensurepip, venv' 2>/dev/null
}

if present "$1"; then exit 0; fi
if [[ -n $install ]]; then
    install_packages "${packages[@]}"
    exit
fi
echo "get-runtime: the client $1 needs ${programs[*]}; to install:" \
    "$(install_command "${packages[@]}")" >&2
exit 1
