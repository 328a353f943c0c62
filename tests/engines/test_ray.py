"""Explanations in Ray, on a real cluster of two nodes: the rows and pictures of a single process, whatever dies."""

import hashlib
import os
import pickle
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import masktool
from engines.conftest import PATIENCE, ROOT, environment, run_program, wait_until
from masktool import MasktoolError
from masktool.interface.rows import COLUMNS, arrow_table, explanation_row, failure_row
from masktool.runtime.images import read_encoded

ray = pytest.importorskip("ray")
import pyarrow.parquet as parquet  # noqa: E402 - Ray's own package comes first
from ray.cluster_utils import Cluster  # noqa: E402

from masktool.ray import ActorShare, Explain  # noqa: E402

pytestmark = pytest.mark.engines
EXAMPLE = ROOT / "examples" / "ray_folder.py"
METHOD = "rise"
OPTIONS = {"n_samples": 24, "grid_size": 4, "seed": 3}
MARK = "MASKTOOL_ENGINES_RUN"
"""Variable by whose value the processes of a test are known."""
CPUS = 4
"""CPUs of the cluster, as Ray counts them."""
DAMAGED = "100.png"
NAMES = [column.name for column in COLUMNS]


@pytest.fixture(scope="module")
def alone(photographs, model):
    """What a single process gives: the table, and the pictures' bytes by name."""
    rows, pictures = [], {}
    with masktool.load(model, "cpu", threads=1) as session:
        for path in sorted(photographs.iterdir()):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            try:
                found = masktool.explain(session, path, METHOD, **OPTIONS)
            except MasktoolError as error:
                rows.append(failure_row(str(path), digest, error.message))
                continue
            rows.append(explanation_row(found, str(path), digest))
            (written,) = found.save(photographs.parent / "alone", ["png"], path.name)
            pictures[f"{path.name}.{METHOD}.png"] = written.read_bytes()
    return arrow_table(rows), pictures


def add_node(started, node, attempts=4):
    """Adds a node; Ray gives a node 30 s to start, which on a busy machine is not always enough."""
    for attempt in range(attempts):
        try:
            started.add_node(**node)
            break
        except Exception as error:  # Ray raises no other
            if "timed out during startup" not in str(error) or attempt == attempts - 1:
                raise


@pytest.fixture(scope="module")
def cluster():
    """The address of a cluster of two nodes, each a process of its own with workers of its own, and its mark."""
    mark = uuid.uuid4().hex
    variables = environment(**{MARK: mark}, RAY_enable_worker_prestart="0", RAY_worker_niceness="0")
    os.environ.update(variables)  # its nodes and their workers inherit them
    node = {"num_cpus": CPUS // 2, "object_store_memory": 80 << 20, "memory": 2 << 30}
    started = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    add_node(started, node)
    started.wait_for_nodes()
    assert len(started.list_all_nodes()) == 2
    yield started.address, mark
    started.shutdown()
    del os.environ[MARK]


def start_example(cluster, model, photographs, out, *more):
    """Starts the example, as a user does."""
    options = '{"n_samples": 24, "grid_size": 4, "seed": 3}'
    command = [sys.executable, EXAMPLE, model, photographs, out, "--method", METHOD, "--options", options, *more]
    with (out.parent / f"{out.name}.log").open("ab") as log:
        variables = environment(RAY_ADDRESS=cluster[0])
        return subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, env=variables)


def finish(program, out):
    """Waits for the example's end."""
    try:
        assert program.wait(PATIENCE) == 0, (out.parent / f"{out.name}.log").read_text()[-4000:]
    finally:
        program.kill()


