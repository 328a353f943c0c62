"""What a mask costs: one pass of the masked network against one of the plain one, on the CPU provider.

    python -m benchmarks.masked_forward --threads 1 -o masked_forward.json
    python -m benchmarks.masked_forward --network resnet50 --reference
    python -m benchmarks.masked_forward --network resnet50 --rules --threads 1
    python -m benchmarks.masked_forward --table masked_forward.json --into README.md

A network is a torchvision name, with random weights, or an ONNX file. Passes take turns; figures are of CPU time, which
on one thread is that of the pass alone, and of wall time, each with the lowest and highest of its rounds.
``--rules`` adds a masked pass under the cell rule against one under the published rule, these two in turn.
``--reference`` adds the same masking written plainly in torch (``tests/reference``), in a few rounds, for it takes
seconds.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx_ir as ir
import onnxruntime

import masktool
from benchmarks.pages import put_table
from benchmarks.torchvision_networks import import_torchvision_models
from masktool.contract import MASK_INPUT, SamplerRule
from masktool.exporters.sources import Source, load_source
from masktool.exporters.storage import Running, open_session
from masktool.interface.bench.machine import describe_machine, read_load
from masktool.interface.bench.passes import draw_masks
from masktool.interface.bench.spread import Call, clocks_of, divide_laps, take_turns

NETWORKS = (
    *("resnet18", "resnet50", "vgg16", "densenet121", "convnext_tiny", "squeezenet1_1"),
    *("mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0"),
)
REFERENCE_ROUNDS = 3
MARK = "benchmarks.masked_forward"


def open_network(name: str, size: int) -> tuple[Source, Any]:
    """Returns the source of a network, and its torch module, None for a file."""
    if Path(name).suffix == ".onnx":
        return load_source(name), None
    module = import_torchvision_models().get_model(name, weights=None).eval()
    return load_source(module, input_size=(size, size)), module


def reference_call(module: Any, images: np.ndarray, masks: np.ndarray, threads: int | None) -> Call:
    """Returns the call that runs the masking written plainly in torch."""
    import torch

    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from reference.layer_masking import MaskedReference

    if threads is not None:
        torch.set_num_threads(threads)
    tensors = torch.from_numpy(images), torch.from_numpy(masks)
    network = MaskedReference(module, tensors[0][:1], len(images))
    return lambda: network(*tensors)


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Returns what the passes of one network took, as JSON values."""
    source, module = open_network(name, options.size)
    with tempfile.TemporaryDirectory() as folder:
        paths = {kind: Path(folder) / f"{kind}.onnx" for kind in ("plain", "masked")}
        metadata = masktool.export(source, paths["masked"]).metadata
        paths["plain"].write_bytes(ir.to_proto(source.model).SerializeToString())
        running = Running(threads=options.threads or 0)
        plain, masked = (open_session(str(paths[kind]), running=running) for kind in ("plain", "masked"))
    (shape,) = [node.shape for node in masked.get_inputs() if node.name == metadata.image_input]
    batch = shape[0] if isinstance(shape[0], int) else options.batch
    lengths = [length if isinstance(length, int) else options.size for length in shape[1:]]
    images = np.random.default_rng(1).standard_normal((batch, *lengths)).astype(np.float32)
    height, width = lengths[1:] if metadata.layout == "NCHW" else lengths[:2]
    feed = {metadata.image_input: images}
    masks = {MASK_INPUT: draw_masks(batch, (height, width), np.float32)}
    calls: dict[str, Call] = {
        "plain": lambda: plain.run(None, feed),
        "masked": lambda: masked.run(None, feed | masks),
        "left_out": lambda: masked.run(None, feed),
    }
    found = summarise(calls, options.rounds)
    if options.rules:
        sessions = [open_under(rule, source, running) for rule in get_args(SamplerRule)]
        cell, published = (functools.partial(session.run, None, feed | masks) for session in sessions)
        found["cell / published"] = summarise({"published": published, "cell": cell}, options.rounds)["cell"]
    if options.reference and module is not None:
        torch_call = reference_call(module, images, masks[MASK_INPUT], options.threads)
        slow = summarise({"plain": calls["masked"], "reference": torch_call}, REFERENCE_ROUNDS)
        found["reference / masked"] = slow["reference"]
    return {"network": Path(name).stem, "batch": batch, "size": [height, width], **found}


