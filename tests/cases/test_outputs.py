"""Where something else than a file stands, nothing is written; what is written is whole, and nothing else is left."""

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from combinations import every_value
from explainers.models import noise_photograph, write_region_model
from networks.small_graphs import classifier
from PIL import Image

from masktool import MasktoolError, export, files
from masktool.cli import run
from masktool.files import TEMPORARY_PREFIX, atomic_path, choose_name, make_directory, make_file, temporary_directory

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="FIFOs, links and locks of POSIX")


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_region_model(tmp_path / "masked.onnx")
    onnx.save(classifier(), tmp_path / "plain.onnx")
    (tmp_path / "photos").mkdir()
    Image.fromarray(noise_photograph((16, 24))).save(tmp_path / "photos" / "a.png")
    return tmp_path


EXPLAIN = ["explain", "photos/a.png", "-m", "masked.onnx", "--method", "occlusion", "--provider", "cpu", "-o", "out"]
EVALUATE = ["evaluate", "faithfulness", "masked.onnx", "photos", "--method", "occlusion", "--metric", "confidence"]
EVALUATE += ["--provider", "cpu", "-o", "out"]
WRITES = {
    "export": (["export", "plain.onnx", "-o", "out/target"], "out/target"),
    "export beside": (["export", "plain.onnx"], "plain.masked.onnx"),
    "explain picture": (EXPLAIN, "out/a.occlusion.png"),
    "explain json": ([*EXPLAIN, "--format", "json"], "out/a.occlusion.json"),
    "explain npz": ([*EXPLAIN, "--format", "npz"], "out/a.occlusion.npz"),
    "evaluate": (EVALUATE, "out/faithfulness.json"),
    "report": (["evaluate", "report", "results", "-o", "out/page.html"], "out/page.html"),
    "demo": (["demo", "-o", "out", "--samples", "2"], "out/sample.png"),
}


def put(kind, path):
    """Puts something that is no file at a path, and returns what shows whether it is the same still."""
    path.parent.mkdir(exist_ok=True)
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
            listener.bind(os.path.relpath(path))  # such paths are short
    elif kind == "link to a FIFO":
        os.mkfifo(path.parent / "pipe")
        path.symlink_to("pipe")
    elif kind == "directory":
        path.mkdir()
    return path.lstat().st_ino, stat.S_IFMT(path.lstat().st_mode)


@every_value(name=WRITES, kind=["FIFO", "socket", "link to a FIFO", "directory"])
def test_what_is_no_file_stays(work, name, kind, capsys):
    arguments, target = WRITES[name]
    if name == "report":
        assert run([*EVALUATE[:-1], "results"]) == 0
    before = put(kind, work / target)
    assert run(arguments) == 2
    err = capsys.readouterr().err
    assert f"error: the output is a {kind.removeprefix('link to a ')} (" in err.splitlines()[-1]
    assert ((work / target).lstat().st_ino, stat.S_IFMT((work / target).lstat().st_mode)) == before
    assert not list(work.rglob(f"{TEMPORARY_PREFIX}*"))


def test_a_device_stays_when_python_exports(work, monkeypatch):
    """Never on the real device: a file whose mode says that it is one."""
    target = work / "null"
    target.touch()
    real = Path.stat

    def pretend(path, **options):
        found = real(path, **options)
        fields = list(found)
        fields[0] = stat.S_IFCHR | 0o666
        return os.stat_result(fields) if path == target else found

    monkeypatch.setattr(Path, "stat", pretend)
    with pytest.raises(MasktoolError, match=r"the output is a device \(.*null\): expected a file"):
        export("plain.onnx", target)


def test_a_link_stays_and_what_it_names_is_written(work, capsys):
    (work / "store").mkdir()
    (work / "store" / "real.onnx").write_bytes(b"old")
    (work / "link.onnx").symlink_to("store/real.onnx")
    (work / "new.onnx").symlink_to("store/absent.onnx")
    for name, place in (("link.onnx", "real.onnx"), ("new.onnx", "absent.onnx")):
        assert run(["export", "plain.onnx", "-o", name]) == 0
        assert (work / name).is_symlink()
        assert not (work / "store" / place).is_symlink()
        onnx.checker.check_model(work / "store" / place)
    assert sorted(path.name for path in (work / "store").iterdir()) == ["absent.onnx", "real.onnx"]


