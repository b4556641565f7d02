#!/bin/sh
# Prints a toolchain to use in place of the one rust-toolchain.toml names, or nothing. Where rustup does not have that
# version under its own name, but its default toolchain is that very version, the default will do, and nothing needs to
# be fetched. The Makefile puts it into RUSTUP_TOOLCHAIN.
set -eu
command -v rustup >/dev/null 2>&1 || exit 0
cd "$(dirname "$0")/.."
pinned=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' rust-toolchain.toml)
toolchains=$(cd / && rustup toolchain list)
echo "$toolchains" | grep -q "^$pinned-" && exit 0
default=$(cd / && rustup default 2>/dev/null | cut -d' ' -f1)
[ -n "$default" ] || exit 0
if [ "$(RUSTUP_TOOLCHAIN=$default rustc --version | cut -d' ' -f2)" = "$pinned" ]; then
    echo "$default"
fi
