"""The page at / in a real browser: a picture dropped, its map shown, by keyboard and for screen readers too."""

import numpy as np
import pytest
from browsing import PATIENCE, drop_file, find_unreadable, open_browser, save_numbers, wait_for_result

import masktool
from masktool import demo

page_endpoints = pytest.importorskip("masktool.serving.page_endpoints", exc_type=ImportError)  # needs the extra serve
FILES, POLICY = page_endpoints.FILES, page_endpoints.POLICY
pytestmark = pytest.mark.serving
TEXTS = ["h1", "#place", "#choices label", "select", "#drop", "#status", "figcaption", "li", "#method", "#save"]
"""What is read on the page."""


@pytest.fixture(scope="module")
def browser():
    with open_browser() as opened:
        yield opened


@pytest.fixture
def open_page(browser, server):
    """Opens the page; whatever it asks of another machine, or says on its console, fails the test."""
    complaints, pages, allowed = [], [], []

    def is_own(address):
        return address.startswith((server.address, "blob:", "data:"))

    def open_page(*, may_say=(), **options):
        allowed.extend(may_say)
        page = browser.new_page(**options)
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("request", lambda each: is_own(each.url) or complaints.append(each.url))
        page.goto(server.address)
        page.wait_for_selector("#choices:not([hidden])")
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert [text for text in complaints if not any(part in text for part in allowed)] == []


def choose_quick(page):
    """Chooses the built-in model and a method that takes little time here."""
    page.select_option("#choose-model", "demo")
    page.select_option("#choose-method", "occlusion")


def test_a_picture_is_dropped_and_explained(open_page, tmp_path):
    page = open_page()
    choose_quick(page)
    drop_file(page, demo.sample_path())
    found = save_numbers(page, tmp_path / "numbers.json")
    with masktool.load(demo.model_path(), threads=1) as session:
        expected = masktool.explain(session, demo.sample_path(), "occlusion")
    assert found["classes"][0]["label"] == demo.sample_label()
    assert abs(found["classes"][0]["probability"] - expected.score) < 1e-5
    assert np.allclose(found["saliency_map"], expected.model_attributions.ravel(), atol=1e-5)
    assert np.allclose(found["box"], expected.crop_box, atol=1e-3)
    shown = page.locator("#classes li").first.inner_text().split()
    assert shown == [demo.sample_label(), f"{expected.score:.3f}"]
    assert page.locator("#cancel").is_hidden()
    assert page.locator("#progress").is_hidden()


def test_a_file_that_explains_itself_offers_its_one_method(open_page, tmp_path):
    page = open_page()
    page.select_option("#choose-model", "explained")
    assert page.locator("#choose-method").is_hidden()
    drop_file(page, demo.sample_path())
    found = save_numbers(page, tmp_path / "numbers.json")
    assert (found["height"], found["width"]) == (24, 20)
    assert "occlusion" in page.inner_text("#method")


def test_progress_shows_and_cancel_ends_the_job(open_page, server):
    page = open_page()
    page.select_option("#choose-model", "demo")
    page.select_option("#choose-method", "sobol")
    drop_file(page, demo.sample_path())
    page.wait_for_function("() => document.querySelector('#status').textContent.startsWith('Explaining by sobol')")
    assert page.locator("#progress").is_visible()
    page.click("#cancel")
    assert page.inner_text("#status") == "Cancelled."
    assert page.locator("#progress").is_hidden()
    assert page.evaluate("() => document.activeElement.id") == "file"
    text = server.ask("GET", "/metrics")[2].decode()
    assert 'masktool_jobs{state="cancelled"} 0.0' not in text


def test_the_keyboard_alone_is_enough(open_page):
    """Tab goes through everything in its order, and Enter asks the browser for a file."""
    page = open_page()
    page.on("filechooser", lambda _: None)  # keeps the browser from opening its own window
    page.evaluate("() => { document.querySelector('#file').onclick = (event) => { window.asked = event.isTrusted } }")
    reached = []
    for key in ("Tab", "Tab", "o", "Tab"):  # o is the list's own way to "occlusion"
        page.keyboard.press(key)
        reached.append(page.evaluate("() => document.activeElement.id"))
    assert reached == ["choose-model", "choose-method", "choose-method", "file"]
    assert page.input_value("#choose-method") == "occlusion"
    page.keyboard.press("Enter")
    page.wait_for_function("() => window.asked")
    page.set_input_files("#file", demo.sample_path())
    wait_for_result(page)
    page.locator("#strength").focus()
    before = page.input_value("#strength")
    page.keyboard.press("ArrowLeft")
    assert page.input_value("#strength") != before


def test_everything_has_a_name_for_screen_readers(open_page):
    page = open_page()
    choose_quick(page)
    drop_file(page, demo.sample_path())
    wait_for_result(page)
    label = demo.sample_label()
    for role, name in [
        ("heading", "What did the network look at?"),
        ("combobox", "Model"),
        ("combobox", "Method"),
        ("img", f"The photograph, with what speaks for {label} marked"),
        ("list", "Classes, most probable first"),
        ("slider", "Strength of the heat map"),
        ("link", "Save the numbers"),
    ]:
        assert page.get_by_role(role, name=name).count() == 1, name
    assert page.get_by_label("Drop a photograph here, or choose one").count() == 1
    assert page.get_by_role("status").inner_text().startswith("Done in")
    assert page.evaluate("() => document.documentElement.lang") == "en"


@pytest.mark.parametrize(("content", "said"), [(b"no picture", "not an image"), (b"", "no picture")])
def test_what_cannot_be_done_is_said(content, said, open_page, tmp_path):
    (tmp_path / "photo.png").write_bytes(content)
    page = open_page(may_say=["400 (Bad Request)"])
    choose_quick(page)
    drop_file(page, tmp_path / "photo.png")
    page.wait_for_selector("#status.failed")
    assert said in page.inner_text("#status")
    assert page.locator("#cancel").is_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_it_is_readable_and_fits(scheme, width, open_page, tmp_path):
    page = open_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    choose_quick(page)
    drop_file(page, demo.sample_path())
    wait_for_result(page)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    assert find_unreadable(page, TEXTS) == []
    page.screenshot(path=tmp_path / f"{scheme}-{width}.png", full_page=True)


@pytest.mark.parametrize("name", ["", *FILES])
def test_the_page_may_load_nothing_from_elsewhere(name, needs_server, server):
    status, headers, content = server.ask("GET", f"/{name}")
    assert (status, headers["content-security-policy"]) == (200, POLICY)
    assert headers["x-content-type-options"] == "nosniff"
    assert "'unsafe" not in POLICY
    for mark in (b"http://", b"https://", b"style=", b"onclick="):
        assert mark not in content
