"""A registry finds what the files of a package hold, looks into the package once, and names what it does not know."""

import importlib
import sys

import pytest

from masktool.errors import MasktoolError
from masktool.registry import ClassRegistry, Registry, import_files

PACKAGE = "colours_of_a_test"
COLOUR = """
from {package} import COLOURS, imports

imports.append(__name__)
COLOURS.register({names})(__name__)
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of two files, which register three colours."""
    folder = tmp_path / PACKAGE
    folder.mkdir()
    registry = f"from masktool.registry import Registry\nCOLOURS = Registry('colour', {PACKAGE!r})\nimports = []\n"
    (folder / "__init__.py").write_text(registry)
    (folder / "warm.py").write_text(COLOUR.format(package=PACKAGE, names="'red', 'orange'"))
    (folder / "cold.py").write_text(COLOUR.format(package=PACKAGE, names="'blue'"))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield importlib.import_module(PACKAGE)
    for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
        del sys.modules[name]
    import_files.cache_clear()


def test_every_file_is_imported_once_when_an_entry_is_asked_for(package):
    assert package.imports == []
    assert list(package.COLOURS) == ["blue", "orange", "red"]
    assert package.COLOURS.find("red") == package.COLOURS["orange"] == f"{PACKAGE}.warm"
    assert package.COLOURS.get("green") is None
    assert len(package.COLOURS) == 3
    assert sorted(package.imports) == [f"{PACKAGE}.cold", f"{PACKAGE}.warm"]


def test_the_directory_is_read_once_for_all_registries_of_a_package(package, monkeypatch):
    other = Registry("shade", PACKAGE)
    assert len(package.COLOURS) == 3
    monkeypatch.setattr("pkgutil.iter_modules", lambda *_: pytest.fail("the directory is read again"))
    assert "dark" not in other
    assert "red" in package.COLOURS


def test_an_unknown_name_is_answered_with_those_that_there_are(package):
    with pytest.raises(MasktoolError, match=r"^unknown colour \(green\): expected one of blue, orange, red$"):
        package.COLOURS.find("green")


def test_a_name_is_registered_once(package):
    assert "red" in package.COLOURS
    with pytest.raises(ValueError, match="the colour 'red' is registered twice"):
        package.COLOURS.register("red")("another")


@pytest.mark.usefixtures("package")
def test_classes_are_registered_by_their_own_names():
    kinds = ClassRegistry("kind", PACKAGE)

    @kinds.add
    class Kind:
        name = "one"

    assert dict(kinds) == {"one": Kind}
    with pytest.raises(ValueError, match="the kind 'one' is registered twice"):
        kinds.add(Kind)
