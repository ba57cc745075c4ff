#!/usr/bin/env bash
# Build the wheels to give away: one for every Python from 3.11 on and every Linux with glibc 2.17 or newer, for x86_64
# and for aarch64, with libcrypto inside. Needs no root where the tools are there; no container, no gcc.
#
#     scripts/wheels.sh [FOLDER]       leaves them in FOLDER (default: dist), tried
#
# The compiler is zig (from PyPI), which brings the headers and stubs of every glibc. libcrypto is Debian's static one,
# taken as a package whose signature apt checks, from a release that may be newer than this machine's.
#
# Environment: WHEEL_ARCHS ("x86_64 aarch64"); WHEEL_SUITE, the Debian release whose libcrypto goes in (trixie);
# WHEEL_MIRROR, where that is had (default: where this machine has its own Debian packages from).
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"
out=$(mkdir -p "${1:-dist}" && cd "${1:-dist}" && pwd)
work=$ROOT/build/wheels
archs=${WHEEL_ARCHS:-x86_64 aarch64}
suite=${WHEEL_SUITE:-trixie}
glibc=2.17 # of 2012; manylinux2014 of PEP 599, the oldest that there is for aarch64
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
unset PYTHONPATH

debian_name() { case $1 in x86_64) echo amd64 ;; aarch64) echo arm64 ;; *) die "no wheel is made for $1" ;; esac; }

tools() {
    local python
    if [ "$(uname -m)" = x86_64 ] && [[ " $archs " = *" aarch64 "* ]] && ! have qemu-aarch64-static; then
        apt_install qemu-user-static
    fi
    [ -e "$keyring" ] || apt_install debian-archive-keyring
    if [ ! -x "$work/tools/bin/auditwheel" ]; then
        say "fetching zig and what checks wheels (once)"
        python=$(find_python) || die "there is no Python 3.$PYTHON_MIN_MINOR or newer."
        rm -rf "$work/tools"
        "$python" -m venv "$work/tools" || die "$python -m venv failed; its words are above."
        "$work/tools/bin/python" -m pip install -q "ziglang>=0.14" "auditwheel>=6.2" "abi3audit>=0.0.20" "build>=1.2" \
            "setuptools>=77" "wheel>=0.45" "Cython>=3.2" </dev/null >&2 || die "pip could not install the tools."
    fi
}

# ---- Debian packages of another release or architecture, beside those of this machine ------------

mirrors() { # lines "URI suite": the release, and its security updates where this machine has those of its own
    if [ -n "${WHEEL_MIRROR:-}" ]; then
        echo "$WHEEL_MIRROR $suite"
        return
    fi
    apt-get indextargets --format '$(REPO_URI) $(LABEL)' 'Created-By: Packages' 'Origin: Debian' | sort -u |
        while read -r uri label; do
            case $label in
                Debian) echo "$uri $suite" ;;
                Debian-Security) echo "$uri $suite-security" ;;
            esac
        done
}

apt_of() { # apt_of COMMAND...: apt-get with lists of its own
    "$1" -q -o "Dir::Etc::sourcelist=$work/apt/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State=$work/apt/state" \
        -o "Dir::State::status=$work/apt/status" -o "Dir::Cache=$work/apt/cache" -o APT::Sandbox::User="$(id -un)" \
        -o APT::Architectures::=amd64 -o APT::Architectures::=arm64 "${@:2}"
}

apt_lists() {
    mkdir -p "$work/apt/state/lists/partial" "$work/apt/cache/archives/partial"
    : >"$work/apt/status"
    [ -z "${apt_ready:-}" ] || return 0
    if ! mirrors | grep -q . && [ -z "${WHEEL_MIRROR:-}" ] && have apt-get && [ "$(id -u)" = 0 ]; then
        apt-get -q update </dev/null >&2 || true # a fresh machine has no lists
    fi
    mirrors | sed "s|\(.*\) \(.*\)|deb [signed-by=$keyring] \1 \2 main|" >"$work/apt/sources.list"
    [ -s "$work/apt/sources.list" ] || die "this machine has no Debian packages from anywhere, so that there is no libcrypto to take." \
        "WHEEL_MIRROR=http://a-mirror-of-debian/debian scripts/wheels.sh"
    apt_of apt-get update </dev/null >"$work/apt/update.log" 2>&1 || die "apt-get update of Debian's $suite failed:" "$(tail -n 3 "$work/apt/update.log")" \
        "Another release: WHEEL_SUITE=bookworm scripts/wheels.sh"
    apt_ready=yes
}

