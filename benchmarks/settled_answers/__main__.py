"""Time to a settled answer for one photograph: every method's defaults in an older version of masktool and in this one.

    git worktree add ../before COMMIT
    python -m benchmarks.settled_answers --before ../before --network squeezenet --file squeezenet=squeezenet.onnx \\
        --image photo.jpg -o settled.json
    python -m benchmarks.settled_answers --table settled.json --into docs/performance.md

Each version runs its own code on files that it exported itself, in a process of its own, on one thread, and they take
turns. A run is the explanation alone, of a model that was just opened; methods are repeated with other seeds, those
whose first run took longer than ``--long`` seconds once. Every map is compared, by rank correlation, with the older
version's of the same repetition. RISE and LIME, which draw masks, are also asked for more samples, and all their maps
are compared with the older version's map of ``--many`` samples of another seed, and with this version's: how well the
older default agrees with itself and with these is the most that can be asked of the new one. Runs and maps are kept in
``--folder``, and a run goes on where the last one ended.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.line_process import ONE_THREAD, LineProcess
from benchmarks.pages import put_table
from benchmarks.settled_answers.networks import NETWORKS, write_plain
from benchmarks.settled_answers.report import MANY, MARK, SWEPT, Run, summarise, write_table
from masktool.explainers.method import METHODS
from masktool.interface.bench.machine import describe_machine, read_load

BEFORE, AFTER = "before", "after"
LEFT_OUT = ("masker",)
"""Methods that explain nothing before something was trained."""
FILES: dict[str, dict[str, dict[str, Any]]] = {
    BEFORE: {"masked": {}, "gradient": {"gradient": "logit"}},
    AFTER: {"masked": {"head": "last"}, "gradient": {"gradient": "logit"}},
}
"""The files of each version, with the options of their exports."""


class Version:
    """A version of masktool in a process of its own, with the files that it exported.

    Args:
        name: the name of the version.
        checkout: the folder of its source.
        folder: the folder of its files and of a network's maps.
    """

    def __init__(self, name: str, checkout: Path, folder: Path) -> None:
        self.name, self._folder, self._checkout = name, folder, checkout
        command = [sys.executable, "-P", str(Path(__file__).with_name("child.py"))]  # not beside this version's code
        environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": f"{checkout}", "CUDA_VISIBLE_DEVICES": ""}
        self._process = LineProcess(command, environment, folder / f"{name}.log")

    def export(self, plain: Path, network: str, image: Path) -> int:
        """Exports the files of a network, and returns the class of the photograph."""
        own = FILES[self.name].items()
        files = {str(self.path_of(kind)): options | NETWORKS[network].options for kind, options in own}
        request = {"network": str(plain), "image": str(image), "files": files}
        found = self._process.ask(request | {"preprocessing": NETWORKS[network].preprocessing})
        if "error" in found:
            raise SystemExit(f"{self.name}: {network} was not exported: {found['error']}")
        if not Path(found["place"]).resolve().is_relative_to(self._checkout.resolve()):
            raise SystemExit(f"{self.name}: ran {found['place']}, expected the code in {self._checkout}")
        return int(found["target"])

    def explain(self, run: Run, image: Path, target: int) -> Run:
        """Explains once, and returns the run with what it took, or with the error."""
        kind = "gradient" if METHODS[run.method].needs_gradient else "masked"
        request = {"file": str(self.path_of(kind)), "image": str(image), "target": target}
        request |= {"method": run.method, "seed": run.seed, "samples": run.samples}
        found = self._process.ask(request | {"map": str(self._folder / run.map_name)})
        return run._replace(**found)

    def path_of(self, kind: str) -> Path:
        """Returns the path of one of the version's files."""
        return self._folder / f"{self.name}.{kind}.onnx"

    def close(self) -> None:
        """Ends the process."""
        self._process.close()


