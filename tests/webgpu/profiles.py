"""Which provider ran which node, as ONNX Runtime's own profile of a session tells."""

import contextlib
import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import onnxruntime

import masktool

WEBGPU = "WebGpuExecutionProvider"
CPU = "CPUExecutionProvider"
COPIES = ("MemcpyToHost", "MemcpyFromHost")
"""What ONNX Runtime puts between nodes of different providers."""
NUMBERS = ("float", "float16", "bfloat16", "double")
"""Element types of images, masks and activations in a profile; lengths, indices and conditions have others."""
FEW_AXES = 2
"""Lengths have one, and the target's class compared with all classes has two; conditions on maps have more."""


class Ran(NamedTuple):
    """One node of a run: its operator, its provider, and the element types and shapes of its results."""

    operator: str
    provider: str
    results: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def is_shape_arithmetic(self):
        """Whether it computes lengths and indices alone."""
        return all(kind not in NUMBERS and len(shape) <= FEW_AXES for kind, shape in self.results)


@contextlib.contextmanager
def profiled(path, folder, provider=WEBGPU):
    """Yields masktool's session of a file, and a list that holds every node that ran once the block has ended."""
    plain_options = onnxruntime.SessionOptions

    def options():
        made = plain_options()
        made.enable_profiling = True
        made.profile_file_prefix = str(Path(folder) / "profile")
        return made

    onnxruntime.SessionOptions = options
    try:
        session = masktool.load(path, providers=provider)
    finally:
        onnxruntime.SessionOptions = plain_options
    ran = []
    with session:
        assert session.providers[0] == provider
        yield session, ran
        profile = session._session.end_profiling()
    ran += read_profile(profile)


def read_profile(path):
    """Returns each node of a profile."""
    events = json.loads(Path(path).read_text(encoding="utf-8"))
    nodes = [event["args"] for event in events if event["cat"] == "Node" and event["name"].endswith("_kernel_time")]
    return [
        Ran(
            node["op_name"],
            node["provider"],
            tuple((kind, tuple(shape)) for result in node["output_type_shape"] for kind, shape in result.items()),
        )
        for node in nodes
    ]


def left_device(ran):
    """Returns the nodes that ran on the CPU, copies apart: operators with a number, and those of shape arithmetic."""
    on_cpu = [node for node in ran if node.provider == CPU and node.operator not in COPIES]
    return (
        Counter(node.operator for node in on_cpu if not node.is_shape_arithmetic),
        Counter(node.operator for node in on_cpu if node.is_shape_arithmetic),
    )
