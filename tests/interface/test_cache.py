"""The cache of exports: what its keys cover, how large it grows, and what a user sees and removes of it."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from networks.plain_classifier import write_plain_model
from test_imports import MAY_IMPORT

import masktool
from masktool import identity
from masktool.cli import run
from masktool.exporters import cache
from masktool.interface import cache_entries
from masktool.interface.cache_entries import LIMIT_VARIABLE, read_limit

PACKAGE = Path(masktool.__file__).parent


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A directory with a plain model; the cache is within."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(LIMIT_VARIABLE, raising=False)
    write_plain_model(tmp_path / "model.onnx")
    return tmp_path


def keep(**options):
    """Exports the plain model into the cache and returns the entry."""
    with masktool.load("model.onnx", providers="cpu", **options) as session:
        return session.path.parent


def use_long_ago(entry, hours):
    """Makes it look as if an entry was last used some hours ago."""
    then = time.time() - 3600 * hours
    os.utime(entry / cache.RECORD, (then, then))


def size_of(entry):
    return sum(path.stat().st_size for path in entry.iterdir())


COVERED = sorted({"interface"} | (MAY_IMPORT["exporters"] - {"foundation"}))


@pytest.mark.parametrize("part", COVERED)
def test_a_changed_constant_of_what_exports_are_made_with_changes_the_key(part, tmp_path, monkeypatch):
    copy = tmp_path / "masktool"
    shutil.copytree(identity.CODE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(identity, "CODE", copy)
    changed = copy / f"{part}.py" if (copy / f"{part}.py").is_file() else sorted((copy / part).rglob("*.py"))[-1]
    request = cache.ExportRequest("model", {}, lambda _: cache.MadeFrom())
    keys = []
    for _ in range(2):
        identity.digest_code.cache_clear()
        keys.append(request.entry)
        with changed.open("a") as stream:
            stream.write("\nANOTHER = 1\n")
    identity.digest_code.cache_clear()
    assert keys[0] != keys[1]


def test_the_least_recently_used_entries_go_when_one_is_made(work, monkeypatch):
    old, older = keep(masking="layer"), keep(masking="partial")
    use_long_ago(old, 1)
    use_long_ago(older, 2)
    monkeypatch.setenv(LIMIT_VARIABLE, str(int(2.2 * size_of(old))))
    said = []
    newest = keep(masking="layer", image_input="image", say=said.append)  # as large as the first
    assert {entry.name for entry in old.parent.iterdir()} == {old.name, newest.name}
    assert any(older.name in line and "removed" in line and LIMIT_VARIABLE in line for line in said)


def test_use_counts_not_age(work, monkeypatch):
    first, second = keep(masking="layer"), keep(masking="partial")
    use_long_ago(first, 5)
    use_long_ago(second, 1)
    assert keep(masking="layer") == first  # used now
    monkeypatch.setenv(LIMIT_VARIABLE, str(int(2.2 * size_of(first))))
    keep(masking="layer", image_input="image")
    assert first.exists()
    assert not second.exists()


def test_the_entry_just_made_and_those_in_use_stay_whatever_the_limit(work, monkeypatch):
    monkeypatch.setenv(LIMIT_VARIABLE, "1 kB")
    just_used = keep(masking="layer")
    said = []
    newest = keep(masking="partial", say=said.append)
    assert just_used.exists()
    assert newest.exists()
    assert any("above its limit of 1.0 kB" in line for line in said)


@pytest.mark.parametrize(
    ("text", "expected"), [("5000", 5000), ("1.5 GB", 1_500_000_000), ("2tb", 2_000_000_000_000), ("none", None)]
)
def test_a_limit_is_a_size_or_none(monkeypatch, text, expected):
    monkeypatch.setenv(LIMIT_VARIABLE, text)
    assert read_limit() == expected


@pytest.mark.parametrize("text", ["much", "-1", "1 GiBi", "nan", "1e9e9", "٣"])
def test_a_limit_that_is_no_size_is_refused(monkeypatch, text):
    monkeypatch.setenv(LIMIT_VARIABLE, text)
    with pytest.raises(masktool.MasktoolError, match=rf"{LIMIT_VARIABLE}.*20 GB"):
        read_limit()


def test_the_list_tells_source_size_use_and_whether_an_entry_is_valid(work, capsys):
    entry = keep(masking="layer")
    use_long_ago(entry, 48)
    assert run(["cache", "list", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["directory"] == str(entry.parent)
    assert document["limit"] == 10_000_000_000
    (only,) = document["entries"]
    assert only["name"] == entry.name
    assert only["source"] == str(work / "model.onnx")
    assert only["bytes"] == size_of(entry)
    assert time.time() - only["last_used"] == pytest.approx(48 * 3600, abs=600)
    assert only["obstacle"] is None
    assert run(["cache", "list"]) == 0
    out = capsys.readouterr().out
    for text in (entry.name, str(work / "model.onnx"), "kB", "valid"):
        assert text in out


def remove_source(work, entry):
    (work / "model.onnx").unlink()


def change_source(work, entry):
    write_plain_model(work / "model.onnx", seed=1)


def damage(work, entry):
    (entry / "model.onnx").write_bytes(b"x")


def lose_record(work, entry):
    (entry / cache.RECORD).unlink()


def another_code(work, entry):
    edit(entry, "code", "0" * 64)


def another_onnx(work, entry):
    packages = json.loads((entry / cache.RECORD).read_text())["identity"]["packages"]
    edit(entry, "identity", {"packages": {**packages, "onnx": "0.1"}})


def another_shape(work, entry):
    edit(entry, "identity", ["packages"])


def edit(entry, name, value):
    record = json.loads((entry / cache.RECORD).read_text())
    (entry / cache.RECORD).write_text(json.dumps({**record, name: value}))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (remove_source, "model.onnx is no longer there"),
        (change_source, "model.onnx has changed"),
        (damage, "not those that were written"),
        (lose_record, "record is missing"),
        (another_code, "another masktool"),
        (another_onnx, "onnx 0.1, now"),
        (another_shape, "record is missing or damaged"),
    ],
)
def test_the_list_says_why_an_entry_is_not_used_again(work, capsys, spoil, reason):
    entry = keep(masking="layer")
    spoil(work, entry)
    (listed,) = masktool.list_cache()
    assert reason in listed.obstacle
    assert run(["cache", "list"]) == 0
    assert reason in capsys.readouterr().out


def test_an_empty_cache_is_listed_and_cleared(work, capsys):
    assert run(["cache", "list"]) == 0
    assert "empty" in capsys.readouterr().out
    assert run(["cache", "clear"]) == 0
    assert "nothing to remove" in capsys.readouterr().err
    assert not (work / "cache").exists()


def test_named_entries_are_removed_and_said(work, capsys):
    first, second = keep(masking="layer"), keep(masking="partial")
    capsys.readouterr()
    assert run(["cache", "clear", first.name]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [first.name]
    assert "kB" in captured.err
    assert not first.exists()
    assert second.exists()


def test_all_entries_are_removed_and_said(work, capsys):
    entries = {keep(masking="layer"), keep(masking="partial")}
    (work / "cache" / "masktool" / "models" / "stray.txt").write_text("no entry")
    capsys.readouterr()
    assert run(["cache", "clear"]) == 0
    assert set(capsys.readouterr().out.splitlines()) == {*(entry.name for entry in entries), "stray.txt"}
    assert not list((work / "cache" / "masktool" / "models").iterdir())


@pytest.mark.parametrize("name", ["none", "..", "../models", ".", ""])
def test_a_name_that_is_no_entry_is_refused_and_nothing_removed(work, capsys, name):
    entry = keep(masking="layer")
    assert run(["cache", "clear", entry.name, name]) == 2
    assert "no such entry" in capsys.readouterr().err
    assert entry.exists()


def test_anothers_cache_is_not_cleared(work, capsys):
    if not hasattr(os, "getuid") or os.getuid() != 0:
        pytest.skip("only root gives files away")
    entry = keep(masking="layer")
    os.chown(entry.parent, 65534, 65534)
    assert run(["cache", "clear"]) == 2
    assert "cannot be trusted" in capsys.readouterr().err
    assert entry.exists()


def test_two_processes_make_the_same_entry_at_once_with_a_small_limit(work):
    code = "import masktool; print(masktool.load('model.onnx', providers='cpu').path)"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), LIMIT_VARIABLE: "1 kB"}
    command = [sys.executable, "-c", code]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) for _ in range(2)]
    paths = {child.communicate()[0].strip() for child in children}
    assert [child.returncode for child in children] == [0, 0]
    (path,) = paths
    assert masktool.load(path, providers="cpu").path == Path(path)
    assert [entry.name for entry in Path(path).parents[1].iterdir()] == [Path(path).parent.name]


def gone_after(monkeypatch, name, entry):
    """Removes an entry, as another process may, right after a function of ``cache`` has returned the first time."""
    real = getattr(cache, name)

    def then_gone(*arguments, **options):
        found = real(*arguments, **options)
        shutil.rmtree(entry, ignore_errors=True)
        return found

    for module in (cache, cache_entries):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, then_gone)


def test_an_entry_that_another_process_removes_meanwhile_is_not_listed(work, monkeypatch):
    entry, other = keep(masking="layer"), keep(masking="partial")
    gone_after(monkeypatch, "read_record", entry)
    assert [found.path for found in masktool.list_cache()] == [other]


@pytest.mark.parametrize("name", ["make_private_directory", "find_foreign", "read_record", "model_in"])
def test_an_entry_that_another_process_removes_meanwhile_is_made_again(name, work, monkeypatch):
    entry, said = keep(masking="layer"), []
    gone_after(monkeypatch, name, entry)
    request = cache.ExportRequest("model", {}, lambda _: cache.MadeFrom())
    monkeypatch.setattr(cache.ExportRequest, "entry", property(lambda _: entry))
    assert cache.find_kept(request, said.append) is None
    assert "not used" in said[0]


def test_the_file_of_a_kept_export_is_read_once_when_it_is_used(work, monkeypatch):
    keep(masking="layer")
    read, real = [], identity.sha256_of
    monkeypatch.setattr(identity, "sha256_of", lambda path: read.append(Path(path).parent.parent.name) or real(path))
    keep(masking="layer")
    assert read.count("models") == 1
