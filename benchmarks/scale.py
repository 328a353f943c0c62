"""What many photographs cost: seconds of one core and bytes for each, and what Ray makes of one and two actors.

python -m benchmarks.scale shared/data --ray --write docs/scale.md

Everything is measured on one thread, in CPU seconds, so that a machine that others use too gives the same figures; the
throughput of Ray's actors alone is wall time. What a million and a billion photographs cost is the formula of the page.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import masktool
from benchmarks.incremental_occlusion import cpu_seconds
from benchmarks.pages import put_table
from masktool.interface.folders.table import write_rows
from masktool.interface.rows import Row, explanation_row

NETWORK = "squeezenet11_caffe2_fp32.onnx"
METHODS = ("grad-cam", "recipro-cam", "lime", "rise", "occlusion")
NAME = "benchmarks.scale"
HOUR, YEAR = 3600, 365.25 * 24 * 3600
MILLION, BILLION = 10**6, 10**9
CORES = 1000
EXAMPLE = Path(__file__).parents[1] / "examples" / "ray_folder.py"
ACTORS = (1, 2)


class MethodCost(NamedTuple):
    """What one photograph costs by one method.

    Attributes:
        method: the method's name.
        passes: forward passes, the median.
        seconds: seconds of one core, the median: read, explained, drawn and written.
        row_bytes: bytes of its row in a Parquet file, the mean.
        picture_bytes: bytes of its picture, the mean.
    """

    method: str
    passes: float
    seconds: float
    row_bytes: float
    picture_bytes: float

    def line(self) -> str:
        """Returns the line of the table, with what the formula of the page makes of it."""
        figures = (
            self.passes,
            self.seconds,
            1 / self.seconds,
            core_hours(self.seconds, MILLION),
            core_years(self.seconds, BILLION),
            days_on(CORES, self.seconds, BILLION),
            self.row_bytes / 1e3,
            self.picture_bytes / 1e3,
        )
        return " | ".join([f"| `{self.method}`", *map(shorten, figures)]) + " |"


def shorten(figure: float) -> str:
    """Returns a figure with three digits, and without an exponent."""
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"


def core_hours(seconds: float, photographs: int) -> float:
    """Returns the hours of one core that photographs take."""
    return photographs * seconds / HOUR


def core_years(seconds: float, photographs: int) -> float:
    """Returns the years of one core that photographs take."""
    return photographs * seconds / YEAR


def days_on(cores: int, seconds: float, photographs: int) -> float:
    """Returns the days that photographs take on a number of cores, all of them busy."""
    return photographs * seconds / cores / (24 * HOUR)


def measure_method(model: Path, photographs: Sequence[Path], method: str, folder: Path) -> MethodCost:
    """Explains photographs one after the other on one thread."""
    rows: list[Row] = []
    seconds, passes, pictures = [], [], []
    gradient = method == "grad-cam"
    head = "last" if method == "recipro-cam" else None
    with masktool.load(
        model, "cpu", threads=1, preprocessing="imagenet", gradient=gradient, head=head, class_output=None
    ) as session:

        def explain(path: Path) -> None:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found = masktool.explain(session, path, method)
            (picture,) = found.save(folder, ["png"], f"{path.stem}.{method}")
            rows.append(explanation_row(found, str(path), digest))
            passes.append(found.forward_passes)
            pictures.append(picture.stat().st_size)

        explain(photographs[0])  # opens what is opened once
        for record in (rows, passes, pictures):
            record.clear()
        for path in photographs:
            seconds.append(cpu_seconds(lambda: explain(path)))  # noqa: B023
    table = folder / f"{method}.parquet"
    seconds[0] += cpu_seconds(lambda: write_rows(table, rows))
    size = table.stat().st_size / len(rows)
    return MethodCost(method, statistics.median(passes), statistics.median(seconds), size, statistics.fmean(pictures))


def measure_ray(model: Path, photographs: Path, actors: int) -> float:
    """Returns photographs a second of the example with a number of actors, from their first picture to the last."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        options = '{"n_samples": 100, "grid_size": 4, "estimator": "mean"}'
        command = [sys.executable, EXAMPLE, model, photographs, out, "--method", "rise", "--options", options]
        command += ["--actors", str(actors), "--batch", "4"]
        variables = os.environ | {"PYTHONPATH": str(EXAMPLE.parents[1]), "OMP_NUM_THREADS": "1", "RAY_ADDRESS": "local"}
        subprocess.run(list(map(str, command)), check=True, capture_output=True, env=variables, timeout=1200)
        written = sorted(path.stat().st_mtime for path in (out / "pictures").iterdir())
    return (len(written) - 1) / (written[-1] - written[0])


def draw_photographs(folder: Path, count: int) -> Path:
    """Writes photographs for the network that masktool brings, and returns their folder."""
    from PIL import Image

    from masktool.demo import shapes

    folder.mkdir()
    for number, pixels in enumerate(shapes.draw(0, count).images):
        Image.fromarray(pixels).save(folder / f"{number:04}.png")
    return folder


def ray_lines(count: int, rounds: int) -> str:
    """Returns the table of Ray's actors, which take turns."""
    from masktool import demo

    with tempfile.TemporaryDirectory() as folder:
        photographs = draw_photographs(Path(folder) / "in", count)
        found: dict[int, list[float]] = {actors: [] for actors in ACTORS}
        for _ in range(rounds):
            for actors in ACTORS:
                found[actors].append(measure_ray(demo.model_path(), photographs, actors))
                print(actors, found[actors][-1], os.getloadavg()[0], file=sys.stderr, flush=True)
    base = statistics.median(found[1])
    lines = ["| actors, one CPU each | photographs a second | times one actor |", "|---|---|---|"]
    for actors, rates in found.items():
        rate = statistics.median(rates)
        lines.append(f"| {actors} | {rate:.3g} ({min(rates):.3g} to {max(rates):.3g}) | {rate / base:.2f} |")
    return "\n".join(lines)


def method_lines(data: Path, count: int) -> str:
    """Returns the table of methods."""
    photographs = sorted((data / "images").glob("ILSVRC*.jpg"))[:count]
    out = io.StringIO()
    print(
        "| method | passes | core seconds | a second and core | 10⁶: core hours | 10⁹: core years "
        f"| 10⁹ on {CORES:,} cores: days | row, kB | picture, kB |",
        file=out,
    )
    print("|---|---|---|---|---|---|---|---|---|", file=out)
    with tempfile.TemporaryDirectory() as folder:
        for method in METHODS:
            line = measure_method(data / "weights" / NETWORK, photographs, method, Path(folder)).line()
            print(line, file=sys.stderr, flush=True)
            print(line, file=out)
    return out.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the test data")
    parser.add_argument("--photographs", type=int, default=5)
    parser.add_argument("--ray", type=int, metavar="N", help="measure Ray's actors instead, on N small photographs")
    parser.add_argument("--rounds", type=int, default=3, help="of Ray's actors; the table has the median")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into its place in a page")
    given = parser.parse_args()
    began = time.time()
    table = ray_lines(given.ray, given.rounds) if given.ray else method_lines(given.data, given.photographs)
    load = os.getloadavg()[1]
    print(f"{table}\nload {load:.1f} on {os.cpu_count()} cores, {time.time() - began:.0f} s", flush=True)
    if given.write:
        put_table(given.write, NAME + (".ray" if given.ray else ""), table)


if __name__ == "__main__":
    main()
