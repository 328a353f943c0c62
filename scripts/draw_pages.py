"""Draws the pictures of the documentation site, each from a run of the built-in network on the drawn sample.

    python scripts/draw_pages.py             # docs/methods/*.webp with figures.json, and docs/pictures/*.svg
    python scripts/draw_pages.py concepts    # the latter alone
    python scripts/draw_pages.py methods     # the former alone

Needs the extras ``torch`` and ``evaluate``. The diagrams are drawn twice, for light pages and for dark ones.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import onnx
import onnxruntime
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from site_pages import DOCS, FIGURES

import masktool
from masktool import demo
from masktool.contract import FUNCTION_DOMAIN, MASK_INPUT, Preprocessing
from masktool.explainers.method import METHODS
from masktool.runtime.preprocessing import prepare

METHOD_PICTURES = DOCS / "methods"
DIAGRAMS = DOCS / "pictures"
PICTURE_WIDTH = 760
"""Of a method's picture in pixels: what a page shows."""
PICTURE_QUALITY = 88
"""Of WebP: a tenth of a PNG's size, and the text stays sharp."""
CELL = 8
"""Side of the squares that are hidden, in pixels of the network's input."""
FIRST, SECOND, THIRD = "#2f7fd6", "#e0662a", "#8d8d8d"
"""Colours of lines, which stand out on white and on black."""

Array = NDArray[np.float32]


class Theme(NamedTuple):
    """Colours of a diagram on a page of one kind: of text and lines, of what is missing, of what was filled in."""

    name: str
    ink: str
    missing: str
    filled: str
    kept: str


THEMES = (
    Theme("light", ink="#222222", missing="#dddddd", filled="#f6c9a8", kept="#cfe3f7"),
    Theme("dark", ink="#d8d8d8", missing="#3a3d42", filled="#8a4a22", kept="#24486b"),
)


class Sample(NamedTuple):
    """The drawn sample as the network gets it.

    Attributes:
        array: (1, 3, h, w) float32, the network's input.
        pixels: (h, w, 3) uint8, the same as a picture.
        preprocessing: that made it.
        target: index of its class.
    """

    array: Array
    pixels: NDArray[np.uint8]
    preprocessing: Preprocessing
    target: int


def read_sample(session: masktool.MaskedSession) -> Sample:
    """Reads the sample that the package ships."""
    preprocessing, labels = session.metadata.preprocessing, session.metadata.labels
    assert preprocessing is not None
    assert labels is not None
    prepared = prepare(Image.open(demo.sample_path()).convert("RGB"), preprocessing)
    array = prepared.array
    return Sample(array, to_pixels(array, preprocessing), preprocessing, labels.index(demo.sample_label()))


def to_pixels(array: Array, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Returns the picture (h, w, 3) that a network's input (1, 3, h, w) was."""
    mean, std = (np.reshape(each, (3, 1, 1)) for each in (preprocessing.mean, preprocessing.std))
    pixels = (array[0] * std + mean) * 255
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8).transpose(1, 2, 0)


