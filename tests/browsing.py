"""What a person does in a browser, and what a browser tells of a page: shared by the tests of every page."""

import json
import shutil
from contextlib import contextmanager

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 120_000
"""Milliseconds that a test waits for what should be there at once."""
READABLE = 4.5
"""The contrast that WCAG 2.2 asks of text, success criterion 1.4.3."""
CONTRASTS = """
(selectors) => {
  const luminance = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map((c) => c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const colour = getComputedStyle(element).backgroundColor;
    return colour === "rgba(0, 0, 0, 0)" ? behind(element.parentElement) : colour;
  };
  return selectors.map((selector) => {
    const element = document.querySelector(selector);
    const pair = [luminance(getComputedStyle(element).color), luminance(behind(element))];
    return [selector, (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05)];
  });
}
"""


@contextmanager
def open_browser():
    """Opens the browser of this machine; skips the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra dev")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"needs a browser: one of {', '.join(PROGRAMS)}")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


def drop_file(page, path):
    """Drags a file from outside the browser onto the page and lets it go."""
    box = page.locator("#drop").bounding_box()
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    devtools = page.context.new_cdp_session(page)
    for step in ("dragEnter", "dragOver", "drop"):
        devtools.send("Input.dispatchDragEvent", {"type": step, "data": data, **place})


def wait_for_result(page):
    """Waits until the page shows an explanation; fails with what it says where it has failed."""
    page.wait_for_selector("#result:not([hidden]), #status.failed")
    assert page.locator("#status.failed").count() == 0, page.inner_text("#status")


def save_numbers(page, path):
    """Clicks "Save the numbers" and returns them."""
    wait_for_result(page)
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(path)
    return json.loads(path.read_text())


def find_unreadable(page, selectors):
    """Returns what is read on the page with less contrast than text needs, each with its contrast."""
    return [(name, contrast) for name, contrast in page.evaluate(CONTRASTS, list(selectors)) if contrast < READABLE]
