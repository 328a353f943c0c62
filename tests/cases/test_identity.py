"""A result is never taken from what it was not made from: every input is changed in turn."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from combinations import quickly
from explainers.models import noise_photograph
from networks.small_graphs import classifier as plain_classifier
from networks.small_graphs import parse
from onnx.external_data_helper import convert_model_to_external_data
from PIL import Image

from masktool import MasktoolError, export, load
from masktool.cli import run
from masktool.evaluation.named_models import NamedModel
from masktool.evaluation.scene import read_scene
from masktool.exporters import cache, imported_files
from masktool.exporters.sources import load_source
from masktool.identity import digest_model, digest_or_none, named_files
from masktool.interface.kept_exports import request_export
from masktool.interface.options import ModelChoice

PHOTO = ["photos/a.png", "--provider", "cpu", "--method", "occlusion", "--json"]
NOBODY = 65534


def classifier(sign=""):
    """A network that says itself that it gives probabilities."""
    return plain_classifier(
        classify=f"logits = Gemm(flat, weight) signed = {sign or 'Identity'}(logits) scores = Softmax(signed)"
    )


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MASKTOOL_MODEL", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "photos").mkdir()
    (tmp_path / "pre.json").write_text('{"size": [8, 8], "resize": "exact"}')
    for seed, name in enumerate("abc"):
        Image.fromarray(noise_photograph((8, 8), seed)).save(tmp_path / "photos" / f"{name}.png")
    return tmp_path


def save_outside(path, location, model=None):
    """Saves a model whose weights stand in a file of any name."""
    model = classifier() if model is None else model
    convert_model_to_external_data(model, location=location, size_threshold=0, convert_attribute=True)
    (path.parent / location).parent.mkdir(exist_ok=True)
    (path.parent / location).unlink(missing_ok=True)
    onnx.save(model, path)
    return path.parent / location


def negate(path):
    path.write_bytes((-np.frombuffer(path.read_bytes(), np.float32)).tobytes())


def explain(capsys, *arguments):
    """Returns the explained scores, and what was said."""
    assert run(["explain", *PHOTO, *arguments]) == 0
    out, err = capsys.readouterr()
    return json.loads(out)["scores"], err


def scores_of(path):
    """What ONNX Runtime gives on the plain model."""
    pixels = np.asarray(Image.open("photos/a.png").convert("RGB"), np.float32).transpose(2, 0, 1)[None] / 255
    (scores,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"image": pixels})
    return scores[0]


@pytest.mark.parametrize("location", ["weights.bin", "model.onnx.data", "deep/w", "b\u00fcro w\u00e9ights", "x" * 200])
def test_changed_external_weights_are_exported_anew(work, capsys, location):
    data = save_outside(work / "model.onnx", location)
    model = ["-m", "model.onnx", "--preprocess", "pre.json"]
    first, said = explain(capsys, *model)
    assert "exporting it" in said
    again, said = explain(capsys, *model)
    assert "using its export" in said
    assert again == first
    before = load_source("model.onnx").sha256
    negate(data)
    changed, said = explain(capsys, *model)
    assert "using its export" not in said
    assert load_source("model.onnx").sha256 != before
    expected = scores_of("model.onnx")
    for each in changed:
        assert each["probability"] == pytest.approx(expected[each["index"]], abs=1e-5)
    assert [each["probability"] for each in changed] != [each["probability"] for each in first]


IN_A_BRANCH = """
<ir_version: 10, opset_import: ["" : 20]>
nested (float[N, 3, 8, 8] image) => (float[N, 4] scores)
<float[4, 3, 3, 3] kernel>
{
    flag = Constant<value = bool {1}>()
    chosen = If (flag) <
        then_branch = yes () => (bias) { bias = Constant<value = float[4] {1, 2, 3, 4}>() },
        else_branch = no () => (other) { other = Constant<value = float[4] {5, 6, 7, 8}>() }
    >
    features = Conv<pads = [1, 1, 1, 1]>(image, kernel, chosen)
    pooled = GlobalAveragePool(features)
    scores = Flatten(pooled)
}
"""


def test_files_are_found_wherever_a_tensor_stands(work):
    model = parse(IN_A_BRANCH)
    branch = next(node for node in model.graph.node if node.op_type == "If").attribute[0].g
    places = {"first.bin": model.graph.initializer[0], "sub/second.bin": branch.node[0].attribute[0].t}
    for name, tensor in places.items():
        tensor.raw_data = tensor.raw_data or np.array(tensor.float_data, np.float32).tobytes()
        tensor.ClearField("float_data")
        onnx.external_data_helper.set_external_data(tensor, name)
        (work / name).parent.mkdir(exist_ok=True)
        (work / name).write_bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
    (work / "m.onnx").write_bytes(model.SerializeToString())
    assert named_files(Path("m.onnx")) == [Path(name) for name in places]
    digests = {digest_model(Path("m.onnx"))}
    for name in places:
        negate(work / name)
        digests.add(digest_model(Path("m.onnx")))
    assert len(digests) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="FIFOs")
def test_a_fifo_as_weights_does_not_hang(work):
    save_outside(work / "m.onnx", "w.bin").unlink()
    os.mkfifo(work / "w.bin")
    assert digest_model(Path("m.onnx"))


def test_a_model_that_is_one_file_has_its_own_digest(work):
    onnx.save(classifier(), "m.onnx")
    assert digest_model(Path("m.onnx")) == digest_or_none(Path("m.onnx"))
    assert named_files(Path("m.onnx")) == []


ENTRY = b"\x0a\x08location\x12\x05w.bin"
"""An entry of external data as it is usually written: key, then value."""
ENTRIES = {
    "value first": b"\x12\x05w.bin\x0a\x08location",
    "another field between": b"\x0a\x08location\x1a\x00\x12\x05w.bin",
    "long lengths": b"\x0a\x88\x80\x00location\x12\x85\x00w.bin",
    "long tag": b"\x8a\x00\x08location\x92\x00\x05w.bin",
    "key twice": b"\x0a\x06offset\x0a\x08location\x12\x05w.bin",
    "value twice": b"\x0a\x08location\x12\x01x\x12\x05w.bin",
}
"""The same, as protocol buffers may write it too."""


def encode_varint(number):
    head, rest = number & 0x7F, number >> 7
    return bytes([head | 0x80]) + encode_varint(rest) if rest else bytes([head])


def field(number, content):
    return encode_varint(number << 3 | 2) + encode_varint(len(content)) + content


def write_entries(model, entry):
    """Returns a model's bytes with every entry that names a file replaced, and all lengths around them right."""
    graph = model.graph
    tensors = [tensor.SerializeToString() for tensor in graph.initializer]
    assert all(field(13, ENTRY) in tensor for tensor in tensors)
    bare, rest = onnx.GraphProto(), onnx.ModelProto()
    bare.CopyFrom(graph)
    bare.ClearField("initializer")
    rest.CopyFrom(model)
    rest.ClearField("graph")
    replaced = [field(5, tensor.replace(field(13, ENTRY), field(13, entry))) for tensor in tensors]
    return rest.SerializeToString() + field(7, bare.SerializeToString() + b"".join(replaced))