class Plan(NamedTuple):
    """What is asked for.

    Attributes:
        repeats: the repetitions of a run that is not long.
        long: the CPU seconds from which a run is long.
        more: the numbers of samples that this version is asked for besides its default.
        many: the number of samples of the maps that stand for the limit; 0 leaves them out.
    """

    repeats: int
    long: float
    more: Sequence[int]
    many: int

    def runs(self, methods: Sequence[str], known: Mapping[Run, Run]) -> Iterator[Run]:
        """Yields runs; whether one is repeated depends on what is known of the first by then."""
        for seed in range(self.repeats):
            for method in methods:
                for name in (BEFORE, AFTER):
                    if seed == 0 or not self.is_long(method, name, known) or (method in SWEPT and seed == 1):
                        yield Run(method, name, None, seed)
                if method in SWEPT:
                    more = [Run(method, AFTER, count, seed) for count in self.more]
                    yield from (each for each in more if seed == 0 or known[each._replace(seed=0)].cpu <= self.long)
        for method in (each for each in methods if each in SWEPT and self.many):
            for name in (BEFORE, AFTER):
                yield Run(method, name, self.many, MANY)

    def is_long(self, method: str, name: str, known: Mapping[Run, Run]) -> bool:
        """Tells whether the first run of a method failed, or was long."""
        first = known[Run(method, name, None, 0)]
        return bool(first.error) or first.cpu > self.long


def measure(network: str, options: argparse.Namespace) -> dict[str, Any]:
    """Makes the runs of a network that are not known yet, and returns what they tell, as JSON values."""
    folder = (options.folder / network).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    given = dict(each.split("=", 1) for each in options.file)
    plain = write_plain(network, Path(given[network]) if network in given else None, folder / "plain.onnx")
    checkouts = {BEFORE: options.before, AFTER: Path(__file__).parents[2]}
    versions = {name: Version(name, path, folder) for name, path in checkouts.items()}
    targets = {version.export(plain, network, options.image) for version in versions.values()}
    if len(targets) != 1:
        raise SystemExit(f"{network}: the versions disagree on the class of the photograph: {targets}")
    (target,) = targets
    record, load = folder / "runs.jsonl", read_load()
    known = {run.key: run for run in read_runs(record)}
    methods = options.method or [name for name in METHODS if name not in LEFT_OUT]
    for run in Plan(options.repeats, options.long, options.more, options.many).runs(methods, known):
        if run not in known:
            known[run] = versions[run.version].explain(run, options.image, target)
            with record.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(known[run]._asdict()) + "\n")
            print(network, *known[run], file=sys.stderr, flush=True)
    for version in versions.values():
        version.close()
    maps = {run.key: np.load(folder / run.map_name) for run in known.values() if not run.error}
    found = {"network": network, "image": options.image.name, "load": [load, read_load()], "target": target}
    return found | {"methods": summarise(list(known.values()), maps)}


def read_runs(path: Path) -> Iterator[Run]:
    """Yields the runs that are known already."""
    if path.exists():
        yield from (Run(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines())


def read_options() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="the folder of the older version's source")
    parser.add_argument("--network", action="append", choices=list(NETWORKS), help="may be repeated  [default: all]")
    parser.add_argument(
        "--file", metavar="NETWORK=PATH", action="append", default=[], help="the ONNX file of a network"
    )
    parser.add_argument("--image", type=Path)
    parser.add_argument("--method", action="append", default=[])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--long", type=float, default=60.0, help="CPU seconds from which a run is not repeated")
    parser.add_argument("--more", type=int, nargs="*", default=[500, 1000, 2000], help="samples of RISE and LIME")
    parser.add_argument("--many", type=int, default=10_000, help="samples of the maps that stand for the limit, or 0")
    parser.add_argument("--folder", type=Path, default=Path("settled"), help="for files, maps and the record of runs")
    parser.add_argument("-o", "--output", type=Path, default=Path("settled.json"))
    parser.add_argument(
        "--table", type=Path, metavar="JSON", nargs="+", help="print the tables of runs, and measure nothing"
    )
    parser.add_argument("--into", type=Path, metavar="PAGE", help="put the table between the marks of a page")
    return parser.parse_args()


def main() -> None:
    options = read_options()
    if options.table is not None:
        reports = [json.loads(each.read_text(encoding="utf-8")) for each in options.table]
        report = {**reports[0], "networks": [network for each in reports for network in each["networks"]]}
    else:
        report = {"machine": describe_machine(), "repeats": options.repeats, "many": options.many, "networks": []}
        for name in options.network or NETWORKS:
            report["networks"].append(measure(name, options))
            options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if options.into is None:
        print(write_table(report))
    else:
        put_table(options.into, MARK, write_table(report))


if __name__ == "__main__":
    main()
