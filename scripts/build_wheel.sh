#!/usr/bin/env bash
# Builds the wheel into a folder; the same commit gives the same bytes, since files are dated by that commit.
set -euo pipefail
cd "$(dirname "$0")/.."
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
${PYTHON:-python3} -m pip wheel -q --no-deps -w "${1:-dist}" .
