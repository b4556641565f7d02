#!/bin/sh
# Builds the programs of a small Kubernetes from Debian's source package, for the tests on a real cluster. Prints the
# folder they are in. As root on Debian or Ubuntu it installs what that needs.
#
#   sh scripts/kubernetes.sh
#
# The result is kept in HAUBERK_CACHE (default ~/.cache/hauberk) by version and by the contents of this file: the first
# run takes some minutes, a later one nothing.
set -eu

cache=${HAUBERK_CACHE:-$HOME/.cache/hauberk}
key=$(sha256sum "$0" | cut -c1-12)
home=$cache/kubernetes-$key
programs="kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl"

if [ -f "$home/complete" ]; then
    echo "$home/bin"
    exit 0
fi

say() { echo "kubernetes: $*" >&2; }

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    say "not built yet: run this once as root on Debian or Ubuntu, or name a cluster of yours in KUBECONFIG"
    exit 1
fi

# One at a time: another run may be building the same.
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if [ -f "$home/complete" ]; then
    echo "$home/bin"
    exit 0
fi

for old in "$cache"/kubernetes-*; do
    if [ "$old" != "$home" ]; then rm -rf "$old"; fi
done
work=$home/work
mkdir -p "$work" "$home/bin"

export DEBIAN_FRONTEND=noninteractive
reflect2=/usr/share/gocode/src/github.com/modern-go/reflect2
if ! command -v go >/dev/null || ! command -v dpkg-source >/dev/null || ! [ -d "$reflect2" ]; then
    say "installing Go"
    apt-get update -q >&2
    apt-get install -y -q --no-install-recommends golang-go dpkg-dev golang-github-modern-go-reflect2-dev >&2
fi

# The source package, through an apt configuration of its own: the machine's lists stay as they are.
say "fetching the source package"
apt=$work/apt
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep '/debian/*$' | head -n 1)
if [ -z "$mirror" ]; then
    say "no Debian mirror among apt's sources"
    exit 1
fi
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bookworm main" >"$apt/sources.list"
private="-o Dir::State::Lists=$apt/lists -o Dir::Etc::SourceList=$apt/sources.list -o Dir::Etc::SourceParts=/dev/null -o Dir::Cache=$apt/cache -o APT::Sandbox::User=root"
(
    cd "$work"
    # shellcheck disable=SC2086 # a list of options
    apt-get $private update -q >&2
    # shellcheck disable=SC2086
    apt-get $private source --download-only -q kubernetes >&2
)

# As a tree of GOPATH: its go.mod is older than what this Go accepts.
export GOPATH="$work/go" GOCACHE="$work/cache" GO111MODULE=off GOFLAGS='' GOTOOLCHAIN=local CGO_ENABLED=0
mkdir -p "$GOPATH/src/k8s.io/kubernetes"
tar xzf "$work"/kubernetes_*.orig.tar.gz -C "$GOPATH/src/k8s.io/kubernetes" --strip-components=1
cd "$GOPATH/src/k8s.io/kubernetes"
# The reflect2 of the tree knows Go's maps as they were until 1.17; with a newer Go its API server crashes on a custom
# resource with annotations.
rm -rf vendor/github.com/modern-go/reflect2
cp -r "$reflect2" vendor/github.com/modern-go/reflect2
rm -rf vendor/github.com/modern-go/reflect2/*_test.go
version=$(basename "$work"/kubernetes_*.orig.tar.gz .orig.tar.gz | sed 's/.*really//; s/^kubernetes_//')

say "generating the API's description ($version)"
go build -o "$work/openapi-gen" k8s.io/kubernetes/vendor/k8s.io/kube-openapi/cmd/openapi-gen
packages=$(grep -rl --include='*.go' '+k8s:openapi-gen=' pkg cmd plugin staging/src/k8s.io |
    grep -v -e '/code-generator/' -e '/sample-apiserver/' -e '_test\.go$' -e '/testdata/' |
    xargs -n1 dirname | sed 's#^staging/src/#vendor/#; s#^#k8s.io/kubernetes/#' | LC_ALL=C sort -u | paste -sd,)
"$work/openapi-gen" --logtostderr -i "$packages" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
    -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt -r "$work/violations.txt" >"$work/openapi-gen.log" 2>&1

flags="-s -w"
for package in component-base/version client-go/pkg/version; do
    name=k8s.io/kubernetes/vendor/k8s.io/$package
    minor=$(echo "$version" | cut -d. -f2)
    flags="$flags -X $name.gitVersion=v$version -X $name.gitMajor=1 -X $name.gitMinor=$minor"
done
for program in $programs; do
    say "building $program"
    # Without the cloud providers and the Docker shim, which nobody here calls, it takes half the time.
    go build -tags providerless,dockerless -ldflags "$flags" -o "$home/bin/$program" "k8s.io/kubernetes/cmd/$program"
done

chmod -R u+w "$work"
rm -rf "$work"
touch "$home/complete"
echo "$home/bin"
