"""What the house must keep: a name means one thing in the whole project."""

import textwrap

from house import circles, read_modules, recurring_classes, recurring_functions


def test_a_public_class_name_stands_once():
    assert recurring_classes(read_modules()) == {}


def test_a_class_name_that_stands_twice_is_found(tmp_path):
    for name in ("one", "other"):
        module = tmp_path / "masktool" / f"{name}.py"
        module.parent.mkdir(exist_ok=True)
        module.write_text(
            textwrap.dedent(f"""
            class Twice: ...
            class _Private: ...
            class Only{name.title()}: ...
            """)
        )
    assert recurring_classes(read_modules(tmp_path)) == {"Twice": ["masktool.one", "masktool.other"]}


def test_a_public_function_name_stands_once():
    assert recurring_functions(read_modules()) == {}


def test_a_function_name_that_stands_twice_is_found(tmp_path):
    text = "def twice(): ...\ndef _private(): ...\ndef command(): ...\nclass Any:\n    def method(self): ...\n"
    (tmp_path / "masktool").mkdir()
    for name in ("one", "other"):
        (tmp_path / "masktool" / f"{name}.py").write_text(text + f"async def only_{name}(): ...\n")
    assert recurring_functions(read_modules(tmp_path)) == {"twice": ["masktool.one", "masktool.other"]}


def test_no_modules_import_one_another_in_a_circle():
    assert circles(read_modules()) == []


def test_a_circle_is_found(tmp_path):
    texts = {
        "a": "from masktool.b import x",
        "b": "def f():\n    from masktool import c",
        "c": "import masktool.a",
        "d": "",
    }
    (tmp_path / "masktool").mkdir()
    for name, text in texts.items():
        (tmp_path / "masktool" / f"{name}.py").write_text(text)
    assert circles(read_modules(tmp_path)) == [["masktool.a", "masktool.b", "masktool.c"]]