@pytest.mark.parametrize("kind", ENTRIES)
def test_a_file_is_found_however_its_entry_is_written(work, capsys, kind):
    data = save_outside(work / "m.onnx", "w.bin")
    usual = onnx.load("m.onnx", load_external_data=False)
    (work / "m.onnx").write_bytes(write_entries(usual, ENTRIES[kind]))
    assert onnx.load("m.onnx", load_external_data=False) is not None
    assert named_files(Path("m.onnx")) == [Path("w.bin")]
    model = ["-m", "m.onnx", "--preprocess", "pre.json"]
    explain(capsys, *model)
    negate(data)
    scores, said = explain(capsys, *model)
    assert "using its export" not in said
    expected = scores_of("m.onnx")
    for each in scores:
        assert each["probability"] == pytest.approx(expected[each["index"]], abs=1e-5)


@pytest.mark.parametrize("cut", [-1, -40])
def test_what_a_damaged_model_names_is_found_too(work, cut):
    save_outside(work / "m.onnx", "w.bin")
    (work / "m.onnx").write_bytes((work / "m.onnx").read_bytes()[:cut])
    assert named_files(Path("m.onnx")) == [Path("w.bin")]


FACTORY = """
import torch
{top}
class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.convolve = torch.nn.Conv2d(3, 4, 3)
        self.scale = {built}
    def forward(self, images):
        {late}
        return (self.convolve(images) * self.scale).mean((2, 3)){times}
def make():
    {inside}
    return Network()
"""
EMPTY = {"top": "", "built": "1.0", "late": "pass", "times": "", "inside": "pass"}
HELPERS = {
    "module": ({"top": "import helper", "built": "helper.SCALE"}, "helper.py", "SCALE = {}\n"),
    "constant": ({"top": "from helper import SCALE", "built": "SCALE"}, "helper.py", "SCALE = {}\n"),
    "package": ({"top": "from parts.deep import scale", "built": "scale.SCALE"}, "parts/deep/scale.py", "SCALE = {}\n"),
    "in the factory": (
        {"inside": "global SCALE; from helper import SCALE", "built": "SCALE"}, "helper.py", "SCALE = {}\n",
    ),
    "in the forward pass": (
        {"late": "import latehelper", "times": " * latehelper.SCALE"}, "latehelper.py", "SCALE = {}\n",
    ),
    "settings": (
        {"top": "import json, pathlib", "built": "json.loads(pathlib.Path(__file__).with_name('s.json').read_text())"},
        "s.json", "{}",
    ),
    "outside the folder": ({"top": "import sys; sys.path.append('elsewhere'); import outer", "built": "outer.SCALE"},
                           "../elsewhere/outer.py", "SCALE = {}\n"),
}  # fmt: skip


