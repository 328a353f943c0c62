"""The files of an evaluation in a directory: ``PART.json``, a PNG of every chart, and a journal while it runs."""

from __future__ import annotations

import json
from pathlib import Path

from masktool.evaluation.findings import Evaluation
from masktool.files import atomic_path


def journal_path(directory: Path, part: str) -> Path:
    """Returns the path of the journal that keeps a part's records until its results are written.

    Args:
        directory: directory of the results.
        part: name of the part.
    """
    return directory / f"{part}.jsonl"


def write_evaluation(evaluation: Evaluation, directory: Path) -> list[Path]:
    """Writes ``PART.CHART.png`` for every chart, then ``PART.json``, and removes the journal.

    Returns:
        The paths of the files that were written.

    Raises:
        MasktoolError: matplotlib is not installed, or the directory cannot be written.
    """
    from masktool.evaluation.plots import draw_chart

    written = []
    for chart in evaluation.findings.charts:
        written.append(directory / f"{evaluation.part}.{chart.name}.png")
        with atomic_path(written[-1]) as temporary:
            temporary.write_bytes(draw_chart(chart))
    written.append(directory / f"{evaluation.part}.json")
    with atomic_path(written[-1]) as temporary:
        temporary.write_text(encode_evaluation(evaluation), encoding="utf-8")
    journal_path(directory, evaluation.part).unlink(missing_ok=True)
    return written


def encode_evaluation(evaluation: Evaluation) -> str:
    """Returns the evaluation as a JSON document, a line for each image; NaN is refused, since JSON has none."""
    document = evaluation.as_json()
    images = [f"    {json.dumps(name)}: {dump_compactly(record)}" for name, record in document.pop("images").items()]
    shared = json.dumps(document, indent=2, allow_nan=False).removesuffix("\n}")
    return f'{shared},\n  "images": {{\n' + ",\n".join(images) + "\n  }\n}\n"


def dump_compactly(value: object) -> str:
    """Returns a JSON value on one line without spaces."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
