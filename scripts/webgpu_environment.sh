#!/usr/bin/env bash
# Makes an environment with ONNX Runtime's WebGPU provider and a Vulkan driver in software, which needs no GPU:
#     scripts/webgpu_environment.sh FOLDER && FOLDER/run pytest -n 0 -m webgpu tests/webgpu
# FOLDER/run runs a program there. Where something cannot be had, it is said and there is no FOLDER/run.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "${1:?which folder?}"
folder=$(cd "$1" && pwd)
rm -f "$folder/run"

give_up() {
    echo "no WebGPU here: $1"
    exit 0
}

# SwiftShader, the driver, and Vulkan's loader lie in every build of Chromium. Of a downloaded package they alone are kept.
collect_driver() {
    local found
    for found in "$@"; do
        if [ -e "$found/libvk_swiftshader.so" ] && [ -e "$found/libvulkan.so.1" ]; then
            mkdir -p "$folder/vulkan"
            cp "$found"/{libvk_swiftshader.so,libvulkan.so.1,vk_swiftshader_icd.json} "$folder/vulkan"
            return 0
        fi
    done
    return 1
}
download_driver() {
    command -v apt-get > /dev/null && command -v dpkg-deb > /dev/null || return 1
    local unpacked
    unpacked=$(mktemp -d)
    (cd "$unpacked" && apt-get download -qq chromium-common && dpkg-deb --extract chromium-common_*.deb .) > /dev/null 2>&1 &&
        collect_driver "$unpacked/usr/lib/chromium"
    local status=$?
    rm -rf "$unpacked"
    return $status
}
[ -e "$folder/vulkan/vk_swiftshader_icd.json" ] ||
    collect_driver /usr/lib/chromium{,-browser} /opt/google/chrome ~/.cache/ms-playwright/chromium-*/chrome-linux* ||
    download_driver ||
    give_up "neither is Chromium installed, with SwiftShader inside, nor can apt-get download it"

# masktool with its dependencies, but onnxruntime-webgpu in place of the other package that imports as onnxruntime
[ -x "$folder/bin/python" ] || python3 -m venv "$folder" || give_up "python3 -m venv fails"
mapfile -t dependencies < <("$folder/bin/python" - "$here/pyproject.toml" << 'END'
import sys, tomllib
for each in tomllib.load(open(sys.argv[1], "rb"))["project"]["dependencies"]:
    if not each.startswith("onnxruntime"):
        print(each)
END
)
"$folder/bin/pip" install -q -c "$here/constraints.txt" "${dependencies[@]}" onnxruntime-webgpu pytest pytest-xdist ||
    give_up "pip has no onnxruntime-webgpu for this machine"
"$folder/bin/pip" install -q --no-deps -e "$here"

mkdir -p -m 700 "$folder/runtime"
cat > "$folder/run" << END
#!/bin/sh
# Runs a program of this environment, with SwiftShader as the only Vulkan driver.
export VK_ICD_FILENAMES="$folder/vulkan/vk_swiftshader_icd.json" VK_DRIVER_FILES="$folder/vulkan/vk_swiftshader_icd.json"
export LD_LIBRARY_PATH="$folder/vulkan\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}" XDG_RUNTIME_DIR="$folder/runtime"
export PATH="$folder/bin:\$PATH"
exec "\$@"
END
chmod +x "$folder/run"

opens="import masktool, masktool.demo as demo; masktool.load(demo.model_path(), providers='WebGpuExecutionProvider')"
reason=$("$folder/run" python -c "$opens" 2>&1) || {
    rm "$folder/run"
    give_up "$(tail -n 1 <<< "$reason")"
}
