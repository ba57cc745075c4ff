# Shared by the scripts beside this file; source it, do not run it.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${N2N_VENV:-$ROOT/.venv}
PYTHON_MIN_MINOR=11 # python 3.11, as pyproject.toml says
APT_LOCK_WAIT=540   # seconds to wait while another apt holds the lock

say() { printf '==> %s\n' "$*" >&2; }
die() {
    printf '\nn2n: %s\n' "$1" >&2
    shift
    for line in "$@"; do printf '     %s\n' "$line" >&2; done
    exit 1
}
have() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1; }

# works PYTHON: it starts (a pyenv shim may not) and is new enough
works() {
    "$1" -c "import sys; sys.exit(sys.version_info < (3, $PYTHON_MIN_MINOR))" >/dev/null 2>&1
}

# find_python: print the newest interpreter on PATH that works; status 1 where there is none
find_python() {
    local name
    if [ -n "${PYTHON:-}" ]; then
        works "$PYTHON" || die "PYTHON=$PYTHON does not start, or is older than 3.$PYTHON_MIN_MINOR"
        command -v "$PYTHON"
        return
    fi
    for name in python3.14 python3.13 python3.12 python3.11 python3 /usr/bin/python3; do
        if works "$name"; then
            "$name" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    return 1
}

# all_pythons: every interpreter that works, one for each minor version (those of pyenv too), newest first
all_pythons() {
    local minor name
    for minor in 15 14 13 12 11; do
        for name in "python3.$minor" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"3.$minor".*/bin/python3; do
            if works "$name" && [ "$("$name" -c 'import sys; print(sys.version_info[1])')" = "$minor" ]; then
                "$name" -c 'import sys; print(sys.executable)'
                break
            fi
        done
    done
}

# apt_install PACKAGE...: as root, with apt; refreshes the lists only where that is needed
apt_install() {
    have apt-get || die "these are missing, and there is no apt-get to install them: $*" \
        "Install them with this system's package manager and run the same command again."
    [ "$(id -u)" = 0 ] || die "these packages are missing: $*" "apt-get install -y $*    (as root), and run the same command again."
    say "installing: $*"
    local apt=(apt-get -q -o "DPkg::Lock::Timeout=$APT_LOCK_WAIT")
    export DEBIAN_FRONTEND=noninteractive
    if compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null &&
        "${apt[@]}" install -y --no-install-recommends "$@" </dev/null >&2; then
        return
    fi
    "${apt[@]}" update </dev/null >&2 || say "apt-get update failed; trying with the lists there are"
    "${apt[@]}" install -y --no-install-recommends "$@" </dev/null >&2 ||
        die "apt-get could not install: $*" "Its own words are above."
}

need_root() {
    [ "$(id -u)" = 0 ] || die "'make $1' needs root: it makes network namespaces and TAP devices." \
        "sudo make $1" "(Without root, 'make check' runs everything that needs none.)"
}

# what network namespaces and TAP devices need of the machine
need_network() {
    if [ ! -c /dev/net/tun ]; then
        if have modprobe; then modprobe tun >/dev/null 2>&1 || true; fi
    fi
    [ -c /dev/net/tun ] || die "/dev/net/tun is missing: this kernel or container offers no TAP devices." \
        "On a machine: modprobe tun.   In a container: start it with --device /dev/net/tun --cap-add NET_ADMIN --cap-add SYS_ADMIN."
    (exec 3<>/dev/net/tun) 2>/dev/null || die "/dev/net/tun cannot be opened, although this is root." \
        "In a container: start it with --device /dev/net/tun --cap-add NET_ADMIN."
    local probe="n2n-probe-$$"
    PATH="$PATH:/usr/sbin:/sbin" ip netns add "$probe" 2>/dev/null || die "network namespaces cannot be made here ('ip netns add' fails)." \
        "In a container: start it with --cap-add SYS_ADMIN --cap-add NET_ADMIN --security-opt apparmor=unconfined."
    local exec_works=yes # in a chroot that is no mount point, making one works and entering it does not
    PATH="$PATH:/usr/sbin:/sbin" ip netns exec "$probe" true 2>/dev/null || exec_works=
    PATH="$PATH:/usr/sbin:/sbin" ip netns del "$probe"
    [ -n "$exec_works" ] || die "network namespaces cannot be entered here ('ip netns exec' fails)." \
        "In a chroot: its root has to be a mount point (mount --bind FOLDER FOLDER, before chroot FOLDER)."
}
