"""Manifests are YAML that KServe's own classes take, without a key that these do not know."""

import pytest
import yaml

import masktool
from masktool.cli import run
from masktool.deployment.kserve_manifest import make_service_name

TRITON = {"storage_uri": "s3://bucket/a:b?c=#d/%7B'\"/repository"}
SERVER = {"server_image": "registry.example:5000/team/classifier@sha256:0123"}
KINDS = pytest.mark.parametrize("options", [TRITON, SERVER, TRITON | {"gpus": 2, "cpu": "500m", "memory": "1.5Gi"}])


def write(tmp_path, **options):
    path = masktool.package_kserve("model.masked.onnx", tmp_path / "service.yaml", **options)
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@KINDS
def test_a_manifest_is_read_as_it_was_meant(tmp_path, options):
    found = write(tmp_path, **options)
    assert (found["apiVersion"], found["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert found["metadata"] == {"name": "model"}
    predictor = found["spec"]["predictor"]
    part = predictor["model"] if "storage_uri" in options else predictor["containers"][0]
    amounts = {"cpu": options.get("cpu", "1"), "memory": options.get("memory", "2Gi")}
    amounts |= {"nvidia.com/gpu": "2"} if "gpus" in options else {}
    assert part["resources"] == {"requests": amounts, "limits": amounts}
    if "storage_uri" in options:
        assert part["storageUri"] == options["storage_uri"]
        assert (part["modelFormat"], part["protocolVersion"]) == ({"name": "triton"}, "v2")
        assert part["runtimeVersion"] == "25.01-py3"
    else:
        assert part["image"] == options["server_image"]
        assert part["securityContext"]["runAsNonRoot"] is True
        assert part["readinessProbe"]["httpGet"] == {"path": "/v2/health/ready", "port": 8080}
        assert part["ports"][0]["containerPort"] == 8080
        assert part["env"] == [{"name": "PROTOCOL", "value": "v2"}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "server: neither; give either storage_uri or server_image"),
        (TRITON | SERVER, "server: both"),
        ({"storage_uri": "s3://a b"}, "storage_uri.*: expected an address without spaces"),
        ({"storage_uri": 's3://a\n  key: "x"'}, "storage_uri"),
        ({"server_image": ""}, "server_image"),
        (TRITON | {"memory": "2 GB"}, "memory.*an amount such as"),
        (TRITON | {"cpu": "-1"}, "cpu"),
        (TRITON | {"gpus": -1}, "gpus"),
        (TRITON | {"model_name": "Upper"}, "not a name for a service"),
        (TRITON | {"model_name": "a" * 64}, "not a name for a service"),
        (TRITON | {"model_name": "a-"}, "not a name for a service"),
    ],
)
def test_what_cannot_stand_in_a_manifest_is_refused(tmp_path, options, message):
    with pytest.raises(masktool.MasktoolError, match=message):
        write(tmp_path, **options)
    assert not (tmp_path / "service.yaml").exists()


@pytest.mark.parametrize(
    ("name", "service"),
    [("resnet50", "resnet50"), ("Res_Net.v1", "res-net-v1"), ("2", "model-2"), ("a" * 80, "a" * 63), ("-", "model")],
)
def test_a_name_becomes_that_of_a_service(name, service):
    assert make_service_name(name) == service


def test_a_model_in_memory_needs_a_name(tmp_path):
    with pytest.raises(masktool.MasktoolError, match="give one with model_name"):
        masktool.package_kserve(None, tmp_path / "service.yaml", **TRITON)


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = "--storage-uri gs://b/r --cpu 2 --memory 4Gi --gpus 1 --name animals"
    assert run(["package", "model.onnx", "--kserve", "service.yaml", *given.split()]) == 0
    assert capsys.readouterr().out == "service.yaml\n"
    assert yaml.safe_load((tmp_path / "service.yaml").read_text())["metadata"]["name"] == "animals"
    for arguments, message in (
        (["--kserve", "other.yaml"], "give either --storage-uri or --image"),
        (["--kserve", "other.yaml", "--image", "a", "--tensorrt"], "--tensorrt; add --triton DIR, or leave that out"),
        (["--triton", "r", "--cpu", "3"], "--cpu; add --kserve FILE, or leave that out"),
    ):
        assert run(["package", "model.onnx", *arguments]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "other.yaml").exists()


def build(kind, document):
    """An object of KServe's or Kubernetes' generated classes; a key that its class does not know is a KeyError."""
    import kserve
    from kubernetes import client

    if kind.startswith("list["):
        return [build(kind[5:-1], each) for each in document]
    if kind.startswith("dict("):
        return {key: build(kind[5:-1].split(", ")[1], value) for key, value in document.items()}
    known = getattr(kserve, kind, None) or getattr(client, kind, None)
    if known is None:
        assert isinstance(document, {"str": str, "int": int, "bool": bool}.get(kind, object)), (kind, document)
        return document
    names = {key: name for name, key in known.attribute_map.items()}
    return known(**{names[key]: build(known.openapi_types[names[key]], value) for key, value in document.items()})


@pytest.mark.serving
@KINDS
def test_kserves_own_classes_take_it(tmp_path, options):
    pytest.importorskip("kserve")
    built = build("V1beta1InferenceService", write(tmp_path, **options))
    predictor = built.spec.predictor
    assert (predictor.model or predictor.containers[0]).resources.limits["cpu"] in ("1", "500m")


@pytest.mark.serving
def test_a_key_that_kserve_does_not_know_is_noticed(tmp_path):
    pytest.importorskip("kserve")
    document = write(tmp_path, **TRITON)
    document["spec"]["predictor"]["model"]["storageURL"] = "x"
    with pytest.raises(KeyError, match="storageURL"):
        build("V1beta1InferenceService", document)
