#!/usr/bin/env bash
# Build the sdist, the wheel from the sdist, look into both, and try the wheel in an empty
# environment of every Python 3.11+ on this machine, from outside this tree.
#
#     scripts/dist.sh [FOLDER]     leaves both files in FOLDER (default: dist)
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"
out=$(mkdir -p "${1:-dist}" && cd "${1:-dist}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
unset PYTHONPATH

say "building the sdist, and the wheel from it"
rm -f "$out"/n2n-*.tar.gz "$out"/n2n-*-linux_*.whl
"$VENV/bin/python" -m build --outdir "$out" . </dev/null >"$work/build.log" 2>&1 || {
    tail -n 60 "$work/build.log" >&2
    die "the build failed; its last lines are above."
}
sdist=$(ls "$out"/n2n-*.tar.gz)
wheel=$(ls "$out"/n2n-*-linux_*.whl)
"$VENV/bin/python" scripts/check_dist.py "$sdist" "$wheel"

bash scripts/try_wheel.sh "$wheel"

# What README tells people to type, in an unpacked sdist, as root: /opt and /usr/local/bin are views of those of this
# machine, which go with the mount namespace. Not optimised: nothing is measured, and it compiles in a third of the time.
view() { # view PLACE: what is written there from now on is seen in this mount namespace only
    mkdir -p "$work/view$1/new" "$work/view$1/work"
    mount -t overlay none -o "lowerdir=$1,upperdir=$work/view$1/new,workdir=$work/view$1/work" "$1" || exit 77
}
install_lines() {
    mkdir -p "$work/view"
    mount -t tmpfs none "$work/view"
    view /opt
    view /usr/local/bin
    rm -rf /opt/n2n /usr/local/bin/n2n
    cd "$work"/n2n-*/
    bash -e ../install.sh </dev/null >../install.log 2>&1
    cd /
    /usr/local/bin/n2n version
}
export -f view install_lines
export work
if [ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null; then
    say "the lines below \"Install\" of README"
    sed -n '/^## Install/,/^## /s/^    //p' README.md >"$work/install.sh"
    grep -q 'pip install' "$work/install.sh" || die "README has no lines below \"Install\""
    tar -C "$work" -xzf "$sdist"
    status=0
    N2N_CFLAGS=-O0 unshare -m --propagation private bash -euo pipefail -c install_lines || status=$?
    case $status in
        0) ;;
        77) say "NOT TRIED: overlayfs cannot be mounted here" ;;
        *) die "the lines of README failed:" "$(tail -n 20 "$work/install.log" 2>&1)" ;;
    esac
fi
