"""``masktool explain DIR -o OUT``: resumed to the same bytes, whatever fails listed, no name shared, in any process."""

import contextlib
import dataclasses
import io
import json
import os
import shutil
import signal
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
from explainers.models import noise_photograph, write_region_model
from PIL import Image

import masktool
from masktool.cli import run
from masktool.errors import MasktoolError
from masktool.interface.folders import pipeline, work
from masktool.interface.folders.rate import Rate, describe_duration, describe_rate
from masktool.interface.folders.run import FAILED, JOURNAL, FolderRun
from masktool.interface.folders.table import MOST_ROWS, TABLE, group_rows
from masktool.interface.folders.work import decode_row, encode_row
from masktool.interface.folders.workers import SessionOpening, WorkerPool, describe_ending
from masktool.interface.rows import failure_row
from masktool.progress import no_progress

ALL = ["--method", "occlusion", "--format", "png,json,npz,parquet"]
N = 5


def write_photographs(folder, names, size=(20, 30)):
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        Image.fromarray(noise_photograph(size, seed)).save(folder / name)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a model and five photographs, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_region_model(tmp_path / "model.onnx")
    write_photographs(tmp_path / "photos", [f"p{number}.png" for number in range(N)])
    return tmp_path


@pytest.fixture
def explain(place, capfd):
    """Runs the command; returns the exit code, the lines on stdout, and stderr."""

    def call(*arguments):
        capfd.readouterr()
        code = run(["explain", *map(str, arguments), "-m", "model.onnx", "--provider", "cpu"])
        captured = capfd.readouterr()
        return code, captured.out.splitlines(), captured.err

    return call


