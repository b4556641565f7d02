#!/bin/sh
# Looks for what the build and the lab need beside Rust. As root with apt it installs what is missing; otherwise it says
# in one line what is missing and which command brings it. `make setup` calls it; nothing but packages is touched.
#
#   sh scripts/setup.sh [images] [instructions] [node]
#
# `images` adds what container images are put together with, `instructions` what counts instructions, `node` what a
# Kubernetes node runs beside Kubernetes itself (scripts/kubernetes.sh builds that).
set -eu
PATH="$PATH:/usr/sbin:/sbin"

# What is looked for, and the Debian package that has it.
needed="
cc:gcc
make:make
ip:iproute2
nft:nftables
iptables:iptables
ip6tables:iptables
setpriv:util-linux
unshare:util-linux
"
for more in "$@"; do
    case $more in
    images) needed="$needed
strip:binutils
xtables-nft-multi:iptables
update-ca-certificates:ca-certificates
" ;;
    instructions) needed="$needed
valgrind:valgrind
setarch:util-linux
" ;;
    node)
        if [ "$(id -u)" != 0 ]; then
            echo "setup: a Kubernetes node needs root; remedy: sudo --preserve-env=PATH,HOME make e2e," \
                "or name a cluster of yours: KUBECONFIG=... make e2e" >&2
            exit 1
        fi
        needed="$needed
etcd:etcd-server
containerd:containerd
ctr:containerd
runc:runc
/usr/lib/cni/ptp:containernetworking-plugins
conntrack:conntrack
dnsmasq:dnsmasq-base
"
        ;;
    *)
        echo "setup: there is no $more; there are images, instructions and node" >&2
        exit 1
        ;;
    esac
done

look() {
    tools="" packages=""
    for pair in $needed; do
        tool=${pair%%:*} package=${pair#*:}
        command -v "$tool" >/dev/null 2>&1 && continue
        tools="$tools $tool"
        case " $packages " in *" $package "*) ;; *) packages="$packages $package" ;; esac
    done
    # The compiler without the C library's headers builds nothing, and only a try tells.
    if command -v cc >/dev/null 2>&1 && ! echo '#include <stdio.h>' | cc -E - >/dev/null 2>&1; then
        tools="$tools stdio.h" packages="$packages libc6-dev"
    fi
}

look
case " $packages " in *" gcc "*) packages="$packages libc6-dev" ;; esac
if [ -n "$packages" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "setup: installing$packages"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086  # a list of words
    apt-get install -y -qq --no-install-recommends $packages >/dev/null
    look
fi
if [ -n "$packages" ]; then
    if command -v apt-get >/dev/null 2>&1; then
        remedy="sudo apt-get install$packages"
    else
        remedy="install what Debian calls$packages"
    fi
    echo "setup: missing:$tools; remedy: $remedy" >&2
    exit 1
fi

if ! command -v cargo >/dev/null 2>&1; then
    echo "setup: missing: cargo; remedy: install Rust with rustup" >&2
    exit 1
fi
if ! version=$(cargo --version 2>&1); then
    echo "setup: the Rust of rust-toolchain.toml does not start; remedy: rustup toolchain install" >&2
    echo "$version" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ] && ! unshare --user --map-root-user --net true 2>/dev/null; then
    echo "setup: this kernel gives you no user namespace: the lab and the demo need root here, or" \
        "'sysctl kernel.unprivileged_userns_clone=1' (some systems: kernel.apparmor_restrict_unprivileged_userns=0)" >&2
fi
