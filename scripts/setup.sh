#!/usr/bin/env bash
# Make this tree runnable: system packages, .venv, the compiled extension.  Quick where nothing changed.
#
#     scripts/setup.sh run     what `n2n lab demo` needs
#     scripts/setup.sh test    that, and what the tests need
#
# Environment: PYTHON (interpreter for a new .venv), N2N_VENV (another place for .venv).
set -euo pipefail
. "$(dirname "$0")/lib.sh"
mode=${1:-run}
cd "$ROOT"

[ "$(uname -s)" = Linux ] || die "n2n runs on Linux only (this is $(uname -s))."

# A digest of everything that decides what is installed and how the extension is built.
digest() {
    {
        "$VENV/bin/python" -c 'import sys; print(sys.version, sys.prefix)'
        find pyproject.toml setup.py src/n2n/_fastpath -type f \
            \( -name '*.py' -o -name '*.toml' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.h' \) -print0 |
            LC_ALL=C sort -z | xargs -0 sha256sum
        env | LC_ALL=C sort | grep -E '^(N2N_(ABI3|CFLAGS|LDFLAGS|OPENSSL_PREFIX)|CC|CFLAGS)=' || true
    } | sha256sum | cut -d' ' -f1
}

tools() { # programs that are needed to run, whatever was built
    local packages=()
    have ip || packages+=(iproute2)
    have ping || packages+=(iputils-ping)
    if [ "${mode:-${1:-}}" = test ]; then
        have iperf3 || packages+=(iperf3)
        have nft || packages+=(nftables)
        have conntrack || packages+=(conntrack)
        have miniupnpd || packages+=(miniupnpd-nftables) # the program alone: nothing starts by itself
        have chromium || packages+=(chromium fonts-dejavu-core)
        have rsync || packages+=(rsync)
        have pgrep || packages+=(procps)
        have systemd-analyze || packages+=(systemd)
        have zsh || packages+=(zsh)
        have fish || packages+=(fish)
        [ "$(uname -m)" != x86_64 ] || ldconfig -p | grep -q libIPSec_MB.so.1 || packages+=(libipsec-mb1)
    fi
    if [ ${#packages[@]} -gt 0 ]; then apt_install "${packages[@]}"; fi
}

compilers() {
    local packages=()
    have "${CC:-cc}" || packages+=(gcc)
    [ -e /usr/include/stdio.h ] || packages+=(libc6-dev)
    have pkg-config || have pkgconf || packages+=(pkg-config)
    if [ -z "${N2N_OPENSSL_PREFIX:-}" ] && [ ! -e /usr/include/openssl/evp.h ]; then packages+=(libssl-dev); fi
    if [ ${#packages[@]} -gt 0 ]; then apt_install "${packages[@]}"; fi
}

install_python() {
    say "no Python 3.$PYTHON_MIN_MINOR or newer was found"
    apt_install python3 python3-venv python3-dev
    find_python >/dev/null && return
    local minor
    for minor in 14 13 12 11; do # releases whose python3 is too old carry a newer one beside it
        if apt-cache show "python3.$minor" >/dev/null 2>&1; then
            apt_install "python3.$minor" "python3.$minor-venv" "python3.$minor-dev"
            return
        fi
    done
    die "there is no Python 3.$PYTHON_MIN_MINOR or newer, and this release has no package of one." \
        "Install one and run: PYTHON=/path/to/python3.$PYTHON_MIN_MINOR make ..."
}

parts_of_python() { # headers, venv and pip of the interpreter $1: Debian ships them apart
    local python=$1 packages=() name
    name=python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
        packages+=("$name-dev")
    "$python" -c 'import venv, ensurepip' 2>/dev/null || packages+=("$name-venv")
    [ ${#packages[@]} -gt 0 ] || return 0
    case $python in
        /usr/bin/*) apt_install "${packages[@]}" ;;
        *) die "$python lacks its headers or its venv module (${packages[*]})." \
            "Choose another: PYTHON=/usr/bin/python3 make ..." ;;
    esac
}

make_venv() {
    if [ -x "$VENV/bin/python" ] && works "$VENV/bin/python" && "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
        return
    fi
    find_python >/dev/null || install_python
    local python
    python=$(find_python) || die "Python was installed, but none that works was found."
    parts_of_python "$python"
    say "making ${VENV#"$ROOT"/} with $("$python" --version)"
    rm -rf "$VENV"
    "$python" -m venv "$VENV" || die "$python -m venv $VENV failed; its words are above."
}

build() {
    local what=. stamp=$VENV/.n2n-$mode wanted
    [ "$mode" = test ] && what=".[dev]"
    wanted=$(digest)
    if compgen -G 'src/n2n/_fastpath/*.so' >/dev/null; then
        # what the tests need includes what running needs
        for mark in "$stamp" "$VENV/.n2n-test"; do
            if [ "$(cat "$mark" 2>/dev/null)" = "$wanted" ]; then return; fi
        done
    fi
    compilers
    say "building n2n and installing what it needs (once; later runs are quick)"
    PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore \
        "$VENV/bin/python" -m pip install -q --editable "$what" </dev/null >&2 ||
        die "pip could not build or install n2n; its words are above."
    rm -f "$VENV"/.n2n-* # what they tell of is no longer what is built
    printf '%s\n' "$wanted" >"$stamp"
}

tools
make_venv
build