def open_under(rule: SamplerRule, source: Source, running: Running) -> onnxruntime.InferenceSession:
    """Returns the session of a network masked under one rule of samplers narrower than their stride."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "masked.onnx"
        masktool.export(source, path, rule=rule)
        return open_session(str(path), running=running)


def summarise(calls: Mapping[str, Call], rounds: int) -> dict[str, Any]:
    """Returns the seconds of the first kind of call, and the ratios of the others to it, as JSON values."""
    laps = take_turns(calls, rounds)
    first = next(iter(calls))
    ratios = {name: divide_laps(each, laps[first]) for name, each in laps.items() if name != first}
    found: dict[str, Any] = json.loads(json.dumps({first: clocks_of(laps[first]), **ratios}, default=vars))
    return found


def write_table(report: Mapping[str, Any]) -> str:
    """Returns the table of a run in Markdown."""
    return "\n".join(lines_of(report))


def lines_of(report: Mapping[str, Any]) -> Iterator[str]:
    """Yields the lines of the table."""
    machine, threads = report["machine"], report["threads"]
    counted = "all threads" if threads is None else f"{threads} thread{'s' * (threads > 1)}"
    yield f"Times the plain pass, CPU time, medians of {report['rounds']} rounds (lowest to highest); {counted},"
    yield f"{machine['cpu']}, ONNX Runtime {report['runtime']}."
    yield ""
    yield "| network | batch | plain pass, ms an image | under masks | mask left out |"
    yield "|---|---|---|---|---|"
    for row in report["rows"]:
        seconds = row["plain"]["cpu"]["median"] / row["batch"]
        cells = [f"{1e3 * seconds:.1f}", *(show(row[kind]["cpu"]) for kind in ("masked", "left_out"))]
        yield f"| {row['network']} | {row['batch']} | " + " | ".join(cells) + " |"


def show(spread: Mapping[str, Any]) -> str:
    """Returns a ratio with its spread as text."""
    return f"{spread['median']:.2f} ({spread['lowest']:.2f} to {spread['highest']:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="append", help=f"may be repeated  [default: {', '.join(NETWORKS)}]")
    parser.add_argument("--batch", type=int, default=8, help="where the network leaves it open")
    parser.add_argument("--size", type=int, default=224, help="pixels a side, where the network leaves them open")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, help="[default: ONNX Runtime's choice]")
    parser.add_argument("--rules", action="store_true", help="add the cell rule against the published one")
    parser.add_argument("--reference", action="store_true", help="add the masking written plainly in torch")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for all figures")
    parser.add_argument("--table", type=Path, metavar="JSON", help="print the table of a run, and measure nothing")
    parser.add_argument("--into", type=Path, metavar="PAGE", help="put the table between the marks of a page")
    options = parser.parse_args()
    if options.table is not None:
        report = json.loads(options.table.read_text(encoding="utf-8"))
    else:
        report = {"machine": describe_machine(), "load": [read_load()], "rounds": options.rounds}
        report |= {"threads": options.threads, "runtime": onnxruntime.__version__, "rows": []}
        for name in options.network or NETWORKS:
            report["rows"].append(measure(name, options))
            print(json.dumps(report["rows"][-1]), file=sys.stderr, flush=True)
            report["load"].append(read_load())
            if options.output is not None:
                options.output.write_text(json.dumps(report, indent=1, default=vars) + "\n", encoding="utf-8")
    if options.into is None:
        print(write_table(report))
    else:
        put_table(options.into, MARK, write_table(report))


if __name__ == "__main__":
    main()
