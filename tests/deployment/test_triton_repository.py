"""Folders of models appear whole, and nothing is replaced that was not to be."""

import os
import stat
from pathlib import Path

import pytest

import masktool
from masktool.deployment import triton_repository
from masktool.deployment.triton_repository import TritonModel, check_model_name, check_place, one_line, write_model

from .exports import mask, save, weights


def tree(folder):
    """All files in a folder and their bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def leftovers(folder):
    return list(folder.rglob(".masktool-tmp-*"))


@pytest.fixture
def model(packaged):
    return packaged.export("required")


@pytest.fixture
def repository(tmp_path, model):
    masktool.package_triton(model, tmp_path / "repository", model_name="net")
    return tmp_path / "repository"


def test_the_bytes_are_the_files(repository, model):
    assert set(tree(repository)) == {"net/config.pbtxt", "net/1/model.onnx"}
    assert (repository / "net/1/model.onnx").read_bytes() == model.read_bytes()
    assert not leftovers(repository.parent)


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX's")
def test_others_may_read_it(repository):
    """Triton seldom runs as the user who packages; what is being built stands in a folder for that user alone."""
    mask = os.umask(0)
    os.umask(mask)
    for path in (repository / "net", repository / "net" / "1"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o777 & ~mask
    assert stat.S_IMODE((repository / "net" / "1" / "model.onnx").stat().st_mode) == 0o666 & ~mask


def test_a_model_that_is_there_stays(repository, model):
    before = tree(repository)
    for options, text in (
        ({}, r"there is a model of this name already .*net\); add a version to it with model_version=2, replace it"),
        (
            {"model_version": 1},
            r"there is this version .*add another with model_version=2, or replace it with overwrite",
        ),
    ):
        with pytest.raises(masktool.MasktoolError, match=text):
            masktool.package_triton(model, repository, model_name="net", **options)
    assert tree(repository) == before


def test_a_version_is_added_and_replaced(repository, model, tmp_path):
    (repository / "net" / "config.pbtxt").write_text(
        (repository / "net" / "config.pbtxt").read_text().replace("count: 1", "count: 3")
    )
    other = mask(tmp_path, "other", save(tmp_path / "other.onnx", v=weights(4, 4, seed=5)), mask_required=True)
    masktool.package_triton(other, repository, model_name="net", model_version=7)
    assert (repository / "net/7/model.onnx").read_bytes() == other.read_bytes()
    assert (repository / "net/1/model.onnx").read_bytes() == model.read_bytes()
    assert "count: 3" in (repository / "net/config.pbtxt").read_text()  # the user's own setting stays
    with pytest.raises(masktool.MasktoolError, match="model_version=8"):
        masktool.package_triton(model, repository, model_name="net", model_version=7)
    masktool.package_triton(model, repository, model_name="net", model_version=7, overwrite=True)
    assert (repository / "net/7/model.onnx").read_bytes() == model.read_bytes()
    masktool.package_triton(other, repository, model_name="net", overwrite=True)
    assert set(tree(repository)) == {"net/config.pbtxt", "net/1/model.onnx"}
    assert not leftovers(repository.parent)


def test_a_version_with_other_inputs_is_refused(repository, tmp_path, packaged):
    before = tree(repository)
    with pytest.raises(
        masktool.MasktoolError, match=r"share one configuration.*: expected dims: \[-1, 3, 16, 16\]; serve"
    ):
        masktool.package_triton(packaged.export("masked"), repository, model_name="net", model_version=2)
    assert tree(repository) == before


def test_a_version_with_other_labels_is_refused(tmp_path):
    source = save(tmp_path / "net.onnx")
    for name, labels in (("one", "abcd"), ("two", "abce")):
        mask(tmp_path, name, source, output_kind="logits", labels=tuple(labels))
    masktool.package_triton(tmp_path / "one.masked.onnx", tmp_path / "r", model_name="net")
    with pytest.raises(masktool.MasktoolError, match=r"labels are others .*labels\.txt\): expected e"):
        masktool.package_triton(tmp_path / "two.masked.onnx", tmp_path / "r", model_name="net", model_version=2)


@pytest.mark.parametrize("step", ["fill_version", "copy_model"])
def test_what_fails_leaves_nothing_behind(repository, model, monkeypatch, step):
    before = tree(repository)
    whole = getattr(triton_repository, step)

    def fail_behind(*arguments):
        whole(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(triton_repository, step, fail_behind)
    for options in ({"model_name": "new"}, {"model_version": 2}, {"overwrite": True}):
        with pytest.raises(KeyboardInterrupt):
            masktool.package_triton(model, repository, **{"model_name": "net"} | options)
        assert tree(repository) == before
        assert not leftovers(repository.parent)


def test_a_model_that_cannot_be_named_leaves_the_old_one(repository, model, monkeypatch):
    before, rename = tree(repository), Path.rename

    def refuse(path, target):
        if path.name == "new":
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(masktool.MasktoolError, match="Input/output error"):
        masktool.package_triton(model, repository, model_name="net", overwrite=True)
    assert tree(repository) == before


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "-x", "a b", "ü", "a" * 101, "a\n", "*"])
def test_names_that_are_no_folders_are_refused(name, model, tmp_path):
    with pytest.raises(masktool.MasktoolError, match="not a name for a served model"):
        masktool.package_triton(model, tmp_path, model_name=name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["resnet50", "a", "2", "Res_Net-50.v1", "a" * 100])
def test_names_that_are(name):
    assert check_model_name(name) == name


def test_a_file_in_the_place_of_a_model(repository):
    (repository / "file").write_text("")
    with pytest.raises(masktool.MasktoolError, match="not a folder"):
        check_place(repository, TritonModel("file", "", "", None), None, overwrite=True)


def test_two_writers_leave_one_whole_model(repository):
    """The second finds the first one's folder when it gives its own the name."""
    model = TritonModel("late", "mine", "", None)
    write_model(repository, model, None, overwrite=False)
    with pytest.raises(masktool.MasktoolError), triton_repository.atomic_directory(repository / "late") as made:
        (made / "config.pbtxt").write_text("theirs")
    assert (repository / "late" / "config.pbtxt").read_text() == "mine"


@pytest.mark.parametrize(
    ("label", "line"), [("a", "a"), ("a\nb", "a b"), ("a\r\nb\n", "a b "), ("a\u2028b", "a\u2028b"), ("\ud800", "?")]
)
def test_a_label_is_one_line(label, line):
    assert one_line(label) == line


def test_a_read_only_repository_is_told_before_the_work(model, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(masktool.MasktoolError, match="choose another one with repository"):
        masktool.package_triton("there-is-no-such.onnx", tmp_path / "file" / "r")
