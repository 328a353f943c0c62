"""The example page in a real browser: what a person drops, sees, cancels and saves, by every method."""

import base64
import io
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from browsing import PATIENCE, drop_file, find_unreadable, open_browser, save_numbers
from networks.small_graphs import parse
from PIL import Image

import masktool
from examples.conftest import find
from examples.files import EXAMPLES, OF_EXPORT, PHOTOGRAPH, SIZE, run_node
from examples.page_server import serving
from masktool import serving as server_room
from masktool.embedding.method import EMBEDDED_METHODS

OF_ONNX_RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""Files of onnxruntime-web that the page needs beside it."""
PAGE = Path(server_room.__file__).parent / "page"
OF_THE_PAGE = ("index.html", "page.css", "page.mjs")
"""The page itself, which `masktool serve` sends too."""
DELAY = 0.2
"""Seconds between the parts of a slow model: its loading shows."""
SLOW = f"""
<ir_version: 10, opset_import: ["" : 18]>
deep (float[N, 3, {SIZE[0]}, {SIZE[1]}] image) => (float[N, 4] logits)
<float[96, 3, 3, 3] first, float[96, 96, 3, 3] second, float[96, 96, 3, 3] third, float[96, 4] weight>
{{
    a = Conv<pads = [1, 1, 1, 1]>(image, first)
    b = Relu(a)
    c = Conv<pads = [1, 1, 1, 1]>(b, second)
    d = Relu(c)
    e = Conv<pads = [1, 1, 1, 1]>(d, third)
    f = GlobalAveragePool(e)
    flat = Flatten(f)
    logits = Gemm(flat, weight)
}}
"""
"""A network whose explanation by 480 windows takes seconds."""
TEXTS = ["h1", "main > p", "#drop", "#status", "figcaption", "li", "#method", "#save"]
"""What is read on the page."""


@pytest.fixture(scope="module")
def browser():
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(examples):
    """The page's folder, with the page's and ONNX Runtime's files as its README puts them there."""
    for name in OF_THE_PAGE:
        shutil.copy(PAGE / name, examples / "browser" / name)
    for name in OF_ONNX_RUNTIME:
        shutil.copy(find("node_modules", "onnxruntime-web", "dist", name), examples / "browser" / name)
    return examples / "browser"


@pytest.fixture
def site(folder):
    """The page's address; `site.beside` and `site.delays` are what the server looks into."""

    class Site:
        beside = {}
        delays = {}

    with serving(folder, Site.beside, Site.delays) as address:
        Site.address = address
        yield Site


@pytest.fixture
def open_page(browser, site):
    """Opens the page with a model; whatever it asks of another machine, or complains of, fails the test."""
    complaints, pages = [], []

    def is_own(address):
        return address.startswith((site.address, "blob:", "data:"))

    def open_page(model, **options):
        site.beside["model.onnx"] = model
        page = browser.new_page(**options)
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda each: is_own(each.url) or complaints.append(each.url))
        page.goto(site.address + "/index.html")
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not complaints


def choose(page, photograph=PHOTOGRAPH):
    """Clicks where a photograph is chosen, and chooses one."""
    with page.expect_file_chooser() as chooser:
        page.click("#drop")
    chooser.value.set_files(photograph)


def test_a_photograph_is_dropped_and_explained(method, files, open_page, tmp_path):
    page = open_page(files.path(method))
    drop_file(page, PHOTOGRAPH)
    found = save_numbers(page, tmp_path / "numbers.json")
    first = found["classes"][0]
    files.expected(method).assert_same(first["label"], first["probability"], found["saliency_map"])
    shown = page.locator("#classes li").first.inner_text().split()
    assert shown == [first["label"], f"{first['probability']:.3f}"]
    assert method in page.inner_text("#method")


@pytest.mark.parametrize("options", [{"target": "required"}, {"embed_preprocessing": True}], ids=str)
def test_a_photograph_is_chosen_and_the_file_gets_what_it_asks_for(options, files, open_page, tmp_path):
    method = sorted(EMBEDDED_METHODS)[0]
    page = open_page(files.path(method, **options))
    choose(page)
    found = save_numbers(page, tmp_path / "numbers.json")
    first = found["classes"][0]
    files.expected(method).assert_same(first["label"], first["probability"], found["saliency_map"])


def pixels_of(page):
    """Returns the canvas as (height, width, 3), with the heat map as strong as its slider says."""
    picture = page.evaluate("() => document.querySelector('canvas').toDataURL('image/png')")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2]))).convert("RGB")).astype(int)


def wait_for_no_worker(page):
    """Waits until the browser has ended the worker: one that computes gets two seconds to stop by itself."""
    end = time.monotonic() + PATIENCE / 1000
    while page.workers and time.monotonic() < end:
        page.wait_for_timeout(100)
    assert page.workers == []


