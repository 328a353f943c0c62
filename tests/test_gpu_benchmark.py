"""``python -m benchmarks.gpu`` on a tiny network and the CPU: what it measures, and what it says of all that fails."""

import json
import sys

import numpy as np
import pytest

from benchmarks.gpu import __main__ as program
from benchmarks.gpu import plan
from benchmarks.gpu.explanations import IN_MEMORY, METHODS, ON_DEVICE
from benchmarks.gpu.jobs import Budget, Findings, Job, Outcome, run_job
from benchmarks.gpu.networks import FILES, TINY, VARIANTS, WITHOUT_INDICES, file_of, missing_files
from benchmarks.gpu.passes import fit_batch
from benchmarks.gpu.variants import HIDDEN_NAN, reference_path
from benchmarks.gpu.worker import TASKS
from masktool.execution_providers import CPU, CUDA, OPENVINO
from masktool.exported_files import metadata_of
from masktool.exporters import gradient
from masktool.runtime import batching
from masktool.runtime.session import MaskedSession

CRASH = "ended by signal 11: no such GPU"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files of the tiny network."""
    folder = tmp_path_factory.mktemp("networks")
    TASKS["prepare"](Job("prepare", str(folder), network=TINY), Findings(folder / "findings"))
    assert all(file_of(folder, "tiny", variant).exists() for variant in FILES)
    return folder


@pytest.fixture
def here(monkeypatch):
    """Jobs run in this process; CUDA is there, and crashes when it is to load. Functions put in here follow a task."""
    after = {}

    def run_here(job, seconds, command):
        findings = Findings(program.Path(job.scratch) / f"findings-{job.task}-{job.variant}")
        if job.task == "prove":
            return Outcome({}, CRASH, 0.1)
        TASKS[job.task](job, findings)
        after.get(job.task, lambda _: None)(job)
        return Outcome(findings.read(), None, 0.1)

    monkeypatch.setattr(plan, "run_job", run_here)
    monkeypatch.setattr(plan, "has_provider", lambda provider: provider in (CPU, CUDA))
    monkeypatch.setattr(batching, "TRIAL_SECONDS", 0.01)
    return after


def run_program(folder, output, *more):
    few = ["--small", "--repeats", "2", "--threads", "1"]
    program.main(["--networks-from", str(folder), *few, "-o", str(output), *more])


def read_figures(output):
    found = json.loads(output.read_text(encoding="utf-8"))
    return found, found["networks"]["tiny"]["providers"]["cpu"]


def test_everything_is_measured_on_what_loads(folder, here, tmp_path, capsys):
    run_program(folder, tmp_path / "gpu.json", "--provider", "cpu", "--provider", "cuda")
    found, figures = read_figures(tmp_path / "gpu.json")
    assert found["providers"] == {"cpu": {"loads": True}, "cuda": {"loads": False, "reason": CRASH}}
    assert set(figures["parity"]) == {"plain", HIDDEN_NAN, *VARIANTS}
    assert all(parity["within"] for parity in figures["parity"].values())
    assert set(figures["times the plain network"]) == set(VARIANTS)
    assert set(figures["fastest batch"]) == {"plain", "masked", "fp16"}
    assert set(figures["memory"]) == {"plain", "masked", "gradient"}
    assert set(figures["explanations"]) == set(METHODS)
    for figure in (*figures["seconds per batch"].values(), figures["explanations"]["rise"][IN_MEMORY]):
        assert 0 < figure["lowest"] <= figure["median"] <= figure["highest"]
        assert figure["runs"] == 2
    assert found["machine"]["threads"] == 1
    printed = capsys.readouterr()
    assert f"CUDA: {CRASH}" in printed.err
    assert f"* cuda: {CRASH}" in printed.out
    assert "| cpu, tiny |" in printed.out


@pytest.mark.parametrize("provider", ["webgpu", "tensorrt", "directml"])
def test_a_provider_without_indices_of_maxima_gets_a_file_without_them(folder, provider):
    assert missing_files(folder, "tiny", ()) == []
    assert WITHOUT_INDICES in missing_files(folder / "elsewhere", "tiny", (provider, "cpu"))
    assert WITHOUT_INDICES not in missing_files(folder / "elsewhere", "tiny", ("cuda", "cpu"))
    own = metadata_of(file_of(folder, "tiny", "gradient", provider))
    assert own.for_provider in gradient.WITHOUT_INDICES
    for other in ("cpu", "cuda", "openvino"):
        assert metadata_of(file_of(folder, "tiny", "gradient", other)).for_provider is None
    assert file_of(folder, "tiny", "masked", provider) == file_of(folder, "tiny", "masked", "cpu")


def test_wrong_results_are_said_loudly_and_not_timed(folder, here, tmp_path, capsys):
    def spoil(job):
        with np.load(reference_path(job)) as file:
            values = dict(file)
        np.savez(reference_path(job), **values | {"masked.0": values["masked.0"] + 1})

    here["reference"] = spoil
    with pytest.raises(SystemExit) as ended:
        run_program(folder, tmp_path / "gpu.json", "--provider", "cpu")
    assert ended.value.code == 1
    _, figures = read_figures(tmp_path / "gpu.json")
    assert [name for name, parity in figures["parity"].items() if not parity["within"]] == [
        "masked",
        HIDDEN_NAN,
        "fp16",
    ]
    assert set(figures["seconds per batch"]) == {"plain", "filled", "gradient"}
    assert "explanations" not in figures
    printed = capsys.readouterr()
    assert "!!! cpu, tiny, passes: masked differs from the CPU by" in printed.err
    assert "NOT TIMED" in printed.err
    assert "WRONG**" in printed.out


def test_a_pixel_under_the_mask_with_influence_is_found(folder, here, tmp_path, monkeypatch):
    called = MaskedSession.__call__
    monkeypatch.setattr(
        MaskedSession, "__call__", lambda self, images, masks: called(self, images, masks) + images.sum()
    )
    with pytest.raises(SystemExit):
        run_program(folder, tmp_path / "gpu.json", "--provider", "cpu")
    _, figures = read_figures(tmp_path / "gpu.json")
    assert figures["parity"]["masked"]["within"]
    assert figures["parity"][HIDDEN_NAN] == {"difference": None, "limit": 1e-4, "within": False}


def test_masks_are_made_both_ways_where_there_is_a_device(folder, here, tmp_path, monkeypatch):
    monkeypatch.setattr(MaskedSession, "device", property(lambda session: None if session.device_note else "cpu"))
    run_program(folder, tmp_path / "gpu.json", "--provider", "cpu")
    _, figures = read_figures(tmp_path / "gpu.json")
    for method in METHODS:
        found = figures["explanations"][method]
        assert found["largest difference of the maps"] < 1e-3
        assert {ON_DEVICE, IN_MEMORY} <= set(found)


def test_what_no_time_is_left_for_is_said(folder, here, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run_program(folder, tmp_path / "gpu.json", "--provider", "cpu", "--minutes", "0.04")
    assert ended.value.code == 1
    assert "tiny, reference: left out: " in capsys.readouterr().err
    found = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert found["networks"]["tiny"]["failure"].startswith("reference: left out: ")


def test_time_that_is_not_used_falls_to_the_next():
    now = [0.0]
    budget = Budget(100, lambda: now[0])
    assert budget.share([1, 3]) == 25
    now[0] = 20
    assert budget.share([3]) == 80
    now[0] = 101
    assert budget.share([1]) == 0


@pytest.mark.parametrize(
    ("script", "failure"),
    [
        ("import time; time.sleep(60)", "ended when its 5 s were over"),
        ("import os; os.abort()", "ended by signal 6"),
        ("raise SystemExit('no device')", "ended with status 1: no device"),
        ("", None),
    ],
)
def test_a_job_keeps_what_it_found_however_it_ends(script, failure):
    line = '[["parity", "masked"], 1]\n[["cut'
    found = f"import pathlib, sys; pathlib.Path(sys.argv[2]).write_text({line!r})\n"
    outcome = run_job(Job("passes", ""), 5.0 if "sleep" in script else 60.0, (sys.executable, "-c", found + script))
    assert outcome.findings == {"parity": {"masked": 1}}
    assert outcome.failure == failure


def test_a_process_of_its_own_says_whether_a_provider_loads():
    outcome = run_job(Job("prove", "", provider="cuda"), 120.0)
    assert outcome.failure is None
    assert outcome.findings["loads"] or outcome.findings["reason"]


def test_providers_by_name_only_are_tried_when_named(monkeypatch):
    monkeypatch.setattr(plan, "has_provider", lambda _: True)
    monkeypatch.setattr(plan.sys, "platform", "linux")
    assert plan.find_obstacle(OPENVINO, []).startswith("left out unless it is asked for: it computes on the CPU")
    assert plan.find_obstacle(OPENVINO, ["openvino"]) is None


def test_a_driver_in_software_is_measured_when_named():
    software = Outcome({"loads": True, "lists a GPU": False}, None, 0.1)
    assert plan.judge_provider(software, [])["reason"].startswith("loads, but lists no GPU")
    assert "reason" not in plan.judge_provider(software, ["webgpu"])
    assert "reason" not in plan.judge_provider(Outcome({"loads": True}, None, 0.1), [])


def test_the_cpu_is_measured_where_it_is_named_or_alone():
    loads, fails = {"loads": True}, {"loads": False, "reason": CRASH}
    assert plan.choose_measured([], {"cpu": loads, "cuda": loads}) == ["cuda"]
    assert plan.choose_measured([], {"cpu": loads, "cuda": fails}) == ["cpu"]
    assert plan.choose_measured(["cuda"], {"cpu": loads, "cuda": fails}) == []
    assert plan.choose_measured(["cpu", "cuda"], {"cpu": loads, "cuda": loads}) == ["cpu", "cuda"]


def test_a_batch_that_memory_does_not_hold_is_halved():
    def run(images, masks):
        if len(images) > 3:
            raise RuntimeError("out of memory")

    assert fit_batch({"plain": run}, Job("passes", "", size=8, batch=16)) == 2