def random_cells(size: tuple[int, int], kept: float, seed: int = 0) -> Array:
    """Returns a mask (1, h, w) that keeps a share of the cells, chosen at random."""
    rows, columns = (length // CELL for length in size)
    order = np.random.default_rng(seed).permutation(rows * columns).reshape(rows, columns)
    return np.kron(order < kept * order.size, np.ones((CELL, CELL))).astype(np.float32)[None]


def draw_methods(session: masktool.MaskedSession) -> None:
    """Explains the sample by every method that needs no file of its own, and writes the pictures and the costs."""
    figures = {}
    for name, method in METHODS.items():
        if method.outputs and not method.needs_head:
            continue
        model = demo_with_head(session) if method.needs_head or method.needs_feature_map else session
        explanation = masktool.explain(model, demo.sample_path(), method=name, target=demo.sample_label())
        with tempfile.TemporaryDirectory() as folder:
            (path,) = explanation.save(folder, formats=["png"])
            shrink(Image.open(path), METHOD_PICTURES / f"{name}.webp")
        figures[name] = {"forward_passes": explanation.forward_passes}
        print(name, figures[name], dict(explanation.quality), *explanation.notes, flush=True)
    FIGURES.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def demo_with_head(session: masktool.MaskedSession) -> masktool.MaskedSession:
    """Opens an export of the built-in network with a head, from the program that it was exported from."""
    known = session.metadata
    return masktool.load(
        demo.program_path(),
        "cpu",
        threads=1,
        head="last",
        preprocessing=known.preprocessing,
        labels=known.labels,
        output_kind=known.output_kind,
    )


def shrink(picture: Image.Image, path: Path) -> None:
    """Writes a picture in the width that a page needs, as a small file."""
    height = round(picture.height * PICTURE_WIDTH / picture.width)
    small = picture.convert("RGB").resize((PICTURE_WIDTH, height), Image.Resampling.LANCZOS)
    small.save(path, quality=PICTURE_QUALITY, method=6)


def show(axes: Axes, pixels: NDArray[np.uint8], title: str, theme: Theme, mask: Array | None = None) -> None:
    """Shows a picture; where a mask is 0, hatching."""
    axes.imshow(pixels, interpolation="nearest")
    if mask is not None:
        height, width = mask.shape[-2:]
        hidden = np.where(mask[0] < 1, 1.0, np.nan)
        axes.imshow(hidden, cmap=mpl.colors.ListedColormap([theme.missing]), interpolation="nearest")
        axes.contourf(
            np.arange(width), np.arange(height), 1 - mask[0], levels=[0.5, 2], colors="none", hatches=["//////"]
        )
    axes.set_title(title, color=theme.ink, fontsize=10)
    axes.axis("off")


def draw_mask(_: masktool.MaskedSession, sample: Sample, theme: Theme) -> Figure:
    """Draws a picture, a mask, and what a network with that mask may know."""
    figure, axes = plt.subplots(1, 3, figsize=(6.2, 2.4))
    mask = np.ones((1, *sample.pixels.shape[:2]), np.float32)
    height, width = mask.shape[1:]
    mask[:, height // 2 :, : width // 2] = 0
    show(axes[0], sample.pixels, "image", theme)
    axes[1].imshow(mask[0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes[1].set_title("mask", color=theme.ink, fontsize=10)
    axes[1].text(width * 0.75, height * 0.25, "1", color="black", ha="center", va="center", fontsize=13)
    axes[1].text(width * 0.25, height * 0.75, "0", color="white", ha="center", va="center", fontsize=13)
    axes[1].set(xticks=[], yticks=[])
    for spine in axes[1].spines.values():
        spine.set_color(theme.ink)
    show(axes[2], sample.pixels, "what may count", theme, mask)
    return figure


VALUES = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3], [5, 8, 9, 7, 9], [3, 2, 3, 8, 4], [6, 2, 6, 4, 3]], float)
KEPT = np.array([[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]], bool)
"""An activation map and its mask, for the diagram of one convolution."""


def fill_once(values: NDArray[np.float64], kept: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Returns a map and its mask after one round of the fill: missing places get the mean of their kept neighbours."""
    sums, counts = box_sum(np.where(kept, values, 0)), box_sum(kept.astype(float))
    return np.where(kept, values, np.divide(sums, counts, where=counts > 0, out=np.zeros_like(sums))), counts > 0


def box_sum(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the sum over each 3 x 3 window, zeros around the border."""
    padded = np.pad(values, 1)
    rows, columns = values.shape
    return sum((padded[y : y + rows, x : x + columns] for y in range(3) for x in range(3)), np.zeros_like(values))


def draw_layer(_: masktool.MaskedSession, __: Sample, theme: Theme) -> Figure:
    """Draws one 3 x 3 convolution behind layer masking: what is missing, the fill, and the new mask."""
    once, first = fill_once(VALUES, KEPT)
    twice, second = fill_once(once, first)
    reached = box_sum(KEPT.astype(float)) > 0
    output = box_sum(np.where(second, twice, 0)) / 9
    figure, axes = plt.subplots(1, 3, figsize=(6.2, 2.5))
    draw_grid(axes[0], VALUES, KEPT, KEPT, "known and missing", theme)
    draw_grid(axes[1], twice, KEPT, second, "filled, k - 1 rounds", theme)
    draw_grid(axes[2], output, reached, reached, "convolved, new mask", theme)
    return figure


def draw_grid(
    axes: Axes,
    values: NDArray[np.float64],
    kept: NDArray[np.bool_],
    known: NDArray[np.bool_],
    title: str,
    theme: Theme,
) -> None:
    """Draws a map as squares with numbers: kept, filled in, or missing."""
    for (row, column), value in np.ndenumerate(values):
        place = row, column
        colour = theme.kept if kept[place] else theme.filled if known[place] else theme.missing
        hatch = None if known[place] else "////"
        axes.add_patch(mpl.patches.Rectangle((column, row), 1, 1, facecolor=colour, edgecolor=theme.ink, hatch=hatch))
        if known[place]:
            text = f"{value:.1f}".removesuffix(".0")
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=9, color=theme.ink)
    axes.set(xlim=(-0.05, 5.05), ylim=(5.05, -0.05), aspect="equal")
    axes.axis("off")
    axes.set_title(title, color=theme.ink, fontsize=10)


MODES = (
    ("fill, black", {"masking": "fill", "baseline": "black"}),
    ("fill, mean", {"masking": "fill", "baseline": "mean"}),
    ("fill, blur", {"masking": "fill", "baseline": "blur"}),
    ("partial", {"masking": "partial"}),
    ("layer", {"masking": "layer"}),
)


def draw_modes(session: masktool.MaskedSession, sample: Sample, theme: Theme) -> Figure:
    """Draws half of the picture hidden in each mode, with what the network then says."""
    mask = random_cells(sample.pixels.shape[:2], kept=0.5)
    figure, axes = plt.subplots(2, 3, figsize=(6.2, 5.0))
    labels = session.metadata.labels
    assert labels is not None
    whole = session.scores(sample.array)[0]
    show(axes.flat[0], sample.pixels, f"nothing hidden\n{name_answer(whole, labels)}", theme)
    for place, (title, options) in zip(axes.flat[1:], MODES, strict=True):
        with masktool.load(
            demo.program_path(),
            preprocessing=sample.preprocessing,
            labels=labels,
            **options,  # type: ignore[arg-type]
        ) as masked:
            shown = f"{title}\n{name_answer(masked.scores(sample.array, mask[None])[0], labels)}"
            if masked.metadata.baseline is None:
                show(place, sample.pixels, shown, theme, mask)
            else:
                show(place, read_filled(Path(masked.path), sample, mask), shown, theme)
    return figure


def read_filled(path: Path, sample: Sample, mask: Array) -> NDArray[np.uint8]:
    """Returns what a file with fill masking puts into its network, as a picture: the value behind the fill."""
    model = onnx.load(path)
    (fill,) = (node for node in model.graph.node if node.domain == FUNCTION_DOMAIN and node.op_type.startswith("Fill"))
    model.graph.output.append(onnx.ValueInfoProto(name=fill.output[0]))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    image = session.get_inputs()[0].name
    (filled,) = session.run([fill.output[0]], {image: sample.array, MASK_INPUT: mask[None]})
    return to_pixels(filled, sample.preprocessing)


def name_answer(scores: Array, labels: tuple[str, ...]) -> str:
    """Returns the class with the highest score, and its probability."""
    return f"{labels[int(scores.argmax())]}, {scores.max():.2f}"


def draw_path(session: masktool.MaskedSession, sample: Sample, theme: Theme) -> Figure:
    """Draws the class's logit on the way from the mean colour to the picture, and its slope there."""
    shares = np.linspace(0, 1, 41, dtype=np.float32)
    images = shares[:, None, None, None] * sample.array
    found = session.gradient(images, target=sample.target, loss="logit")
    assert found.image is not None
    logits = found.objective
    slopes = (found.image * sample.array).sum(axis=(1, 2, 3))
    figure, axes = plt.subplots(figsize=(5.6, 2.9))
    axes.plot(shares, logits, color=FIRST, linewidth=2, label="logit of the class")
    near = shares[shares >= 0.75]
    axes.plot(near, logits[-1] + slopes[-1] * (near - 1), color=SECOND, linewidth=2, label="slope at the picture")
    style(axes, theme, "from the mean colour (0) to the picture (1)", "logit")
    return figure


def draw_deletion(session: masktool.MaskedSession, sample: Sample, theme: Theme) -> Figure:
    """Draws the class's probability while cells go, in the order of a map, of its reverse, and of chance."""
    size = sample.pixels.shape[:2]
    found = masktool.explain(session, demo.sample_path(), method="rise", target=demo.sample_label(), n_samples=1000)
    rows, columns = (length // CELL for length in size)
    cells = found.model_attributions.reshape(rows, CELL, columns, CELL).mean(axis=(1, 3)).ravel()
    chance = np.random.default_rng(0).permutation(cells.size)
    orders = {"most relied on first": np.argsort(-cells), "at random": chance, "least first": np.argsort(cells)}
    figure, axes = plt.subplots(figsize=(5.6, 2.9))
    for colour, (name, order) in zip((SECOND, THIRD, FIRST), orders.items(), strict=True):
        shares = np.linspace(0, 1, 21)
        masks = np.stack([remove(order, share, (rows, columns)) for share in shares])
        scores = session.scores(sample.array, masks)[:, sample.target]
        axes.plot(shares, scores, color=colour, linewidth=2, label=name)
    style(axes, theme, "share of the picture removed", f"probability of {demo.sample_label()}")
    return figure


def remove(order: NDArray[np.intp], share: float, cells: tuple[int, int]) -> Array:
    """Returns the mask (1, h, w) without the first cells of an order."""
    kept = np.ones(order.size)
    kept[order[: round(share * order.size)]] = 0
    return np.kron(kept.reshape(cells), np.ones((CELL, CELL))).astype(np.float32)[None]


def style(axes: Axes, theme: Theme, x: str, y: str) -> None:
    """Gives a chart the theme's colours, and its axes their names."""
    axes.set_xlabel(x, color=theme.ink)
    axes.set_ylabel(y, color=theme.ink)
    axes.tick_params(colors=theme.ink)
    for side, spine in axes.spines.items():
        spine.set_color(theme.ink)
        spine.set_visible(side in ("left", "bottom"))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False, labelcolor=theme.ink, fontsize=9)


DRAWINGS: dict[str, Callable[[masktool.MaskedSession, Sample, Theme], Figure]] = {
    "mask": draw_mask,
    "layer": draw_layer,
    "modes": draw_modes,
    "path": draw_path,
    "deletion": draw_deletion,
}


def draw_diagrams(session: masktool.MaskedSession) -> Iterator[Path]:
    """Draws every diagram for every theme, and yields the files."""
    sample = read_sample(session)
    mpl.rcParams.update({"svg.hashsalt": "masktool", "hatch.linewidth": 0.6})
    for name, draw in DRAWINGS.items():
        for theme in THEMES:
            mpl.rcParams["hatch.color"] = theme.ink
            figure = draw(session, sample, theme)
            figure.tight_layout()
            path = DIAGRAMS / f"{name}.{theme.name}.svg"
            figure.savefig(path, transparent=True, metadata={"Date": None})
            plt.close(figure)
            yield path


def main() -> None:
    """Draws what is asked for."""
    mpl.use("svg")
    DIAGRAMS.mkdir(exist_ok=True)
    with masktool.load(demo.model_path(), "cpu", threads=1, gradient=True) as session:
        if sys.argv[1:] != ["methods"]:
            for path in draw_diagrams(session):
                print(path.name, path.stat().st_size)
        if sys.argv[1:] != ["concepts"]:
            draw_methods(session)


if __name__ == "__main__":
    main()