def find_actors(mark):
    """Returns the processes of the test's cluster that explain."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            explains = b"MapBatches(Explain)" in (process / "cmdline").read_bytes()
            if explains and f"{MARK}={mark}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


def count_pictures(out):
    return len(list((out / "pictures").glob("*.png"))) if (out / "pictures").is_dir() else 0


def read_rows(out):
    """Returns the rows that Ray wrote, sorted by photograph, with the columns that every row has."""
    return parquet.read_table(out / "rows").sort_by("file").select(NAMES)


def committed_paths(out):
    """Returns the photographs whose rows Ray knows to be written; a killed program leaves half a file too."""
    files = [path for path in (out / "checkpoint").rglob("*.parquet") if ".pending" not in path.name]
    found = {path for file in files for path in parquet.read_table(file).column("path").to_pylist()}
    return {path for path in found if Path(path).name != DAMAGED}


def assert_the_same(out, alone):
    table, pictures = alone
    found = read_rows(out)
    assert found.cast(table.schema).equals(table)
    written = {path.name: path.read_bytes() for path in (out / "pictures").iterdir()}
    assert written == pictures


def test_a_worker_is_killed_in_the_middle(cluster, model, photographs, alone, tmp_path):
    """The actors take all CPUs of the cluster: what reads and writes has to do without one."""
    out = tmp_path / "killed"
    program = start_example(cluster, model, photographs, out, "--actors", CPUS)
    try:
        wait_until(lambda: count_pictures(out) >= 20 or program.poll() is not None, "20 pictures")
        actors = find_actors(cluster[1])
        assert len(actors) == CPUS
        os.kill(actors[0], signal.SIGKILL)
        assert count_pictures(out) < 180, "killed too late to prove anything"
        wait_until(lambda: set(find_actors(cluster[1])) - set(actors) or program.poll() is not None, "another actor")
    finally:
        finish(program, out)
    assert_the_same(out, alone)


def test_the_program_is_killed_and_run_again(cluster, model, photographs, alone, tmp_path):
    out = tmp_path / "resumed"
    program = start_example(cluster, model, photographs, out, "--batch", 4)
    try:
        wait_until(lambda: len(list(out.glob("rows/*.parquet"))) >= 3 or program.poll() is not None, "some rows")
    finally:
        program.send_signal(signal.SIGKILL)
        program.wait(PATIENCE)
    wait_until(lambda: not find_actors(cluster[1]), "the end of the killed program's actors")
    before = committed_paths(out)
    assert 0 < len(before) < 200
    times = {path: (out / "pictures" / f"{Path(path).name}.{METHOD}.png").stat().st_mtime_ns for path in before}
    finish(start_example(cluster, model, photographs, out, "--batch", 4), out)
    assert_the_same(out, alone)
    for path, time in times.items():  # what was in the table was not explained again
        assert (out / "pictures" / f"{Path(path).name}.{METHOD}.png").stat().st_mtime_ns == time


def test_what_ray_gives_decides_threads_and_provider():
    assert ActorShare(4, 0).threads == 4
    assert ActorShare(0.5, 0).threads == ActorShare(0, 0).threads == 1
    assert ActorShare(1, 0).choose(None) == "cpu"
    assert ActorShare(1, 0.25).choose(None) == "auto"
    assert ActorShare(1, 0.25).choose("cpu") == "cpu"


def test_a_gpu_that_does_not_load_is_an_error(model):
    with masktool.load(model, "cpu") as session:
        ActorShare(1, 0).check(session, None)
        ActorShare(1, 1).check(session, "cpu")
        with pytest.raises(MasktoolError, match="the actor has a GPU from Ray"):
            ActorShare(1, 0.5).check(session, None)


def test_rows_of_arrays_and_bytes_with_kept_columns(model, photographs):
    explain = Explain(model, "occlusion", targets=[0, 3], keep=["id"], sliding_window_shapes=16, strides=16)
    paths = [photographs / name for name in ("000.png", DAMAGED, "001.png")]
    contents = np.array([path.read_bytes() for path in paths], object)
    table = explain({"path": np.array(list(map(str, paths))), "bytes": contents, "id": np.array([7, 8, 9])})
    assert table.column("id").to_pylist() == [7, 7, 8, 9, 9]
    assert table.column("target").to_pylist() == [0, 3, None, 0, 3]
    error = table.column("error").to_pylist()[2]
    assert "100.png" in error
    assert table.column("sha256").to_pylist()[2] == hashlib.sha256(contents[1]).hexdigest()
    arrays = np.stack([np.asarray(read_encoded(contents[place], "here")) for place in (0, 2)])
    again = explain({"path": np.array(["000.png", "001.png"]), "image": arrays, "id": np.array([7, 9])})
    assert again.column("map").to_pylist() == [each for each in table.column("map").to_pylist() if each is not None]
    assert again.column("sha256").to_pylist() == [None] * 4


def test_it_is_pickled_by_path(model, photographs):
    explain = Explain(model, METHOD, **OPTIONS)
    written = pickle.dumps(explain)
    assert len(written) < 2000
    batch = {"path": np.array(["000.png"]), "bytes": np.array([(photographs / "000.png").read_bytes()], object)}
    assert pickle.loads(written)(batch).equals(explain(batch))


def test_pictures_keep_subfolders_apart(model, photographs, tmp_path):
    content = (photographs / "000.png").read_bytes()
    explain = Explain(model, METHOD, pictures=tmp_path / "out", root=tmp_path / "in", **OPTIONS)
    paths = [str(tmp_path / "in" / name) for name in ("a/x.png", "b/x.png", "b/x.jpg")]
    explain({"path": np.array(paths), "bytes": np.array([content] * 3, object)})
    found = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png"))
    assert found == ["a/x.png.rise.png", "b/x.jpg.rise.png", "b/x.png.rise.png"]
    Image.open(tmp_path / "out" / found[0]).verify()
    with pytest.raises(MasktoolError, match="a photograph outside of"):
        explain({"path": np.array(["/elsewhere/x.png"]), "bytes": np.array([content], object)})


def test_pictures_go_into_a_store(model, photographs, monkeypatch):
    """A file system of pyarrow's that is no folder of this machine, as that of a store is."""
    from pyarrow import fs

    store, _ = fs.FileSystem.from_uri("mock:///")
    content = (photographs / "000.png").read_bytes()
    explain = Explain(model, METHOD, pictures="mock:///pictures", root="mock:///in", **OPTIONS)
    explain.pictures = explain.pictures._replace(system=store)
    store.create_dir("pictures")
    explain({"path": np.array(["in/x.png"]), "bytes": np.array([content], object)})
    with store.open_input_stream("pictures/x.png.rise.png") as stream:
        assert stream.read()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keep": ["file"]}, "has a column of that name"),
        ({"pictures": "out"}, "named after the photographs' paths"),
        ({"pictures": "nowhere://x", "root": "in"}, "no address that pyarrow knows"),
        ({"colour": 3}, "colour"),
    ],
)
def test_arguments_that_cannot_be_used(model, arguments, message):
    with pytest.raises(MasktoolError, match=message):
        Explain(model, METHOD, **arguments)


