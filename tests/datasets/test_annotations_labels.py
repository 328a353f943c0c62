"""Labels from CSV and JSON."""

from __future__ import annotations

import pytest

from masktool.datasets.labels import read_label_entries
from masktool.errors import MasktoolError

PAIRS = [("a.jpg", "3"), ("b c.jpg", "tench, Tinca tinca")]


@pytest.mark.parametrize(
    "text",
    [
        'a.jpg,3\nb c.jpg,"tench, Tinca tinca"\n',
        'file,label\r\na.jpg,3\r\nb c.jpg,"tench, Tinca tinca"\r\n',
        '\ufefffile,label\na.jpg, 3\n\nb c.jpg,"tench, Tinca tinca"',
        'Label,Source,Filename\n3,me,a.jpg\n"tench, Tinca tinca",you,b c.jpg\n',
    ],
)
def test_csv(tmp_path, text):
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8", newline="")
    assert read_label_entries(path) == PAIRS


def test_json(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text(
        ' {"a": 3, "b": "tench", "c": {"name": "x", "index": 5}, "d": {"name": "y"}, "e": {"label": "z", "name": "y"}}'
    )
    assert read_label_entries(path) == [("a", 3), ("b", "tench"), ("c", 5), ("d", "y"), ("e", "z")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file ({path}): expected labels, as CSV or as JSON {{file: label}}"),
        (b"a.jpg,1\nb.jpg,tench, Tinca\n", "wrong number of columns ({path}, line 2): expected 2, such as file,label"),
        (b"a.jpg 1\n", "wrong number of columns ({path}, line 1): expected 2, such as file,label, got 1"),
        (b'a.jpg,"1\n', "not CSV ({path}, line 1): unexpected end of data"),
        (b"a.jpg,\xff\n", "not UTF-8 text ({path}, byte 6): expected labels"),
        (b'{"a": 1,\n "b" 2}', "not JSON ({path}, line 2, column 6): expected labels"),
        (b"[1, 2]", "not labels ({path}): expected labels, as CSV or as JSON {{file: label}}, got a JSON list"),
        (b'{"a": {"synset": "n1"}}', 'no label ({path}, entry "a"): expected one of index, label, name, got'),
        (b"[" * 100_000, "JSON that cannot be read ({path}): expected labels"),
        (b'{"a": ' + b"9" * 5000 + b"}", "JSON that cannot be read ({path}): expected labels"),
    ],
)
def test_a_file_that_is_none(tmp_path, content, message):
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    with pytest.raises(MasktoolError) as caught:
        read_label_entries(path)
    assert str(caught.value).startswith(message.format(path=path))
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(MasktoolError, match=r"^file not found"):
        read_label_entries(tmp_path / "labels.csv")
    with pytest.raises(MasktoolError, match=r"^not a file .*got a directory"):
        read_label_entries(tmp_path)