unpack() { # unpack FOLDER PACKAGE...: the files of packages, not their scripts
    local folder=$1
    rm -rf "$folder" "$folder.debs"
    mkdir -p "$folder" "$folder.debs"
    (cd "$folder.debs" && apt_of apt-get download "${@:2}" </dev/null >"$folder.log" 2>&1) ||
        die "apt could not fetch ${*:2}:" "$(tail -n 3 "$folder.log")"
    for deb in "$folder.debs"/*.deb; do dpkg-deb -x "$deb" "$folder"; done
    rm -rf "$folder.debs"
}

# ---- building -----------------------------------------------------------------------------------

libcrypto() { # libcrypto ARCH: a folder for N2N_OPENSSL_PREFIX, and what else its objects want
    local arch=$1 deb prefix=$work/lib-$1 from=$work/deb-$1 headers
    deb=$(debian_name "$arch")
    apt_lists
    unpack "$from" "libssl-dev:$deb" "zlib1g-dev:$deb" "libzstd-dev:$deb"
    rm -rf "$prefix"
    mkdir -p "$prefix/include" "$prefix/lib"
    cp -r "$from/usr/include/openssl" "$prefix/include/"
    cp "$from/usr/include/$arch-linux-gnu/openssl/"* "$prefix/include/openssl/"
    cp "$from/usr/lib/$arch-linux-gnu/"lib{crypto,z,zstd}.a "$prefix/lib/"
    {
        echo "n2n's compiled extension contains libcrypto of OpenSSL, and what that uses of zlib and zstd, as Debian builds them."
        for name in libssl-dev zlib1g-dev libzstd-dev; do
            printf '\n======== %s\n\n' "$name"
            cat "$from/usr/share/doc/$name/copyright"
        done
        [ ! -e /usr/share/common-licenses/Apache-2.0 ] || { printf '\n======== Apache-2.0\n\n'; cat /usr/share/common-licenses/Apache-2.0; }
    } >"$prefix/LICENSE.libcrypto"
    # C compiled as C23 against glibc 2.38 and newer asks for this name of strtol, which differs in "0b..." only.
    cat >"$prefix/glibc.c" <<'C'
long strtol(const char *text, char **end, int base);
long __isoc23_strtol(const char *text, char **end, int base);
long __isoc23_strtol(const char *text, char **end, int base) { return strtol(text, end, base); }
C
    "$work/tools/bin/python" -m ziglang cc -target "$arch-linux-gnu.$glibc" -O2 -fPIC -c "$prefix/glibc.c" -o "$prefix/glibc.o"
    # Debian's pyconfig.h includes the one of the architecture that is compiled for, by name. With abi3 nothing in it matters
    # that differs between the two.
    headers=$("$work/tools/bin/python" -c 'import os, sys, sysconfig; print(os.path.dirname(sysconfig.get_path("include")), "python%d.%d" % sys.version_info[:2])')
    local name=${headers#* } base=${headers% *}
    if [ -e "$base/$(uname -m)-linux-gnu/$name/pyconfig.h" ]; then
        mkdir -p "$prefix/include/$arch-linux-gnu/$name"
        cp "$base/$(uname -m)-linux-gnu/$name/pyconfig.h" "$prefix/include/$arch-linux-gnu/$name/"
    fi
}

build_wheel() { # build_wheel ARCH SOURCE: leaves $made
    local arch=$1 source=$2 prefix=$work/lib-$1 tag=manylinux_${glibc/./_}_$1 found
    cp "$prefix/LICENSE.libcrypto" "$source/"
    # Nothing of libcrypto is visible from outside: Python's own ssl module has another one in the same process.
    echo '{ global: PyInit_*; local: *; };' >"$prefix/exports.map"
    rm -rf "$source/build" "$work/raw-$arch"
    (
        cd "$source"
        export CC="$work/tools/bin/python -m ziglang cc -target $arch-linux-gnu.$glibc"
        export N2N_OPENSSL_PREFIX=$prefix _PYTHON_HOST_PLATFORM=linux-$arch SETUPTOOLS_EXT_SUFFIX=.abi3.so
        export N2N_LDFLAGS="$prefix/glibc.o $prefix/lib/libz.a $prefix/lib/libzstd.a -Wl,--gc-sections -Wl,--version-script=$prefix/exports.map -s"
        unset N2N_ABI3 N2N_CFLAGS CFLAGS
        "$work/tools/bin/python" -m build --wheel --no-isolation --outdir "$work/raw-$arch" . </dev/null >"$work/build-$arch.log" 2>&1
    ) || { tail -n 40 "$work/build-$arch.log" >&2; die "the wheel for $arch could not be built; the last lines are above."; }
    found=$("$work/tools/bin/auditwheel" -v show "$work/raw-$arch"/n2n-*.whl 2>"$work/audit-$arch.log") || die "auditwheel failed: $(cat "$work/audit-$arch.log")"
    grep -q "\"$tag\"" <<<"$found" || die "the wheel for $arch is not $tag:" "$found"
    made=$out/$("$work/tools/bin/python" -m wheel tags --platform-tag "$tag" "$work/raw-$arch"/n2n-*.whl | tail -n 1)
    mv "$work/raw-$arch/$(basename "$made")" "$made"
    "$work/tools/bin/abi3audit" --strict "$made" >"$work/audit-$arch.log" 2>&1 || die "abi3audit: $(cat "$work/audit-$arch.log")"
}

# ---- trying it where it is not at home ----------------------------------------------------------

try_aarch64() { # with the Python of $suite, under emulation: the extension, every module, the vectors
    local root=$work/root-aarch64 python packages=() name
    have qemu-aarch64-static || die "qemu-aarch64-static is missing: apt-get install -y qemu-user-static"
    say "the wheel for aarch64 under emulation"
    python=$(apt_of apt-cache depends --important python3-minimal:arm64 |
        sed -n 's/.*Depends: \(python3\.[0-9]*\)-minimal.*/\1/p' | head -n 1)
    [ -n "$python" ] || die "Debian's $suite has no python3 for arm64"
    for name in "$python-minimal" "lib$python-minimal" "lib$python-stdlib" libc6 libgcc-s1 libexpat1 zlib1g libffi8 libsqlite3-0 \
        libzstd1; do
        packages+=("$name:arm64")
    done
    unpack "$root" "${packages[@]}"
    [ -e "$root/lib" ] || ln -s usr/lib "$root/lib"
    rm -rf "$work/aarch64"
    mkdir -p "$work/aarch64"
    "$work/tools/bin/python" -m pip install -q --target "$work/aarch64/site-packages" --platform manylinux_2_17_aarch64 \
        --platform manylinux2014_aarch64 --platform manylinux_2_28_aarch64 --python-version "${python#python}" \
        --only-binary=:all: "$1" </dev/null >&2 || die "the wheel's dependencies for aarch64 could not be had"
    (cd "$work/aarch64" && PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$PWD/site-packages \
        qemu-aarch64-static -L "$root" "$root/usr/bin/$python" "$ROOT/scripts/smoke.py" "$ROOT/tests/vectors")
}

