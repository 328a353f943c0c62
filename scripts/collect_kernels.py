"""Writes masktool/exporters/kernels.json: which provider of ONNX Runtime has a kernel for which operator.

python scripts/collect_kernels.py --onnxruntime GIT COMMIT --tensorrt GIT COMMIT --cpu PYTHON --webgpu PYTHON

``GIT`` is a git directory of microsoft/onnxruntime, or of onnx/onnx-tensorrt, ``COMMIT`` the version to read.
``PYTHON`` is an interpreter with onnx and the package to ask: ``onnxruntime`` for the CPU, ``onnxruntime-webgpu``
with a Vulkan driver for WebGPU. What each source is, the file says; nothing in it comes from anywhere else.

An operator's kernels are told by the version in which ONNX last changed the operator (``since_version``), since ONNX
Runtime gives a node to a kernel of an open end (``12+``) only where the node is of that very version.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx

FILE = Path(__file__).resolve().parents[1] / "masktool" / "exporters" / "kernels.json"
PROBE = Path(__file__).resolve().with_name("probe_kernels.py")
TABLES = "docs/OperatorKernels.md"
COREML = "tools/ci_build/github/apple/coreml_supported_{}_ops.md"
TENSORRT = "docs/operators.md"
TENSORRT_TYPES = {
    "FP32": "float", "FP16": "float16", "BF16": "bfloat16", "INT8": "int8", "INT32": "int32", "INT64": "int64",
    "UINT8": "uint8", "BOOL": "bool",
}  # fmt: skip
DOMAINS = {"ai.onnx": "", "com.microsoft": "com.microsoft"}
"""The domains that are kept, by their names in the tables."""
OPEN_END = 2**31 - 1
"""What ONNX Runtime has for the last version of a kernel without an end."""

Kernel = tuple[int, int, dict[str, set[str]]]
"""The first and the last opset, and the element types by the name of the type constraint."""


def read(git: Path, commit: str, path: str) -> str:
    """Returns the text of a file of a repository at a commit."""
    return subprocess.run(
        ["git", f"--git-dir={git}", "show", f"{commit}:{path}"], check=True, capture_output=True, text=True
    ).stdout


def date_of(git: Path, commit: str) -> str:
    """Returns the date of a commit."""
    command = ["git", f"--git-dir={git}", "log", "-1", "--format=%cs", commit]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def split_rows(text: str) -> Iterator[list[str]]:
    """Yields the cells of each row of a Markdown table, without the outer bars."""
    for line in text.splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in line.strip().strip("|").split("|")]


def read_tables(text: str, provider: str) -> dict[str, list[Kernel]]:
    """Returns the kernels of one provider from ONNX Runtime's OperatorKernels.md, by ``domain::op_type``."""
    section = text.split(f"## Operators implemented by {provider}")[1].split("\n## ")[0]
    found: dict[str, list[Kernel]] = {}
    domain, operator = "", ""
    for line in section.splitlines():
        if not line.startswith("|"):
            continue
        cells = line.split("|")[1:-1]
        if "Operator Domain" in cells[0]:
            domain = re.findall(r"\*([\w.]+)\*$", cells[0])[0]
        elif len(cells) == 4 and (version := re.fullmatch(r"\[(\d+), (\d+)\]|(\d+)(\+?)", cells[2].strip())):
            operator = cells[0].strip() or operator
            if domain in DOMAINS:
                first, last, single, plus = version.groups()
                span = (int(first), int(last)) if first else (int(single), OPEN_END if plus else int(single))
                found.setdefault(f"{DOMAINS[domain]}::{operator}", []).append((*span, read_types(cells[3])))
    return found


def read_types(cell: str) -> dict[str, set[str]]:
    """Returns the tensors' element types by constraint of a cell ``**T** = tensor(float), ...<br/> **T1** = ...``."""
    parts = re.findall(r"\*\*([^*]+)\*\* = ([^<]*)", cell)
    return {name: set(re.findall(r"(?:^|[ ,])tensor\((\w+)\)", types)) for name, types in parts}


def ask(python: Path, what: str) -> dict[str, Any]:
    """Returns what the probe says when another interpreter runs it."""
    answer = subprocess.run([python, PROBE, what], check=True, capture_output=True, text=True).stdout
    document: dict[str, Any] = json.loads(answer)
    return document


def list_kernels(answer: Mapping[str, Any]) -> dict[str, list[Kernel]]:
    """Returns the kernels that a probe found, by ``domain::op_type``."""
    return {
        name: [(first, last, {key: set(types) for key, types in by_key.items()}) for first, last, by_key in kernels]
        for name, kernels in answer["kernels"].items()
    }


def by_version(name: str, kernels: Iterable[Kernel]) -> dict[int, list[dict[str, set[str]]]]:
    """Returns the types of an operator's kernels by the version of the operator that ONNX Runtime gives them."""
    domain, op_type = name.split("::")
    known = {
        each.since_version
        for each in onnx.defs.get_all_schemas_with_history()
        if (each.domain, each.name) == (domain, op_type)
    }
    found: dict[int, list[dict[str, set[str]]]] = {}
    for first, last, types in kernels:
        span = {first} if last == OPEN_END else {version for version in known if first <= version <= last} | {first}
        for version in span & known or {first}:
            found.setdefault(version, []).append(dict(types))
    return {version: merged(found[version]) for version in sorted(found)}