@pytest.fixture
def project(work):
    torch = pytest.importorskip("torch")
    (work / "project").mkdir()
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 4, 3)
    torch.save({f"convolve.{key}": value for key, value in layer.state_dict().items()}, work / "sd.pt")
    modules, paths = set(sys.modules), list(sys.path)
    yield work / "project"
    sys.path[:] = paths
    for name in set(sys.modules) - modules:
        if name in ("helper", "latehelper", "outer") or name.startswith(("parts", "masktool_arch_")):
            del sys.modules[name]


@pytest.mark.parametrize("kind", quickly(("module", "in the forward pass", "settings"), HELPERS))
def test_a_changed_file_of_the_factorys_is_exported_anew(project, capsys, monkeypatch, kind):
    if kind == "in the forward pass":  # which runs when the factory's own folder is not looked in any more
        monkeypatch.syspath_prepend(project)
    slots, name, content = HELPERS[kind]
    (project / "factory.py").write_text(FACTORY.format(**(EMPTY | slots)))
    helper = project / name
    helper.parent.mkdir(parents=True, exist_ok=True)
    helper.write_text(content.format("-1.0"))
    model = ["-m", "sd.pt", "--arch", "project/factory.py:make", "--input-size", "8", "8", "--preprocess", "pre.json"]
    call = ["explain", *PHOTO, *model]
    said = []
    for text in ("-1.0", "-1.0", "+1.0"):
        helper.write_text(content.format(text if name != "s.json" else text.lstrip("+")))
        assert run(call) == 0
        out, err = capsys.readouterr()
        said.append((json.loads(out)["scores"][0], err))
    assert "using its export" in said[1][1]
    assert f"changed since: {helper.name}" in said[2][1]
    assert "using its export" not in said[2][1]
    assert said[0][0] == said[1][0] != said[2][0]


INSTALLED = {
    "own": ("SCALE = {}", "mynets/blocks.py", "from mynets.blocks import SCALE", "blocks.py"),
    "own, read": ("{}", "mynets/s.json", "SCALE = float(open(__file__[:-11] + 's.json').read())", "s.json"),
    "own, deep": ("SCALE = {}", "mynets/deep/zoo.py", "from mynets.deep.zoo import SCALE", "zoo.py"),
    "another": ("SCALE = {}", "others/__init__.py", "from others import SCALE", "others 1.0, now 2.0"),
    "without a version": ("SCALE = {}", "bare/blocks.py", "from bare.blocks import SCALE", "blocks.py"),
    "one file": ("SCALE = {}", "barefile.py", "from barefile import SCALE", "barefile.py"),
    "own, native": (
        "{}", "mynets/k.dat",
        "SCALE = float(torch.from_file(__file__[:-11] + 'k.dat', size=4, dtype=torch.uint8)[0] - 44)", "k.dat",
    ),
}  # fmt: skip
"""What decides the network, where below site-packages, how it comes in, and what the user is told of its change."""


