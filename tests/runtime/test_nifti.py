"""Volumes in NIfTI files; nibabel, which writes them here, is an extra."""

import sys
from pathlib import Path

import numpy as np
import pytest

from masktool.errors import MasktoolError
from masktool.explainers.subject import read_subject
from masktool.runtime.nifti import is_nifti, read_nifti

VOLUME = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)


def write(path, values):
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    return path


def test_names_tell():
    assert [is_nifti(Path(name)) for name in ("a.nii", "b.NII.GZ", "c.gz")] == [True, True, False]


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_a_volume_has_one_channel_in_front(tmp_path, name):
    path = write(tmp_path / name, VOLUME)
    np.testing.assert_array_equal(read_nifti(path), VOLUME[None])
    np.testing.assert_array_equal(read_subject(path), VOLUME[None])


def test_a_fourth_axis_is_the_channels(tmp_path):
    path = write(tmp_path / "scan.nii", np.stack([VOLUME, VOLUME + 1], axis=-1))
    np.testing.assert_array_equal(read_nifti(path), np.stack([VOLUME, VOLUME + 1]))


def test_what_is_no_volume_is_named(tmp_path):
    (tmp_path / "text.nii").write_text("no volume")
    with pytest.raises(MasktoolError, match=r"file not found \(.*none\.nii\)"):
        read_nifti(tmp_path / "none.nii")
    pytest.importorskip("nibabel")
    with pytest.raises(MasktoolError, match=r"nibabel cannot read the volume \(.*text\.nii\)"):
        read_nifti(tmp_path / "text.nii")
    flat = write(tmp_path / "flat.nii", VOLUME[0])
    with pytest.raises(MasktoolError, match=r"not a volume \(.*flat\.nii\)"):
        read_nifti(flat)


def test_without_nibabel_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nibabel", None)
    (tmp_path / "scan.nii").write_bytes(b"bytes")
    with pytest.raises(MasktoolError, match=r"reading NIfTI needs nibabel.*masktool\[volumes\]"):
        read_nifti(tmp_path / "scan.nii")
