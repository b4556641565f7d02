#!/bin/sh
# Runs every fuzz target for FUZZ_SECONDS with libFuzzer, which needs a C++ compiler beside Rust. Without one it runs the
# same checks as property tests with many cases, and says so. What a target found so far is kept in fuzz/corpus, inputs
# that break it in fuzz/artifacts. `make fuzz` calls it.
set -eu
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
seconds=${FUZZ_SECONDS:-30}
target=${CARGO_TARGET_DIR:-target}

if ! echo 'int main() { return 0; }' | c++ -x c++ -o /dev/null - 2>/dev/null; then
    echo "fuzz: there is no C++ compiler for libFuzzer (Debian: g++); running the checks as property tests" >&2
    PROPTEST_CASES=100000 exec "$cargo" test -p fuzz
fi

"$cargo" run --quiet -p fuzz --bin seeds -- fuzz/corpus

# Coverage is recorded by LLVM's own pass, which the pinned compiler has. With --target, build scripts and macros are
# left without it.
host=$(rustc -vV | sed -n 's/^host: //p')
passes="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
passes="$passes -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
passes="$passes -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks"
bins=""
for source in fuzz/fuzz_targets/*.rs; do
    bins="$bins --bin $(basename "$source" .rs)"
done
# shellcheck disable=SC2086  # a list of words
RUSTFLAGS="$passes" CARGO_PROFILE_RELEASE_LTO=off "$cargo" build --release -p fuzz $bins --features libfuzzer \
    --target "$host" --target-dir "$target/fuzz"

failed=""
for source in fuzz/fuzz_targets/*.rs; do
    name=$(basename "$source" .rs)
    mkdir -p "fuzz/corpus/$name" "fuzz/artifacts/$name"
    echo "== $name, $seconds s"
    log=$(mktemp)
    if "$target/fuzz/$host/release/$name" "fuzz/corpus/$name" -artifact_prefix="fuzz/artifacts/$name/" \
        -max_total_time="$seconds" -max_len=4096 -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 \
        -verbosity=0 >"$log" 2>&1; then
        grep -E 'stat::(number_of_executed_units|new_units_added)' "$log"
    else
        cat "$log"
        failed="$failed $name"
    fi
    rm -f "$log"
done
if [ -n "$failed" ]; then
    echo "fuzz: broken:$failed; the inputs are in fuzz/artifacts" >&2
    exit 1
fi
