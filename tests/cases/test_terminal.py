"""What reaches a terminal, and what happens where nobody reads."""

import contextlib
import errno
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image

from masktool import MasktoolError, cli, explain, load
from masktool.commands import options
from masktool.demo import model_path, sample_path
from masktool.evaluation.findings import Table
from masktool.exporters.cache import cache_directory
from masktool.printable import printable

HOSTILE = "a\x1b[31m\x1b]0;title\x07\u202egnp.\u2066\x9b2J\r\n\ud800"
QUICK = ["--method", "rise", "--samples", "4"]


def run_masktool(*arguments, redirect):
    command = f'exec "$0" -m masktool "$@" {redirect}'
    return subprocess.run(
        ["sh", "-c", command, sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )


# --- text


def test_what_steers_a_terminal_is_written_out():
    assert printable("\x1b[31mred\x07") == r"\x1b[31mred\x07"
    assert printable("photo\u202egnp.exe") == r"photo\u202egnp.exe"
    assert printable("a\r\nb\tc") == r"a\r\nb\tc"
    assert printable("a\nb\x85", keep="\n") == "a\nb" + r"\x85"
    assert printable("\udcff") == r"\udcff"
    assert printable("\U000e0041") == r"\U000e0041"


@pytest.mark.parametrize("text", ["Käfer", "猫", "می‌خواهم", "👩‍🔬", "a b", ""])
def test_words_of_any_language_stay(text):
    assert printable(text) is text or printable(text) == text


def is_safe(text):
    return all(each == "\n" or printable(each) == each for each in text)


def test_messages_errors_tables_and_names_of_files(tmp_path, capsys):
    options.say(HOSTILE)
    with options.progress(HOSTILE, 3) as advance:
        advance(1, HOSTILE)
    assert cli.run(["explain", str(tmp_path / ("x" + HOSTILE.replace("\ud800", "") + ".png")), *QUICK]) == 2
    from rich.console import Console

    from masktool.commands.evaluate.results import print_table

    print_table(Console(width=500), Table(HOSTILE, HOSTILE, (HOSTILE, "b"), ((HOSTILE, 1.0),)), 1)
    out, err = capsys.readouterr()
    assert is_safe(err)
    assert is_safe(out.encode("utf-8", "surrogatepass").decode("utf-8", "surrogatepass"))
    assert r"\x1b[31m" in err
    assert r"\u202e" in out


def test_a_photograph_whose_name_is_hostile_is_explained(tmp_path, capsys):
    name = "x\x1b[2J\n.png"
    (tmp_path / name).write_bytes(sample_path().read_bytes())
    assert cli.run(["explain", str(tmp_path / name), *QUICK, "-o", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert is_safe(err)
    assert out == f"{tmp_path}/x\x1b[2J\n.rise.png\n", "programs get the very name"


def test_a_name_that_is_no_text_is_printed_byte_for_byte(tmp_path):
    photograph = os.fsencode(tmp_path) + b"/x\xff.png"
    Path(os.fsdecode(photograph)).write_bytes(sample_path().read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "masktool", "explain", photograph, *QUICK, "-o", tmp_path],
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == os.fsencode(tmp_path) + b"/x\xff.rise.png\n"
    assert rb"\udcff" in done.stderr


def test_a_label_of_100_kilobytes_or_several_lines_is_drawn_at_once():
    with load(model_path()) as session:
        found = explain(session, Image.open(sample_path()), "rise", n_samples=4)
    import dataclasses

    for label in ("x" * 100_000, HOSTILE, "a\nb"):
        model = {**found.model, "source": label}
        other = dataclasses.replace(found, label=label, model=model, score_name="score", title=label)
        assert other.plot().size == found.plot().size


# --- streams


def test_closed_stdout_does_no_harm(tmp_path):
    done = run_masktool("explain", sample_path(), *QUICK, "-o", tmp_path, redirect=">&-")
    assert (done.returncode, done.stdout) == (0, "")
    assert [path.suffix for path in tmp_path.iterdir()] == [".png"]
    assert "Traceback" not in done.stderr


def test_everything_closed_does_no_harm(tmp_path):
    done = run_masktool("explain", sample_path(), *QUICK, "-o", tmp_path, redirect="<&- >&- 2>&-")
    assert done.returncode == 0
    with Image.open(next(tmp_path.iterdir())) as picture:
        picture.load()


def run_without_reader(*arguments, unread="stdout"):
    """Runs masktool with a stream whose reader is gone before it writes; returns its code and what the other says."""
    reading, writing = os.pipe()
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, unread: writing}
    process = subprocess.Popen([sys.executable, "-m", "masktool", *map(str, arguments)], text=True, **streams)
    os.close(writing)
    os.close(reading)
    out, err = process.communicate(timeout=120)
    return process.returncode, err if unread == "stdout" else out


def test_files_are_written_though_nobody_reads_their_paths(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(sample_path().read_bytes())
    code, err = run_without_reader("explain", tmp_path, *QUICK, "-o", tmp_path / "out")
    assert code == 0, err
    assert len(list((tmp_path / "out").glob("*.png"))) == 3


def test_the_work_goes_on_though_nobody_reads_messages(tmp_path):
    """rich would end the process with 1 at the first message."""
    code, out = run_without_reader("explain", sample_path(), *QUICK, "-o", tmp_path / "out", unread="stderr")
    assert (code, out) == (0, f"{tmp_path / 'out' / 'sample.rise.png'}\n")
    code, out = run_without_reader("explain", tmp_path / "none.png", *QUICK, "-o", tmp_path / "out", unread="stderr")
    assert (code, out) == (2, "")


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_an_evaluation_whose_tables_nobody_reads_is_whole(tmp_path, form):
    """rich would end the process with 1, and what is said after the tables would be lost."""
    photos = tmp_path / "photos"
    photos.mkdir()
    photos.joinpath("a.png").write_bytes(sample_path().read_bytes())
    photos.joinpath("torn.png").write_bytes(sample_path().read_bytes()[:40])
    measured = ["--method", "occlusion", "--metric", "confidence", "--strict", "-o", tmp_path / "out", *form]
    code, err = run_without_reader("evaluate", "faithfulness", model_path(), photos, *measured)
    assert code == 2, err
    assert "1 images; written: " in err
    assert "torn.png" in err
    assert json.loads((tmp_path / "out" / "faithfulness.json").read_text())["n_images"] == 1


@pytest.mark.parametrize("arguments", [["info", model_path()], ["doctor"], ["--help"]])
def test_what_only_prints_ends_as_by_sigpipe(arguments):
    code, err = run_without_reader(*arguments)
    assert code == 141
    assert "Traceback" not in err
    assert "unexpected" not in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_behind_stdout_is_one_line():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "masktool", "info", model_path()], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr == f"masktool: error: cannot write: {os.strerror(errno.ENOSPC)}\n"


def test_no_home_is_one_line(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", staticmethod(no_home))
    with pytest.raises(MasktoolError, match="XDG_CACHE_HOME"):
        cache_directory()


# --- counts


def test_passes_are_counted_rightly_under_threads():
    photograph = Image.open(sample_path()).convert("RGB")
    counts = {}
    with load(model_path(), threads=1) as session:

        def work(number):
            counts[number] = explain(session, photograph, "rise", n_samples=10 + number, seed=number).forward_passes

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert counts == {number: 11 + number for number in range(6)}
        assert session.forward_passes == sum(counts.values())


def test_a_path_goes_to_a_stream_of_text_that_stands_in_for_stdout():
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        options.print_path(Path("folder/masked.onnx"))
    assert stream.getvalue() == "folder/masked.onnx\n"
