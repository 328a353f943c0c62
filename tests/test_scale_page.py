"""docs/scale.md: what many photographs cost is the page's formula of what was measured for one."""

import re
from pathlib import Path

import pytest

from benchmarks.scale import BILLION, CORES, MILLION, MethodCost, core_hours, core_years, days_on

PAGE = (Path(__file__).parents[1] / "docs" / "scale.md").read_text(encoding="utf-8")


def read_lines(name):
    table = PAGE.split(f"<!-- {name}: begin -->")[1].split(f"<!-- {name}: end -->")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines[2:]]


def number(cell):
    return float(cell.replace(",", ""))


def test_the_table_is_the_formula_of_what_was_measured():
    lines = read_lines("benchmarks.scale")
    assert len(lines) >= 5
    for _, passes, seconds, rate, hours, years, days, row, picture in lines:
        measured = number(seconds)
        computed = (
            (rate, 1 / measured),
            (hours, core_hours(measured, MILLION)),
            (years, core_years(measured, BILLION)),
            (days, days_on(CORES, measured, BILLION)),
        )
        for cell, expected in computed:
            assert number(cell) == pytest.approx(expected, rel=0.01)
        assert min(map(number, (passes, row, picture))) > 0


def test_the_formula():
    assert core_hours(3.6, 1000) == pytest.approx(1)
    assert days_on(1000, 0.864, BILLION) == pytest.approx(10)
    assert core_years(31.557600, MILLION) == pytest.approx(1, rel=1e-6)
    per_second = re.findall(r"^\| 10[⁶⁹] \| ([\d,.]+) \| ([\d,.]+) \|$", PAGE, re.M)
    expected = [(core_hours(1, n), core_years(1, n)) for n in (MILLION, BILLION)]
    for cells, values in zip(per_second, expected, strict=True):
        assert tuple(map(number, cells)) == pytest.approx(values, rel=0.01)


def test_a_line_of_the_table():
    line = MethodCost("lime", 250, 4, 10_000, 400_000).line()
    assert line == "| `lime` | 250 | 4 | 0.25 | 1,111 | 127 | 46.3 | 10 | 400 |"


def test_the_examples_of_a_gpu():
    passes, per_second = 250, 10_000
    text = " ".join(PAGE.split())
    assert passes / per_second == 0.025
    assert f"10⁶ of them {MILLION * passes / per_second / 3600:.1f} hours and 10⁹ of them" in text
    assert f"{BILLION * passes / per_second / (365.25 * 86400):.1f} years".lstrip("0") in text
