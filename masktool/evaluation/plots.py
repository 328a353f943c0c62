"""Charts as PNG: lines with intervals as bands, bars with intervals as whiskers. The same chart gives the same bytes.

Lines differ in colour, marker and dash, so that they can be told apart without colours. The colours are those of Okabe
and Ito, but for the yellow, which is too light on white.

Source: Okabe and Ito, "Color Universal Design", 2008, https://jfly.uni-koeln.de/color/
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from masktool.evaluation.findings import Chart, Line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":")
DPI = 150
WIDTH = 7.5
HEIGHT = 4.5
"""Height in inches of the axes and their labels; the legend stands beside them."""
MANY_LINES = 10
"""Lines of a chart beyond which it becomes wider."""
MORE_WIDTH = 2.5
WIDEST = 16.0
"""Greatest width in inches; more bars become thinner instead."""
BAR_INCHES = 0.22
BAND_OPACITY = 0.15
BESIDE = 0.012
"""By how much of its position a line stands beside the next, so that whiskers do not cover each other."""
GROUP_SHARE = 0.8
"""Share of the distance between two groups of bars that the bars take."""
LONG_NAMES = 40
"""Characters of all bars' names together from which they stand on end."""
METADATA = {"Software": None}
"""Metadata of the PNG: matplotlib's version is left out, so that it does not change the bytes."""


def draw_chart(chart: Chart) -> bytes:
    """Returns a chart as a PNG file; undefined figures leave a gap.

    Args:
        chart: chart whose lines have as many values as it has positions.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.style import context

    with context("default"):  # whatever a user's matplotlibrc says
        figure = Figure(figsize=(choose_width(chart), HEIGHT), dpi=DPI, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        (draw_bars if chart.kind == "bar" else draw_lines)(axes, chart)
        axes.set_title(plain(chart.title), wrap=True)
        axes.set_xlabel(plain(chart.x_label))
        axes.set_ylabel(plain(chart.y_label))
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
        axes.margins(x=0.02)
        axes.spines[["top", "right"]].set_visible(False)
        if len(chart.lines) > 1:
            figure.legend(loc="outside right upper", frameon=False)
        stream = io.BytesIO()
        canvas.print_png(stream, metadata=METADATA)
    return stream.getvalue()


def choose_width(chart: Chart) -> float:
    """Returns the figure's width in inches: many bars need room."""
    if chart.kind == "line":
        return WIDTH + (MORE_WIDTH if len(chart.lines) > MANY_LINES else 0)
    return min(max(WIDTH, 2 + BAR_INCHES * len(chart.x) * (len(chart.lines) + 1)), WIDEST)


def draw_lines(axes: Axes, chart: Chart) -> None:
    """Draws one line with markers and a band per line; positions that are names are evenly spaced."""
    words = any(isinstance(x, str) for x in chart.x)
    x = np.arange(len(chart.x)) if words else np.array(chart.x, np.float64)
    for number, line in enumerate(chart.lines):
        values, low, high = figures_of(line)
        if line.x is not None:
            draw_own_line(axes, line, number, len(chart.lines))
            continue
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        dash = DASHES[number // len(COLOURS) % len(DASHES)]
        axes.fill_between(x, low, high, color=colour, alpha=BAND_OPACITY, linewidth=0)
        axes.plot(x, values, dash, color=colour, marker=marker, markersize=4, linewidth=1.5, label=plain(line.label))
    if chart.scale == "log":
        axes.set_xscale("log")
        axes.set_xticks(x, [f"{each:,g}" for each in x])
        axes.minorticks_off()
    if words:
        name_positions(axes, [str(name) for name in chart.x])


def draw_own_line(axes: Axes, line: Line, number: int, count: int) -> None:
    """Draws a line at its own positions, with whiskers, a little beside those of the other lines."""
    values, low, high = figures_of(line)
    beside = (1 + BESIDE) ** (number - (count - 1) / 2)
    x = np.array(line.x, np.float64) * beside
    axes.errorbar(
        x,
        values,
        np.abs([values - low, high - values]),
        linestyle=DASHES[number // len(COLOURS) % len(DASHES)],
        color=COLOURS[number % len(COLOURS)],
        marker=MARKERS[number // len(COLOURS) * 3 % len(MARKERS)],
        markersize=5,
        linewidth=1.2,
        elinewidth=0.8,
        capsize=2,
        label=plain(line.label),
    )


def draw_bars(axes: Axes, chart: Chart) -> None:
    """Draws one group of bars per position and one bar in it per line."""
    x = np.arange(len(chart.x))
    width = GROUP_SHARE / max(len(chart.lines), 1)
    for number, line in enumerate(chart.lines):
        values, low, high = figures_of(line)
        offset = (number - (len(chart.lines) - 1) / 2) * width
        axes.bar(
            x + offset,
            values,
            width,
            color=COLOURS[number % len(COLOURS)],
            hatch="" if number < len(COLOURS) else "//",
            edgecolor="white",
            linewidth=0.5,
            label=plain(line.label),
        )
        axes.vlines(x + offset, low, high, color="white", linewidth=3)  # so that they show on dark bars
        axes.vlines(x + offset, low, high, color="#333333", linewidth=1.2)
    axes.axhline(0, color="#333333", linewidth=0.8)
    name_positions(axes, [f"{name:g}" if isinstance(name, float) else str(name) for name in chart.x])


def name_positions(axes: Axes, names: list[str]) -> None:
    """Writes the names below the axis, aslant where they would run into each other."""
    aslant = sum(map(len, names)) > LONG_NAMES
    axes.set_xticks(np.arange(len(names)), [plain(name) for name in names])
    if aslant:
        for label in axes.get_xticklabels():
            label.set(rotation=30, horizontalalignment="right", rotation_mode="anchor")


def figures_of(line: Line) -> tuple[NDArray[np.float64], ...]:
    """Returns a line's values, and the lower and upper ends of their intervals, (N,) each."""
    return tuple(np.array([getattr(y, name) for y in line.y], np.float64) for name in ("value", "low", "high"))


def plain(text: str) -> str:
    """Returns text that matplotlib takes literally: a dollar sign would start a formula."""
    return text.replace("$", r"\$")
