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

ran=" "
for python in python3.1{1,2,3,4} "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.*/bin/python3; do
    version=$("$python" -c 'import ensurepip, sys; print("%d.%d" % sys.version_info[:2])' 2> /dev/null) || continue
    case "$version" in 3.[0-9] | 3.10) continue ;; esac
    [[ "$ran" != *" $version "* ]] || continue
    "$python" -m venv "$work/$version"
    "$work/$version/bin/pip" install -q -c "$here/constraints.txt" "$wheel"
    (cd "$work" && "$version/bin/masktool" demo --samples 100 -o "demo-$version" > "$version.txt" 2>&1) || { cat "$work/$version.txt"; exit 1; }
    test -s "$work/demo-$version/sample.lime.png"
    ran="$ran$version "
done
echo "the wheel runs the demo on Python$ran"
[ "$ran" != " " ] || { echo "no Python from 3.11 with venv is here"; exit 1; }