def install(folder, name, version, record):
    """Writes what the installation of a package leaves; not every tool writes the list of its files."""
    for old in folder.glob(f"{name}-*.dist-info"):
        shutil.rmtree(old)
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if record:
        (info / "RECORD").write_text(f"{name}/__init__.py,,\n")


@pytest.mark.parametrize("kind", quickly(("own", "another", "own, native"), INSTALLED))
def test_a_changed_installed_package_is_exported_anew(project, capsys, monkeypatch, kind):
    content, name, way, told = INSTALLED[kind]
    folder = project / "lib" / "site-packages"
    monkeypatch.syspath_prepend(folder)
    changed = folder / name
    for each in (folder / "mynets", changed.parent):
        each.mkdir(parents=True, exist_ok=True)
        (each / "__init__.py").touch()
    (folder / "mynets" / "__init__.py").write_text(FACTORY.format(**(EMPTY | {"top": way, "built": "SCALE"})))
    model = ["-m", "sd.pt", "--arch", "mynets:make", "--input-size", "8", "8", "--preprocess", "pre.json"]
    said = []
    for version, text in (("1.0", "-1.0"), ("1.0", "-1.0"), ("2.0", "+1.0")):
        install(folder, "mynets", version, record=False)
        install(folder, "others", version, record=True)
        changed.write_text(content.format(text))
        for module in [
            each for each in sys.modules if each.partition(".")[0] in ("mynets", "others", "bare", "barefile")
        ]:
            del sys.modules[module]  # as in a process of its own
        said.append(explain(capsys, *model))
    assert "using its export" in said[1][1]
    assert f"changed since: {told}" in " ".join(said[2][1].split())
    assert said[0][0][0] == said[1][0][0] != said[2][0][0]


NATIVE = {
    "safetensors": ("from safetensors import safe_open", "safe_open({path!r}, 'pt').get_tensor('k')", "k.safetensors"),
    "below": (
        "from safetensors import safe_open",
        "safe_open({path!r}, 'pt').get_tensor('k')",
        "deep/er/k.safetensors",
    ),
    "mapped": ("import torch", "torch.from_file({path!r}, size=1)[0]", "weights.bin"),
    "TorchScript": ("import torch", "next(torch.jit.load({path!r}).parameters())", "k.pt"),
}


def save_native(path, value):
    """Writes one number as its format wants it."""
    import safetensors.torch
    import torch

    module = torch.nn.Module()
    module.k = torch.nn.Parameter(torch.tensor(value))
    if path.suffix == ".safetensors":
        safetensors.torch.save_file({"k": module.k.detach()}, path)
    elif path.suffix == ".pt":
        torch.jit.script(module).save(path)
    else:
        path.write_bytes(np.float32(value).tobytes())


