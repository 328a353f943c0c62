"""Charts: what is drawn is what was measured, for every eye, and the same bytes each time."""

import io
import itertools
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from masktool.evaluation.bootstrap import Interval
from masktool.evaluation.findings import Chart, Line
from masktool.evaluation.plots import (
    COLOURS,
    DASHES,
    HEIGHT,
    MARKERS,
    WIDEST,
    WIDTH,
    choose_width,
    draw_bars,
    draw_chart,
    draw_lines,
)

UNDEFINED = Interval(float("nan"), float("nan"), float("nan"), 0)
DICHROMATS = {
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}
"""On linear RGB: Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision
Deficiency", 2009, severity 1."""
FEWEST_LEVELS = 35
"""Least distance in sRGB, 0 to 255, between two colours as a dichromat sees them."""


def interval(value, half=0.1):
    return Interval(value, value - half, value + half, 9)


def line_chart(n_lines=3, **changes):
    lines = tuple(Line(f"line {n}", tuple(interval(n + x) for x in range(4))) for n in range(n_lines))
    return Chart(
        **{"name": "c", "title": "t", "x_label": "x", "y_label": "y", "x": (0, 0.1, 0.5, 1)} | changes, lines=lines
    )


def bar_chart(names=("lime", "rise"), n_lines=2):
    lines = tuple(Line(f"mode {n}", tuple(interval(n - x) for x in range(len(names)))) for n in range(n_lines))
    return Chart("b", "t", "x", "y", tuple(names), lines, "bar")


@pytest.fixture
def axes():
    return Figure().add_subplot()


def test_lines_run_through_the_figures_within_their_intervals(axes):
    chart = line_chart()
    draw_lines(axes, chart)
    assert len(axes.lines) == len(axes.collections) == 3
    for number, (line, band) in enumerate(zip(axes.lines, axes.collections, strict=True)):
        np.testing.assert_allclose(line.get_xdata(), chart.x)
        np.testing.assert_allclose(line.get_ydata(), number + np.arange(4))
        outline = band.get_paths()[0].vertices
        for x, y in zip(chart.x, number + np.arange(4), strict=True):
            own = outline[np.isclose(outline[:, 0], x), 1]
            np.testing.assert_allclose([own.min(), own.max()], [y - 0.1, y + 0.1])
        assert line.get_label() == f"line {number}"


def test_bars_are_as_high_as_the_figures_and_whiskers_as_long_as_the_intervals(axes):
    draw_bars(axes, bar_chart())
    heights = [[bar.get_height() for bar in group] for group in axes.containers]
    assert heights == [[0, -1], [1, 0]]
    (low, high), (low_2, high_2) = (np.array(each.get_segments())[..., 1].T for each in axes.collections[1::2])
    np.testing.assert_allclose([low, high], [[-0.1, -1.1], [0.1, -0.9]])
    np.testing.assert_allclose([low_2, high_2], [[0.9, -0.1], [1.1, 0.1]])
    edges = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for group in axes.containers for bar in group)
    assert all(left[1] <= right[0] + 1e-9 for left, right in itertools.pairwise(edges)), "no bar hides another"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["lime", "rise"]


def test_undefined_figures_leave_a_gap(axes):
    lines = (Line("l", (interval(1), UNDEFINED, interval(3))),)
    draw_lines(axes, Chart("c", "t", "x", "y", (0, 1, 2), lines))
    np.testing.assert_array_equal(np.isnan(axes.lines[0].get_ydata()), [False, True, False])
    for kind in ("line", "bar"):
        assert draw_chart(Chart("c", "t", "x", "y", (0.0, 1.0), (Line("l", (UNDEFINED, UNDEFINED)),), kind))


def test_names_on_a_line_chart_are_evenly_spaced(axes):
    lines = (Line("l", (interval(1), interval(2))),)
    draw_lines(axes, Chart("c", "t", "x", "y", ("conv1", "conv2"), lines))
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [0, 1])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["conv1", "conv2"]


@pytest.mark.parametrize("chart", [line_chart(), bar_chart()], ids=["line", "bar"])
def test_the_same_chart_is_the_same_file_whatever_the_users_settings(chart):
    first = draw_chart(chart)
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"figure.facecolor": "red", "font.size": 30, "axes.grid": True}):
        assert draw_chart(chart) == first
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or matplotlib.pyplot.get_fignums() == []
    with Image.open(io.BytesIO(first)) as image:
        assert image.format == "PNG"
        assert image.size == (WIDTH * 150, HEIGHT * 150)
        assert "Software" not in image.info
        assert image.convert("RGB").getpixel((2, 2)) == (255, 255, 255)


def test_a_chart_that_differs_is_another_file():
    assert len({draw_chart(line_chart(n)) for n in (1, 2)} | {draw_chart(line_chart(title="u"))}) == 3


def test_text_is_taken_literally():
    assert draw_chart(line_chart(title=r"$x^{ costs 5$ \frac _ & <b>", y_label="$$$"))


def test_more_bars_need_more_room_up_to_a_limit():
    assert choose_width(bar_chart()) == WIDTH
    many = [f"method {n}" for n in range(12)]
    assert WIDTH < choose_width(bar_chart(many, 3)) < WIDEST
    assert choose_width(bar_chart(many, 30)) == WIDEST
    assert draw_chart(bar_chart(many, 9))


def test_lines_can_be_told_apart_without_colours():
    styles = {(COLOURS[n % 7], MARKERS[n % 7], DASHES[n // 7 % 4]) for n in range(28)}
    assert len(styles) == 28
    assert len({(marker, dash) for _, marker, dash in styles}) == 28


@pytest.mark.parametrize("matrix", [np.eye(3), *DICHROMATS.values()], ids=["trichromat", *DICHROMATS])
def test_colours_differ_for_every_eye(matrix):
    def seen(colour):
        encoded = np.array(to_rgb(colour))
        linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
        found = np.clip(np.array(matrix) @ linear, 0, 1)
        return 255 * np.where(found <= 0.0031308, found * 12.92, 1.055 * found ** (1 / 2.4) - 0.055)

    distances = [np.linalg.norm(seen(a) - seen(b)) for a, b in itertools.combinations(COLOURS, 2)]
    assert min(distances) > FEWEST_LEVELS
