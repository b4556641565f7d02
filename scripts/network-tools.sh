#!/bin/sh
# Copies nft and iptables into a folder that becomes the root of an image: the programs, what iptables loads at run time,
# and every library they are linked with, at the paths where the loader looks for them; and the authorities that the system
# trusts, for TLS with servers outside the mesh. `make images` and
# images/Dockerfile.proxy call it; it reads the machine it runs on and writes nothing but the folder.
#
#   sh scripts/network-tools.sh FOLDER
set -eu
PATH="$PATH:/usr/sbin:/sbin"
root=$1

# with_libraries FILE PATH: the file under that path, and what it is linked with under the paths ldd names.
with_libraries() {
    install -D -m 755 "$1" "$root$2"
    for library in $(ldd "$1" | grep -o '/[^ ]*'); do
        [ -e "$root$library" ] || install -D -m 755 "$(readlink -f "$library")" "$root$library"
    done
}

find_program() {
    command -v "$1" || {
        echo "network-tools: there is no $1 here; remedy: apt-get install nftables iptables" >&2
        exit 1
    }
}

nft=$(find_program nft)
on_nft=$(find_program xtables-nft-multi)
legacy=$(find_program xtables-legacy-multi)
with_libraries "$nft" /usr/sbin/nft
with_libraries "$on_nft" /usr/sbin/xtables-nft-multi
with_libraries "$legacy" /usr/sbin/xtables-legacy-multi

# One program with many names. The bare names are those on nf_tables, as Debian has it.
for family in iptables ip6tables; do
    for kind in "" -restore -save; do
        ln -sf xtables-nft-multi "$root/usr/sbin/$family-nft$kind"
        ln -sf xtables-legacy-multi "$root/usr/sbin/$family-legacy$kind"
        ln -sf xtables-nft-multi "$root/usr/sbin/$family$kind"
    done
done

# Matches and targets of iptables, which it loads by name from the folder it was built with.
plugins=""
for folder in /usr/lib/*/xtables /usr/lib64/xtables /usr/lib/xtables; do
    if [ -d "$folder" ]; then plugins=$folder; fi
done
if [ -z "$plugins" ]; then
    echo "network-tools: the matches and targets of iptables are not where they are expected (/usr/lib/*/xtables)" >&2
    exit 1
fi
for plugin in "$plugins"/*.so; do
    case $(basename "$plugin") in
    libebt_* | libarpt_*) ;; # bridges and ARP: not ours
    *) install -D -m 644 "$plugin" "$root$plugin" ;;
    esac
done
# The lock of iptables-legacy.
install -d -m 755 "$root/run"

roots=/etc/ssl/certs/ca-certificates.crt
[ -e "$roots" ] || {
    echo "network-tools: there is no $roots here; remedy: apt-get install ca-certificates" >&2
    exit 1
}
install -D -m 644 "$roots" "$root$roots"
