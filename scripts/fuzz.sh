#!/usr/bin/env bash
# Runs fuzz targets. Needs a nightly toolchain. Builds cargo-fuzz in target/tools if it is not on
# PATH.
#   scripts/fuzz.sh TARGET [SECONDS]   runs one target, for 60 seconds by default
#   scripts/fuzz.sh --all SECONDS      runs every target for this time
#   scripts/fuzz.sh --keep TARGET      replaces the committed corpus by a minimal one with the same
#                                      coverage
#   scripts/fuzz.sh --list             prints the targets
# New inputs are saved in fuzz/target/corpus/TARGET, crashes in fuzz/artifacts/TARGET. Only --keep
# changes the committed corpus, fuzz/corpus/TARGET, which `cargo test --test corpus` replays.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/common.sh
use_toolchain

# The limits that tests/corpus.rs checks.
max_files=200
max_len=1024

usage() {
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

targets() {
    for file in fuzz/fuzz_targets/*.rs; do
        basename "$file" .rs
    done
}

need_target() {
    [[ -f "fuzz/fuzz_targets/$1.rs" ]] && return
    echo "fuzz.sh: no target \"$1\"; the targets are: $(targets | paste -sd' ')" >&2
    exit 2
}

need_tools() {
    if ! rustup run nightly rustc --version >/dev/null 2>&1; then
        echo "fuzz.sh: no nightly toolchain; to install it: rustup toolchain install nightly" >&2
        exit 1
    fi
    PATH="$PATH:$PWD/target/tools/bin"
    if ! cargo fuzz --version >/dev/null 2>&1; then
        echo "fuzz.sh: no cargo-fuzz on PATH: building it in target/tools" >&2
        cargo install cargo-fuzz --locked --root target/tools
    fi
}

# libfuzzer TARGET DIR... -- ARG...
# Runs without a sanitizer: the fuzzed code has no unsafe code, and overflow checks and debug
# assertions are on.
libfuzzer() {
    cargo +nightly fuzz run --sanitizer none "$@"
}

run() {
    local target=$1 seconds=$2
    mkdir -p "fuzz/target/corpus/$target" "fuzz/corpus/$target"
    libfuzzer "$target" "fuzz/target/corpus/$target" "fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -max_len="$max_len" -timeout=10 -print_final_stats=1
}

keep() {
    local target=$1 merged=fuzz/target/merged/$1
    rm -rf "$merged"
    mkdir -p "$merged" "fuzz/target/corpus/$target" "fuzz/corpus/$target"
    libfuzzer "$target" "$merged" "fuzz/corpus/$target" "fuzz/target/corpus/$target" -- \
        -set_cover_merge=1 -max_len="$max_len"
    rm -rf "fuzz/corpus/$target"
    mkdir -p "fuzz/corpus/$target"
    # If there are too many files, take a sample of all sizes. File names are hashes and need no
    # quoting.
    find "$merged" -type f -printf '%s %p\n' | sort -n | cut -d' ' -f2 |
        awk -v max="$max_files" '{ line[NR] = $0 }
            END { step = NR > max ? NR / max : 1
                  for (i = 1; int(i) <= NR; i += step) print line[int(i)] }' |
        head -n "$max_files" |
        xargs cp -t "fuzz/corpus/$target"
    echo "fuzz/corpus/$target: $(find "fuzz/corpus/$target" -type f | wc -l) files"
}

case "${1:-}" in
--all)
    [[ $# -eq 2 && $2 =~ ^[1-9][0-9]*$ ]] || usage
    need_tools
    for target in $(targets); do
        run "$target" "$2"
    done
    ;;
--keep)
    [[ $# -eq 2 ]] || usage
    need_target "$2"
    need_tools
    keep "$2"
    ;;
--list) targets ;;
"" | -*) usage ;;
*)
    [[ $# -le 2 && ${2:-60} =~ ^[1-9][0-9]*$ ]] || usage
    need_target "$1"
    need_tools
    run "$1" "${2:-60}"
    ;;
esac
