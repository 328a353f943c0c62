"""The picture: sane at every size, and colours that say what the values say."""

import numpy as np
import pytest
from PIL import Image

from masktool.explainers import colormap
from masktool.explainers.picture import (
    DESATURATION,
    LARGEST_PANEL,
    MARGIN,
    Scale,
    choose_panel,
    choose_view,
    draw_picture,
    fit_line,
    overlay,
    render_map,
)


def draw(attributions, **changes):
    height, width = attributions.shape
    photograph = changes.pop("photograph", Image.new("RGB", (width, height), (120, 130, 140)))
    arguments = {"signed": True, "title": "LIME: cat", "subtitle": "10 passes", "meaning": "contribution"} | changes
    return draw_picture(photograph, attributions, **arguments)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 4), (200, 20000), (20000, 200), (900, 600), (64, 64)])
@pytest.mark.parametrize("signed", [True, False])
def test_every_size_gives_a_sane_picture(size, signed):
    values = np.linspace(-1, 1, size[0] * size[1], dtype=np.float32).reshape(size)
    picture = draw(values, signed=signed, title="a long title " * 30)
    assert picture.mode == "RGB"
    assert 500 <= picture.width <= 2 * LARGEST_PANEL + 3 * MARGIN
    assert 150 <= picture.height <= 2.5 * LARGEST_PANEL


def test_wide_photograph_shows_what_the_model_saw():
    values = np.full((200, 20000), np.nan, np.float32)
    values[:, 15000:15200] = 1
    left, top, right, bottom = choose_view(values)
    assert (top, bottom) == (0, 200)
    assert right - left == 800
    assert left < 15000 < 15200 < right
    assert choose_view(np.zeros((200, 20000), np.float32)) == (0, 0, 20000, 200)
    assert choose_view(np.full((10, 100), np.nan, np.float32)) == (0, 0, 100, 10)


def test_panels_keep_the_aspect_ratio():
    assert choose_panel((0, 0, 1000, 500)) == (640, 320)
    assert choose_panel((0, 0, 10, 20)) == (200, 400)
    assert choose_panel((0, 0, 500, 500)) == (500, 500)


def test_signed_scale_is_symmetric_and_the_other_spans_the_range():
    values = np.array([[np.nan, -1, 3]], np.float32)
    assert Scale.of(values, True) == Scale(-3, 3, True)
    assert Scale.of(values, False) == Scale(-1, 3, False)
    assert Scale.of(values, True).ticks() == [(0.0, "-3"), (0.5, "0"), (1.0, "+3")]
    assert Scale.of(np.full((2, 2), 0.25, np.float32), False).ticks() == [(0.5, "0.25 everywhere")]
    near = Scale.of(np.array([[0.9986, 0.9994]], np.float32), False).ticks()
    assert [text for _, text in near] == ["0.9986", "0.999", "0.9994"]
    assert Scale.of(np.full((2, 2), np.nan, np.float32), True).flat


def test_photograph_stays_visible_where_the_map_is_weak():
    photograph = Image.new("RGB", (3, 1), (100, 100, 100))
    values = np.array([[0.0, 0.5, 1.0]], np.float32)
    pixels = np.asarray(overlay(photograph, values, Scale(-1, 1, True))).astype(int)
    distance = np.abs(pixels[0] - 100).sum(axis=1)
    assert distance[0] == 0
    assert distance[0] < distance[1] < distance[2]
    red, _, blue = pixels[0, 2]
    assert red > blue
    opposing = np.asarray(overlay(photograph, -values, Scale(-1, 1, True))).astype(int)[0, 2]
    assert opposing[2] > opposing[0]


def test_photograph_beneath_is_faded_not_grey():
    pixels = np.asarray(
        overlay(Image.new("RGB", (2, 2), (255, 0, 0)), np.zeros((2, 2), np.float32), Scale(-1, 1, True))
    )
    red, green, _ = pixels[0, 0].astype(int)
    assert red - green == pytest.approx(255 * (1 - DESATURATION), abs=1)


def test_left_out_region_is_hatched():
    values = np.full((40, 40), np.nan, np.float32)
    values[:, :20] = 0
    pixels = np.asarray(overlay(Image.new("RGB", (40, 40), (120, 120, 120)), values, Scale(-1, 1, True)))
    assert (pixels[:, :20] == 120).all()
    assert len(np.unique(pixels[:, 20:, 0])) == 2


def test_map_is_enlarged_without_bleeding_into_the_hatching():
    values = np.full((4, 4), np.nan, np.float32)
    values[:, 2:] = 5
    enlarged = render_map(values, (0, 0, 4, 4), (40, 40))
    assert np.isnan(enlarged[:, :20]).all()
    np.testing.assert_allclose(enlarged[:, 20:], 5)


def test_flat_map_says_so_and_draws_the_photograph():
    photograph = Image.new("RGB", (400, 400), (10, 200, 30))
    picture = np.asarray(draw(np.zeros((400, 400), np.float32), photograph=photograph))
    assert (picture == (10, 200, 30)).all(axis=2).sum() == 400 * 400


def test_colours_are_ordered_by_lightness():
    table = colormap.path(
        colormap.oklab(colormap.DARK), colormap.oklab(colormap.MIDDLE), colormap.oklab(colormap.BRIGHT)
    )
    assert (np.diff(table[:, 0]) > 0).all()
    steps = np.linalg.norm(np.diff(table, axis=0), axis=1)
    assert steps.max() < 1.5 * steps.min()


def test_diverging_colours_are_equally_light_on_both_sides():
    table = colormap.path(
        colormap.oklab(colormap.OPPOSE), colormap.oklab(colormap.NEUTRAL), colormap.oklab(colormap.SUPPORT)
    )
    np.testing.assert_allclose(table[:, 0], table[::-1, 0])


@pytest.mark.parametrize(
    "corners",
    [
        (colormap.OPPOSE, colormap.NEUTRAL, colormap.SUPPORT),
        (colormap.DARK, colormap.MIDDLE, colormap.BRIGHT),
    ],
)
def test_every_colour_can_be_shown(corners):
    colours = colormap.srgb(colormap.path(*map(colormap.oklab, corners)))
    assert colours.min() > -0.02
    assert colours.max() < 1.02


def test_oklab_of_white_and_red():
    np.testing.assert_allclose(colormap.srgb(colormap.oklab((1.0, 0.0, 0.0))), [1, 1, 1], atol=1e-3)
    np.testing.assert_allclose(colormap.srgb(np.array([0.62796, 0.22486, 0.12585])), [1, 0, 0], atol=2e-3)


def test_long_text_is_cut():
    from PIL import ImageFont

    font = ImageFont.load_default(16)
    assert fit_line("short", font, 500) == "short"
    cut = fit_line("x" * 300, font, 100)
    assert cut.endswith("...")
    assert font.getlength(cut) <= 100


def test_a_capped_scale_ends_at_a_percentile_unless_that_leaves_nothing():
    values = np.append(np.linspace(0, 1, 999), 50).astype(np.float32).reshape(20, 50)
    assert Scale.of(values, False).high == 50
    assert Scale.of(values, False, capped=True).high == pytest.approx(0.99, abs=0.01)
    assert Scale.of(-values, True, capped=True).high == pytest.approx(0.99, abs=0.01)
    single = np.zeros((20, 50), np.float32)
    single[0, 0] = 2
    assert Scale.of(single, True, capped=True) == Scale(-2, 2, True)
