#!/usr/bin/env bash
# Try a wheel of this machine's architecture in an empty environment of every Python 3.11+ there is,
# from outside this tree.
#
#     scripts/try_wheel.sh WHEEL
set -euo pipefail
. "$(dirname "$0")/lib.sh"
wheel=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
unset PYTHONPATH

mapfile -t pythons < <(all_pythons)
[ ${#pythons[@]} -gt 0 ] || die "no Python to try the wheel with was found"
cp "$ROOT/scripts/smoke.py" "$work/"
mkdir -p "$work/vectors"
cp "$ROOT"/tests/vectors/*.json "$work/vectors/"
cd "$work"
for python in "${pythons[@]}"; do
    say "the wheel in an empty environment of $("$python" --version)"
    rm -rf env
    "$python" -m venv env || die "$python cannot make a virtual environment"
    env/bin/python -m pip install -q "$wheel" </dev/null >&2 || die "the wheel could not be installed for $python"
    env/bin/python smoke.py vectors
    env/bin/n2n version
    if [ -z "${carried:-}" ] && [ "$(id -u)" = 0 ] && [ -c /dev/net/tun ] && have ip && have ping; then
        env/bin/n2n lab demo --duration 0.3 # and it carries traffic; once is enough
        carried=yes
    fi
done
say "wheel: ${wheel#"$ROOT"/}  (tried with ${#pythons[@]} Pythons)"
