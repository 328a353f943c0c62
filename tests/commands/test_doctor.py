"""``masktool doctor``: names what is broken, and its exit code says whether the main path works."""

import importlib
import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from masktool import demo
from masktool.cli import masktool
from masktool.commands import doctor
from masktool.errors import MasktoolError
from masktool.interface import installation, provider_checks
from masktool.interface.installation import NEEDED, OPTIONAL, DoctorFinding
from masktool.interface.provider_proof import Proof
from masktool.runtime import drivers, providers

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.fixture
def quick(monkeypatch):
    """Leaves out the import of torch and its kin, which takes seconds."""
    monkeypatch.setattr(installation, "OPTIONAL", {})


def run(*arguments):
    return CliRunner().invoke(masktool, ["doctor", *arguments], catch_exceptions=False)


def findings_of(result):
    return {finding["name"]: finding for finding in json.loads(result.stdout)["findings"]}


def test_here_the_main_path_works(quick):
    result = run("--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["works"] is True
    findings = findings_of(result)
    assert {"python", "masktool", *NEEDED.values(), "onnxruntime", "CPU", "CUDA", "TensorRT", "demo model"} <= set(
        findings
    )
    assert findings["CPU"] == {"name": "CPU", "state": "ok", "detail": "loads and runs", "fix": None, "needed": True}
    for finding in findings.values():
        assert (finding["fix"] is None) == (finding["state"] == "ok")


def test_text_has_one_line_each_and_the_fix(quick):
    result = run()
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "The main path works."
    assert "\nok        CPU            loads and runs\n" in result.stdout


def test_a_gpu_provider_that_does_not_load_says_why(quick, monkeypatch):
    monkeypatch.setattr(providers, "find_missing_build", lambda _: None)
    monkeypatch.setattr(drivers, "find_driver_obstacle", lambda _: None)
    real = providers.try_providers

    def try_providers(path, wanted, threads):
        return real(path, wanted, threads) if wanted[0].provider.name == "cpu" else (None, "libcudart is missing")

    monkeypatch.setattr(providers, "try_providers", try_providers)
    result = run("--json")
    assert result.exit_code == 0
    cuda = findings_of(result)["CUDA"]
    assert (cuda["state"], cuda["needed"]) == ("absent", False)
    assert cuda["detail"] == "built in, does not load: libcudart is missing"
    assert cuda["fix"] == 'python -m pip install "onnxruntime-gpu[cuda,cudnn]"'
    assert findings_of(result)["TensorRT"]["fix"].startswith("python -m pip install tensorrt-cu")


def test_without_a_gpu_the_fix_begins_with_one(quick, monkeypatch):
    monkeypatch.setattr(providers, "find_missing_build", lambda _: None)
    monkeypatch.setattr(drivers, "find_driver_obstacle", lambda _: "this machine has no NVIDIA driver")
    cuda = findings_of(run("--json"))["CUDA"]
    if cuda["state"] != "ok":
        assert cuda["fix"].startswith("needs an NVIDIA GPU with its driver, then python -m pip install")


def test_a_broken_needed_package_gives_exit_code_1(quick, monkeypatch):
    real = importlib.import_module

    def import_module(name, *rest):
        if name == "skimage":
            raise ImportError("numpy.dtype size changed\nsecond line")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", import_module)
    result = run("--json")
    assert result.exit_code == 1
    broken = findings_of(result)["scikit-image"]
    assert broken["state"] == "broken"
    assert broken["detail"].endswith(": ImportError: numpy.dtype size changed")
    assert broken["fix"] == "python -m pip install --upgrade scikit-image"
    assert run().stdout.splitlines()[-1].startswith("Something needed is broken")


def test_absent_packages(monkeypatch):
    monkeypatch.setattr(installation, "NEEDED", {"no_such_module": "no-such-distribution"})
    monkeypatch.setattr(installation, "OPTIONAL", {"nor_this_one": "nor-this-distribution"})
    result = run("--json")
    assert result.exit_code == 1
    findings = findings_of(result)
    assert findings["no-such-distribution"]["state"] == "absent"
    assert findings["nor-this-distribution"]["detail"] == "not installed; only exporting from PyTorch needs it"


def test_a_missing_optional_package_changes_no_exit_code(monkeypatch):
    monkeypatch.setattr(installation, "OPTIONAL", {"nor_this_one": "nor-this-distribution"})
    assert run().exit_code == 0


def test_broken_onnxruntime_is_reported_and_ends_no_check(quick, monkeypatch):
    def import_onnxruntime():
        raise MasktoolError("ONNX Runtime cannot be imported") from ImportError("libonnxruntime.so: file too short")

    monkeypatch.setattr(providers, "import_onnxruntime", import_onnxruntime)
    result = run("--json")
    assert result.exit_code == 1
    findings = findings_of(result)
    assert findings["onnxruntime"]["state"] == "broken"
    assert findings["onnxruntime"]["detail"] == "ImportError: libonnxruntime.so: file too short"
    assert "pip install --force-reinstall --no-deps onnxruntime" in findings["onnxruntime"]["fix"]
    assert {findings[name]["state"] for name in ("CPU", "CUDA", "TensorRT")} == {"broken"}


def test_a_missing_demo_model_is_broken(quick, monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "model_path", lambda: tmp_path / "none.onnx")
    result = run("--json")
    assert result.exit_code == 1
    finding = findings_of(result)["demo model"]
    assert finding["detail"].startswith("MasktoolError: file not found")
    assert finding["fix"] == "python -m pip install --force-reinstall --no-deps masktool"


def test_two_distributions_over_each_other(quick, monkeypatch):
    both = {"onnxruntime": ["onnxruntime-gpu", "onnxruntime", "onnxruntime"]}
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: both)
    finding = findings_of(run("--json"))["one runtime"]
    assert finding["state"] == "warning"
    assert finding["detail"].startswith("onnxruntime and onnxruntime-gpu are installed over each other")
    assert finding["fix"] == (
        "python -m pip uninstall -y onnxruntime onnxruntime-gpu && python -m pip install onnxruntime-gpu"
    )


def test_one_distribution_needs_no_warning(quick):
    assert "one runtime" not in findings_of(run("--json"))


def test_a_wrong_provider_is_told_with_an_option_of_the_command_line(quick, monkeypatch):
    finding = provider_checks.judge_proof("CUDA", Proof(0.5, 1, 1))
    assert finding.fix == 'take providers="cpu", and report it'
    monkeypatch.setattr(installation, "check_providers", lambda: iter([finding]))
    assert findings_of(run("--json"))["CUDA"]["fix"] == "take --provider cpu, and report it"
    assert "mend: take --provider cpu, and report it\n" in run().stdout


def test_write_line():
    assert doctor.write_line(DoctorFinding("CUDA", "absent", "why", "how")).splitlines() == [
        "absent    CUDA           why",
        "                         mend: how",
    ]


def test_lists_follow_the_requirements():
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    required = {text.split(">")[0].split(";")[0].strip() for text in project["dependencies"]}
    assert required - {"onnxruntime", "onnxruntime-gpu"} == set(NEEDED.values())
    assert {text.split(">")[0] for text in project["optional-dependencies"]["torch"]} == set(OPTIONAL.values())
