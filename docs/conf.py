"""Settings of the documentation site: ``sphinx-build -W -b html docs site``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.ext.autodoc.mock import mock

import masktool

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import site_pages

project = "masktool"
version = release = masktool.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
exclude_patterns: list[str] = []

smartquotes = False
"""It would make a dash of the -- of an option."""

html_theme = "furo"
html_title = f"masktool {release}"
html_theme_options = {
    "light_css_variables": {"code-font-size": "77%"},  # the methods' formulas fit into the column
    "dark_css_variables": {"code-font-size": "77%"},
}
html_static_path = ["static"]
html_css_files = ["masktool.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False

myst_enable_extensions = ["deflist", "attrs_inline", "attrs_block"]
myst_heading_anchors = 3

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_mock_imports = ["torch", "torchvision", "timm", "safetensors"]
napoleon_google_docstring = True
napoleon_numpy_docstring = False
add_module_names = False
python_maximum_signature_line_length = 88


def fill_in(app: Sphinx, page: str, source: list[str]) -> None:  # noqa: ARG001 - the signature of Sphinx's event
    """Puts what the code knows into the places of a page that ask for it."""
    with mock(autodoc_mock_imports):
        source[0] = site_pages.fill_in(source[0])


def escape_bars(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:  # noqa: ARG001
    """Keeps ``|x|`` in prose what it means to its reader; reStructuredText would look for a substitution."""
    text = re.sub(r"(``.+?``)|\|", lambda found: found[1] or "\\|", "\n".join(lines), flags=re.DOTALL)
    lines[:] = text.split("\n")


def setup(app: Sphinx) -> None:
    """Registers what is done to pages and docstrings before they are read."""
    app.connect("source-read", fill_in)
    app.connect("autodoc-process-docstring", escape_bars)
