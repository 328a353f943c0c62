"""Triton's own protobuf definitions read every configuration, and refuse what they do not know.

In the environment of scripts/serving_environment.sh: they come with ``tritonclient``.
"""

import pytest

import masktool

from .exports import KINDS, explain, mask
from .pbtxt import read_pbtxt

pytestmark = pytest.mark.serving


def parse(text):
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    return text_format.Parse(text, model_config_pb2.ModelConfig())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tensorrt", [False, True])
def test_a_model(packaged, kind, tensorrt):
    model = packaged.package(kind, **({"tensorrt": True} if tensorrt else {}))
    name = model.config.one("name")
    text = (packaged.folder / "repository" / name / "config.pbtxt").read_text()
    parsed = parse(text)
    assert parsed.name == name
    assert parsed.backend == "onnxruntime"
    assert parsed.max_batch_size == model.config.one("max_batch_size")
    assert parsed.version_policy.latest.num_versions == 1
    for kind_of, declared in (("input", parsed.input), ("output", parsed.output)):
        for one, other in zip(declared, model.config.all(kind_of), strict=True):
            assert (one.name, list(one.dims)) == (other.one("name"), other.one("dims"))
            assert one.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[one.data_type].name == (
                other.one("data_type")
            )
            assert one.HasField("reshape") == (other.one("reshape") is not None)
            assert not one.reshape.shape
    assert len(parsed.model_warmup) == len(model.config.all("model_warmup"))
    assert bool(parsed.optimization.execution_accelerators.gpu_execution_accelerator) == tensorrt


def test_an_ensemble(tmp_path):
    answer = mask(tmp_path, "network", plain_branch=True)
    explained = explain(tmp_path, "lime", "lime", n_samples=60, segments="grid")
    masktool.package_triton(answer, tmp_path / "r", model_name="net", explained=explained)
    parsed = parse((tmp_path / "r/net/config.pbtxt").read_text())
    assert parsed.platform == "ensemble"
    assert [step.model_name for step in parsed.ensemble_scheduling.step] == ["net_answer", "net_explanation"]
    assert dict(parsed.ensemble_scheduling.step[0].input_map) == {"image": "image"}


@pytest.mark.parametrize("name", ["a", 'quo"te', "back\\slash", "Öl 紙 🦊", "two\nlines", "\x01"])
def test_texts_are_read_as_they_were(name):
    from masktool.deployment.text_format import Fields, write_fields

    assert parse(write_fields(Fields.of(("name", name)))).name == name
    assert read_pbtxt(write_fields(Fields.of(("name", name)))).one("name") == name


def test_a_field_that_triton_does_not_know_is_refused():
    from google.protobuf import text_format

    with pytest.raises(text_format.ParseError, match="queue_delay"):
        parse('name: "a" dynamic_batching { queue_delay: 3 }')
