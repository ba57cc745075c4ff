#!/usr/bin/env bash
# Build a Debian package from the wheel: n2n and all Python packages it needs, in /usr/lib/n2n, and the commands in
# /usr/bin. It fits the release it is built on (its python3), and is called n2n-vpn: Debian has another n2n.
#
#     scripts/deb.sh [FOLDER]      leaves it in FOLDER (default: dist); takes the wheel of `make wheels` there, or makes it
#
# Environment: PYTHON (/usr/bin/python3), the interpreter that the package is for.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"
out=$(mkdir -p "${1:-dist}" && cd "${1:-dist}" && pwd)
python=${PYTHON:-/usr/bin/python3}
arch=$(uname -m)
root=$ROOT/build/deb/root
home=usr/lib/n2n
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
unset PYTHONPATH

have dpkg-deb || die "dpkg-deb is missing: this makes packages for Debian and Ubuntu, on one of them."
works "$python" || die "$python does not start, or is older than 3.$PYTHON_MIN_MINOR: there is no package for this release."
wheel=$(find "$out" -name "n2n-*-manylinux*_$arch.whl" | sort | tail -n 1)
if [ -z "$wheel" ]; then
    WHEEL_ARCHS=$arch bash scripts/wheels.sh "$out"
    wheel=$(find "$out" -name "n2n-*-manylinux*_$arch.whl" | sort | tail -n 1)
fi
version=$(basename "$wheel" | cut -d- -f2)
read -r minor next < <("$python" -c 'import sys; print("3.%d 3.%d" % (sys.version_info[1], sys.version_info[1] + 1))')

say "the tree of the package, for Python $minor"
rm -rf "$ROOT/build/deb"
mkdir -p "$root/DEBIAN" "$root/usr/bin" "$root/usr/share/doc/n2n-vpn"
"$python" -m venv --without-pip "$root/$home"
# pip of another environment: Debian ships pip and venv's copy of it apart.
"$VENV/bin/python" -m pip --python "$root/$home/bin/python" install -q "$wheel" </dev/null >&2 ||
    die "the wheel or what it needs could not be installed; pip's words are above."
cp scripts/smoke.py "$ROOT/build/deb/"
(cd "$ROOT/build/deb" && "$root/$home/bin/python" smoke.py "$ROOT/tests/vectors")

# Made for its place: the interpreter is the system's, and no file names the folder it was built in.
find "$root/$home/bin" -type f ! -name 'n2n*' -delete
rm -rf "$root/$home/lib64" "$root/$home/include"
sed -i "1s|^#!.*|#!/$home/bin/python|" "$root/$home"/bin/n2n*
printf 'home = /usr/bin\ninclude-system-site-packages = false\nversion = %s\n' "$minor" >"$root/$home/pyvenv.cfg"
ln -sfn "/usr/bin/python$minor" "$root/$home/bin/python"
find "$root/$home" -name direct_url.json -delete
find "$root/$home/bin" -type l ! -name python -delete
for script in "$root/$home"/bin/n2n*; do ln -s "/$home/bin/$(basename "$script")" "$root/usr/bin/"; done
find "$root/$home" -name __pycache__ -prune -exec rm -rf {} +
"$python" -m compileall -q --invalidation-mode unchecked-hash -s "$root" "$root/$home/lib" ||
    die "some module does not compile for Python $minor"
cp LICENSE "$root/usr/share/doc/n2n-vpn/copyright"
cp -r configs "$root/usr/share/doc/n2n-vpn/examples"
left=$(grep -rlF "$ROOT" "$root" || true)
[ -z "$left" ] || die "these name the folder they were built in:" "$left"

cat >"$root/DEBIAN/control" <<EOF
Package: n2n-vpn
Version: $version+py$minor
Architecture: $(dpkg --print-architecture)
Maintainer: the developers of n2n <n2n@localhost>
Installed-Size: $(du -sk "$root/usr" | cut -f1)
Depends: python3 (>= $minor~), python3 (<< $next~), libc6 (>= 2.17), libzstd1
Suggests: libipsec-mb1
Section: net
Priority: optional
Description: layer-2 peer-to-peer VPN
 Computers behind NATs and firewalls on one virtual Ethernet: edges carry frames to each other directly where they can,
 and through a supernode where they cannot.
EOF
package=$out/n2n-vpn_${version}+py${minor}_$(dpkg --print-architecture).deb
chmod -R u=rwX,go=rX "$root"
dpkg-deb --root-owner-group --build "$root" "$package" >&2
say "package: ${package#"$ROOT"/}  (try it: apt-get install $package)"