def test_batches_that_cannot_be_used(model):
    explain = Explain(model, METHOD, keep=["id"], **OPTIONS)
    with pytest.raises(MasktoolError, match=r"the batch lacks columns .*id.*bytes or image.*read_binary_files"):
        explain({"path": np.array(["x"])})
    none = explain({"path": np.array(["x"]), "bytes": np.array([None]), "id": np.array([1])})
    assert "the row has no photograph" in none.column("error").to_pylist()[0]


def test_a_target_that_the_model_has_not_ends_the_job(model, photographs):
    explain = Explain(model, METHOD, targets=[99], **OPTIONS)
    content = np.array([(photographs / "000.png").read_bytes()], object)
    with pytest.raises(MasktoolError, match="99"):
        explain({"path": np.array(["x"]), "bytes": content})


def test_a_missing_model_ends_the_job_with_its_name(cluster, photographs, tmp_path):
    program = start_example(cluster, tmp_path / "missing.onnx", photographs, tmp_path / "none")
    assert program.wait(PATIENCE) != 0
    assert "missing.onnx" in (tmp_path / "none.log").read_text()


def test_without_ray_the_extra_is_named():
    program = (
        "import sys; sys.modules['ray'] = None\n"
        "import masktool.ray\n"
        "try: masktool.ray.read_share()\n"
        "except masktool.MasktoolError as error: print(error)"
    )
    assert "pip install 'masktool[ray]'" in run_program(sys.executable, "-c", program, env=environment())
