"""What an exported file says about itself is read without ONNX, and as ONNX reads it."""

import onnx
import pytest

from masktool.contract import Metadata
from masktool.demo import model_path
from masktool.errors import MasktoolError
from masktool.exported_files import is_masked, metadata_of


def test_the_metadata_are_those_that_onnx_reads():
    proto = onnx.load(model_path())
    expected = Metadata.from_properties({entry.key: entry.value for entry in proto.metadata_props})
    assert expected is not None
    assert metadata_of(model_path()) == expected


def test_a_plain_model_has_none(tmp_path):
    proto = onnx.load(model_path())
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "plain.onnx")
    assert not is_masked(tmp_path / "plain.onnx")
    assert metadata_of(tmp_path / "plain.onnx") is None


@pytest.mark.parametrize("content", [b"masktool.schema_version", b"\x0a\xffmasktool.schema_version", b"\x72\x40"])
def test_what_is_no_model_is_refused_or_not_masked(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    if is_masked(path):
        with pytest.raises(MasktoolError, match="not an ONNX model"):
            metadata_of(path)
    else:
        assert metadata_of(path) is None
