"""The command ``python -m fuzz``.

``files`` tries mutants of files, ``networks`` judges random networks, ``independence`` judges what is proved of random
graphs' batches, ``mutants`` judges the tests themselves.
"""

from __future__ import annotations

import collections
import itertools
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # threads of a library do not survive the fork of a child, which then waits

import click

from fuzz.children import Outcome, run_tasks
from fuzz.targets.target import Mutant, Target, draw_mutant, load_targets, past_failures

CHUNK = 200
"""Mutants that are drawn at once."""


@click.group()
def main() -> None:
    """Look for faults: mutated files that end in anything but a MasktoolError or a right result, and wrong networks."""


@main.command()
@click.argument("names", metavar="TARGET...", nargs=-1, required=True)
@click.option("--count", type=int, help="How many mutants of each.  [default: as many as the time allows]")
@click.option("--seconds", type=float, default=120.0, show_default=True, help="For each target.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the first mutant; the next is one more.")
@click.option("--save", type=click.Path(path_type=Path), metavar="DIR", help="Where faulty mutants are kept.")
def files(names: tuple[str, ...], count: int | None, seconds: float, seed: int, save: Path | None) -> None:
    """Try mutants of files; exit code 1 when one of them ended in anything else than it should."""
    targets = load_targets()
    if unknown := [name for name in names if name not in targets]:
        raise click.BadParameter(f"{', '.join(unknown)}: expected some of {', '.join(targets)}")
    faults = sum(try_target(name, targets[name], count, seconds, seed, save) for name in names)
    raise SystemExit(1 if faults else 0)


def try_target(name: str, target: Target, count: int | None, seconds: float, seed: int, save: Path | None) -> int:
    """Tries past failures and then mutants of one target, prints faults and a line of figures; returns the faults."""
    tally: collections.Counter[str] = collections.Counter()
    slowest, largest = 0.0, 0.0
    for mutant, outcome in try_mutants(name, target, count, seconds, seed):
        tally[outcome.verdict] += 1
        slowest, largest = max(slowest, outcome.seconds), max(largest, outcome.megabytes)
        if outcome.verdict == "other":
            click.echo(f"{name} {mutant.name}: {outcome.reason}")
            if save is not None:
                save.mkdir(parents=True, exist_ok=True)
                label = re.sub(r"\W+", "-", mutant.name)
                (save / f"{name}-{label}-{mutant.option}{mutant.suffix}").write_bytes(mutant.content)
    figures = ", ".join(f"{verdict} {tally[verdict]}" for verdict in ("right", "refused", "other"))
    click.echo(f"{name}: tried {sum(tally.values())}: {figures}; slowest {slowest:.1f} s, largest {largest:.0f} MiB")
    return tally["other"]


def try_mutants(
    name: str, target: Target, count: int | None, seconds: float, seed: int
) -> Iterator[tuple[Mutant, Outcome]]:
    """Yields mutants with what became of them, past failures first, until the count or the time is used up."""
    ends = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="fuzz-") as directory:

        def work(mutant: Mutant) -> str:
            with tempfile.TemporaryDirectory(dir=directory) as place:
                path = Path(place) / f"mutant{mutant.suffix}"
                path.write_bytes(mutant.content)
                return target.run(path, mutant.option)

        yield from run_tasks(past_failures(name), work, target.bounds)
        for start in itertools.count(seed, CHUNK):
            left = CHUNK if count is None else min(CHUNK, seed + count - start)
            chunk = [draw_mutant(target, start + index) for index in range(left)]
            for pair in run_tasks(chunk, work, target.bounds):
                yield pair
                if time.monotonic() > ends:
                    return
            if left < CHUNK:
                return


@main.command()
@click.option("--count", type=int, default=300, show_default=True, help="How many networks.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the first; the next is one more.")
@click.option("--gradient-every", type=int, default=3, show_default=True, help="Which of them get gradients too.")
def networks(count: int, seed: int, gradient_every: int) -> None:
    """Export random networks and judge them by independent rules; exit code 1 when one is wrong."""
    import torch

    from fuzz.networks.drawing import draw_network, prune
    from fuzz.networks.judge import Judgement, judge_network

    torch.set_num_threads(1)
    tally: collections.Counter[str] = collections.Counter()
    worst = 0.0
    for number in range(seed, seed + count):
        program = prune(draw_network(number))
        judgement: Judgement = judge_network(program, gradient=number % gradient_every == 0)
        tally[judgement.verdict] += 1
        worst = max(worst, judgement.worst if judgement.verdict == "exact" else 0.0)
        if judgement.verdict != "exact":
            click.echo(f"{judgement.verdict}: {program.describe()}: {judgement.reason}")
    figures = ", ".join(f"{verdict} {tally[verdict]}" for verdict in ("exact", "refused", "wrong"))
    click.echo(f"networks: judged {count}: {figures}; largest difference of an exact one {worst:.1e}")
    raise SystemExit(1 if tally["wrong"] else 0)


@main.command()
@click.option("--count", type=int, default=1000, show_default=True, help="How many graphs.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the first; the next is one more.")
@click.option("--reasons", is_flag=True, help="Lists why graphs were not proved that are independent as measured.")
def independence(count: int, seed: int, reasons: bool) -> None:
    """Hold what is proved of random graphs' batches to ONNX Runtime; exit code 1 when a proof is wrong."""
    from fuzz.independence.judge import judge_seed

    logging.disable(logging.WARNING)  # the optimiser tells what it does not fold
    tally: collections.Counter[str] = collections.Counter()
    apart: collections.Counter[str] = collections.Counter()
    why: collections.Counter[str] = collections.Counter()
    for number in range(seed, seed + count):
        judgement = judge_seed(number)
        tally[judgement.verdict] += 1
        tally["faults"] += bool(judgement.fault)
        if judgement.fault:
            click.echo(f"seed {number}: {judgement.fault}")
        elif judgement.independent and judgement.verdict != "proved":
            apart[judgement.verdict] += 1
            why[judgement.reason.split("): ")[-1]] += 1
    for reason, times in why.most_common() if reasons else ():
        click.echo(f"{times:6} {reason}")
    figures = ", ".join(f"{verdict} {tally[verdict]}" for verdict in ("proved", "mixing", "unproved", "refused"))
    click.echo(f"independence: judged {count}: {figures}; faults {tally['faults']}")
    click.echo(f"independent as measured: mixing {apart['mixing']}, unproved {apart['unproved']}")
    raise SystemExit(1 if tally["faults"] else 0)


@main.command()
@click.option("--count", type=int, default=100, show_default=True, help="How many, drawn at random from all.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the draw.")
def mutants(count: int, seed: int) -> None:
    """Change the rules in masktool/ops and see whether their tests notice; survivors are printed."""
    import onnxscript  # noqa: F401 - what every child needs is imported once
    import torch  # noqa: F401

    from fuzz.mutants import is_noticed, sample_mutants

    noticed, chosen = 0, sample_mutants(count, seed)
    for mutant in chosen:
        if is_noticed(mutant):
            noticed += 1
        else:
            click.echo(f"survived: {mutant}")
    click.echo(f"mutants: tried {len(chosen)}: noticed {noticed} ({noticed / max(len(chosen), 1):.0%})")


if __name__ == "__main__":
    main()