def united(kernels: Mapping[str, Iterable[Kernel]]) -> dict[str, list[Kernel]]:
    """Returns the kernels of single nodes with all types of a version in one: ONNX Runtime combines them freely."""
    result: dict[str, list[Kernel]] = {}
    for name, each in kernels.items():
        spans: dict[tuple[int, int], dict[str, set[str]]] = {}
        for first, last, types in each:
            for key, allowed in types.items():
                spans.setdefault((first, last), {}).setdefault(key, set()).update(allowed)
        result[name] = [(*span, types) for span, types in spans.items()]
    return result


def merged(kernels: list[dict[str, set[str]]]) -> list[dict[str, set[str]]]:
    """Returns kernels with those that differ in the types of a single constraint made one."""
    result: list[dict[str, set[str]]] = []
    for types in kernels:
        for other in result:
            differing = [key for key in types if other.get(key) != types[key]]
            if other.keys() == types.keys() and len(differing) <= 1:
                for key in differing:
                    other[key] = other[key] | types[key]
                break
        else:
            result.append(types)
    return result if len(result) == len(kernels) else merged(result)


def write_kernels(found: Mapping[str, Iterable[Kernel]]) -> dict[str, list[Any]]:
    """Returns kernels ready for JSON: for every operator [version, {constraint: types, ...}, ...], ..."""
    return {
        name: [
            [version, *({key: " ".join(sorted(types)) for key, types in sorted(each.items())} for each in kernels)]
            for version, kernels in by_version(name, found[name]).items()
        ]
        for name in sorted(found)
    }


def read_coreml(text: str) -> dict[str, Any]:
    """Returns the operators of a page of CoreML's, each with its note."""
    rows = (re.fullmatch(r"\|ai\.onnx[:.](\w+)\|(.*)\|", line) for line in text.splitlines())
    spelled = {"Argmax": "ArgMax"}
    return {
        f"::{spelled.get(row[1], row[1])}": re.sub(r"<br/>|\[|\]\([^)]*\)", " ", row[2]).strip() for row in rows if row
    }


def read_tensorrt(text: str) -> dict[str, Any]:
    """Returns the operators of TensorRT's page: their types and a note; null for one that it says is not supported."""
    found: dict[str, Any] = {}
    for cells in split_rows(text):
        if len(cells) < 2 or cells[1][:1] not in ("Y", "N"):
            continue
        types = (
            [TENSORRT_TYPES[name] for name in re.findall(r"\w+", cells[2]) if name in TENSORRT_TYPES]
            if len(cells) > 2
            else []
        )
        note = re.sub(r"<br ?/>|\\", " ", cells[3]).strip() if len(cells) > 3 else ""
        found[f"::{cells[0]}"] = [" ".join(types), note] if cells[1].startswith("Y") else None
    return found


def collect(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the document: what each provider's source is, and what it says."""
    git, commit = arguments.onnxruntime
    version = read(git, commit, "VERSION_NUMBER").strip()
    tables = read(git, commit, TABLES)
    repository = {"version": version, "commit": commit, "date": date_of(git, commit)}
    trt_git, trt_commit = arguments.tensorrt
    trt = read(trt_git, trt_commit, TENSORRT)
    trt_version, least, most = re.findall(r"TensorRT ([\d.]+) supports .*opset (\d+) to opset (\d+)", trt)[0]
    cpu, webgpu = ask(arguments.cpu, "listed"), ask(arguments.webgpu, "placed")
    providers = {
        "cpu": {
            "source": "get_all_opkernel_def() of the package onnxruntime",
            "version": cpu["version"],
            "kernels": write_kernels(list_kernels(cpu)),
        },
        "cuda": {
            "source": f"{TABLES} of microsoft/onnxruntime",
            **repository,
            "kernels": write_kernels(read_tables(tables, "CUDAExecutionProvider")),
        },
        "directml": {
            "source": f"{TABLES} of microsoft/onnxruntime",
            **repository,
            "kernels": write_kernels(read_tables(tables, "DmlExecutionProvider")),
        },
        "webgpu": {
            "source": "where the package onnxruntime-webgpu places single nodes",
            "version": webgpu["version"],
            "opset": webgpu["opset"],
            "types": webgpu["types"],
            "unknown": webgpu["unknown"],
            "kernels": write_kernels(united(list_kernels(webgpu))),
        },
        "tensorrt": {
            "source": f"{TENSORRT} of onnx/onnx-tensorrt",
            "version": trt_version,
            "commit": trt_commit,
            "date": date_of(trt_git, trt_commit),
            "opsets": [int(least), int(most)],
            "operators": read_tensorrt(trt),
        },
        "coreml": {
            "source": f"{COREML.format('mlprogram')} of microsoft/onnxruntime",
            **repository,
            "operators": read_coreml(read(git, commit, COREML.format("mlprogram"))),
        },
    }
    return {
        "collected": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "onnx": onnx.__version__,
        "opset": onnx.defs.onnx_opset_version(),
        "providers": providers,
    }


def render(document: Mapping[str, Any]) -> str:
    """Returns the document as JSON with a line for each operator, so that versions of the file can be compared."""
    text = json.dumps(document, indent=1, ensure_ascii=False)
    lines: list[str] = []
    for line in text.splitlines():
        depth = len(line) - len(line.lstrip())
        if depth > 4 or (depth == 4 and line.strip()[0] in "]}"):
            lines[-1] += (" " if lines[-1][-1] in ",:" else "") + line.strip()
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Collects the facts and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("onnxruntime", "tensorrt"):
        parser.add_argument(f"--{name}", nargs=2, required=True, metavar=("GIT", "COMMIT"))
    for name in ("cpu", "webgpu"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="PYTHON")
    FILE.write_text(render(collect(parser.parse_args())), encoding="utf-8")


if __name__ == "__main__":
    main()