def test_the_heat_map_lies_over_what_the_network_saw(files, open_page, tmp_path):
    page = open_page(files.path("occlusion"))
    drop_file(page, PHOTOGRAPH)
    found = save_numbers(page, tmp_path / "numbers.json")
    page.locator("#strength").fill("0")
    photograph = pixels_of(page)
    assert np.array_equal(photograph, np.asarray(Image.open(PHOTOGRAPH).convert("RGB")))
    page.locator("#strength").fill("1")
    painted = pixels_of(page)
    saliency_map = np.array(found["saliency_map"]).reshape(SIZE)
    row, column = np.unravel_index(np.abs(saliency_map).argmax(), SIZE)
    left, top, right, bottom = found["box"]
    x = int(left + (column + 0.5) * (right - left) / SIZE[1])
    y = int(top + (row + 0.5) * (bottom - top) / SIZE[0])
    red, _, blue = painted[y, x]
    assert (red - blue) * np.sign(saliency_map[row, column]) > 0
    outside = painted[:, : int(left) - 1] if left > 1 else painted[: int(top) - 1]
    assert outside.std() < photograph[: outside.shape[0], : outside.shape[1]].std()  # cropped away, and dimmed


def test_progress_shows_and_cancel_ends_the_loading(files, open_page, site):
    site.delays["model.onnx"] = DELAY
    page = open_page(files.path("occlusion"))
    drop_file(page, PHOTOGRAPH)
    page.wait_for_function("() => document.querySelector('#status').textContent.includes(' MB of ')")
    shares = [page.evaluate("() => document.querySelector('#progress').value") for _ in range(2)]
    assert 0 < shares[0] <= shares[1] < 1
    assert len(page.workers) == 1
    page.click("#cancel")
    assert page.inner_text("#status") == "Cancelled."
    wait_for_no_worker(page)
    assert page.locator("#progress").is_hidden()
    assert page.locator("#cancel").is_hidden()
    site.delays.clear()
    drop_file(page, PHOTOGRAPH)  # and the page goes on
    page.wait_for_selector("#result:not([hidden])")


def test_cancel_ends_the_explaining(open_page, tmp_path):
    window = {"sliding_window_shapes": [2, 2], "strides": [1, 1]}
    masktool.export_explained(parse(SLOW), tmp_path / "slow.onnx", "occlusion", **window, **OF_EXPORT)
    page = open_page(tmp_path / "slow.onnx")
    choose(page)
    page.wait_for_function("() => document.querySelector('#status').textContent.startsWith('Explaining by occlusion')")
    page.click("#cancel")
    wait_for_no_worker(page)
    assert page.inner_text("#status") == "Cancelled."
    assert page.locator("#result").is_hidden()


@pytest.mark.parametrize(
    ("content", "said"),
    [("no picture", "cannot read the file as a picture"), ("masked", "does not explain itself")],
)
def test_what_cannot_be_done_is_said(content, said, files, open_page, tmp_path):
    (tmp_path / "photo.jpg").write_text("no photograph")
    masked = content == "masked"
    page = open_page(files.masked() if masked else files.path("occlusion"))
    choose(page, PHOTOGRAPH if masked else tmp_path / "photo.jpg")
    page.wait_for_selector("#status.failed")
    assert said in page.inner_text("#status")
    assert page.locator("#cancel").is_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_it_is_readable_and_fits(scheme, width, files, open_page, tmp_path):
    page = open_page(files.path("occlusion"), viewport={"width": width, "height": 900}, color_scheme=scheme)
    choose(page)
    page.wait_for_selector("#result:not([hidden])")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    assert find_unreadable(page, TEXTS) == []
    lightness = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert (int(lightness.partition("(")[2].partition(",")[0]) > 128) == (scheme == "light")
    page.screenshot(path=tmp_path / f"{scheme}-{width}.png", full_page=True)


def test_the_readme_names_the_files_of_the_page_and_of_onnx_runtime():
    text = (EXAMPLES / "browser" / "README.md").read_text(encoding="utf-8")
    (copies,) = [line.split() for line in text.splitlines() if line.startswith("cp ")]
    copied = [(EXAMPLES / "browser" / each).resolve() for each in copies[1:-1]]
    assert (copied, copies[-1]) == ([(PAGE / name).resolve() for name in OF_THE_PAGE], ".")
    assert [name for name in OF_ONNX_RUNTIME if f"package/dist/{name}" not in text] == []


def test_the_modules_have_no_faults_of_syntax(node, tmp_path):
    modules = [PAGE / "page.mjs", PAGE / "back-end.mjs"]
    modules += [EXAMPLES / "browser" / name for name in ("explain.js", "explained-file.mjs", "back-end.mjs")]
    for path in modules:
        shutil.copy(path, tmp_path / f"{path.name}.mjs")
        run_node("--check", tmp_path / f"{path.name}.mjs", folder=tmp_path)
