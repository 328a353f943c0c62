"""Names of photographs' files: never shared, at any scale, and kept by later runs."""

import time
import unicodedata

import pytest

from masktool.interface.photographs import choose_stems, fold_name, real_path

COMPOSED, DECOMPOSED = (
    unicodedata.normalize(form, "caf\N{LATIN SMALL LETTER E WITH ACUTE}") for form in ("NFC", "NFD")
)


@pytest.mark.parametrize(
    ("names", "stems"),
    [
        (["a/cat.jpg", "b/cat.jpg", "cat.png"], ["cat", "cat-2", "cat-3"]),
        (["cat.jpg", "Cat.jpg", "CAT.jpg"], ["cat", "Cat-2", "CAT-3"]),
        ([f"{COMPOSED}.jpg", f"{DECOMPOSED}.jpg"], [COMPOSED, f"{DECOMPOSED}-2"]),
        (["a.b.jpg", "a.b.png", "a.jpg"], ["a.b", "a.b-2", "a"]),
        (["x/a-2.jpg", "x/a.jpg", "y/a.jpg", "y/a-2.jpg"], ["a-2", "a", "a-3", "a-2-2"]),
    ],
)
def test_no_two_photographs_share_a_name(names, stems, tmp_path):
    assert choose_stems([tmp_path / name for name in names]) == stems


@pytest.mark.parametrize("name", ["cat.jpg", "{}/cat.jpg", "{}.jpg"])
def test_ten_thousand_names_take_less_than_a_second(name, tmp_path):
    photographs = [tmp_path / name.format(number) for number in range(10_000)]
    started = time.process_time()
    stems = choose_stems(photographs)
    assert time.process_time() - started < 1
    assert len({fold_name(stem) for stem in stems}) == 10_000


def test_whatever_an_earlier_run_has_done_the_names_are_the_same(tmp_path):
    photographs = [tmp_path / name for name in ("a/x.jpg", "a/x-2.jpg", "b/x.jpg", "b/X.png", "c/x.jpg", "c/x-2.png")]
    whole = choose_stems(photographs)
    for done in range(2 ** len(photographs)):
        kept = {
            real_path(each): stem
            for bit, (each, stem) in enumerate(zip(photographs, whole, strict=True))
            if done >> bit & 1
        }
        assert choose_stems(photographs, kept) == whole


def test_photographs_that_are_added_take_no_name_that_was_given(tmp_path):
    first = [tmp_path / "b" / "cat.jpg", tmp_path / "c" / "cat.jpg"]
    kept = dict(zip(map(real_path, first), choose_stems(first), strict=True))
    found = choose_stems([tmp_path / "a" / "cat.jpg", *first], kept)
    assert found == ["cat-3", "cat", "cat-2"]
