"""The compiler of C# and the runtime of .NET Core 3.1, which npm carries: see scripts/fetch_runtimes.sh."""

import ctypes.util
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from examples.programs import run

CSHARP_8 = {
    r"\(static (\w+ =>)": r"(\1",
    r"(\S+) (\w+) = new\(": r"\1 \2 = new \1(",
    r"\((\S+) is not (\w+)\)": r"(!(\1 is \2))",
}
"""Forms of C# 9 that stand in ONNX Runtime's sources, as regular expressions, and the same in C# 8."""
OPENSSL = "libssl.so.3"
OLD_NAMES = Path(__file__).with_name("openssl_old_names.c")


class Dotnet:
    """The compiler and the runtime.

    Args:
        sdk: the folder that holds them.
        folder: where files that they need are written.
    """

    def __init__(self, sdk, folder):
        self.sdk = sdk
        self.folder = folder
        self.configuration = folder / "runtimeconfig.json"
        options = {
            "framework": {"name": "Microsoft.NETCore.App", "version": "3.1.0"},
            "configProperties": {"System.Globalization.Invariant": True},  # else it asks for an ICU of its time
        }
        self.configuration.write_text(json.dumps({"runtimeOptions": options}), encoding="utf-8")

    def command(self, assembly):
        """Returns the command that runs an assembly."""
        return [self.sdk / "dotnet", "exec", "--runtimeconfig", self.configuration, assembly]

    def compile(self, sources, assembly, *options):
        """Compiles sources to an assembly; a failure shows what the compiler said."""
        (compiler,) = self.sdk.glob("sdk/*/Roslyn/bincore/csc.dll")
        references = [f"-reference:{path}" for path in self.sdk.glob("packs/*/*/ref/*/*.dll")]
        arguments = ["-nologo", "-noconfig", "-nostdlib", *references, *options, f"-out:{assembly}", *sources]
        library = build_openssl(self.folder)
        environment = {
            **os.environ,
            "CLR_OPENSSL_VERSION_OVERRIDE": library.name.removeprefix("libssl.so."),
            "LD_LIBRARY_PATH": str(library.parent),
        }
        done = run(self.command(compiler), *arguments, folder=self.folder, environment=environment)
        assert done.returncode == 0, done.stdout + done.stderr


def build_openssl(folder):
    """Builds OpenSSL 3 with the names of OpenSSL 1.1 that .NET Core 3.1 wants, and returns the library's path."""
    path = folder / "libssl.so.old_names"
    if not path.exists():
        compiler = shutil.which("gcc") or shutil.which("clang")
        if compiler is None or ctypes.util.find_library("ssl") != OPENSSL:
            pytest.skip("the compiler of C# needs a C compiler and OpenSSL 3")
        libraries = [f"-l:{OPENSSL}", "-l:libcrypto.so.3"]
        done = run([compiler], "-shared", "-fPIC", OLD_NAMES, *libraries, "-o", path, folder=folder)
        assert done.returncode == 0, done.stderr
    return path


def write_as_csharp_8(sources, folder):
    """Writes copies of sources in the C# that the compiler takes, and returns their paths."""
    written = []
    for source in sorted(sources.rglob("*.cs")):
        text = source.read_text(encoding="utf-8-sig")
        for newer, older in CSHARP_8.items():
            text = re.sub(newer, older, text)
        path = folder / source.relative_to(sources)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written
