"""KServe's manifest of a service: an InferenceService that runs Triton, or the image of masktool's own server.

Source: KServe, serving.kserve.io/v1beta1 (pkg/apis/serving/v1beta1; config/runtimes/kserve-tritonserver.yaml, whose
arguments take the model repository from /mnt/models, where ``storageUri`` is copied to).
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from masktool.deployment.server_image import HEALTH_PATH, PORT
from masktool.errors import MasktoolError
from masktool.messages import parameter

TRITON_RUNTIME = "kserve-tritonserver"
TRITON_VERSION = "25.01-py3"
"""Tag of Triton's image: KServe's own default is older than 23.11, which feeds optional inputs."""
GPU_RESOURCE = "nvidia.com/gpu"
SERVICE_NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
"""What Kubernetes takes for the name of a service (RFC 1035)."""
QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|[EPTGMk]|[EPTGMK]i)?")
"""An amount in Kubernetes, such as 500m or 2Gi."""
PLAIN = re.compile(r"[!-~]+")
"""Printable ASCII without spaces, as addresses and images are."""


@dataclasses.dataclass(frozen=True)
class ServiceSettings:
    """What a service runs, and what it may take of a machine.

    Attributes:
        name: name of the service.
        storage_uri: address of the model repository that Triton serves; None where an image is run.
        server_image: image of masktool's server, which holds the model; None where Triton is run.
        cpu: processors, as Kubernetes writes amounts.
        memory: memory, as Kubernetes writes amounts.
        gpus: GPUs.
    """

    name: str
    storage_uri: str | None = None
    server_image: str | None = None
    cpu: str = "1"
    memory: str = "2Gi"
    gpus: int = 0

    def __post_init__(self) -> None:
        if not SERVICE_NAME.fullmatch(self.name):
            raise MasktoolError(
                "not a name for a service",
                got=repr(self.name),
                expected="a small letter, then small letters, digits and dashes, 63 in all",
                fix="give another with " + parameter("model_name"),
            )
        if (self.storage_uri is None) == (self.server_image is None):
            raise MasktoolError(
                "a service runs Triton on a model repository, or an image of masktool's server",
                got="neither" if self.storage_uri is None else "both",
                fix="give either " + parameter("storage_uri") + " or " + parameter("server_image"),
            )
        for name in ("storage_uri", "server_image"):
            check_text(name, getattr(self, name), PLAIN, "an address without spaces")
        for name in ("cpu", "memory"):
            check_text(name, getattr(self, name), QUANTITY, "an amount such as 500m, 2 or 4Gi")


def check_text(name: str, value: str | None, form: re.Pattern[str], expected: str) -> None:
    """Raises a MasktoolError that names the option unless its value is None or of a form."""
    if value is not None and not form.fullmatch(value):
        raise MasktoolError("option out of range", where=name, expected=expected, got=repr(value))


def make_service_name(name: str) -> str:
    """Returns the name of a service that is nearest to the name of a model."""
    text = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return (text if text[:1].isalpha() else f"model-{text}")[:63].rstrip("-")


def write_manifest(settings: ServiceSettings) -> str:
    """Returns the text of an InferenceService, in YAML."""
    predictor = describe_server(settings) if settings.storage_uri is None else describe_triton(settings)
    document = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": settings.name},
        "spec": {"predictor": {"minReplicas": 1, **predictor}},
    }
    return "".join(line + "\n" for line in list_yaml_lines(document))


def describe_triton(settings: ServiceSettings) -> dict[str, Any]:
    """Returns the part of a manifest that has Triton serve a model repository."""
    return {
        "model": {
            "modelFormat": {"name": "triton"},
            "runtime": TRITON_RUNTIME,
            "runtimeVersion": TRITON_VERSION,
            "protocolVersion": "v2",
            "storageUri": settings.storage_uri,
            "resources": describe_resources(settings),
        }
    }


def describe_server(settings: ServiceSettings) -> dict[str, Any]:
    """Returns the part of a manifest that runs an image of masktool's server."""
    container = {
        "name": "kserve-container",
        "image": settings.server_image,
        "env": [{"name": "PROTOCOL", "value": "v2"}],
        "ports": [{"containerPort": PORT, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": HEALTH_PATH, "port": PORT}},
        "securityContext": {"runAsNonRoot": True, "allowPrivilegeEscalation": False},
        "resources": describe_resources(settings),
    }
    return {"containers": [container]}


def describe_resources(settings: ServiceSettings) -> dict[str, Any]:
    """Returns what a container asks of a machine, and no more than which it gets."""
    amounts = {"cpu": settings.cpu, "memory": settings.memory}
    if settings.gpus:
        amounts[GPU_RESOURCE] = str(settings.gpus)
    return {"requests": amounts, "limits": amounts}


def list_yaml_lines(value: Any, indent: str = "") -> Iterator[str]:
    """Yields the lines of a document in YAML, its scalars as JSON writes them, which YAML reads alike."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(inner, Mapping | list):
                yield f"{indent}{key}:"
                yield from list_yaml_lines(inner, indent + "  ")
            else:
                yield f"{indent}{key}: {json.dumps(inner)}"
    elif isinstance(value, Sequence):
        for inner in value:
            first, *others = list_yaml_lines(inner)
            yield f"{indent}- {first}"
            yield from (f"{indent}  {line}" for line in others)