# ---- all of it ----------------------------------------------------------------------------------

have apt-get && have dpkg-deb || die "apt-get and dpkg-deb are needed: libcrypto comes from a package of Debian."
mkdir -p "$work"
tools
say "the source, packed and unpacked"
rm -rf "$work/sdist" && mkdir -p "$work/sdist"
"$work/tools/bin/python" -m build --sdist --no-isolation --outdir "$work/sdist" . </dev/null >"$work/sdist.log" 2>&1 ||
    die "the sdist could not be built: $(tail -n 5 "$work/sdist.log")"
tar -C "$work/sdist" -xzf "$work/sdist"/n2n-*.tar.gz
source=$(echo "$work"/sdist/n2n-*/)
rm -f "$out"/n2n-*manylinux*.whl
for arch in $archs; do
    say "the wheel for $arch, with libcrypto of Debian's $suite"
    libcrypto "$arch"
    build_wheel "$arch" "$source"
    "$work/tools/bin/python" scripts/check_dist.py "$work/sdist"/n2n-*.tar.gz "$made"
    if [ "$arch" = "$(uname -m)" ]; then
        bash scripts/try_wheel.sh "$made"
    elif [ "$arch" = aarch64 ]; then
        try_aarch64 "$made"
    else
        say "not tried: this machine is no $arch"
    fi
done
say "done in $SECONDS s:"
ls -l "$out"/n2n-*manylinux*.whl >&2
