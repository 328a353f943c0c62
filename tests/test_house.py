"""What the house must keep: a name means one thing in the whole project."""

import textwrap

from house import read_modules, recurring_classes


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
