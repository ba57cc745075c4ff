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
