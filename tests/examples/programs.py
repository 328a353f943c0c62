"""The examples that take raw numbers: programs called with the paths of a model, an input and a map."""

import subprocess

import numpy as np

from examples.files import LABELS

LONGEST = 80
"""Lines of source: a newcomer reads it at one go."""


def run(command, *arguments, folder, environment=None):
    """Runs a program in a folder and returns its exit status and what it printed."""
    return subprocess.run(
        [*map(str, command), *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def assert_map_is_pythons(command, files, method, target, folder):
    """Holds a program's class and map to Python's."""
    (folder / "image.f32").write_bytes(files.image.tobytes())
    done = run(command, files.path(method, target=target), "image.f32", "map.f32", folder=folder)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    expected = files.expected(method)
    label = LABELS[int(done.stdout.removeprefix("class ").partition(",")[0])]
    expected.assert_same(label, expected.probability, np.fromfile(folder / "map.f32", np.float32))


def assert_other_sizes_are_refused(command, files, folder):
    """Gives a program a number too few, and one too many."""
    numbers = files.image.tobytes()
    for size, given in {"smaller": numbers[4:], "larger": numbers + numbers[:4]}.items():
        (folder / "image.f32").write_bytes(given)
        done = run(command, files.path("occlusion"), "image.f32", "map.f32", folder=folder)
        assert done.returncode == 1, size
        assert done.stderr == f"the input must hold {files.image.size} float32 numbers\n", (size, done.stderr)
        assert not (folder / "map.f32").exists(), size
