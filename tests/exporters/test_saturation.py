"""Whose fault it is said to be where a quantised file differs from its source."""

import onnx_ir as ir
import pytest
from networks.small_graphs import parse

import masktool
from masktool import MasktoolError
from masktool.exporters import saturation, write

AVX2 = frozenset({"avx2"})
HEADER = '<ir_version: 10, opset_import: ["" : 18]>'
PLAIN = f"""{HEADER} plain (float[N, 3, 8, 8] image) => (float[N, 3] y) {{
    p = GlobalAveragePool(image) y = Flatten(p) }}"""
QUANTISED = f"""{HEADER} quantised (float[N, 3, 8, 8] image) => (float[N, 3] y)
    <float s = {{0.05}}, uint8 z = {{128}}, float[3, 3, 3, 3] w> {{
    q = QuantizeLinear(image, s, z) x = DequantizeLinear(q, s, z) c = Conv(x, w)
    p = GlobalAveragePool(c) y = Flatten(p) }}"""


@pytest.fixture
def processor(monkeypatch):
    """Says which flags the processor has."""
    return lambda flags: monkeypatch.setattr(saturation, "read_processor_flags", lambda: flags)


@pytest.mark.parametrize(
    ("graph", "flags", "advice"),
    [
        (QUANTISED, AVX2, saturation.SATURATES),
        (QUANTISED, AVX2 | {"avx_vnni"}, write.DEFECT),
        (QUANTISED, frozenset(), write.DEFECT),
        (PLAIN, AVX2, write.DEFECT),
    ],
)
def test_saturation_is_named_where_it_may_be_the_cause(graph, flags, advice, processor):
    processor(flags)
    assert saturation.advise_on_difference(ir.from_proto(parse(graph))) == advice


@pytest.mark.parametrize(
    ("flags", "unfused", "said"),
    [
        (AVX2, 0.0, "reduce_range=True"),
        (AVX2, 1.0, "a defect of masktool"),  # in float, where nothing saturates
        (frozenset(), 0.0, "a defect of masktool"),
    ],
)
def test_an_export_that_differs_says_so(flags, unfused, said, processor, monkeypatch, tmp_path):
    processor(flags)
    wrong = {"batches": 1.0, "ones_unfused": unfused}
    monkeypatch.setattr(write, "excuse", lambda figures, *_: figures | wrong)
    with pytest.raises(MasktoolError, match=said):
        masktool.export(parse(QUANTISED), tmp_path / "masked.onnx", class_output="y", output_kind="logits")
    assert not list(tmp_path.iterdir())
