"""Damaged weights are refused: torch itself does not look at a zip's checksums."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from masktool.cli import run
from masktool.errors import MasktoolError
from masktool.exporters.source_kinds import detect_kind
from masktool.exporters.sources import load_source
from masktool.exporters.torch_sources.weights import load_torch_file
from masktool.maskers.checkpoint import Checkpoint, load_checkpoint

CORPUS = Path(__file__).parent / "corpus"


def flip(path: Path, member: str, *, position: int = -1) -> None:
    """Flips a bit of a member's content and leaves its checksum as it was."""
    with zipfile.ZipFile(path) as archive:
        (entry,) = [each for each in archive.infolist() if each.filename.endswith(member)]
        content = archive.read(entry)
    whole = path.read_bytes()
    where = whole.index(content, entry.header_offset) + position % len(content)
    path.write_bytes(whole[:where] + bytes([whole[where] ^ 1]) + whole[where + 1 :])


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("member", ["data/0", "data/1", "byteorder"])
def test_flipped_bits_are_found_by_the_checksum(member, trust, tmp_path: Path):
    path = tmp_path / "weights.pt"
    torch.save(nn.Conv2d(3, 4, 3).state_dict(), path)
    assert load_torch_file(path, detect_kind(path), trust).keys() == {"weight", "bias"}
    flip(path, member)
    with pytest.raises(MasktoolError, match=rf"checksum of a member is wrong .*{member}"):
        load_torch_file(path, detect_kind(path), trust)


def test_flipped_bits_of_torchscript_and_archives(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    torch.jit.trace(network, torch.rand(1, 3, 8, 8)).save("script.pt")
    torch.export.save(torch.export.export(network, (torch.rand(1, 3, 8, 8),)), "net.pt2")
    flip(Path("script.pt"), "data/0" if "script/data/0" in zipfile.ZipFile("script.pt").namelist() else "constants.pkl")
    flip(Path("net.pt2"), "data/weights/weight_0")
    for words in (["script.pt", "--trust-code"], ["net.pt2"], ["net.pt2", "--trust-code"]):
        assert run(["export", *words, "-o", "out.onnx", "--input-size", "8", "8"]) == 2
        said = capsys.readouterr().err
        assert "damaged archive" in said
        assert len(said.strip().splitlines()) == 1


def test_a_torn_checkpoint_is_refused(tmp_path: Path):
    path = tmp_path / "out.checkpoint"
    Checkpoint({}, {"done": 1, "weights": torch.rand(50)}, [], 2).save(path)
    assert load_checkpoint(path) is not None
    flip(path, "data/0")
    with pytest.raises(MasktoolError, match=r"cannot read the checkpoint .*checksum"):
        load_checkpoint(path)


def test_a_damaged_directory_of_a_zip_is_one_line(tmp_path: Path, capsys):
    assert run(["export", str(CORPUS / "central_directory.pt"), "-o", str(tmp_path / "out.onnx")]) == 2
    assert "truncated or damaged archive" in capsys.readouterr().err


@pytest.mark.parametrize("keep", [1, 5, 40, 200, 700, 1200, -1, -30])
@pytest.mark.parametrize("suffix", [".pt", ".pt2", ".safetensors", ".old.pt"])
def test_truncated_files_are_refused(keep, suffix, tmp_path: Path):
    from safetensors.torch import save_file

    path, network = tmp_path / f"file{suffix}", nn.Conv2d(3, 4, 3)
    if suffix == ".pt2":
        torch.export.save(torch.export.export(network.eval(), (torch.rand(1, 3, 8, 8),)), path)
    elif suffix == ".safetensors":
        save_file(network.state_dict(), path)
    else:
        torch.save(network.state_dict(), path, _use_new_zipfile_serialization=suffix == ".pt")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(MasktoolError):
        load_source(path, arch="torchvision:resnet18", input_size=(8, 8))


def test_a_torch_whose_reader_of_weights_is_known_to_run_code_is_refused(tmp_path: Path, monkeypatch):
    path = tmp_path / "weights.pt"
    torch.save(nn.Conv2d(3, 4, 3).state_dict(), path)
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    with pytest.raises(MasktoolError, match=r"torch 2.9.1\+cpu does not keep code out of weights"):
        load_torch_file(path, detect_kind(path), False)
    with pytest.raises(MasktoolError, match=r"2\.10 is the first"):
        load_checkpoint(path)
    assert load_torch_file(path, detect_kind(path), True)


class Unpicklable:
    """Calls a function of another module when it is read."""

    def __reduce__(self):
        return (Path, ("x",))


def write_pickle(path: Path, content: bytes) -> None:
    """Writes an archive of torch's that holds a pickle of any bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")


REFUSED = {
    "an operand": (b"\x80\x02\x95\x00.", "it is damaged, or holds something besides weights"),
    "a persistent id": (b"\x80\x02K\x01Q.", ""),
    "a function": (b"\x80\x02cmath\nsqrt\nK\x04\x85R.", "it pickles math.sqrt besides weights"),
    "a blocked function": (b"\x80\x02cos\nsystem\nK\x04\x85R.", "it pickles os.system besides weights"),
    "a built object": (b"\x80\x02ctorch\nTensor\n)\x81}b.", ""),
    "an empty stack": (b"\x80\x02R.", ""),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_advice_of_torchs_is_not_passed_on(kind, tmp_path: Path, capsys):
    content, told = REFUSED[kind]
    path = tmp_path / "weights.pt"
    write_pickle(path, content)
    assert run(["export", str(path), "--arch", "torchvision:resnet18", "-o", str(tmp_path / "out.onnx")]) == 2
    said = [" ".join(capsys.readouterr().err.split())]
    with pytest.raises(MasktoolError, match="cannot read the checkpoint") as caught:
        load_checkpoint(path)
    said.append(str(caught.value))
    for each in said:
        assert told in each
        for advice in ("weights_only", "torch.load", "Weights only load failed", "safe_globals", "\x1b", "two options"):
            assert advice not in each


def test_a_checkpoint_of_objects_is_refused_in_our_words(tmp_path: Path):
    path = tmp_path / "out.checkpoint"
    torch.save({"version": 1, "state": Unpicklable()}, path)
    with pytest.raises(MasktoolError, match=r"it pickles pathlib.* besides weights; delete it, and train") as caught:
        load_checkpoint(path)
    assert "\x1b" not in str(caught.value)