@pytest.mark.parametrize(
    "budget", [pytest.param(1 << 20, id="digest"), pytest.param(0, id="time", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("kind", quickly(("below", "TorchScript"), NATIVE))
def test_a_changed_file_that_native_code_reads_is_exported_anew(project, capsys, monkeypatch, kind, budget):
    monkeypatch.setattr("masktool.identity.MOST_DIGESTED", budget)
    top, built, name = NATIVE[kind]
    path = project / name
    path.parent.mkdir(parents=True, exist_ok=True)
    slots = {"top": top, "built": built.format(path=str(path)) + ".item()"}
    (project / "factory.py").write_text(FACTORY.format(**(EMPTY | slots)))
    model = ["-m", "sd.pt", "--arch", "project/factory.py:make", "--input-size", "8", "8", "--preprocess", "pre.json"]
    said = []
    for number, value in enumerate((-1.0, -1.0, 1.0)):
        if number != 1:
            save_native(path, value)
        said.append(explain(capsys, *model))
    assert "using its export" in said[1][1]
    assert "not watched: the environment, the network, and files that native code opens" in " ".join(said[1][1].split())
    assert f"changed since: {path.name}" in said[2][1]
    assert said[0][0][0] == said[1][0][0] != said[2][0][0]


def test_what_is_watched_beside_a_factory(work, monkeypatch):
    for name in ("b.bin", "a/k.npy", "a/b/deep.h5", ".git/k.npy", "env/site-packages/k.npy", "photo.png", "net.py"):
        (work / "project" / name).parent.mkdir(parents=True, exist_ok=True)
        (work / "project" / name).write_bytes(b"x")
    (work / "project" / "out.json").touch()
    (work / "project" / "link").symlink_to(work)
    found = [str(path.relative_to(work / "project")) for path in imported_files.data_beside("project/net.py")]
    assert found == ["b.bin", "a/k.npy", "a/b/deep.h5"]
    monkeypatch.setattr(imported_files, "MOST_DATA", 2)
    assert [path.name for path in imported_files.data_beside("project/net.py")] == ["b.bin", "k.npy"]
    assert not imported_files.counts(work / "project/env/site-packages/k.npy", [work / "project"])
    assert imported_files.counts(work / "project/b.bin", [work / "project"])


def test_the_source_of_a_state_dict_is_its_code_too(project):
    slots, _, content = HELPERS["module"]
    (project / "factory.py").write_text(FACTORY.format(**(EMPTY | slots)))
    digests = []
    for text in ("-1.0", "+1.0", "-1.0"):
        (project / "helper.py").write_text(content.format(text))
        digests.append(load_source("sd.pt", arch="project/factory.py:make", input_size=(8, 8)).sha256)
    assert digests[0] == digests[2] != digests[1]


def entry_of(name="model.onnx", **options):
    return request_export(ModelChoice(name, preprocessing="pre.json", **options)).entry


def test_every_input_changes_the_key(work, monkeypatch):
    save_outside(work / "model.onnx", "weights.bin")
    (work / "sd.bin").write_bytes(b"x")
    entries = [entry_of(), entry_of(masking="partial"), entry_of(input_size=(8, 8)), entry_of(image_input="image")]
    entries += [entry_of(gradient=True), entry_of(masking="fill", baseline="blur"), entry_of("timm:resnet18")]
    entries += [entry_of("torchvision:resnet18"), entry_of("sd.bin", arch="timm:resnet18"), entry_of("sd.bin")]
    negate(work / "weights.bin")
    entries.append(entry_of())
    for package in ("onnx", "onnx-ir", "onnxscript", "numpy"):
        real = cache.package_version
        monkeypatch.setattr(cache, "package_version", lambda name, p=package, r=real: "0" if name == p else r(name))
        entries.append(entry_of())
    real = cache.package_version
    for package in ("torch", "timm", "torchvision"):
        monkeypatch.setattr(cache, "package_version", lambda name, p=package: "0" if name == p else real(name))
        entries.append(entry_of("timm:resnet18"))
    monkeypatch.setattr(cache, "digest_code", lambda *_: "another masktool")
    entries.append(entry_of())
    assert len({entry.name for entry in entries}) == len(entries)


def test_the_key_covers_the_exporting_code(tmp_path, monkeypatch):
    """A copy of the sources in which one byte of a rule is another."""
    from masktool import identity

    copy = tmp_path / "masktool"
    shutil.copytree(identity.CODE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(identity, "CODE", copy)
    digests = []
    for part in ("ops/conv.py", "exporters/propagate.py", "contract.py", "evaluation/part.py"):
        with (copy / part).open("a") as stream:
            stream.write("#")
        identity.digest_code.cache_clear()
        digests.append(identity.digest_code(*cache.CODE_OF_EXPORTS))
    identity.digest_code.cache_clear()
    assert len(set(digests)) == 3
    assert digests[2] == digests[3]


@pytest.fixture
def kept(work, capsys):
    """A model that was explained once: its entry in the cache."""
    onnx.save(classifier(), work / "model.onnx")
    explain(capsys, "-m", "model.onnx", "--preprocess", "pre.json")
    (entry,) = (work / "cache" / "masktool" / "models").iterdir()
    return entry


def another_export(path):
    export(classifier("Neg"), path)


def poison_bytes(entry):
    another_export(entry / "other.onnx")
    (entry / "other.onnx").replace(entry / "model.onnx")


def poison_whole(entry):
    poison_bytes(entry)
    for path in (entry / "model.onnx", entry):
        os.chown(path, NOBODY, NOBODY)


def poison_by_link(entry):
    another_export(entry.parent.parent / "other.onnx")
    (entry / "model.onnx").unlink()
    (entry / "model.onnx").symlink_to(entry.parent.parent / "other.onnx")


def poison_entry_by_link(entry):
    entry.rename(entry.with_name("moved"))
    poison_bytes(entry.with_name("moved"))
    entry.symlink_to("moved")


def truncate(entry):
    (entry / "model.onnx").write_bytes((entry / "model.onnx").read_bytes()[:-9])


def flip_a_bit(entry):
    content = bytearray((entry / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (entry / "model.onnx").write_bytes(content)


POISONS = {
    "other bytes": (poison_bytes, "not those that were written"),
    "bit": (flip_a_bit, "not those that were written"),
    "truncated": (truncate, "not those that were written"),
    "no model": (lambda entry: (entry / "model.onnx").unlink(), "not those that were written"),
    "link": (poison_by_link, "not an ordinary file"),
    "entry is a link": (poison_entry_by_link, "not a directory"),
    "others may write": (lambda entry: (entry / "model.onnx").chmod(0o666), "others may write"),
    "others may write the entry": (lambda entry: entry.chmod(0o777), "others may write"),
    "no record": (lambda entry: (entry / "entry.json").unlink(), "record is missing or damaged"),
    "record": (lambda entry: (entry / "entry.json").write_text('{"model": 1}'), "record is missing or damaged"),
    "deep record": (lambda entry: (entry / "entry.json").write_text("[" * 100_000), "record is missing or damaged"),
    "file": (lambda entry: (shutil.rmtree(entry), entry.write_text("x")), "not a directory"),
    "owner": (poison_whole, "another user's"),
    "owner of the record": (lambda entry: os.chown(entry / "entry.json", NOBODY, NOBODY), "another user's"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="owners and modes of POSIX")
@pytest.mark.parametrize("name", POISONS)
def test_a_poisoned_entry_is_exported_anew(work, kept, capsys, name):
    poison, reason = POISONS[name]
    if "owner" in name and os.getuid() != 0:
        pytest.skip("only root gives files away")
    poison(kept)
    scores, said = explain(capsys, "-m", "model.onnx", "--preprocess", "pre.json")
    assert "is not used: " in said
    assert reason in " ".join(said.split())
    assert "using its export" not in said
    expected = scores_of("model.onnx")
    for each in scores:
        assert each["probability"] == pytest.approx(expected[each["index"]], abs=1e-5)
    assert {path.name for path in kept.iterdir()} == {"model.onnx", "entry.json"}
    _, said = explain(capsys, "-m", "model.onnx", "--preprocess", "pre.json")
    assert "using its export" in said


@pytest.mark.skipif(sys.platform == "win32", reason="modes of POSIX")
def test_entries_are_the_users_alone(kept):
    paths = (kept.parent.parent, kept.parent, kept, *kept.iterdir())
    modes = {path.name: path.stat().st_mode & 0o777 for path in paths}
    assert modes == {"masktool": 0o700, "models": 0o700, kept.name: 0o700, "model.onnx": 0o600, "entry.json": 0o600}


@pytest.mark.skipif(sys.platform == "win32", reason="modes of POSIX")
def test_an_open_cache_is_closed_and_anothers_refused(work, kept, capsys):
    kept.parent.chmod(0o777)
    explain(capsys, "-m", "model.onnx", "--preprocess", "pre.json")
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    if os.getuid() == 0:
        os.chown(kept.parent, NOBODY, NOBODY)
        request = request_export(ModelChoice("model.onnx", preprocessing="pre.json"))
        with pytest.raises(MasktoolError, match=r"the cache cannot be trusted .*: another user's; remove it"):
            cache.find_kept(request, print)


def test_two_processes_make_the_same_entry(work):
    onnx.save(classifier(), work / "model.onnx")
    command = [sys.executable, "-m", "masktool", "explain", *PHOTO, "-m", "model.onnx", "--preprocess", "pre.json"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) for _ in range(3)]
    documents = [json.loads(child.communicate()[0]) for child in children]
    assert [child.returncode for child in children] == [0, 0, 0]
    assert len({json.dumps(document["scores"]) for document in documents}) == 1
    (entry,) = (work / "cache" / "masktool" / "models").iterdir()
    assert {path.name for path in entry.iterdir()} == {"model.onnx", "entry.json"}


def test_an_entry_that_another_process_has_just_made_is_kept(work):
    onnx.save(classifier(), work / "model.onnx")
    request = request_export(ModelChoice("model.onnx"))

    def slow(target):
        assert cache.make_kept(request) == request.model  # the other process, in the middle of ours
        slow.inode = request.model.stat().st_ino
        return request.make(target)

    path = cache.make_kept(cache.ExportRequest(request.stem, request.identity, slow))
    assert path.stat().st_ino == slow.inode
    assert cache.find_kept(request, print) == path


EVALUATE = ["evaluate", "faithfulness", "model.onnx", "photos", "--method", "occlusion", "--metric", "confidence"]
EVALUATE += ["--provider", "cpu", "--preprocess", "pre.json"]


def evaluate(directory):
    assert run([*EVALUATE, "-o", directory]) == 0
    document = json.loads(Path(directory, "faithfulness.json").read_text())
    return {key: value for key, value in document.items() if key not in ("timing", "command")}


def interrupt(monkeypatch, directory):
    """Stops an evaluation behind its second image."""
    measured = []

    def read_two(sample, session):
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(sample)
        return read_scene(sample, session)

    with monkeypatch.context() as patch:
        patch.setattr("masktool.evaluation.processes.read_scene", read_two)
        assert run([*EVALUATE, "-o", directory]) == 130


@pytest.mark.parametrize("entry", ["usual", "value first", "long lengths"])
def test_an_evaluation_is_not_resumed_on_other_weights(work, capsys, monkeypatch, entry):
    data = save_outside(work / "model.onnx", "w.bin")
    usual = onnx.load("model.onnx", load_external_data=False)
    (work / "model.onnx").write_bytes(write_entries(usual, ENTRIES.get(entry, ENTRY)))
    interrupt(monkeypatch, "out")
    negate(data)
    changed = evaluate("out")
    assert "an earlier run had other settings (models)" in " ".join(capsys.readouterr().err.split())
    shutil.rmtree(work / "cache")
    assert changed == evaluate("fresh")


def test_an_evaluation_of_the_same_is_resumed(work, capsys, monkeypatch):
    save_outside(work / "model.onnx", "weights.bin")
    interrupt(monkeypatch, "out")
    resumed = evaluate("out")
    assert "resuming: 2 of 3 images are measured" in " ".join(capsys.readouterr().err.split())
    assert resumed == evaluate("fresh")


def test_an_evaluation_is_not_resumed_on_another_export_of_one_source(work, capsys):
    """What cannot be seen from a source is seen from what was made of it."""
    onnx.save(classifier(), work / "model.onnx")
    export("model.onnx", "masked.onnx", preprocessing=load_source("model.onnx").preprocessing)
    with load("masked.onnx", "cpu") as session:
        first = NamedModel("layer", session).describe()
    content = Path("masked.onnx").read_bytes()
    model = onnx.load("masked.onnx")
    model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))
    onnx.save(model, "masked.onnx")
    assert Path("masked.onnx").read_bytes() != content
    with load("masked.onnx", "cpu") as session:
        second = NamedModel("layer", session).describe()
    assert first["source_sha256"] == second["source_sha256"]
    assert first["file_sha256"] != second["file_sha256"]
