"""What a project of this kind carries beside its code, held to what it says."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import masktool

ROOT = Path(__file__).parents[1]
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))


def read_yaml(path):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_before_a_commit_the_linters_of_ci_run():
    hooks = [hook for repo in read_yaml(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    assert all(hook["pass_filenames"] is False for hook in hooks)  # all files, as in CI
    in_ci = re.findall(r"^\.venv/bin/((?:ruff|mypy).*)$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.M)
    assert [hook["entry"] for hook in hooks] == in_ci != []


def test_the_citation_is_of_this_version_and_of_the_four_papers():
    citation = read_yaml("CITATION.cff")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["version"] == masktool.__version__
    assert citation["license"] == project["license"]
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    papers = {reference["url"].rpartition("/")[2] for reference in citation["references"]}
    assert papers == {"2211.14646", "1908.04389", "2102.07332", "2010.09750"}
    assert all(reference["authors"] and reference["title"] for reference in citation["references"])


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_every_issue_asks_for_what_doctor_says(path):
    form = read_yaml(path.relative_to(ROOT))
    assert {"name", "description", "body"} <= set(form)
    identifiers = [field["id"] for field in form["body"]]
    assert len(set(identifiers)) == len(identifiers)
    (doctor,) = [field for field in form["body"] if field["id"] == "doctor"]
    assert "masktool doctor" in doctor["attributes"]["label"]


def test_there_are_forms():
    assert {path.stem for path in TEMPLATES} == {"wrong", "refused", "idea"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_gets_its_completion(shell):
    """As the README's line asks for it: click writes a script that calls masktool back."""
    done = subprocess.run(
        [sys.executable, "-m", "masktool"],
        env={"_MASKTOOL_COMPLETE": f"{shell}_source", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "_MASKTOOL_COMPLETE" in done.stdout


def test_a_command_is_completed():
    environment = {"_MASKTOOL_COMPLETE": "bash_complete", "COMP_WORDS": "masktool exp", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "masktool"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert [line.partition(",")[2] for line in done.stdout.split()] == ["export", "explain"]


def test_the_version_is_told():
    done = subprocess.run(
        [sys.executable, "-m", "masktool", "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == f"masktool, version {masktool.__version__}\n"


def test_the_changelog_has_a_part_for_what_comes_or_for_this_version():
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert headings[0] in ("Unreleased", masktool.__version__)
