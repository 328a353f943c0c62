#!/usr/bin/env bash
# Builds the wheel twice, looks into it, and runs the demo from it on every Python from 3.11 that is here.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
[ -z "$(git -C "$here" status --porcelain)" ] || { echo "commit first: the second wheel is built from a clone"; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$here/scripts/build_wheel.sh" "$work/first"
git clone --quiet "$here" "$work/again"
"$work/again/scripts/build_wheel.sh" "$work/second"
cmp "$work"/first/*.whl "$work"/second/*.whl
wheel=$(echo "$work"/first/*.whl)

python3 -m venv "$work/twine"
"$work/twine/bin/pip" install -q -c "$here/constraints.txt" twine
"$work/twine/bin/twine" check --strict "$wheel"

# exactly the package's own files that git knows, and what the format adds
"$work/twine/bin/python" -m zipfile -l "$wheel" | awk 'NR > 1 {print $1}' | grep -v '\.dist-info/' | sort > "$work/held"
git -C "$here" ls-files masktool | sort > "$work/known"
diff "$work/known" "$work/held"

ran=0
for minor in 11 12 13 14; do
    python=$(command -v "python3.$minor" || true)
    { [ -n "$python" ] && "$python" -c 'import venv, ensurepip'; } 2>/dev/null || continue
    "$python" -m venv "$work/3.$minor"
    "$work/3.$minor/bin/pip" install -q -c "$here/constraints.txt" "$wheel"
    (cd "$work" && "3.$minor/bin/masktool" demo --samples 100 -o "demo-3.$minor" > /dev/null)
    test -s "$work/demo-3.$minor/sample.lime.png"
    echo "demo on $("$python" --version): right"
    ran=$((ran + 1))
done
[ "$ran" -gt 0 ] || { echo "no Python from 3.11 with venv is here"; exit 1; }