def contents(folder):
    """The bytes of all files but the journal, which knows photographs by their whole paths."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != JOURNAL}


@pytest.fixture
def whole(explain, place):
    """What an undisturbed run writes."""
    assert explain("photos", *ALL, "-o", "whole")[0] == 0
    return contents(place / "whole")


def stop_after(monkeypatch, count, error):
    """Raises an error where the next photograph but ``count`` would be written."""
    original, written = pipeline.write_result, []

    def write(task, *rest):
        if len(written) == count:
            raise error
        written.append(task)
        return original(task, *rest)

    monkeypatch.setattr(pipeline, "write_result", write)


def test_a_folder_gives_a_file_for_every_photograph_and_one_table(whole):
    each = [f"p{number}.occlusion.{suffix}" for number in range(N) for suffix in ("json", "npz", "png")]
    assert sorted(whole) == sorted([*each, TABLE])
    assert "timing" not in json.loads(whole["p0.occlusion.json"])


@pytest.mark.parametrize("done", range(N))
def test_a_run_that_was_interrupted_ends_with_the_same_bytes(explain, place, whole, monkeypatch, done):
    with monkeypatch.context() as patched:
        stop_after(patched, done, KeyboardInterrupt())
        assert explain("photos", *ALL, "-o", "out")[0] == 130
    code, out, err = explain("photos", *ALL, "-o", "out")
    assert code == 0
    assert contents(place / "out") == whole
    kept = len((place / "out" / JOURNAL).read_text().splitlines()) - 1
    assert kept == N
    assert (f"resuming: {done} of {N}" in err) == (done > 0)
    assert len(out) == 3 * (N - done) + 1


def test_a_second_run_does_nothing_anew(explain, place, whole, monkeypatch):
    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr(work, "read_subject", refuse)
    code, out, err = explain("photos", *ALL, "-o", "whole")
    assert (code, out) == (0, [f"whole/{TABLE}"])
    assert f"{N} were explained before" in err
    assert contents(place / "whole") == whole


@pytest.mark.parametrize("what", ["photograph", "file", "size", "journal"])
def test_what_is_not_as_it_was_is_done_again(explain, place, whole, what):
    out = place / "whole"
    if what == "photograph":
        Image.fromarray(noise_photograph((20, 30), 99)).save(place / "photos" / "p1.png")
    elif what == "file":
        (out / "p1.occlusion.npz").unlink()
    elif what == "size":
        (out / "p1.occlusion.png").write_bytes(b"half")
    else:
        lines = (out / JOURNAL).read_bytes().split(b"\n")
        (out / JOURNAL).write_bytes(b"\n".join([*lines[:2], lines[2][:-30], *lines[3:]]))
    code, printed, _ = explain("photos", *ALL, "-o", "whole")
    assert code == 0
    assert [line for line in printed if "p1" in line] == printed[:-1]
    assert len(printed) == 4
    again = contents(out)
    assert {name for name in whole if whole[name] != again[name]} <= {name for name in whole if "p1" in name} | {TABLE}
    assert (again == whole) == (what != "photograph")


def test_other_settings_begin_anew_and_say_so(explain, whole):
    code, out, err = explain("photos", *ALL, "-o", "whole", "--seed", "1")
    assert code == 0
    assert "an earlier run had other settings (seed): starting anew" in err
    assert len(out) == 3 * N + 1
    write_region_model("model.onnx", source="another")
    assert "other settings (model)" in explain("photos", *ALL, "-o", "whole", "--seed", "1")[2]


def test_bad_files_are_listed_and_stop_nothing(explain, place):
    for number in range(8):
        (place / "photos" / f"bad{number}.jpg").write_bytes(b"no image")
    code, _, err = explain("photos", *ALL, "-o", "out")
    assert code == 2
    assert err.count("masktool: error: not an image") == 5
    assert f"8 of {8 + N} photographs could not be explained: bad0.jpg, bad1.jpg" in err
    listed = (place / "out" / FAILED).read_text().splitlines()
    assert [line.split("\t")[0] for line in listed] == [f"photos/bad{number}.jpg" for number in range(8)]
    rows = parquet.read_table(place / "out" / TABLE).to_pylist()
    assert [row["file"] for row in rows] == [
        f"photos/{name}" for name in sorted(path.name for path in (place / "photos").iterdir())
    ]
    assert ["not an image" in (row["error"] or "") for row in rows] == [True] * 8 + [False] * N
    for number in range(8):
        (place / "photos" / f"bad{number}.jpg").unlink()
    assert explain("photos", *ALL, "-o", "out")[0] == 0
    assert not (place / "out" / FAILED).exists()


def test_without_a_list_every_failure_is_told(explain, place):
    for number in range(8):
        (place / "photos" / f"bad{number}.jpg").write_bytes(b"no image")
    code, _, err = explain("photos", "--method", "occlusion", "--json")
    assert code == 2
    assert err.count("masktool: error: not an image") == 8


def test_rows_are_those_of_the_explanations(explain, place, whole):
    rows = parquet.read_table(io.BytesIO(whole[TABLE])).to_pylist()
    assert [row["file"] for row in rows] == [f"photos/p{number}.png" for number in range(N)]
    for row in rows:
        found = masktool.explain("model.onnx", row["file"], "occlusion", providers="cpu")
        assert np.array_equal(np.float32(row["map"]).reshape(row["map_height"], -1), found.model_attributions)
        assert row["score"] == pytest.approx(found.score)


def test_methods_and_targets_have_a_row_each(explain, place):
    targets = ["--target", "0", "--target", "bottom right"]
    code, out, _ = explain("photos", *ALL[:2], "--method", "rise", "--samples", "20", *targets, "-o", "out", "--format",
                           "parquet")  # fmt: skip
    assert code == 0
    assert out == [f"out/{TABLE}"]
    rows = parquet.read_table(place / "out" / TABLE).to_pylist()
    found = [(row["file"], row["method"], row["target"]) for row in rows]
    assert found == [
        (f"photos/p{n}.png", method, t) for n in range(N) for method in ("occlusion", "rise") for t in (0, 1)
    ]


def test_folders_share_no_name_and_keep_theirs(explain, place):
    for folder in ("a", "b", "c"):
        write_photographs(place / folder, ["cat.png", "cat.bmp"])
    assert explain("b", "c", "--method", "occlusion", "-o", "out")[0] == 0
    before = contents(place / "out")
    assert sorted(before) == ["cat-2.occlusion.png", "cat-3.occlusion.png", "cat-4.occlusion.png", "cat.occlusion.png"]
    code, out, _ = explain(place / "a", "./b/", "c", "--method", "occlusion", "-o", "out")
    assert code == 0
    assert out == ["out/cat-5.occlusion.png", "out/cat-6.occlusion.png"]
    after = contents(place / "out")
    assert {name: after[name] for name in before} == before
    shutil.rmtree(place / "b")
    (place / "photos" / "p0.png").rename(place / "photos" / "cat.png")
    assert "out/cat.occlusion.png" in explain("photos", "--method", "occlusion", "-o", "out")[1]


def test_a_name_that_would_be_too_long_is_cut(explain, place):
    write_photographs(place / "long", ["x" * 240 + f"{n}.png" for n in range(2)])
    code, out, err = explain("long", *ALL[:2], "--target", "bottom right", "--target", "0", "-o", "out")
    assert code == 0, err
    assert len(set(out)) == 4
    assert all(len(Path(name).name) == 255 for name in out if "bottom" in name)


def test_a_full_disk_stops_at_once_with_the_cause(explain, place, monkeypatch):
    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(work.Explanation, "write", full)
    code, out, err = explain("photos", *ALL, "-o", "out")
    assert (code, out) == (2, [])
    assert err.splitlines()[-1].startswith("masktool: error: cannot write (out/p0.occlusion.png): No space left")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere; see tests/faults")
def test_a_folder_that_cannot_be_written_is_told_before_any_work(explain, place):
    (place / "out").mkdir(mode=0o500)
    code, _, err = explain("photos", *ALL, "-o", "out")
    assert code == 2
    assert "cannot write into the output directory" in err


def test_an_unforeseen_error_names_its_photograph(explain, monkeypatch):
    def fail(path):
        if path.name == "p3.png":
            raise ZeroDivisionError("unforeseen")
        return Image.open(path).convert("RGB")

    monkeypatch.setattr(work, "read_subject", fail)
    code, _, err = explain("photos", *ALL, "-o", "out")
    assert code == 1
    assert "photos/p3.png: ZeroDivisionError: unforeseen" in err.splitlines()[-1]


def test_limits_hold_in_every_thread(explain, place, capfd):
    code = run(["--limit", "pixels=10", "explain", "photos", *ALL, "-m", "model.onnx", "-o", "out"])
    assert code == 2
    assert "--limit pixels=600" in capfd.readouterr().err


def test_few_photographs_are_held_at_a_time(explain, place, monkeypatch):
    side, alive = 700, []
    write_photographs(place / "large", [f"{number:02}.bmp" for number in range(20)], (side, side))
    original = pipeline.write_result

    def write(*arguments):
        alive.append(tracemalloc.get_traced_memory()[0])
        return original(*arguments)

    monkeypatch.setattr(pipeline, "write_result", write)
    tracemalloc.start()
    try:
        assert explain("large", "--method", "occlusion", "-o", "out", "--format", "npz,parquet")[0] == 0
    finally:
        tracemalloc.stop()
    held = alive[3:]  # at the first few there is still something to import
    assert len(held) == 17
    few = pipeline.AHEAD + pipeline.BEHIND + 4  # what waits, what is explained, and copies while files are read
    assert max(held) - min(held) < few * side * side * 4  # all of them would be twice as many


# --- several processes


def test_two_processes_write_the_same_bytes_and_print_in_order(explain, place, whole):
    (place / "photos" / "p2x.jpg").write_bytes(b"no image")
    assert explain("photos", *ALL, "--json", "-o", "one")[0] == 2
    code, out, err = explain("photos", *ALL, "--json", "-o", "two", "--jobs", "2")
    assert code == 2, err
    assert contents(place / "two") == contents(place / "one")
    documents = [json.loads(line) for line in out]
    assert [document["file"] for document in documents] == [f"photos/p{number}.png" for number in range(N)]
    assert documents[0]["written"][0] == "two/p0.occlusion.png"
    for name in ("p1.occlusion.png", "p4.occlusion.npz"):
        (place / "two" / name).unlink()
    assert explain("photos", *ALL, "-o", "two", "--jobs", "2")[0] == 2
    assert contents(place / "two") == contents(place / "one")


def test_standard_input_is_for_one_process(explain):
    code, _, err = explain("-", "photos", "--method", "occlusion", "--jobs", "2")
    assert code == 2
    assert "--jobs" in err


def die_of_bright_photographs(explanation):
    """Stands for a process that the system ends in the middle of a photograph."""
    if np.asarray(explanation.image).mean() > 250:
        os.kill(os.getpid(), signal.SIGKILL)
    return ""


def die_once(explanation):
    """Dies of a bright photograph the first time."""
    if np.asarray(explanation.image).mean() > 250:
        with contextlib.suppress(FileExistsError):
            os.close(os.open("died", os.O_CREAT | os.O_EXCL))
            os.kill(os.getpid(), signal.SIGKILL)
    return ""


def test_a_single_photograph_for_several_processes_tells_the_threads_as_asked_for(explain, place):
    """One process is enough for it, which has the share of one of several all the same."""
    write_photographs(place / "single", ["p.png"])
    assert explain("single", *ALL, "-o", "one")[0] == 0
    assert explain("single", *ALL, "-o", "two", "--jobs", "2")[0] == 0
    assert contents(place / "two") == contents(place / "one")


def test_what_a_process_opens_beside_the_model_has_its_share_of_threads_too(place):
    with SessionOpening(place / "model.onnx", "cpu", 1, None).open() as session:
        assert session.threads == 1  # which models beside it are opened with
        assert session.write_half is not None


def explain_with(place, describe, jobs=2):
    """Explains the photographs in processes that describe their explanations by a function."""
    request = work.ExplanationRequest(
        methods={"occlusion": {}}, targets=(None,), output=None, score="probability", inputs={}, input_size=None,
        seed=0, batch=None, stopping={}, directory=place / "out", formats=("png",), describe=describe,
    )  # fmt: skip
    said, told = [], []
    opening = SessionOpening(place / "model.onnx", "cpu", 1, None)
    run_ = FolderRun(
        sorted((place / "photos").iterdir()), request, {}, no_progress, said.append, lambda *each: told.append(each)
    )
    with WorkerPool(opening, request, jobs, said.append) as pool:
        outcome = run_.run(pool.explain)
    return outcome, said, told


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("describe", [die_of_bright_photographs, die_once])
def test_a_process_that_dies_is_named_and_its_photograph_tried_once_more(place, describe):
    Image.new("RGB", (30, 20), "white").save(place / "photos" / "p1.png")
    outcome, said, told = explain_with(place, describe)
    assert [path.name for path, _ in told] == [f"p{number}.png" for number in range(N)]
    (line,) = [line for line in said if "its process ended" in line]
    assert "p1.png: its process ended, killed by SIGKILL, as where memory runs out; it is tried once more" in line
    failed = [told[each.place][0].name for each in outcome.failures]
    assert failed == ([] if describe is die_once else ["p1.png"])
    if failed:
        assert "its process ended twice" in (place / "out" / FAILED).read_text()
    written = {path.name.partition(".")[0] for path in (place / "out").glob("*.png")}
    assert written >= {f"p{number}" for number in range(N)} - {name.removesuffix(".png") for name in failed}


def test_a_process_that_cannot_open_the_model_ends_the_run(place):
    (place / "model.onnx").write_bytes(b"no model")
    with pytest.raises(MasktoolError, match="model"):
        explain_with(place, describe=repr)


def test_how_a_process_ended_in_words():
    assert describe_ending(3) == "with exit code 3"
    assert describe_ending(-signal.SIGTERM) == "killed by SIGTERM"


# --- rates and tables


def test_rates_and_times_in_words():
    assert [describe_rate(each) for each in (12.34, 0.5, 0.002, 0.0001)] == [
        "12.3 a second", "30 a minute", "7.2 an hour", "8.6 a day",
    ]  # fmt: skip
    times = [describe_duration(each) for each in (8, 90, 3725, 90000)]
    assert times == ["8 s", "1 min 30 s", "1 h 2 min", "1 d 1 h"]


def test_what_was_done_before_does_not_count_in_the_rate(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("masktool.interface.folders.rate.time.monotonic", lambda: now[0])
    rate = Rate()
    assert rate.describe(10) == ""
    now[0] += 50
    rate.count(0)
    for _ in range(3):
        now[0] += 2
        rate.count(1)
    assert rate.per_second == pytest.approx(0.5)
    assert rate.describe(60) == "30 a minute, 2 min 0 s left"


def test_groups_of_rows_are_bounded_by_what_they_hold():
    row = failure_row("a", None, "error")
    assert [len(group) for group in group_rows([row] * (MOST_ROWS + 1))] == [MOST_ROWS, 1]
    large = row | {"map": np.zeros(1_500_000, np.float32)}
    assert [len(group) for group in group_rows([large] * 7)] == [3, 3, 1]


def test_a_map_comes_back_to_the_last_bit():
    values = np.random.default_rng(0).normal(size=100).astype(np.float32)
    values[3] = np.nan
    row = failure_row("a", None, "") | {"map": values}
    encoded = encode_row(row)
    assert json.loads(json.dumps(encoded)) == encoded
    assert decode_row(encoded)["map"].tobytes() == values.tobytes()
    assert dataclasses.is_dataclass(work.PhotographResult)
