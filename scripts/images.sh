#!/bin/sh
# Puts the container images together without Docker: for each a folder that becomes its root, then an OCI archive of it.
#
#   sh scripts/images.sh PROGRAMS WRITER OUT
#
# PROGRAMS is the folder with the statically linked programs, WRITER is hauberk-images, OUT gets the archives. The programs go in without their
# symbols; those stay with the programs in PROGRAMS. Equal programs and equal nft and iptables give equal digests.
# `make images` calls it.
set -eu
here=$(dirname "$0")
programs=$1
writer=$2
out=$3
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version *= *"\(.*\)"/\1/p' "$here/../Cargo.toml")
trees=$out/trees
rm -rf "$trees"
mkdir -p "$trees"

# tree NAME PROGRAM USER: a root with the program, also where PATH leads, one user, and a place for temporary files.
tree() {
    root=$trees/$1
    if ldd "$programs/$2" 2>/dev/null | grep -q /; then
        echo "images: $programs/$2 needs shared libraries; build it with \`make images\`" >&2
        exit 1
    fi
    install -d -m 755 "$root" "$root/etc" "$root/usr/bin"
    install -d -m 1777 "$root/tmp"
    strip -o "$root/$2" "$programs/$2"
    chmod 755 "$root/$2"
    ln -s "../../$2" "$root/usr/bin/$2"
    printf 'root:x:0:0:root:/:/\nhauberk:x:%s:%s:hauberk:/:/\n' "$3" "$3" >"$root/etc/passwd"
    printf 'root:x:0:\nhauberk:x:%s:\n' "$3" >"$root/etc/group"
    # Without it the C library asks DNS before /etc/hosts.
    printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
}

# archive NAME PROGRAM USER [MORE...]: the tree's OCI archive, under the name for tests and the one for a registry.
archive() {
    name=$1 program=$2 user=$3
    shift 3
    "$writer" --root "$trees/$name" --out "$out/$name.tar" \
        --name "localhost/hauberk-$name:dev" --name "docker.io/hauberk/$name:$version" \
        --label "org.opencontainers.image.version=$version" --label "org.opencontainers.image.licenses=Apache-2.0" \
        --env "PATH=/usr/sbin:/usr/bin" --user "$user:$user" --entrypoint "/$program" "$@"
}

tree proxy hauberk-proxy 1337
sh "$here/network-tools.sh" "$trees/proxy"
archive proxy hauberk-proxy 1337

tree control-plane hauberk-control-plane 65532
archive control-plane hauberk-control-plane 65532

# Only for tests. Without a command it waits: the cluster of the tests keeps its pods' namespaces with that.
tree testapp hauberk-testapp 65532
archive testapp hauberk-testapp 65532 --command pause

rm -rf "$trees"
