#!/usr/bin/env bash
# Makes the environments in which tests/engines runs other engines: Ray, MLflow and Spark beside masktool, and Beam alone.
#     scripts/engines_environment.sh FOLDER && FOLDER/bin/pytest -n 0 -m engines tests/engines
# Spark needs Java 17 or later; without it, its tests are skipped and say so.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "${1:?which folder?}"
folder=$(cd "$1" && pwd)

# constraints.txt, with the versions of another file in place of its own
constrain() {
    local names
    names=$(sed -nE 's/^([A-Za-z0-9_.-]+)==.*/\1/p' "$here/$1" | paste -sd '|')
    grep -viE "^($names)==" "$here/constraints.txt" | cat - "$here/$1"
}
constrain constraints-engines.txt > "$folder/constraints.txt"
constrain constraints-beam.txt > "$folder/constraints-beam.txt"

[ -x "$folder/bin/python" ] || python3 -m venv "$folder"
"$folder/bin/pip" install -q -c "$folder/constraints.txt" -e "$here[ray]" mlflow pyspark pytest pytest-xdist
[ -x "$folder/beam/bin/python" ] || python3 -m venv "$folder/beam"
"$folder/beam/bin/pip" install -q -c "$folder/constraints-beam.txt" apache-beam onnx onnxruntime