def test_a_loop_of_links_is_one_line(work, capsys):
    (work / "a.onnx").symlink_to("b.onnx")
    (work / "b.onnx").symlink_to("a.onnx")
    assert run(["export", "plain.onnx", "-o", "a.onnx"]) == 2
    assert "error: cannot write (a.onnx): Too many levels of symbolic links" in capsys.readouterr().err


def test_a_file_keeps_its_mode_and_a_new_one_has_the_users(tmp_path):
    (tmp_path / "shown").touch()
    (tmp_path / "shown").chmod(0o640)
    old = os.umask(0o027)
    try:
        for name, mode in (("shown", files.PUBLIC), ("new", files.PUBLIC), ("own", files.PRIVATE)):
            with atomic_path(tmp_path / name, mode=mode) as temporary:
                temporary.write_text("x")
    finally:
        os.umask(old)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"shown": 0o640, "new": 0o640, "own": 0o600}


def test_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    done = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(descriptor):
        done.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else os.fstat(descriptor).st_size)
        real_sync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", lambda path, to: (done.append("renamed"), real_replace(path, to)))
    with atomic_path(tmp_path / "file") as temporary:
        temporary.write_text("12345")
    assert done == [5, "renamed", "directory"]


@pytest.fixture
def forgetful(monkeypatch):
    """As in a new process: no directory counts as clean."""
    monkeypatch.setattr(files, "_CLEANED", set())


def make_temporary(parent, suffix="", *, directory=False):
    path = choose_name(parent, suffix)
    return path, make_directory(path) if directory else make_file(path)


def test_leftovers_go_and_the_living_stay(tmp_path, forgetful):
    _, lock = make_temporary(tmp_path, ".onnx")
    os.close(lock)  # what the end of its process does
    dead_directory, lock = make_temporary(tmp_path, directory=True)
    (dead_directory / "model.onnx").touch()
    os.close(lock)
    strangers = tmp_path / f"{TEMPORARY_PREFIX}link"
    strangers.symlink_to(tmp_path / "precious")
    (tmp_path / "precious").touch()
    files._CLEANED.clear()
    living = [make_temporary(tmp_path), make_temporary(tmp_path, directory=True)]
    files._CLEANED.clear()
    with atomic_path(tmp_path / "file") as temporary:
        temporary.touch()
    assert {path.name for path in tmp_path.iterdir()} == {
        *(path.name for path, _ in living),
        *("file", "precious", strangers.name),
    }
    for _, lock in living:
        os.close(lock)


def test_another_process_that_lives_keeps_its_files(tmp_path, forgetful):
    code = "import sys; from masktool.files import *; print(make_file(choose_name(Path('.'))), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline()
        with temporary_directory(tmp_path):
            assert len(list(tmp_path.iterdir())) == 2
        child.kill()
        child.wait()
    files._CLEANED.clear()
    with temporary_directory(tmp_path) as own:
        assert list(tmp_path.iterdir()) == [own]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_signals_clean_up(work, number, code):
    """A command that waits in the middle of its writing."""
    program = (
        "import sys, time; from masktool import cli, files\n"
        "def wait(*_):\n    print('writing', flush=True)\n    time.sleep(60)\n"
        "files.synchronise = wait\n"
        "sys.argv[1:] = ['export', 'plain.onnx', '-o', 'out/target.onnx']\n"
        "cli.main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == "writing\n"
        assert len(list((work / "out").iterdir())) == 1
        child.send_signal(number)
        said = child.stderr.read()
        assert child.wait(20) == code
    assert said.splitlines()[-1] in ("masktool: terminated", "masktool: interrupted")
    assert list((work / "out").iterdir()) == []


def test_a_full_disk_is_one_line(work, capsys):
    """Stood for by a limit on the size of files: the system answers EFBIG where it would answer ENOSPC."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        for name, (arguments, target) in WRITES.items():
            if name == "report":
                assert run([*EVALUATE[:-1], "results"]) == 0
            capsys.readouterr()
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
            code = run(arguments)
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            said = capsys.readouterr().err.splitlines()[-1]
            assert (name, code) == (name, 2)
            assert said.startswith("masktool: error: cannot write (")
            assert "File too large" in said
            assert not (work / target).exists()
            assert not list(work.rglob(f"{TEMPORARY_PREFIX}*"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
